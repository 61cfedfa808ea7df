"""`fit --plan`: says how long a fit takes, and leaves no trace."""

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ssl_lightning.backbones import AnyModule, ConvNet, Torchvision
from ssl_lightning.commands import trial
from ssl_lightning.data import FromDataset
from ssl_lightning.engine.clock import StepClock
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier

Command = Callable[..., tuple[int, str]]
SMALL = [
    "--data", "Digits", "--data.batch_size", "64", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
]  # fmt: skip
CONV = ["--model.backbone", "ConvNet", "--model.backbone.width", "4"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take three steps a trial."""
    monkeypatch.setattr(trial, "SECONDS", 0.0)


def test_says_how_long_and_writes_nothing(command: Command, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, out = command(
        "fit", *SMALL, "--model", "SimCLR", *CONV, "--trainer.max_epochs", "3", "--trainer.callbacks+=KNN", "--plan",
        "--folder", "run",
    )  # fmt: skip
    assert status == 0, out
    assert sorted(tmp_path.rglob("*")) == before
    speed, step, size = map(float, re.findall(r"channels-last: (\d+) samples/s, ([\d.e-]+) s a step of (\d+)", out)[0])
    assert math.isclose(speed, size / step, rel_tol=0.05)
    assert size == 64
    steps = 1132 // 64
    assert re.search(rf"an epoch of {steps} steps takes [\d.]+ s, all {3 * steps} steps [\d.]+ s", out)
    assert re.search(r"--model.channels_last false: \d+ samples/s, [\d.]+ times as fast", out)
    assert re.search(r"^(faster here: `--|no other setting)", out, re.MULTILINE)


def test_a_run_that_is_there_stays_as_it_is(command: Command, tmp_path: Path) -> None:
    options = ["fit", *SMALL, "--model", "Classifier", *CONV, "--trainer.max_steps", "2", "--folder", "run"]
    assert command(*options)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "plan" not in (tmp_path / "run" / "config.yaml").read_text()
    status, out = command(*options, "--plan")
    assert status == 0, out
    assert "all 2 steps" in out
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_what_has_no_step_is_said(command: Command, tmp_path: Path) -> None:
    fit = ["fit", *SMALL, "--folder", "run", "--trainer.max_steps", "1"]
    assert command(*fit, "--model", "SimCLR", *CONV)[0] == 0
    head = ["--model", "Classifier", "--model.checkpoint", "run", "--model.freeze", "true"]
    status, out = command("fit", *SMALL, *head, "--plan")
    assert status == 2
    assert "`--plan` has no step to measure: the encoder is frozen" in out


def test_a_setting_that_fails_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cli: Any) -> list[tuple[str, Any]]:
        return [("trainer.precision", "64-true")]

    monkeypatch.setattr(trial, "_others", fail)
    status, out = command("fit", *SMALL, "--model", "SimCLR", *CONV, "--plan")
    assert status == 0, out
    assert "--trainer.precision 64-true: it failed (ValueError" in out
    assert "no other setting that was tried is faster" in out


def test_only_a_fit_can_be_timed(command: Command) -> None:
    status, out = command("active", *SMALL, "--model", "Classifier", *CONV, "--plan")
    assert status == 2
    assert "--plan" in out


def test_waiting_for_data_is_told_from_the_step(trainer: Any) -> None:
    class Slow(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            time.sleep(0.01)
            return super().__getitem__(index)

    data = FromDataset(Slow(torch.rand(64, 3), torch.arange(64) % 2), val_size=0, batch_size=8)
    clock = StepClock(0.0)
    fit = trainer(max_epochs=5, callbacks=[clock])
    fit.fit(Classifier(2, nn.Linear(3, 4)), datamodule=data)
    assert fit.global_step == 3  # after that it is enough
    assert clock.samples == 8
    assert clock.seconds_a_step > 0.08
    assert clock.waiting > 0.5


def test_formats() -> None:
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            hidden: Tensor = self.conv(images)
            return hidden.view(len(images), -1)  # which channels-last would stop

    assert SimCLR(ConvNet()).channels_last
    assert not SimCLR(ConvNet(), channels_last=False).channels_last
    assert Torchvision("resnet18").channels_last
    assert not Torchvision("vit_b_16").channels_last
    model = Classifier(10, AnyModule(Flattening(), torch.zeros(1, 1, 8, 8)))
    assert not model.channels_last
    assert model(model.backbone.example).shape == (1, 10)
    weight = Classifier(10, ConvNet(3)).backbone.blocks[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
