"""The switch from one strategy to another by the labels there are. What every strategy must do, on several processes
too, test_strategy.py (30 labels: the second) and test_modalities.py (9: the first) ask of it."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import yaml
from lightning.pytorch.callbacks import Callback

from ssl_lightning.active import (
    BALD,
    DBAL,
    VAAL,
    AcquisitionStrategy,
    ByLabels,
    Entropy,
    KMedoids,
    Margin,
    PoolDataModule,
    Random,
    Stream,
    TypiClust,
    run_rounds,
)
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.labelling import LabelStore
from ssl_lightning.supervised import Classifier

QUIET = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False,
    "enable_model_summary": False,
}  # fmt: skip


def model_of(dropout: float = 0.0) -> Classifier:
    return Classifier(10, ConvNet(width=4), dropout=dropout)


def pool_of(**options: Any) -> PoolDataModule:
    return PoolDataModule(
        Digits(batch_size=64, limit=300), **{"initial": 30, "steps_per_epoch": 4, "seed": 1, **options}
    )


def fit(strategy: AcquisitionStrategy, pool: PoolDataModule, **options: Any) -> tuple[L.Trainer, Classifier]:
    L.seed_everything(1, verbose=False)
    trainer, model = L.Trainer(max_epochs=1, callbacks=[strategy], **QUIET), model_of(**options)  # type: ignore[arg-type]
    trainer.fit(model, datamodule=pool)
    return trainer, model


def run(
    folder: Path, strategy: AcquisitionStrategy | None, callbacks: tuple[Callback, ...] = ()
) -> list[dict[str, Any]]:
    """Three queries of 10 from 20 labels on."""
    L.seed_everything(1, verbose=False)
    return run_rounds(
        model_of, lambda more: L.Trainer(max_epochs=1, callbacks=[*callbacks, *more], **QUIET),  # type: ignore[arg-type]
        pool_of(initial=20), strategy, rounds=3, folder=folder,
    )  # fmt: skip


def record(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "queries.csv").open() as file:
        return [(line["round"], line["strategy"], line["key"]) for line in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("labelled", "classes", "limit", "first"),
    [(19, 10, 2, True), (20, 10, 2, False), (0, 10, 0, False), (0, 3, 1, True), (3, 3, 1, False), (299, 100, 3, True)],
)
def test_the_switch_by_hand(labelled: int, classes: int, limit: int, first: bool) -> None:
    strategy = ByLabels(labels_per_class=limit, first=Random(), then=Margin())
    assert isinstance(strategy.choose_by(labelled, classes), Random if first else Margin)


@pytest.mark.parametrize("alone", [TypiClust, DBAL, KMedoids, Margin])
@pytest.mark.parametrize("limit", [3, 4])  # there are 30 labels of 10 classes
def test_the_one_whose_turn_it_is_chooses_what_it_would_alone(alone: type[AcquisitionStrategy], limit: int) -> None:
    early = limit == 4
    strategy = ByLabels(7, None, limit, *((alone(), Random()) if early else (Random(), alone())))
    pool = pool_of()
    trainer, model = fit(strategy, pool)
    assert len(pool.asked(0)) == 7
    assert strategy.query(trainer, model, pool) == alone(query_size=7).query(trainer, model, pool)
    assert pool.store.rounds()[0].strategy == f"{alone.__name__} (ByLabels)"


def test_what_counts_are_labels_not_questions() -> None:
    pool = pool_of()
    strategy = ByLabels(5, None, 3, Random(), Margin())
    fit(strategy, pool)
    assert pool.store.rounds()[0].strategy == "Margin (ByLabels)"
    lost = [place for place in range(6) if pool.queries[place].round < 0]
    for place in lost:
        pool.queries[place] = pool.queries[place]._replace(label=None, kind=None)
    assert len(pool.labelled) == 24
    assert strategy.choose_by(len(pool.labelled), pool.num_classes) is strategy.first


def test_sizes_pass_to_both_and_a_part_of_the_query_tests() -> None:
    strategy = ByLabels(10, 17, 3, KMedoids(3), Margin(2, 5))
    pool = pool_of(test_share=0.2, initial=40)
    fit(strategy, pool)
    parts = Counter(query.part for query in pool.queries if query.round == 0)
    assert parts == {"train": 8, "test": 2}
    assert [(one.query_size, one.batch_size) for one in (strategy, strategy.then)] == [(10, 17), (8, 17)]


def test_a_run_goes_from_one_to_the_other_and_the_record_says_so(tmp_path: Path) -> None:
    rows = run(tmp_path, ByLabels(labels_per_class=3))
    assert [row["labelled"] for row in rows] == [20, 30, 40, 50]
    found = Counter((number, name) for number, name, _ in record(tmp_path))
    assert found == {
        ("-1", "initial"): 20, ("0", "TypiClust (ByLabels)"): 10, ("1", "DBAL (ByLabels)"): 10,
        ("2", "DBAL (ByLabels)"): 10,
    }  # fmt: skip


class Die(Callback):
    """Ends the run in a round's training, or once it has asked."""

    def __init__(self, hook: str, number: int) -> None:
        self.number = number
        setattr(self, hook, self.die)

    def die(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.datamodule.round == self.number:  # type: ignore[attr-defined]
            raise ArithmeticError("killed")


@pytest.mark.parametrize(("then", "number"), [(DBAL, 1), (Stream, 2)])  # the second has a state
def test_a_killed_run_goes_on_to_the_same_picks(then: Any, number: int, tmp_path: Path) -> None:
    def strategy() -> ByLabels:
        return ByLabels(labels_per_class=3, then=then())

    run(tmp_path / "whole", strategy())
    with pytest.raises(ArithmeticError):
        run(tmp_path / "killed", strategy(), (Die("on_train_end", number),))
    run(tmp_path / "killed", strategy())
    assert record(tmp_path / "killed") == record(tmp_path / "whole")
    state = LabelStore(f"sqlite:///{tmp_path / 'whole' / 'labels.sqlite'}").rounds()[2].state
    assert set(state or {}) == ({"then"} if then is Stream else set())


def test_a_stream_goes_on_without_the_round_loop_too() -> None:
    alone, pools = Stream(budget=0.5), [pool_of(), pool_of()]
    for strategy, pool in zip((alone, ByLabels(labels_per_class=0, then=Stream(budget=0.5))), pools, strict=True):
        for pool.round in (0, 1):
            fit(strategy, pool)
    assert [pools[0].asked(number) for number in (0, 1)] == [pools[1].asked(number) for number in (0, 1)]


def test_what_the_second_cannot_do_is_said_before_the_first_fit() -> None:
    strategy = ByLabels(labels_per_class=100, then=BALD())
    with pytest.raises(ValueError, match="no dropout to draw from"):
        fit(strategy, pool_of())
    fit(strategy, pool_of(), dropout=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels_per_class": -1}, "`labels_per_class=-1` must be at least 0"),
        ({"first": VAAL()}, "`first=VAAL` learns during each fit, also while it does not ask; take it alone"),
        (
            {"then": Entropy},
            "`then=<class '.*Entropy'>` must be a strategy that is built, such as `Margin\\(\\)`, or null",
        ),
        ({"first": "TypiClust"}, "`first='TypiClust'` must be a strategy that is built"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ByLabels(**options)


def test_it_is_the_default_in_python(tmp_path: Path) -> None:
    run(tmp_path, None)
    assert [record(tmp_path)[place][1] for place in (20, 49)] == ["TypiClust (ByLabels)", "DBAL (ByLabels)"]


def test_it_is_the_default_of_the_command(command: Callable[..., tuple[int, str]]) -> None:
    line = ["active", "-c", "data/digits", "-c", "active/classifier", "--data.limit", "200", "--rounds", "1"]
    line += ["--steps_per_epoch", "2", "--strategy.query_size", "4", "--folder", "run"]
    status, out = command(*line)
    assert status == 0
    assert "asked 4 by TypiClust (ByLabels)" in out
    named = yaml.safe_load(Path("run/config.yaml").read_text())["strategy"]
    assert named["class_path"].endswith(".ByLabels")
    assert named["init_args"]["query_size"] == 4
    assert command(*line, "--strategy", "ByLabels", "--strategy.query_size", "4")[0] == 0  # the same settings
    status, out = command(*line, "--strategy.labels_per_class", "9")
    assert status == 2
    assert "labels_per_class" in out
