"""Fixtures shared by all tests: a quiet trainer, the command line in this process, the folder of real data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from support import DATA

from ssl_lightning.__main__ import main
from ssl_lightning.transforms.image import SimCLRViews

os.environ.setdefault("WANDB_MODE", "disabled")


def pytest_configure(config: pytest.Config) -> None:
    """Have the views compiled once, before all workers want them at the same time."""
    if not hasattr(config, "workerinput"):
        SimCLRViews()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    L.seed_everything(0, verbose=False)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Return a function that makes a quiet CPU trainer."""

    def make(**options: Any) -> L.Trainer:
        quiet: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": tmp_path,
        }
        return L.Trainer(**{**quiet, **options})

    return make


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command line in an empty folder and returns its status and output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return status, captured.out + captured.err

    return run


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """Return the folder that holds MNIST, or skip."""
    if not (DATA / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {DATA}; set SSL_LIGHTNING_DATA to a folder that holds it")
    return DATA
