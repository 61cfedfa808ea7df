"""Streams: each threshold against its pseudo-code, decisions that are final, nothing read ahead, resumed."""

import math
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from active.test_rounds import Die, picks

from ssl_lightning.active import PoolDataModule, run_rounds
from ssl_lightning.active.stream import Decision, Stream, Threshold, decide, watch
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.supervised.classifier import Classifier

CONFIDENCES = torch.rand(600, generator=torch.Generator().manual_seed(0)).tolist()


def transcribed(kind: str, budget: float, theta: float, s: float, w: int, v: float) -> list[bool]:
    """The paper's algorithms, one after the other."""
    spent, answers = 0.0, []
    for place, confidence in enumerate(CONFIDENCES):
        labelling = False
        if spent / w < budget:
            generator = derive_generator(0, "stream", place)
            if kind == "fixed":
                labelling = confidence < theta
            elif kind == "split" and (pair := torch.rand(2, generator=generator, dtype=torch.float64))[0] < v:
                labelling = bool(pair[1] < budget)
            else:
                eta = 1.0
                if kind == "randomised":
                    eta = 1 + float(torch.randn((), generator=generator, dtype=torch.float64))
                labelling = confidence < theta * eta
                theta = theta * (1 - s) if labelling else min(1.0, theta * (1 + s))
        spent = spent * (w - 1) / w + (1 if labelling else 0)
        answers.append(labelling)
    return answers


@pytest.mark.parametrize("kind", ["fixed", "variable", "randomised", "split"])
@pytest.mark.parametrize("budget", [0.05, 0.3, 1.0])
def test_decisions_are_the_papers(kind: Any, budget: float) -> None:
    threshold = Threshold(kind, budget, start=0.8, step=0.05, window=50, split=0.2)
    found = [threshold.ask(confidence) for confidence in CONFIDENCES]
    assert found == transcribed(kind, budget, 0.8, 0.05, 50, 0.2)
    assert threshold.asked == sum(found) > 0
    assert threshold.asked + threshold.discarded == len(CONFIDENCES)


@pytest.mark.parametrize("kind", ["fixed", "variable", "randomised", "split"])
def test_the_budget_is_kept(kind: Any) -> None:
    """The spent share is a mean over the window, which one answer lifts by 1 / window at most."""
    threshold = Threshold(kind, budget=0.2, window=50)
    for confidence in CONFIDENCES:
        threshold.ask(confidence)
        assert threshold.spent / 50 <= 0.2 + 1 / 50
    # what was asked is what is still remembered and what was forgotten, a 50th of it with every sample
    assert threshold.asked <= (0.2 + 1 / 50) * (len(CONFIDENCES) + 50)


def test_a_variable_threshold_follows_a_drift() -> None:
    """When a model becomes sure of nearly everything, a fixed threshold falls silent."""
    asked = {}
    for kind in ("fixed", "variable"):
        threshold = Threshold(kind, budget=0.1, start=0.6)  # type: ignore[arg-type]
        for confidence in CONFIDENCES:
            threshold.ask(confidence)
        before = threshold.asked
        for confidence in CONFIDENCES:
            threshold.ask(0.9 + confidence / 10)
        asked[kind] = threshold.asked - before
    assert asked["fixed"] == 0
    assert asked["variable"] > 30


def test_a_restored_threshold_goes_on_alike() -> None:
    one = Threshold("randomised", budget=0.5)
    first = [one.ask(confidence) for confidence in CONFIDENCES[:100]]
    other = Threshold("randomised", budget=0.5)
    other.load_state_dict(one.state_dict())
    assert [one.ask(c) for c in CONFIDENCES[100:]] == [other.ask(c) for c in CONFIDENCES[100:]]
    assert any(first)


def test_nothing_is_read_ahead() -> None:
    read = 0

    def arriving() -> Any:
        nonlocal read
        for confidence in CONFIDENCES:
            read += 1
            yield confidence

    threshold = Threshold("fixed", budget=1.0, start=0.5)
    for decision in decide(arriving(), float, threshold):
        assert isinstance(decision, Decision)
        assert read == decision.place + 1 == threshold.asked + threshold.discarded
        assert decision.asked == (decision.confidence < 0.5)


def test_a_folder_is_watched(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"1")
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "notes.txt").write_text("no image")

    def arrive() -> None:
        time.sleep(0.2)
        with (tmp_path / "c.PNG").open("wb") as file:
            for _ in range(5):  # written slowly: not to be read before it is whole
                file.write(b"1234")
                file.flush()
                time.sleep(0.03)

    writer = threading.Thread(target=arrive)
    writer.start()
    found = [(path.name, path.stat().st_size) for path in watch(tmp_path, poll=0.1, idle=1.0)]
    writer.join()
    assert found == [("a.png", 1), ("b.png", 1), ("c.PNG", 20)]
    with pytest.raises(ValueError, match="is no folder"):
        next(watch(tmp_path / "missing"))
    for options in ({"poll": 0}, {"poll": "foo"}, {"idle": math.nan}, {"idle": -1}):
        with pytest.raises(ValueError, match=f"^`{next(iter(options))}=.*` must be "):
            next(watch(tmp_path, **options))  # type: ignore[arg-type]
    assert next(watch(tmp_path, poll=0.01, idle=math.inf)).name == "a.png"


@pytest.fixture
def run(trainer: Any, tmp_path: Path) -> Any:
    """Return a function that runs three rounds on a stream."""

    def go(name: str, strategy: Stream, callbacks: Any = (), rounds: int = 3) -> Path:
        L.seed_everything(0, verbose=False)
        run_rounds(
            make_model=lambda: Classifier(10, ConvNet(width=8)),
            make_trainer=lambda more: trainer(max_epochs=1, callbacks=[*callbacks, *more], enable_progress_bar=True),
            pool=PoolDataModule(Digits(batch_size=64), steps_per_epoch=10), strategy=strategy, rounds=rounds,
            folder=str(tmp_path / name),
        )  # fmt: skip
        return tmp_path / name

    return go


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_test_start"])
def test_a_killed_stream_goes_on(hook: str, run: Any) -> None:
    whole = Stream(query_size=6, kind="randomised")
    undisturbed = picks(run("undisturbed", whole))
    with pytest.raises(ArithmeticError):
        run("killed", Stream(query_size=6, kind="randomised"), [Die(hook, 1)])
    again = Stream(query_size=6, kind="randomised")  # as after a restart
    assert picks(run("killed", again)) == undisturbed
    assert again.state_dict() == whole.state_dict()


def test_a_decision_is_final(run: Any) -> None:
    """Over all rounds the asked ones come in the order of arrival, and what lies between them never comes again."""
    strategy = Stream(query_size=6)
    asked = [row[2] for row in picks(run("final", strategy)) if row[0] != "-1"]
    data = Digits()
    data.setup("fit")
    places = [strategy._order.tolist().index(data.find(key)[1]) for key in asked]
    assert places == sorted(places)
    state = strategy.state_dict()
    assert state["threshold"]["asked"] == len(asked) == 18
    initial = 20
    assert state["threshold"]["asked"] + state["threshold"]["discarded"] >= places[-1] + 1 - initial
    assert state["turn"] == float(strategy._turns[places[-1]])


def test_a_stream_that_ends_asks_for_less(trainer: Any) -> None:
    pool = PoolDataModule(Digits(batch_size=64), steps_per_epoch=5)
    with pytest.warns(UserWarning, match=r"`Stream` has ended: .* of 500 labels .* discarded. Raise `budget`"):
        trainer(max_epochs=1, callbacks=[Stream(query_size=500, budget=0.1)]).fit(
            Classifier(10, ConvNet(width=4)), datamodule=pool
        )
    assert 50 < sum(query.round == 0 for query in pool.queries) < 150


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_budget_of_all_asks_for_all_that_are_wanted(window: int) -> None:
    threshold = Threshold("fixed", budget=1.0, window=window)
    assert all(threshold.ask(0.5) for _ in range(1000))


@pytest.mark.parametrize("kind", ["variable", "randomised", "split"])
def test_a_threshold_that_would_stay_at_0_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"`start=0.0` must be above 0; a threshold of 0 stays there"):
        Threshold(kind, start=0.0)
    with pytest.raises(ValueError, match=r"`step=1.0` must be from 0 to below 1; with 1 the threshold falls to 0"):
        Threshold(kind, step=1.0)
    Threshold("fixed", start=0.0)


@pytest.mark.parametrize(("option", "value"), [("budget", 1.5), ("start", -1), ("window", 0)])
def test_mistakes_are_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{option}={value}` must be"):
        Stream(**{option: value})  # type: ignore[arg-type]
