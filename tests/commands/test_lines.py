"""Plain lines where no terminal shows a bar, and the trainer's own switches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from ssl_lightning.backbones import ConvNet
from ssl_lightning.commands import train
from ssl_lightning.data import Digits
from ssl_lightning.engine.lines import ProgressLines
from ssl_lightning.supervised import Classifier

Command = Callable[..., tuple[int, str]]
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
SIMCLR = ["--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--model.backbone.width", "4", *CPU]
ACTIVE = [
    "active", "-c", "data/digits", "-c", "active/classifier", "--strategy", "Entropy", "--rounds", "1",
    "--model.backbone.width", "4", "--steps_per_epoch", "2", "--folder", "run",
]  # fmt: skip
LINE = re.compile(r"epoch (\d+) of 3, step (\d+) of (\d+)((?:  \S+ \S+)+?)(  [\d.]+ (?:s|min|h) left)?")


def test_a_few_lines_an_epoch(trainer: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    fit = trainer(max_epochs=3, callbacks=[ProgressLines(seconds=0.0)])
    data = Digits(batch_size=64)
    fit.fit(Classifier(10, ConvNet(width=4)), datamodule=data)
    found = [LINE.fullmatch(line) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert all(found)
    steps = len(data.train_dataloader())
    said = [(int(line[1]), int(line[2]), int(line[3])) for line in found if line]
    assert {total for _, _, total in said} == {steps}
    for epoch in (1, 2, 3):
        mine = [step for number, step, _ in said if number == epoch]
        assert 3 <= len(mine) <= 5
        assert mine == sorted(mine)
    assert said[-1][:2] == (3, steps)
    last = found[-1]
    assert last is not None
    assert last[4].startswith("  loss ")
    assert "val/accuracy" in last[4]
    assert [bool(line and line[5]) for line in found] == [True] * (len(found) - 1) + [False]


def test_the_time_left_is_that_of_what_is_left(
    trainer: Callable[..., object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit: Any = trainer(max_steps=8, callbacks=[ProgressLines(per_epoch=1000, seconds=0.0)])
    monkeypatch.setattr(time, "monotonic", lambda: 10.0 * fit.global_step + 50 * (fit.global_step > 0))  # a slow start
    fit.fit(Classifier(10, ConvNet(width=4)), datamodule=Digits(batch_size=64))
    left = re.findall(r"(\S+ \S+) left", capsys.readouterr().out)
    assert left == ["60 s", "50 s", "40 s", "30 s", "20 s", "10 s"]


def test_seconds_between_lines(trainer: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    for to_the_end, count in ((True, 1), (False, 0)):
        fit = trainer(max_epochs=3, callbacks=[ProgressLines(seconds=1000.0, to_the_end=to_the_end)])
        fit.fit(Classifier(10, ConvNet(width=4)), datamodule=Digits(batch_size=64))
        assert capsys.readouterr().out.count("epoch ") == count


def test_a_log_gets_lines_and_no_bar(command: Command) -> None:
    status, out = command("fit", *SIMCLR, "--trainer.max_epochs", "1")
    assert status == 0, out
    assert "epoch 1 of 1, step 4 of 4  loss " in out
    assert "Epoch 0" not in out


def test_a_fit_says_what_it_trains_in_a_line_and_draws_no_table(command: Command) -> None:
    _, out = command("fit", *SIMCLR, "--trainer.max_steps", "1")
    assert re.search(r"^model: SimCLR on ConvNet, [\d,]+ parameters to learn$", out, re.MULTILINE), out
    assert "FLOPs" not in out
    _, out = command("fit", *SIMCLR, "--trainer.max_steps", "1", "--trainer.enable_model_summary", "true")
    assert "Params" in out


def test_a_bar_that_was_asked_for_is_kept(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(TQDMProgressBar, "on_train_start", lambda *_: begun.append(1))
    status, out = command("fit", *SIMCLR, "--trainer.max_epochs", "1", "--trainer.callbacks+=TQDMProgressBar")
    assert status == 0, out
    assert begun == [1]
    assert "epoch 1 of 1" not in out


def test_a_terminal_gets_a_bar_and_no_lines(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.sys.stdout, "isatty", lambda: True, raising=False)
    status, out = command("fit", *SIMCLR, "--trainer.max_epochs", "1")
    assert status == 0, out
    assert "epoch 1 of 1, step" not in out


@pytest.mark.parametrize(
    "switch",
    [
        ["--trainer.enable_progress_bar", "false"],
        ["--trainer.enable_progress_bar", "true"],
        ["--trainer.callbacks+=RichProgressBar"],
        ["--trainer.callbacks+=TQDMProgressBar"],
        ["--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks.refresh_rate", "5"],
        ["--trainer.enable_model_summary", "false"],
        ["--trainer.logger", "false"],
        ["--trainer.enable_checkpointing", "true"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("what", ["fit", pytest.param("active", marks=pytest.mark.long)])
def test_the_trainers_switches_work(switch: list[str], what: str, command: Command) -> None:
    given = ACTIVE if what == "active" else ["fit", *SIMCLR, "--trainer.max_steps", "2"]
    status, out = command(*given, *switch)
    assert status == 0, out
    if what == "active":
        assert "round 0: 20 labels" in out
        assert "round 1: 30 labels" in out
