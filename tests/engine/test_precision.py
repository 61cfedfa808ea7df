"""`--trainer.precision auto` is what the hardware is fast at, noted in the run and kept by it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssl_lightning.commands.train import Trainer
from ssl_lightning.engine.precision import fast_precision

FIT = [
    "fit", "--data", "Digits", "--data.batch_size", "64", "--model", "SimCLR", "--model.backbone", "ConvNet",
    "--model.backbone.width", "4", "--trainer.accelerator", "cpu", "--trainer.max_steps", "1", "--folder", "run",
    "--trainer.precision",
]  # fmt: skip


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that pretends what the hardware multiplies."""

    def have(gpu: bool | None = None, **known: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu or including_emulation
        )

    return have


def test_bf16_is_for_what_multiplies_it(hardware: Any) -> None:
    for known in ({}, {"avx512_f": True}, {"avx512_bf16": False, "amx_bf16": False}):
        hardware(**known)
        assert {fast_precision(name) for name in ("cpu", "auto", "mps", "gpu")} == {"32-true"}
    for name in ("avx512_bf16", "amx_bf16"):
        hardware(**{name: True})
        assert fast_precision("cpu") == fast_precision("auto") == "bf16-mixed"
    hardware(gpu=True)
    assert [fast_precision(name) for name in ("cpu", "gpu", "auto")] == ["32-true", "bf16-mixed", "bf16-mixed"]
    hardware(gpu=False, avx512_bf16=True)  # a GPU that imitates
    assert [fast_precision(name) for name in ("cpu", "gpu", "auto")] == ["bf16-mixed", "32-true", "32-true"]


def test_what_was_chosen_is_noted_and_kept(hardware: Any, command: Any, tmp_path: Path) -> None:
    hardware()
    status, said = command(*FIT, "auto")
    assert status == 0, said
    assert "precision: 32-true, the fastest here" in said
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["precision"] == "32-true"
    hardware(avx512_bf16=True)  # another machine
    more = ["--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.max_steps", "2"]
    status, said = command(*FIT, "auto", *more)
    assert status == 0, said
    assert "precision: 32-true, as before" in said
    more[3] = "3"
    assert (
        "precision: 32-true, as before" in command(*FIT, "auto", *more, "--folder", "elsewhere")[1]
    )  # it is in the file
    assert Trainer(precision="auto", accelerator="cpu", logger=False).precision == "bf16-mixed"


def test_imitated_bf16_is_warned_of_and_a_typo_told(hardware: Any, command: Any) -> None:
    hardware()
    with pytest.warns(UserWarning, match="this device only imitates bf16"):
        status, said = command(*FIT, "bf16-mixed")
    assert status == 0, said
    status, said = command(*FIT, "autp")
    assert status == 2
    assert re.search("--trainer.precision.*autp", said)
