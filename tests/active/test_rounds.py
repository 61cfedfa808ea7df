"""The round loop: resumed, killed, prolonged, on several processes."""

import csv
import os
import shutil
import signal
import time
import warnings
from itertools import count
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from support import begin, command, run_command, spawn

from ssl_lightning.active import BALD, AcquisitionStrategy, Budget, Entropy, PoolDataModule, Random, run_rounds
from ssl_lightning.active.record import Record
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits, ImageFolder
from ssl_lightning.labelling import LabelStore
from ssl_lightning.supervised.classifier import Classifier

RUN = [
    "--data", "Digits", "--data.batch_size", "64", "--model", "Classifier", "--model.backbone", "ConvNet",
    "--model.backbone.width", "8", "--model.dropout", "0.5", "--trainer.max_epochs", "1",
    "--trainer.accelerator", "cpu",
    "--trainer.devices", "1", "--steps_per_epoch", "15", "--initial", "20", "--strategy.query_size", "6",
]  # fmt: skip


def picks(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "queries.csv").open() as file:
        return [(row["round"], row["position"], row["key"], row["class_name"]) for row in csv.DictReader(file)]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "rounds.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(trainer: Any, tmp_path: Path) -> Any:
    """Return a function that runs the loop in Python, as a notebook does."""

    def go(name: str = "run", rounds: int = 2, strategy: AcquisitionStrategy | None = None, **options: Any) -> Path:
        L.seed_everything(options.pop("seed", 0), verbose=False)
        callbacks = options.pop("callbacks", [])
        run_rounds(
            make_model=lambda: Classifier(10, ConvNet(width=8), dropout=0.5),
            make_trainer=lambda more: trainer(max_epochs=1, callbacks=[*callbacks, *more], enable_progress_bar=True),
            pool=PoolDataModule(Digits(batch_size=64), initial=20, steps_per_epoch=15),
            strategy=strategy or Entropy(query_size=6),
            rounds=rounds,
            folder=str(tmp_path / name),
            **options,
        )
        return tmp_path / name

    return go


def test_tables_pictures_and_checkpoint(run: Any) -> None:
    folder = run(strategy=BALD(query_size=6, members=5))
    table = rows(folder)
    assert [row["labelled"] for row in table] == ["20", "26", "32"]
    assert [row["queried"] for row in table] == ["6", "6", "0"]
    assert {row["validation"] for row in table} == {"126"}
    assert all(0 < float(row["test/accuracy"]) < 1 for row in table)
    assert [row[0] for row in picks(folder)] == ["-1"] * 20 + ["0"] * 6 + ["1"] * 6
    assert sorted(path.name for path in (folder / "queries").iterdir()) == [
        "initial.png",
        "round_000.png",
        "round_001.png",
    ]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["round_002.ckpt"]


def test_pictures_are_the_queried_images(run: Any) -> None:
    import numpy as np
    from PIL import Image

    folder = run(rounds=1)
    data = Digits()
    data.setup("fit")
    indices = [data.find(row[2])[1] for row in picks(folder) if row[0] == "0"]
    expected = torch.cat(list(data.train_samples.__getitems__(indices).input), dim=2)  # type: ignore[union-attr]
    strip = np.array(Image.open(folder / "queries" / "round_000.png").convert("L"))
    assert torch.equal(torch.from_numpy(strip), expected[0])


def test_same_seed_same_run(run: Any) -> None:
    one, other, third = run("a"), run("b"), run("c", seed=1)
    assert picks(one) == picks(other) != picks(third)
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a["test/loss"] == b["test/loss"]


def test_a_finished_run_does_nothing(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run()
    before = (folder / "rounds.csv").read_text()
    run()
    assert (folder / "rounds.csv").read_text() == before
    assert "3 of 3 models are trained" in capsys.readouterr().out


def test_a_prolonged_run_is_a_longer_run(run: Any) -> None:
    short, long = run("short", rounds=1), run("long", rounds=3)
    assert picks(run("short", rounds=3)) == picks(long)
    assert [row["labelled"] for row in rows(short)] == [row["labelled"] for row in rows(long)]


class Die(L.Callback):
    """Raises at one hook of one round."""

    def __init__(self, hook: str, round: int) -> None:
        self.round = round
        setattr(self, hook, self.die)

    def die(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.datamodule.round == self.round:  # type: ignore[attr-defined]
            raise ArithmeticError("killed")


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_epoch_end", "on_test_start"])
def test_stopped_anywhere_it_goes_on_to_the_same_picks(hook: str, run: Any) -> None:
    """`on_test_start` is after the acquisition was committed and before its metrics are."""
    undisturbed = run("undisturbed")
    with pytest.raises(ArithmeticError):
        run("killed", callbacks=[Die(hook, 1)])
    killed = run("killed")
    assert picks(killed) == picks(undisturbed)
    for one, other in zip(rows(killed), rows(undisturbed), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_other_settings_are_refused(run: Any) -> None:
    run(rounds=0)
    with pytest.raises(ValueError, match=r"`query_size=7` differs from `query_size=6` of the run .* another `folder`"):
        run(rounds=1, strategy=Entropy(query_size=7))
    with pytest.raises(ValueError, match=r"`seed=1` differs from `seed=0`"):
        run(rounds=1, seed=1)


class Failing(Entropy):
    """Fails before it asks."""

    def query(self, *args: Any) -> Any:
        raise ArithmeticError("no score")


def test_settings_are_those_of_the_first_query(run: Any) -> None:
    """A failure after it was committed does not let another strategy go on; one before it does."""
    with pytest.raises(ArithmeticError):
        run(strategy=Failing(query_size=9))
    with pytest.raises(ArithmeticError):
        run(callbacks=[Die("on_test_start", 0)])
    with pytest.raises(ValueError, match=r"`strategy=BALD` differs from `strategy=Entropy` of the run"):
        run(strategy=BALD(query_size=6))


def leave() -> None:
    """Leave the group; the next meets elsewhere, since the other process may still be leaving this one."""
    torch.distributed.destroy_process_group()
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)


def in_two_places(rank: int, world: int) -> Any:
    """Run, then go on, each process with a folder of its own, as on two machines."""
    if world > 1:
        leave()  # as at the start of a script
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    folder = Path(os.environ["SSL_TEST_FOLDER"]) / f"{world}-{rank}"
    found: list[Any] = []
    for rounds in (1, 3):
        L.seed_everything(0, verbose=False)
        seen: list[int] = []
        pool = PoolDataModule(Digits(batch_size=64), initial=20, steps_per_epoch=4)

        def make(more: list[L.Callback]) -> L.Trainer:
            seen.append(pool.round)  # noqa: B023
            return L.Trainer(
                accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", callbacks=more, logger=False,
                max_epochs=1, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            )  # fmt: skip

        rows = run_rounds(
            lambda: Classifier(10, ConvNet(width=4)), make, pool, Random(query_size=6), rounds=rounds, folder=folder
        )
        found.append((seen, [(row["round"], row["labelled"]) for row in rows], [query.key for query in pool.queries]))
        if world > 1:
            leave()
    if world > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
        torch.distributed.barrier()
    return found


@pytest.mark.long
@pytest.mark.timeout(300)
def test_processes_with_folders_of_their_own_go_by_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_TEST_FOLDER", str(tmp_path))
    alone = in_two_places(0, 1)
    first, second = spawn(in_two_places, 2, tmp_path)
    assert [part[1:] for part in first] == [part[1:] for part in second] == [part[1:] for part in alone]
    assert [part[0] for part in first] == [part[0] for part in alone] == [[0, 1], [1, 2, 3]]
    assert second[1][0] == [0, 1, 2, 3]  # so its folder says, and it is told better


def test_files_that_were_written_meanwhile_are_told(tmp_path: Path) -> None:
    for key in ("cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png"):
        (tmp_path / "root" / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "root" / key)

    def told() -> list[str]:
        pool = PoolDataModule(ImageFolder(str(tmp_path / "root"), image_size=8, channels=1, val_size=0), initial=2)
        pool.setup()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Record(tmp_path / "run", pool).compare_samples()
        return [str(warning.message) for warning in caught]

    assert told() == told() == []
    Image.new("L", (8, 9)).save(tmp_path / "root" / "dog" / "3.png")
    (found,) = told()
    assert found.startswith("The files of 1 samples (`dog/3.png`) were written since the run's last call")
    assert told() == []


def test_a_copied_folder_was_not_written_and_a_changed_file_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all sizes the same: only times and contents tell."""
    for place in range(6):
        (tmp_path / "root" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), place).save(tmp_path / "root" / "ab"[place % 2] / f"{place}.bmp")

    def told(run: str) -> list[str]:
        pool = PoolDataModule(ImageFolder(str(tmp_path / "root"), image_size=8, channels=1, val_size=0), initial=2)
        pool.setup()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Record(tmp_path / run, pool).compare_samples()
        return [str(warning.message).partition(" were")[0] for warning in caught]

    def copy() -> None:
        shutil.copytree(tmp_path / "root", tmp_path / "copy", copy_function=shutil.copyfile)
        shutil.rmtree(tmp_path / "root")
        (tmp_path / "copy").rename(tmp_path / "root")

    changed = tmp_path / "root" / "b" / "3.bmp"
    for run, read in (("read", 2000), ("unread", 0)):
        monkeypatch.setattr("ssl_lightning.active.record.READ_FILES", read)
        assert told(run) == []
        copy()
        assert told(run) == told(run) == []
        Image.new("L", (8, 8), 100 + read % 9).save(changed)
        assert told(run) == ["The files of 1 samples (`b/3.bmp`)"]
        assert told(run) == []
        changed.touch()
        assert len(told(run)) == (read == 0)  # what was not read may have changed
        copy()
        Image.new("L", (8, 8), 200 + read % 9).save(changed)
        assert told(run) == ["The files of 1 samples (`b/3.bmp`)"] * (read > 0)


def test_more_labels_than_samples_is_said_before_training(run: Any) -> None:
    message = r"`initial=20` \+ `rounds=300` x `query_size=6` = 1820 labels exceed the 1132 samples of the pool"
    with pytest.raises(ValueError, match=message):
        run(rounds=300)
    with pytest.raises(ValueError, match=r"`rounds=-1` must be at least 0"):
        run(rounds=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 1.5}, "`rounds=1.5` must be a whole number, at least 0"),
        ({"strategy": Entropy}, "must be a strategy that is built, such as `Entropy"),
        ({"stop": ["foo"]}, r"`stop=\['foo'\]` must be a list of stopping rules"),
        ({"stop": Budget(50)}, "must be a list of stopping rules"),
    ],
)
def test_what_is_no_part_of_a_run(options: dict[str, Any], message: str, run: Any) -> None:
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_folder_that_cannot_be_made(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"`folder=.*/file/x` cannot be made \(Not a directory\); give a folder"):
        run("file/x")


def test_no_test_where_the_trainer_tests_nothing(trainer: Any, tmp_path: Path) -> None:
    table = run_rounds(
        lambda: Classifier(10, ConvNet(width=4)),
        lambda more: trainer(max_steps=2, callbacks=more, limit_test_batches=0),
        PoolDataModule(Digits(batch_size=64)), Entropy(query_size=6), rounds=1, folder=tmp_path / "run",
    )  # fmt: skip
    assert [row["labelled"] for row in table] == [20, 26]
    assert "test/accuracy" not in table[0]


@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}])
@pytest.mark.parametrize("rounds", [0, 1])
def test_a_round_that_trains_nothing_is_refused(
    options: dict[str, int], rounds: int, trainer: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"`trainer\.\w+=0` trains nothing, .*; give at least 1"):
        run_rounds(
            lambda: Classifier(10, ConvNet(width=4)),
            lambda more: trainer(**{"max_epochs": 1, **options}, callbacks=more),
            PoolDataModule(Digits(batch_size=64)), Entropy(query_size=6), rounds=rounds, folder=tmp_path / "run",
        )  # fmt: skip


def test_a_round_without_time_is_refused(trainer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"round 0 ended before its first step.*give the trainer more time"):
        run_rounds(
            lambda: Classifier(10, ConvNet(width=4)), lambda more: trainer(max_time={"seconds": 0}, callbacks=more),
            PoolDataModule(Digits(batch_size=64)), Entropy(query_size=6), rounds=1, folder=tmp_path / "run",
        )  # fmt: skip


def test_a_trainer_without_our_callbacks_is_refused(trainer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`make_trainer` returned a trainer without the callbacks that it was given"):
        run_rounds(
            lambda: Classifier(10, ConvNet(width=4)), lambda more: trainer(max_steps=1),
            PoolDataModule(Digits(batch_size=64)), Entropy(query_size=6), folder=tmp_path / "run",
        )  # fmt: skip


BARS = [
    ([], [], True),
    ([TQDMProgressBar()], [], False),
    ([RichProgressBar()], [], False),
    ([], [TQDMProgressBar()], False),
    ([], [RichProgressBar(refresh_rate=5)], False),
]


@pytest.mark.parametrize(("before", "after", "ours"), BARS)
def test_a_bar_that_was_named_is_kept_and_else_there_are_lines(
    before: list[Any], after: list[Any], ours: bool, trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No terminal is there."""
    monkeypatch.setattr("ssl_lightning.engine.lines.time.monotonic", count(step=10.0).__next__)
    made: list[L.Trainer] = []

    def make(more: list[L.Callback]) -> L.Trainer:
        made.append(trainer(max_epochs=1, callbacks=[*before, *more, *after], enable_progress_bar=True))
        return made[-1]

    run_rounds(
        lambda: Classifier(10, ConvNet(width=4)), make, PoolDataModule(Digits(batch_size=64), steps_per_epoch=2),
        Entropy(query_size=6), rounds=0, folder=tmp_path / "run",
    )  # fmt: skip
    assert made[0].progress_bar_callback.is_enabled is not ours  # type: ignore[union-attr]
    assert ("epoch 1 of 1, step 2 of 2  loss" in capsys.readouterr().out) is ours


def test_one_logger_over_all_rounds(run: Any, trainer: Any, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="logs")
    L.seed_everything(0, verbose=False)
    run_rounds(
        lambda: Classifier(10, ConvNet(width=8)),
        lambda more: trainer(max_epochs=1, callbacks=more, enable_progress_bar=True, logger=logger),
        PoolDataModule(Digits(batch_size=64), steps_per_epoch=5), Entropy(query_size=6), rounds=2,
        folder=str(tmp_path / "run"),
    )  # fmt: skip
    with (tmp_path / "logs" / "version_0" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in table]
    assert steps == sorted(steps)
    assert steps[-1] == 15
    assert [row["active/labelled"] for row in table if row["active/labelled"]] == ["20", "26", "32"]


# From here on, real processes.


def finish(folder: Path, *options: str, processes: int = 1) -> None:
    run_command("active", *RUN, "--folder", str(folder), *options, cwd=folder.parent, processes=processes)


def asked(folder: Path) -> int:
    """Rounds that are committed, read from outside while the run goes on."""
    path = folder / "labels.sqlite"
    try:
        return len({query.round for query in LabelStore(f"sqlite:///{path}").queries()}) if path.exists() else 0
    except ValueError:  # being created
        return 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_sigkill_between_rounds_and_in_training(tmp_path: Path) -> None:
    options = ["--strategy", "BALD", "--rounds", "3"]
    finish(tmp_path / "undisturbed", *options)
    killed = tmp_path / "killed"
    for rounds in (2, 3):  # as soon as round 0, then round 1 is committed: before its metrics, or in the next training
        process = begin(command("active", *RUN, "--folder", str(killed), *options), tmp_path, tmp_path / "log")
        deadline = time.monotonic() + 150
        while asked(killed) < rounds and process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if rounds == 3:
            time.sleep(0.4)  # into the next round
        assert process.exitcode is None, "the run ended before it could be killed"
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    finish(killed, *options)
    assert picks(killed) == picks(tmp_path / "undisturbed")
    assert [row["labelled"] for row in rows(killed)] == ["20", "26", "32", "38"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", ["BALD"])  # the others: test_any_number_of_processes_gives_the_same_picks
def test_two_processes_pick_what_one_picks(strategy: str, tmp_path: Path, trainer: Any) -> None:
    """With the same weights: a frozen backbone and a head that does not learn."""
    from ssl_lightning.methods import SimCLR

    fit = trainer(max_steps=2)
    fit.fit(SimCLR(ConvNet(width=8)), datamodule=Digits(batch_size=64))
    checkpoint = tmp_path / "ssl.ckpt"
    fit.save_checkpoint(checkpoint)
    options = [
        "--strategy", strategy, "--rounds", "2", "--model.backbone", "null", "--model.checkpoint", str(checkpoint),
        "--model.freeze", "true", "--model.optimizer.lr", "1e-12",
    ]  # fmt: skip
    options = [option for option in options if option != "--model.backbone.width"]
    finish(tmp_path / "one", *options)
    finish(tmp_path / "two", *options, processes=2)
    assert picks(tmp_path / "one") == picks(tmp_path / "two")
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert float(one["test/accuracy"]) == pytest.approx(float(two["test/accuracy"]), abs=1e-6)
        assert float(one["test/loss"]) == pytest.approx(float(two["test/loss"]), rel=1e-4)
