"""Rules for stopping: alone, in a run, in a run taken up again, on the command line."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from ssl_lightning.active import (
    Budget,
    Entropy,
    NoGain,
    PoolDataModule,
    StablePredictions,
    StoppingRule,
    TargetAccuracy,
    run_rounds,
)
from ssl_lightning.active.stopping import kappa
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.supervised.classifier import Classifier


def rounds(*accuracies: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"round": place, "labelled": 20 + 10 * place, "validation": 50, "val/accuracy": value, **more}
        for place, value in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("rule", "accuracies", "stops"),
    [
        (Budget(50), [0.1, 0.2, 0.3, 0.4], [False, False, False, True]),  # 20, 30, 40, 50 labels
        (Budget(55), [0.1, 0.2, 0.3, 0.4], [False, False, False, True]),
        (Budget(100, validation=True), [0.1, 0.2, 0.3, 0.4], [False, False, False, True]),
        (TargetAccuracy(0.3), [0.1, 0.29, 0.3, 0.2], [False, False, True, False]),
        (NoGain(2, 0.01), [0.5, 0.6, 0.605, 0.609, 0.7], [False, False, False, True, False]),
        (NoGain(1, 0.0), [0.5, 0.5, 0.4], [False, True, True]),  # a flat curve gains nothing
        (NoGain(1, 0.0), [0.5, 0.500001, 0.6], [False, False, False]),
    ],
)
def test_rules_stop_when_they_say(rule: StoppingRule, accuracies: list[float], stops: list[bool]) -> None:
    rows = rounds(*accuracies)
    assert [rule.reason(rows[: place + 1], 10) is not None for place in range(len(rows))] == stops


def test_metrics_of_float32_reach_what_is_written_in_decimals() -> None:
    for percent in range(1, 100):
        here, next_one = (float(torch.tensor(value / 100)) for value in (percent, percent + 1))
        assert TargetAccuracy(percent / 100).reason(rounds(here), 1) is not None
        assert TargetAccuracy((percent + 0.01) / 100).reason(rounds(here), 1) is None
        assert NoGain(1, 0.01).reason(rounds(here, next_one), 1) is None
        assert NoGain(1, 0.0101).reason(rounds(here, next_one), 1) is not None
    stable = StablePredictions(agreement=0.7, rounds=3)
    assert stable.reason([{"agreement": value} for value in (0.6, 0.7, 0.8)], 1) is not None


def test_stable_predictions_reads_agreements() -> None:
    rows = [{"round": place, "agreement": value} for place, value in enumerate([None, 0.9, 0.99, 1.0, 0.99])]
    rule = StablePredictions(agreement=0.98, rounds=2)
    assert [rule.reason(rows[: place + 1], 10) is not None for place in range(5)] == [False, False, False, True, True]


def test_kappa_is_scikit_learns() -> None:
    one, other = torch.randint(5, (200,)), torch.randint(5, (200,))
    other[:120] = one[:120]
    assert kappa(one, other, 5) == pytest.approx(cohen_kappa_score(one.numpy(), other.numpy()))
    assert kappa(one, one, 5) == 1
    assert kappa(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 2) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(0), "`labels=0` must be at least 1"),
        (lambda: TargetAccuracy(90), "`accuracy=90` must be above 0 and at most 1"),
        (lambda: NoGain(0), "`rounds=0` must be at least 1"),
        (lambda: StablePredictions(1.5), "`agreement=1.5` must be above 0 and at most 1"),
        (lambda: Budget(5, validation="yes"), "`validation='yes'` must be one of False, True"),
        (lambda: NoGain(metric="test/accuracy"), "`metric=test/accuracy` is of the test part"),
        (lambda: TargetAccuracy(0.5, ""), "`metric=''` must be text, and not empty"),
        (lambda: TargetAccuracy(0.5, "val/acc").reason(rounds(0.1), 1), "`metric=val/acc` is no column of the rounds"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def run(trainer: Any, tmp_path: Path) -> Any:
    """Return a function that runs the loop with rules and returns its rows."""

    def go(
        name: str, stop: list[StoppingRule], callbacks: Any = (), rounds: int = 5, val_size: float = 0.1
    ) -> list[dict[str, Any]]:
        L.seed_everything(0, verbose=False)
        return run_rounds(
            make_model=lambda: Classifier(10, ConvNet(width=8)),
            make_trainer=lambda more: trainer(max_epochs=1, callbacks=[*callbacks, *more], enable_progress_bar=True),
            pool=PoolDataModule(Digits(batch_size=64, val_size=val_size), initial=20, steps_per_epoch=40),
            strategy=Entropy(query_size=10),
            rounds=rounds,
            folder=str(tmp_path / name),
            stop=stop,
        )

    return go


def test_a_run_stops_and_asks_no_more(run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = run("budget", [TargetAccuracy(1.0), Budget(40)])
    assert [row["labelled"] for row in rows] == [20, 30, 40]
    assert [row["queried"] for row in rows] == [10, 10, 0]
    assert (
        "stopped after round 2: 40 of the budget of 40 labels are spent, and a query is 10." in capsys.readouterr().out
    )
    assert len(list(csv.reader((tmp_path / "budget" / "queries.csv").open()))) == 1 + 40


class Steps(L.Callback):
    """Counts what was trained; as one of a stranger, nobody knows what else it might log."""

    count = 0

    def on_train_batch_end(self, *args: Any, **more: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("rule", [TargetAccuracy(0.5), NoGain()])
def test_a_metric_of_no_validation_part_is_refused_before_training(rule: StoppingRule, run: Any) -> None:
    steps = Steps()
    with pytest.raises(ValueError, match="`metric=val/accuracy` needs a validation part, and these data have none"):
        run("none", [rule], callbacks=[steps], val_size=0)
    assert steps.count == 0


def test_a_metric_that_nobody_logs_is_refused_before_training(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(Classifier, "training_step", lambda *_: steps.append(1))
    message = (
        r"`metric=val/acc` is logged by nobody \(did you mean `val/accuracy`\?\); the model logs `val/loss`, `val/a"
    )
    with pytest.raises(ValueError, match=message):
        run("typo", [TargetAccuracy(0.5, "val/acc")])
    assert not steps


class Late(L.Callback):
    """Logs a metric of its own, but not before training."""

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            pl_module.log("val/mine", 0.5)


def test_a_metric_of_a_callback_is_waited_for(run: Any) -> None:
    assert len(run("late", [TargetAccuracy(0.5, "val/mine")], callbacks=[Late()])) == 1


def test_a_stopped_run_stays_stopped_until_the_rule_is_gone(run: Any) -> None:
    once = run("again", [Budget(40)])
    assert run("again", [Budget(40)]) == once
    more = run("again", [Budget(50)])
    assert [row["labelled"] for row in more] == [20, 30, 40, 50]
    straight = run("straight", [Budget(50)])
    assert [row["test/accuracy"] for row in more] == [row["test/accuracy"] for row in straight]


class Die(L.Callback):
    """Raises in the test of one round."""

    def __init__(self, round: int) -> None:
        self.round = round

    def on_test_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.datamodule.round == self.round:  # type: ignore[attr-defined]
            raise ArithmeticError("killed")


@pytest.mark.parametrize("round", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize("rule", [Budget(40), StablePredictions(0.01, 2)])
def test_killed_it_stops_where_it_would_have(rule: StoppingRule, round: int, run: Any) -> None:
    """In round 1 after it has asked, before its metrics are known; in round 2, which does not ask."""
    with pytest.raises(ArithmeticError):
        run("killed", [rule], callbacks=[Die(round)])
    rows = run("killed", [rule])
    assert [row["labelled"] for row in rows] == [20, 30, 40]
    assert [row["queried"] for row in rows] == [10, 10, 0]
    undisturbed = run("undisturbed", [rule])
    for one, other in zip(rows, undisturbed, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_predictions_of_a_stable_model(run: Any, tmp_path: Path) -> None:
    rows = run("stable", [StablePredictions(0.999, 1)], rounds=2)
    assert rows[0]["agreement"] is None
    assert all(0 < row["agreement"] < 1 for row in rows[1:2])
    kept = [torch.load(tmp_path / "stable" / "stop_set" / f"round_{place:03d}.pt") for place in (0, 1)]
    assert list(kept[0]) == list(kept[1])
    assert rows[1]["agreement"] == pytest.approx(cohen_kappa_score(list(kept[0].values()), list(kept[1].values())))


def test_on_the_command_line(command: Any) -> None:
    arguments = [
        "active", "--data", "Digits", "--data.batch_size", "64", "--model", "Classifier", "--model.backbone",
        "ConvNet", "--model.backbone.width", "8", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
        "--trainer.devices", "1", "--steps_per_epoch", "5", "--strategy", "Random", "--strategy.query_size", "10",
        "--folder", "run", "--stop+=Budget", "--stop.labels", "40",
    ]  # fmt: skip
    status, out = command(*arguments)
    assert status == 0, out
    assert "stopped after round 2" in out
    status, out = command(*arguments[:-3], "--stop+=Budgt", "--stop.labels", "40")
    assert status == 2
    assert "`Budgt` (did you mean `Budget`?)" in out
