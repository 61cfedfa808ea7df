from typing import Any

import pytest
import torch

from ssl_lightning.active import PoolDataModule
from ssl_lightning.data import Digits
from ssl_lightning.labelling import GroundTruth, LabelStore, Oracle, Query


@pytest.fixture
def pool() -> PoolDataModule:
    pool = PoolDataModule(Digits(batch_size=16), initial=25, steps_per_epoch=7, seed=0)
    pool.setup("fit")
    return pool


def test_every_sample_is_one_of_three(pool: PoolDataModule) -> None:
    parts = [set(part.tolist()) for part in (pool.labelled, pool.pending, pool.unlabelled)]
    assert sum(map(len, parts)) == len(pool.data.train_indices)
    assert set.union(*parts) == set(pool.data.train_indices.tolist())
    assert not set.union(*parts) & set(pool.data.val_indices.tolist())


def test_training_batches_hold_given_labels_only(pool: PoolDataModule) -> None:
    batches = list(pool.train_dataloader())
    assert [len(batch.target) for batch in batches] == [16] * 7
    labelled = set(pool.labelled.tolist())
    for batch in batches:
        assert set(batch.index.tolist()) <= labelled
        assert torch.equal(batch.target, pool.data.train_samples.targets[batch.index])  # type: ignore[union-attr]


def test_the_pool_shows_no_label(pool: PoolDataModule) -> None:
    batches = list(pool.pool_dataloader(batch_size=100))
    assert (torch.cat([batch.target for batch in batches]) == -1).all()
    assert torch.equal(torch.cat([batch.index for batch in batches]), pool.unlabelled)


def test_the_next_round_sees_the_new_labels(pool: PoolDataModule) -> None:
    new = pool.unlabelled[:5].tolist()
    pool.acquire("Test", 0, new, [0.5] * 5)
    assert len(pool.labelled) == 25  # not in the round that asked
    pool.round = 1
    assert pool.labelled.tolist()[-5:] == new
    seen = {index for batch in pool.train_dataloader() for index in batch.index.tolist()}
    assert set(new) <= seen


def test_balanced_start() -> None:
    pool = PoolDataModule(Digits(), initial=30, balanced=True, seed=4)
    pool.setup("fit")
    targets = pool.data.train_samples.targets[pool.labelled]  # type: ignore[union-attr]
    assert targets.bincount(minlength=10).tolist() == [3] * 10


def test_initial_labels_are_random_and_of_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        pool = PoolDataModule(Digits(), initial=10, seed=seed)
        pool.setup("fit")
        drawn.append(pool.labelled.tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_store_goes_on() -> None:
    store = LabelStore()
    first = PoolDataModule(Digits(), initial=10, store=store, seed=0)
    first.setup("fit")
    first.acquire("Test", 0, first.unlabelled[:3].tolist())
    again = PoolDataModule(Digits(), initial=99, store=store, seed=5)
    again.setup("fit")
    assert again.queries == first.queries


class Answers(Oracle):
    """Gives what it was told to."""

    def __init__(self, answer: str | None) -> None:
        self.given = answer

    def answer(self, keys: Any, data: Any) -> list[str | None]:
        return [self.given for _ in keys]


def test_pending_answers_wait(pool: PoolDataModule) -> None:
    pool.oracle = Answers(None)
    asked = pool.unlabelled[:3].tolist()
    pool.acquire("Test", 0, asked)
    pool.round = 1
    assert pool.pending.tolist() == asked
    assert len(pool.labelled) == 25
    pool.store.answer(pool.keys[asked[1]], "4", "me")
    pool.synchronise()
    assert pool.labelled.tolist()[-1] == asked[1]
    assert pool.samples.targets[asked[1]] == 4


def test_no_label_at_all_is_said() -> None:
    pool = PoolDataModule(Digits(), initial=3, oracle=Answers(None))
    pool.setup("fit")
    with pytest.raises(ValueError, match="no sample is labelled yet, 3 answers are pending"):
        pool.train_dataloader()


class Renewed(Digits):
    """Digits whose contents or classes may be others under the same keys."""

    version = ""

    def fingerprint(self, key: str) -> str:
        return self.version


def test_a_store_whose_samples_have_all_changed_is_no_place_to_go_on() -> None:
    store = LabelStore()
    data = Renewed()
    data.version = "a"
    PoolDataModule(data, initial=6, store=store, seed=0).setup("fit")
    data.version = "b"
    pool = PoolDataModule(data, initial=6, store=store, seed=0)
    with pytest.warns(UserWarning, match="6 samples .* have changed since"):
        pool.setup("fit")
    with pytest.raises(ValueError, match=r"none of the 6 labels in the label store .* begin a new run in another"):
        pool.train_dataloader()


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_class_that_was_corrected_in_the_data_is_told(noise: float, recwarn: pytest.WarningsRecorder) -> None:
    def told() -> list[str]:
        return [text for text in (str(warning.message) for warning in recwarn) if "another class" in text]

    store, data = LabelStore(), Digits()
    first = PoolDataModule(data, initial=6, store=store, seed=0, oracle=GroundTruth(noise))
    first.setup("fit")
    PoolDataModule(data, store=store, oracle=GroundTruth(noise)).setup("fit")
    assert not told()
    place = int(first.labelled[2])
    targets = data.train_samples.targets  # type: ignore[union-attr]
    targets[place] = (targets[place] + 1) % 10
    again = PoolDataModule(data, store=store, oracle=GroundTruth(noise))
    again.setup("fit")
    assert again.queries == first.queries
    assert len(told()) == 1 or noise > 0  # a wrong answer may have become right
    assert all(f"1 samples (`{first.keys[place]}`) in the label store" in text for text in told())
    targets[place] = -1
    PoolDataModule(data, store=store, oracle=GroundTruth(noise)).setup("fit")
    assert len(told()) <= 1


def test_names_that_no_store_can_keep_are_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Digits()
    data.setup("fit")
    pool = PoolDataModule(data)
    keys = ["\udcff00.png", *pool.keys[1:]]
    monkeypatch.setattr(PoolDataModule, "keys", keys)
    with pytest.raises(ValueError, match=r"`key='\\udcff00.png'` is not UTF-8"):
        pool.setup("fit")
    assert not pool.store.queries()


def test_label_out_of_range_is_refused_and_nothing_changes(pool: PoolDataModule) -> None:
    pool.oracle = Answers("10")
    before = pool.store.queries()
    with pytest.raises(ValueError, match=r"`Answers` answered `10` for `\d+`; a label must be one of 0, 1, .*, 9"):
        pool.acquire("Test", 0, pool.unlabelled[:2].tolist())
    assert pool.store.queries() == before


def test_known_samples_are_refused(pool: PoolDataModule) -> None:
    known = pool.labelled[:1].tolist()
    with pytest.raises(ValueError, match="chose samples that are not unlabelled"):
        pool.acquire("Test", 0, known)
    with pytest.raises(ValueError, match="or one twice"):
        pool.acquire("Test", 0, pool.unlabelled[:1].tolist() * 2)


def test_a_store_of_other_data_is_told_and_labels_nothing() -> None:
    store = LabelStore()
    store.add_round(-1, "initial", 0, [Query("5000", "1"), Query("3", "cat")], "me")
    pool = PoolDataModule(Digits(val_size=0), store=store)
    with pytest.warns(UserWarning, match="label store") as told:
        pool.setup("fit")
    text = " ".join(str(warning.message) for warning in told)
    assert "1 samples (`5000`)" in text
    assert "no longer there" in text
    assert "name classes that the data do not have: `cat`" in text
    assert len(pool.labelled) == 0
    assert len(store.queries()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0}, "`initial=0` must be at least 1; the first model must train on something"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch=0` must be at least 1"),
        ({"balanced": "no"}, "`balanced='no'` must be one of False, True"),
        ({"oracle": "foo"}, "`oracle='foo'` must be an `Oracle` that is built"),
        ({"oracle": GroundTruth}, "must be an `Oracle` that is built, such as `GroundTruth\\(\\)`"),
        ({"store": 5}, "`store=5` must be a `LabelStore`, the URL of one, or null"),
        ({"seed": "foo"}, "`seed='foo'` must be a whole number, from 0 to 4294967295"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoolDataModule(Digits(), **options)


def test_too_many_initial_labels() -> None:
    with pytest.raises(ValueError, match=r"`initial=5000` exceeds the 1132 samples of the pool"):
        PoolDataModule(Digits(), initial=5000).setup("fit")


def test_noisy_oracle() -> None:
    data = Digits(val_size=0)
    data.setup("fit")
    indices = list(range(1000))
    truth = data.train_samples.targets[:1000]  # type: ignore[union-attr]
    oracle = GroundTruth(noise=0.3, seed=1)
    keys = [data.train_samples.keys[place] for place in indices]  # type: ignore[union-attr]

    def answer(oracle: GroundTruth, keys: list[str]) -> list[int]:
        return [data.class_names.index(str(name)) for name in oracle.answer(keys, data)]

    answers = torch.tensor(answer(oracle, keys))
    assert 0.25 < (answers != truth).float().mean() < 0.35
    assert answer(oracle, keys[::-1])[::-1] == answers.tolist()  # a matter of the sample, not of the order
    assert answer(GroundTruth(), keys) == truth.tolist()
    assert (torch.tensor(answer(GroundTruth(noise=1), keys)) != truth).all()


def test_ground_truth_of_unlabelled_data() -> None:
    data = Digits()
    data.setup("fit")
    data.train_samples.targets[4] = -1  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=f"ground-truth oracle has no label for `{data.train_samples.keys[4]}`"):  # type: ignore[union-attr]
        GroundTruth().answer([data.train_samples.keys[place] for place in (3, 4)], data)  # type: ignore[union-attr]
