"""Runs whose answers come later: from people at a page (here threads that write into the store), or late oracles."""

import contextlib
import io
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from support import begin, run_command

from ssl_lightning.active import (
    VAAL,
    Budget,
    Entropy,
    FarthestFirst,
    PoolDataModule,
    Random,
    TargetAccuracy,
    run_rounds,
)
from ssl_lightning.active.progress import RoundsProgress
from ssl_lightning.active.waiting import alone
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits, Samples
from ssl_lightning.functional.intervals import wilson
from ssl_lightning.labelling import Answer, GroundTruth, Human, LabelStore, NoLabel, Oracle, Query
from ssl_lightning.labelling.shown import see
from ssl_lightning.supervised.classifier import Classifier

TRUTH: dict[str, str] = {}
_all = Digits(val_size=0)
_all.setup("fit")
TRUTH.update(zip(_all.train_samples.keys, (_all.class_names[t] for t in _all.train_samples.targets), strict=True))  # type: ignore[union-attr]


class Unlabelled(Digits):
    """The digits as a person has them: a few labelled, or none, and no test part."""

    labelled: ClassVar[int] = 0
    num_classes = 1
    class_names = ()

    def load(self, split: Any) -> Samples:
        samples = super().load(split)
        samples.targets = samples.targets.clone()
        samples.targets[self.labelled if split == "train" else 0 :] = -1
        return samples


class Partly(Unlabelled):
    labelled = 40
    num_classes = 10
    class_names = tuple("0123456789")


@contextmanager
def person(folder: Path, name: str = "anna", answers: Any = TRUTH.get, limit: int = 10**9) -> Iterator[list[str]]:
    """Answer what is pending until the block ends."""
    stop, done = threading.Event(), list[str]()

    def work() -> None:
        while not (folder / "labels.sqlite").exists() and not stop.is_set():
            time.sleep(0.02)
        store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
        while not stop.is_set():
            for query in store.claim(name, 5) if len(done) < limit else []:
                said = answers(query.key)
                kind = said.value if isinstance(said, NoLabel) else "class"
                label = None if isinstance(said, NoLabel) else said
                answer = Answer(query.key, label, name, kind, query.fingerprint, new_class=True, source="page")
                store.record([answer])
                done.append(query.key)
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def go(trainer: Any, tmp_path: Path) -> Any:
    def run(folder: str = "run", data: Any = Unlabelled, rounds: int = 1, steps: int = 15, **options: Any) -> Any:
        pool_options = {
            "initial": 20, "oracle": Human(page=False), "seed": 0, "classes": tuple("0123456789"),
            "steps_per_epoch": steps, **options.pop("pool", {}),
        }  # fmt: skip
        pool = PoolDataModule(data(batch_size=64), **pool_options)
        rows = run_rounds(
            make_model=lambda: Classifier(pool.num_classes, ConvNet(width=8), dropout=0.5),
            make_trainer=lambda more: trainer(max_epochs=1, callbacks=more),
            pool=pool,
            strategy=options.pop("strategy", Entropy(query_size=10)),
            rounds=rounds,
            folder=tmp_path / folder,
            **options,
        )
        return rows, pool

    return run


def test_nothing_labelled_people_answer_and_no_truth_is_touched(go: Any, tmp_path: Path) -> None:
    with person(tmp_path / "run"):
        rows, pool = go(rounds=2, pool={"test_share": 0.2})
    assert [row["labelled"] for row in rows] == [16, 24, 32]
    assert [row["test/count"] for row in rows] == [4, 6, 8]
    for row in rows:
        assert (row["test/accuracy_low"], row["test/accuracy_high"]) == wilson(row["test/accuracy"], row["test/count"])
    assert [row["validation"] for row in rows] == [0, 0, 0]  # the unlabelled validation part is in the pool
    queries = pool.store.queries()
    assert all(query.label == TRUTH[query.key] for query in queries)
    assert len(pool.everyone) == len(TRUTH)
    later = [query for query in queries if query.round >= 0]
    for query in later:
        if query.part == "train":
            assert query.guess in pool.data.class_names
            assert 0 < (query.confidence or 0) <= 1
            assert len(query.neighbours) == 3
            for key, print_, label in query.neighbours:
                assert label == TRUTH[key]
                assert see(tmp_path / "run", key, print_) is not None
        else:
            assert query.guess is None  # whoever tests the model must not be led by it
        assert see(tmp_path / "run", query.key, query.fingerprint) is not None


def test_test_samples_are_drawn_evenly_and_never_trained_on(go: Any, tmp_path: Path) -> None:
    """Their side is a function of the key; within it, every sample is as likely to be asked for."""
    pool = PoolDataModule(Unlabelled(), oracle=Human(page=False), classes="01", test_share=0.25, val_share=0.15, seed=0)
    pool.data.setup("fit")
    parts = {part: set(pool._of_part(part).tolist()) for part in ("train", "test", "val")}
    assert set.union(*parts.values()) == set(pool.everyone.tolist())
    assert sum(map(len, parts.values())) == len(TRUTH)
    assert abs(len(parts["test"]) / len(TRUTH) - 0.25) < 0.04
    assert abs(len(parts["val"]) / len(TRUTH) - 0.15) < 0.04
    pool.initial = 40
    pool.ask_initial()
    asked = pool.store.queries()
    assert [sum(query.part == part for query in asked) for part in ("train", "test", "val")] == [24, 10, 6]
    for query in asked:
        assert pool.keys.index(query.key) in parts[query.part]
    half = [query.part for query in asked[:20]]
    assert 3 <= half.count("test") <= 7  # whoever stops in the middle has answered of each part


def test_what_the_data_are_labelled_with_counts(go: Any, tmp_path: Path) -> None:
    with person(tmp_path / "run") as done:
        rows, pool = go(data=Partly, pool={"initial": 0, "classes": ()})
    given = pool.given.tolist()
    assert 30 <= len(given) <= 40
    assert [row["labelled"] for row in rows] == [len(given), len(given) + 10]
    assert not {pool.keys[place] for place in given} & set(done)
    assert rows[0]["validation"] == 40 - len(given)  # only those that somebody labelled


def test_late_answers_count_in_the_next_round_and_a_round_keeps_its_own(go: Any, tmp_path: Path) -> None:
    """Go on with what there is; what comes while a round trains, or is corrected, counts in the one after."""
    url = f"sqlite:///{tmp_path / 'run' / 'labels.sqlite'}"
    rows, _ = go(wait=False)
    assert rows == []
    store = LabelStore(url)
    pending = store.queries()
    assert [query.kind for query in pending] == [None] * 20
    for query in pending[:12]:
        store.answer(query.key, TRUTH[query.key], "anna")
    assert go(wait=False)[0] == []
    store.close(-1)
    rows, _ = go(wait=False)
    assert [row["labelled"] for row in rows] == [12]
    for query in pending[12:15]:  # late
        store.answer(query.key, TRUTH[query.key], "anna")
    store.answer(pending[0].key, "9" if TRUTH[pending[0].key] != "9" else "8", "anna")  # corrected
    upto = store.rounds()[0].upto
    then = store.queries(upto)
    assert sum(query.kind == "class" for query in then) == 12
    assert next(query.label for query in then if query.key == pending[0].key) == TRUTH[pending[0].key]
    for query in store.queries():
        if query.kind is None:
            store.answer(query.key, TRUTH[query.key], "anna")
    rows, _ = go()
    assert [row["labelled"] for row in rows] == [12, 30]


def test_skips_and_a_new_class(go: Any, tmp_path: Path) -> None:
    numbers = itertools.count()

    def answers(key: str) -> Any:
        return (NoLabel.SKIP, NoLabel.UNSURE, "a new one", TRUTH[key], TRUTH[key])[next(numbers) % 5]

    with person(tmp_path / "run", answers=answers):
        rows, pool = go(rounds=2, pool={"classes": ("0", "1")})
    assert [row["labelled"] for row in rows] == [12, 18, 24]
    assert "a new one" in pool.data.class_names
    assert pool.data.class_names[:2] == ("0", "1")
    assert pool.store.counts() == {"class": 24, "skip": 8, "unsure": 8, "pending": 0}
    assert len({query.key for query in pool.store.queries()}) == 40  # none was asked for twice


def test_a_run_that_is_stopped_while_it_waits_goes_on_to_the_same_picks(go: Any, tmp_path: Path) -> None:
    with person(tmp_path / "whole"):
        _, whole = go("whole", rounds=2)
    with person(tmp_path / "torn"):
        for _ in range(30):
            rows, torn = go("torn", rounds=2, wait=False)
            if len(rows) == 3:
                break
    one, other = ([(q.round, q.key, q.label) for q in pool.store.queries()] for pool in (whole, torn))
    assert one == other


def test_a_finished_run_takes_no_labels_until_it_is_prolonged(go: Any, tmp_path: Path) -> None:
    with person(tmp_path / "run"):
        _, pool = go()
    key = pool.store.queries()[0].key
    before = pool.store.history()
    with pytest.raises(ValueError, match=r"the run of .* is finished.*again with more `rounds`"):
        pool.store.answer(key, "3", "anna")
    with pytest.raises(ValueError, match="finished"):
        pool.store.undo("anna")
    assert pool.store.history() == before
    with person(tmp_path / "run"):
        rows, _ = go(rounds=2)
    assert [row["labelled"] for row in rows] == [20, 30, 40]


def test_a_class_that_nobody_named_is_told_at_the_end(go: Any, tmp_path: Path) -> None:
    given = {"pool": {"classes": (*"0123456789", "unicorn"), "initial": 60}, "rounds": 0}
    with person(tmp_path / "run"), pytest.warns(UserWarning, match="training part has no sample of 1 of 11.*`unicorn`"):
        go(**given)


def test_no_classes_is_said(go: Any) -> None:
    with pytest.raises(ValueError, match=r"data name 1 classes, and to learn takes two; give `--classes cat,dog,...`"):
        go(pool={"classes": ()})
    with pytest.raises(ValueError, match="`balanced=true` needs to know the classes"):
        go(pool={"balanced": True})


class Late(Oracle):
    """Somebody's own, which answers a while after."""

    name = "late"

    def __init__(self) -> None:
        self.truth, self.asked, self.looks = GroundTruth(), list[str](), 0

    def answer(self, keys: Any, data: Any) -> list[Any]:
        self.asked += keys
        return [None] * len(keys)

    def collect(self, pending: Any, data: Any) -> list[Answer]:
        self.looks += 1
        if self.looks % 3:
            return []
        keys = [query.key for query in pending][:13]
        labels = self.truth.answer(keys, data)
        wrong = Answer("no sample", "3", self.name)
        return [wrong, *(Answer(key, str(label), self.name) for key, label in zip(keys, labels, strict=True))]


def test_an_oracle_that_answers_late_is_asked_once_and_trained_on(go: Any) -> None:
    late = Late()
    with pytest.warns(UserWarning, match="`key=no sample` was never asked for"):
        rows, pool = go(data=Digits, pool={"oracle": late, "classes": ()})
    assert [row["labelled"] for row in rows] == [20, 30]
    assert len(late.asked) == len(set(late.asked)) == 30
    assert all(query.label == TRUTH[query.key] for query in pool.store.queries())


class Refusing(GroundTruth):
    def answer(self, keys: Any, data: Any) -> list[Any]:
        return [
            NoLabel.SKIP if int(key) % 3 == 0 else label
            for key, label in zip(keys, super().answer(keys, data), strict=True)
        ]


def test_refusals_are_kept_and_cost_no_second_question(go: Any) -> None:
    rows, pool = go(data=Digits, pool={"oracle": Refusing(), "classes": ()}, strategy=Random(query_size=12))
    queries = pool.store.queries()
    assert {query.key for query in queries if query.kind == "skip"} == {q.key for q in queries if int(q.key) % 3 == 0}
    assert rows[0]["labelled"] == sum(q.kind == "class" for q in queries if q.round < 0)


def hold(folder: Path) -> None:
    with alone(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_two_runs_in_one_folder_at_once(go: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    other = begin(partial(hold, tmp_path / "run"), tmp_path, tmp_path / "log")
    try:
        while not (tmp_path / "run" / "held").exists():
            assert other.exitcode is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        with pytest.raises(
            ValueError, match=f"`folder=.*` is in use by the run of process {other.pid}; let that one end"
        ):
            go()
    finally:
        other.kill()
        other.join()
    assert go(wait=False)[0] == []  # what is killed holds nothing


def test_query_fields_survive(tmp_path: Path) -> None:
    store = LabelStore()
    query = Query("a", guess="cat", confidence=0.25, neighbours=(("b", "f", "dog"),), part="test", score=1.5)
    store.add_round(-1, "x", 0, [query], "me")
    found = store.queries()[0]
    assert found._replace(id=0) == query._replace(round=-1)
    assert torch.tensor(found.confidence).item() == 0.25


PROCESSES = [
    "active", "--oracle", "Human", "--oracle.page", "false", "--classes", "0,1,2,3,4,5,6,7,8,9",
    "--data", "ImageFolder",
    "--data.image_size", "8", "--data.channels", "1", "--model", "Classifier", "--model.backbone", "ConvNet",
    "--model.backbone.width", "8", "--strategy", "Entropy", "--strategy.query_size", "8", "--rounds", "1",
    "--initial", "10", "--steps_per_epoch", "5", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
]  # fmt: skip


@pytest.mark.long
def test_two_processes_wait_for_people_outside_of_any_collective(tmp_path: Path) -> None:
    for key in list(TRUTH)[:80]:
        pixels = _all.train_samples.__getitems__([_all.train_samples.keys.index(key)]).input[0, 0]  # type: ignore[union-attr]
        (tmp_path / "digits").mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(tmp_path / "digits" / f"{key}.png")

    def slowly(key: str) -> str:
        time.sleep(0.3)
        return TRUTH[key.removesuffix(".png")]

    with person(tmp_path / "run", answers=slowly):
        run_command(*PROCESSES, "--data.root", "digits", "--folder", "run", cwd=tmp_path, processes=2)
    store = LabelStore(f"sqlite:///{tmp_path / 'run' / 'labels.sqlite'}")
    assert store.finished
    assert store.counts() == {"class": 18, "skip": 0, "unsure": 0, "pending": 0}
    assert [record.metrics["labelled"] for record in store.rounds().values() if record.metrics] == [8, 14]


def test_a_full_disk_while_people_label_loses_nothing(tmp_path: Path, go: Any) -> None:
    """On a real file system of one MiB, where it can be mounted."""
    disk = tmp_path / "run"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        assert go(wait=False)[0] == []
        store = LabelStore(f"sqlite:///{disk / 'labels.sqlite'}")
        keys = [query.key for query in store.queries()]
        for key in keys[:10]:
            store.answer(key, TRUTH[key], "anna")
        before = store.history()
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        for key in keys[10:]:
            with pytest.raises(ValueError, match=r"full.*What was committed before is safe"):
                store.answer(key, TRUTH[key], "anna")
        assert store.history() == before
        (disk / "filler").unlink()
        for key in keys[10:]:
            store.answer(key, TRUTH[key], "anna")
        assert store.counts()["class"] == 20
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def by_part(pool: PoolDataModule, number: int) -> list[int]:
    asked = [query.part for query in pool.store.queries() if query.round == number]
    return [asked.count(part) for part in ("train", "test", "val")]


@pytest.mark.parametrize("strategy", [Random, Entropy, FarthestFirst])
def test_shares_of_small_queries_are_carried_on(strategy: Any, go: Any, tmp_path: Path) -> None:
    """Each query trains with at least one sample; over the rounds the shares come to what they should."""
    pool_options = {"initial": 3, "test_share": 0.3, "val_share": 0.2}
    with person(tmp_path / "run"):
        rows, pool = go(rounds=5, steps=3, strategy=strategy(query_size=3), pool=pool_options)
    parts = [by_part(pool, number) for number in range(-1, 5)]
    assert all(sum(part) == 3 and part[0] >= 1 for part in parts)
    assert [sum(column) for column in zip(*parts, strict=True)] == [9, 5, 4]  # of 18: 0.3 and 0.2, rounded
    assert [row["answers"] for row in rows] == [3, 6, 9, 12, 15, 18]
    with pytest.raises(ValueError, match="`query_size=1` leaves no room for `test_share`"):
        go("other", strategy=strategy(query_size=1), pool=pool_options)


def test_what_tests_never_trains_even_if_the_data_are_labelled_since(go: Any, tmp_path: Path) -> None:
    """As when answers are exported into the folder as `labels.csv`, and the run goes on."""
    with person(tmp_path / "run"):
        _, pool = go(pool={"test_share": 0.3, "val_share": 0.2})
    tests = {query.key for query in pool.store.queries() if query.part != "train"}
    assert len(tests) == 15

    class Labelled(Unlabelled):
        num_classes = 10
        class_names = tuple("0123456789")

        def load(self, split: Any) -> Samples:
            samples = Digits.load(self, split)
            if split == "test":
                samples.targets = torch.full_like(samples.targets, -1)
            return samples

    later = PoolDataModule(
        Labelled(val_size=0), 20, store=pool.store, oracle=Human(page=False), seed=0, test_share=0.3, val_share=0.2
    )
    later.round = 2
    later.setup("fit")
    trained = {later.keys[place] for place in later.labelled.tolist()}
    assert len(trained) == len(TRUTH) - 15
    assert not trained & tests


def test_a_run_waits_for_labels_that_can_train_and_is_never_stuck(go: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"wait": False, "pool": {"initial": 4, "test_share": 0.5}, "rounds": 0}
    assert go(**options)[0] == []
    store = LabelStore(f"sqlite:///{tmp_path / 'run' / 'labels.sqlite'}")
    for query in store.queries():
        kind = "class" if query.part == "test" else "skip"
        store.record([Answer(query.key, TRUTH[query.key] if kind == "class" else None, "anna", kind)])
    assert go(**options)[0] == []  # all is answered, and nothing can train
    for query in store.queries():
        if query.kind == "skip":
            store.answer(query.key, TRUTH[query.key], "anna")
    rows, _ = go(**options)
    assert [row["labelled"] for row in rows] == [2]


def test_rules_of_validation_and_budget_with_people(go: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`metric=val/accuracy` needs a validation part"):
        go(stop=[TargetAccuracy(0.5)])  # before anybody is asked
    with person(tmp_path / "budget"):
        rows, pool = go("budget", rounds=5, steps=3, stop=[Budget(45)], pool={"test_share": 0.2})
    assert len(pool.store.queries()) == 40
    with person(tmp_path / "target"):
        rows, _ = go("target", rounds=2, steps=3, stop=[TargetAccuracy(1.0)], pool={"initial": 2, "val_share": 0.2})
    assert [row["validation"] for row in rows] == [0, 2, 4]


def test_shares_are_the_runs_from_the_first_query_on(go: Any, tmp_path: Path) -> None:
    go(wait=False, pool={"test_share": 0.5})
    with pytest.raises(ValueError, match=r"`test_share=0.0` and `val_share=0.0` differ from 0.5 and 0.0 of the run"):
        go(wait=False)


def test_a_cold_start_that_cannot_choose_is_refused(go: Any) -> None:
    with pytest.raises(ValueError, match="`cold_start=VAAL` chooses by what it learns during a fit"):
        go(cold_start=VAAL(query_size=5))


def test_classes_as_an_option(tmp_path: Path) -> None:
    from ssl_lightning.commands.active import read_classes

    assert read_classes(",".join(f"a class of the name {n}" for n in range(60)))[59] == "a class of the name 59"
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\n\r\ndog\r\n")
    assert read_classes(str(tmp_path / "classes.txt")) == ["cat", "dog"]
    (tmp_path / "latin.txt").write_bytes("Bär\nWölf".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n")
    mistakes = {
        "latin.txt": "is no text in UTF-8", "empty.txt": "names no class", "typo.txt": "is no file; give one",
    }  # fmt: skip
    for name, message in mistakes.items():
        with pytest.raises(ValueError, match=f"`classes=.*{name}` {message}"):
            read_classes(str(tmp_path / name))
    with pytest.raises(ValueError, match="names `cat` twice"):
        read_classes("cat,dog,cat")


def test_a_sample_that_is_in_the_test_part_now_is_not_told_as_vanished(go: Any, tmp_path: Path) -> None:
    with person(tmp_path / "run"):
        _, pool = go(rounds=0)
    moved = pool.store.queries()[0].key

    class Moved(Unlabelled):
        def load(self, split: Any) -> Samples:
            samples = super().load(split)
            if split == "test":
                samples.keys = [moved, *samples.keys[1:]]  # type: ignore[misc]
                return samples
            samples.keys = [f"{key} again" if key == moved else key for key in samples.keys]  # type: ignore[misc]
            return samples

    later = PoolDataModule(Moved(), 20, store=pool.store, oracle=Human(page=False), seed=0, classes="0123456789")
    later.data.setup("test")
    with pytest.warns(UserWarning, match=f"1 samples .`{moved}`. .* are not in the training part now"):
        later.setup("fit")


def test_progress_of_the_answers_fits_into_a_narrow_terminal() -> None:
    progress = RoundsProgress(3)
    progress.progress = Progress(*progress.progress.columns, console=Console(file=io.StringIO(), width=80))
    for name in ("rounds", "fit"):
        progress.progress.add_task(name, total=None, note="")
    progress.answered(12, 50)
    progress.say("asked for 50 labels: label at http://127.0.0.1:41067/?token=" + "x" * 43)
    progress.stop()
    with progress.progress.console.capture() as taken:
        progress.progress.console.print(progress.progress)
    (line,) = [line for line in taken.get().splitlines() if "labels" in line]
    assert "12/50" in line
    assert "waiting" in line
