from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.active import PoolDataModule
from ssl_lightning.data import Digits
from ssl_lightning.labelling import GroundTruth, NoisyTruth, NoLabel
from ssl_lightning.labelling.noise import read_confusion

TEN = [f"{number}" for number in range(10)]


@pytest.fixture(scope="module")
def data() -> Digits:
    data = Digits(val_size=0)
    data.setup("fit")
    return data


def keys_of(data: Any) -> list[str]:
    return list(data.train_samples.keys)


def truths_of(data: Any) -> list[str]:
    return [data.class_names[target] for target in data.train_samples.targets.tolist()]


def swapped() -> list[list[float]]:
    """Each class is taken for the next in 3 of 10 cases; the last never."""
    rows = torch.eye(10, dtype=torch.float64) * 0.7 + torch.eye(10, dtype=torch.float64).roll(1, 1) * 0.3
    rows[9] = torch.eye(10)[9]
    return rows.tolist()  # type: ignore[no-any-return]


def test_answers_follow_the_confusion_matrix(data: Digits) -> None:
    rows = swapped()
    answers = NoisyTruth(confusion=rows).answer(keys_of(data), data)
    counts = torch.zeros(10, 10)
    for truth, answer in zip(truths_of(data), answers, strict=True):
        counts[int(truth), int(str(answer))] += 1
    shares, size = counts / counts.sum(1, keepdim=True), counts.sum(1, keepdim=True)
    expected = torch.tensor(rows)
    assert ((counts > 0) == (expected > 0)).all()  # what has no share is never answered
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / size).sqrt() + 1e-6).all()


def test_an_answer_is_a_function_of_seed_and_key(data: Digits) -> None:
    oracle, keys = NoisyTruth(swapped(), skip=0.2, unsure=0.1, seed=3), keys_of(data)[:300]
    together = list(oracle.answer(keys, data))
    assert [oracle.answer([key], data)[0] for key in keys] == together
    assert list(NoisyTruth(swapped(), skip=0.2, unsure=0.1, seed=3).answer(keys[::-1], data))[::-1] == together
    assert list(NoisyTruth(swapped(), skip=0.2, unsure=0.1, seed=4).answer(keys, data)) != together


def test_what_is_refused_does_not_change_what_is_answered(data: Digits) -> None:
    keys = keys_of(data)[:500]
    plain = NoisyTruth(swapped()).answer(keys, data)
    refusing = NoisyTruth(swapped(), skip=0.3).answer(keys, data)
    assert {one for one, other in zip(refusing, plain, strict=True) if one != other} == {NoLabel.SKIP}


def test_without_a_matrix_it_is_the_ground_truth(data: Digits) -> None:
    keys = keys_of(data)[:300]
    assert list(NoisyTruth().answer(keys, data)) == truths_of(data)[:300]
    assert list(NoisyTruth(noise=0.4, seed=2).answer(keys, data)) == list(GroundTruth(0.4, 2).answer(keys, data))


def test_refusals_by_class_and_overall(data: Digits) -> None:
    keys, truths = keys_of(data), truths_of(data)
    overall = NoisyTruth(skip=0.25, unsure=0.5).answer(keys, data)
    assert abs(sum(one is NoLabel.SKIP for one in overall) / len(keys) - 0.25) < 0.05
    assert abs(sum(one is NoLabel.UNSURE for one in overall) / len(keys) - 0.5) < 0.05
    by_class = NoisyTruth(skip={"3": 1.0}, unsure={"4": 1.0, "5": 0.5}).answer(keys, data)
    for truth, answer in zip(truths, by_class, strict=True):
        allowed = {"3": [NoLabel.SKIP], "4": [NoLabel.UNSURE], "5": [NoLabel.UNSURE, "5"]}
        assert answer in allowed.get(truth, [truth])
    assert {answer for truth, answer in zip(truths, by_class, strict=True) if truth == "5"} == {NoLabel.UNSURE, "5"}


def test_cost() -> None:
    assert NoisyTruth().cost(["1", None, "2", NoLabel.SKIP]) == 3
    assert NoisyTruth(cost={"1": 2.5}, refusal_cost=0).cost(["1", "1", "2", NoLabel.UNSURE]) == 5
    assert NoisyTruth(cost=0.1).cost(["1"] * 10) == 1  # ten times 0.1, added one by one, is less


def test_a_file_goes_by_names(tmp_path: Path, data: Digits) -> None:
    rows, order = swapped(), TEN[::-1]
    lines = [["", *order], *[[true, *[f"{rows[int(true)][int(said)]:.3f}" for said in order]] for true in TEN]]
    path = tmp_path / "confusion.csv"
    path.write_text("\n".join(",".join(line) for line in lines))
    keys = keys_of(data)
    assert list(NoisyTruth(str(path)).answer(keys, data)) == list(NoisyTruth(rows).answer(keys, data))
    path.write_text(path.read_text().replace("9", "nine"))
    with pytest.raises(ValueError, match=r"`confusion` is of the classes nine, 8, .*; those of the data are 0, 1, "):
        NoisyTruth(str(path)).can_answer(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a,b\na,1,0\n", "has the columns a, b and the rows a; the first row and the first column must name the same"),
        (",a,b\na,1,0\nb,0,1\nb,0,1\n", "must name the same classes, each once"),
        (",a,a\na,1,0\n", "must name the same classes, each once"),
        (",a,b\na,x,0\nb,0,1\n", r"row `a`: \['x', '0'\] are no numbers"),
        (",a,b\na,1\nb,0,1\n", "has 2 rows of 1, 2 numbers; it must have a row and a column for each class"),
        ("", "has the columns none and the rows none"),
    ],
)
def test_a_file_that_is_no_matrix(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "confusion.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"`confusion={path}`.*{message}"):
        read_confusion(str(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"confusion": [[1, 0]]},
            "`confusion` has 1 rows of 2 numbers; it must have a row and a column for each class",
        ),
        ({"confusion": []}, "`confusion` has 0 rows of no numbers"),
        (
            {"confusion": [[1.2, -0.2], [0, 1]]},
            r"`confusion\[0\]=1.2` must be from 0 to 1; it is a share of the answers",
        ),
        ({"confusion": [[1, 0], [0.5, 0.4]]}, "row `1` of `confusion` sums to 0.9; the shares of a row must sum to 1"),
        ({"confusion": [[1, 0], [0, float("nan")]]}, r"`confusion\[1\]=nan` must be a finite number from 0 to 1"),
        ({"confusion": "/nowhere.csv"}, "`confusion=/nowhere.csv` cannot be read as a table"),
        ({"confusion": [[1]], "noise": 0.1}, "`confusion` and `noise=0.1` both say which answers are wrong"),
        ({"skip": 1.5}, "`skip=1.5` must be from 0 to 1"),
        ({"unsure": {"a": -1}}, r"`unsure\[a\]=-1` must be at least 0"),
        ({"cost": {"a": -1}}, r"`cost\[a\]=-1` must be at least 0"),
        ({"refusal_cost": -1}, "`refusal_cost=-1` must be at least 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyTruth(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confusion": [[1.0, 0], [0, 1]]}, "`confusion` has 2 rows, and the data have 10 classes; give a row and a"),
        ({"skip": {"10": 0.5}}, "`skip` names `10`, which is no class of the data.*; they are 0, 1, "),
        ({"cost": {"x": 0.5}}, "`cost` names `x`, which is no class of the data"),
        ({"skip": 0.6, "unsure": {"2": 0.5}}, "`skip=0.6` and `unsure=0.5` of `2` must be at most 1 together"),
    ],
)
def test_mistakes_that_the_data_show(data: Digits, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyTruth(**options).can_answer(data)


def test_unlabelled_samples_are_not_asked_for() -> None:
    data = Digits(val_size=0)
    data.setup("fit")
    data.train_samples.targets[4] = -1  # type: ignore[union-attr]
    assert NoisyTruth(skip=1).can_answer(data).logical_not().nonzero().tolist() == [[4]]
    with pytest.raises(ValueError, match="has no label for"):
        NoisyTruth(skip=1).answer([keys_of(data)[4]], data)


def test_a_pool_keeps_refusals_and_asks_for_others() -> None:
    pool = PoolDataModule(Digits(), initial=40, oracle=NoisyTruth(skip={"3": 1}, unsure={"2": 0.5}), seed=0)
    pool.setup("fit")
    kinds = [query.kind for query in pool.queries]
    assert {"class", "skip", "unsure"} == set(kinds)
    assert len(pool.labelled) == kinds.count("class")
    assert 3 not in pool.samples.targets[pool.labelled]
    first = pool.unlabelled[:30].tolist()
    pool.acquire("Test", 0, first)
    assert not set(first) & set(pool.unlabelled.tolist())
    again = PoolDataModule(Digits(), store=pool.store, oracle=NoisyTruth(skip={"3": 1}, unsure={"2": 0.5}))
    again.setup("fit")
    assert again.queries == pool.queries


def test_it_is_chosen_on_the_command_line() -> None:
    from jsonargparse import ArgumentParser

    from ssl_lightning.labelling import Oracle

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--oracle", type=Oracle)
    given = ["--oracle=NoisyTruth", "--oracle.confusion=[[1,0],[0.5,0.5]]", '--oracle.skip={"3":0.5}']
    oracle = parser.instantiate(parser.parse_args([*given, "--oracle.cost.cat=2.5"])).oracle
    assert isinstance(oracle, NoisyTruth)
    assert oracle.skip == {"3": 0.5}
    assert oracle.cost(["cat", "dog"]) == 2.5
