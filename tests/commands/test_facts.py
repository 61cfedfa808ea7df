"""What the data know reaches whoever has an argument of that name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ssl_lightning.commands.facts import fill_in
from ssl_lightning.methods import SimCLR

Command = Callable[..., tuple[int, str]]
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_steps", "1", "--folder", "run"]

STRANGER = '''
import torch
from torch import nn

from ssl_lightning.active import AcquisitionStrategy
from ssl_lightning.data import Digits
from ssl_lightning.methods import SSLMethod
from ssl_lightning.transforms.image import SimCLRViews


class {prefix}Odd(Digits):
    """Digits that know of a width, but not of a size."""

    @property
    def facts(self):
        return {{"num_classes": 10, "channels": 1, "width": 7}}


class {prefix}Declared(Digits):
    """Says at the class what it knows."""

    fact_names = (*Digits.fact_names, "depth")
    depth = 3


class {prefix}Net(nn.Module):
    """A plain module as a backbone."""

    def __init__(self, channels: int, depth: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 8), *[nn.Linear(8, 8) for _ in range(depth)])
        self.feature_dim = 8

    def forward(self, x):
        return self.body(x)


class {prefix}Method(SSLMethod):
    """Must know the depth."""

    def __init__(self, backbone: nn.Module, depth: int, width: int = 2) -> None:
        super().__init__(backbone, SimCLRViews())
        print("depth", depth, "width", width)
        self.save_hyperparameters(ignore=["backbone"])

    def compute_loss(self, views, batch):
        embedding = self.backbone(views[0])
        return {{"loss": embedding.square().mean(), "embedding": embedding}}


class {prefix}Ask(AcquisitionStrategy):
    """Knows the classes and the width."""

    def __init__(self, query_size: int = 10, num_classes: int = 2, width: int = 1) -> None:
        super().__init__(query_size)
        print("asks with", num_classes, width)

    def score(self, predictions):
        return predictions.log_probabilities.max(dim=1).values
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A stranger's module with names of its own in each test, since classes stay known to the parser."""
    prefix = "".join(part.capitalize() for part in request.node.name.split("_")[1:3])
    name = f"stranger_{prefix.lower()}"
    (tmp_path / f"{name}.py").write_text(STRANGER.format(prefix=prefix))
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}.{prefix}"


def weights(path: str = "run/checkpoints/last.ckpt") -> Any:
    return torch.load(path, weights_only=True)["state_dict"]


def test_handed_to_a_backbone_that_left_its_default(module: str, command: Command) -> None:
    given = ["fit", "--data", f"{module}Odd", "--model", "SimCLR", "--model.backbone", "ConvNet", *CPU]
    status, out = command(*given)
    assert status == 0, out
    assert weights()["backbone.blocks.0.weight"].shape[0] == 7
    status, out = command(*given[:-1], "other", "--model.backbone.width", "5")
    assert status == 0, out
    assert weights("other/checkpoints/last.ckpt")["backbone.blocks.0.weight"].shape[0] == 5  # the user's word


def test_declared_facts_satisfy_what_is_required(module: str, command: Command) -> None:
    given = ["fit", "--data", f"{module}Declared", "--model", f"{module}Method", "--model.backbone", f"{module}Net"]
    status, out = command(*given, *CPU)
    assert status == 0, out
    assert "depth 3 width 2" in out
    assert "backbone.module.body.4.weight" in weights()  # three layers after the first
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["depth"] == 3
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert "depth" not in config["model"]["init_args"]  # of the data, not of the command
    status, out = command(*given, "--model.depth", "2", *CPU[:-1], "third")
    assert status == 2
    assert "`--model.depth=2` contradicts the data, which say 3; leave it out" in out


def test_handed_to_strategies(module: str, command: Command) -> None:
    status, out = command(
        "active", "-c", "active/classifier", "--data", f"{module}Odd", "--strategy", f"{module}Ask", "--rounds", "1",
        "--model.backbone.width", "4", "--steps_per_epoch", "2", "--folder", "run",
    )  # fmt: skip
    assert status == 0, out
    assert "asks with 10 7" in out


def test_a_fact_that_the_data_lack_is_named() -> None:
    class Sound(torch.nn.Module):
        def __init__(self, sample_rate: int) -> None:
            super().__init__()

    with pytest.raises(ValueError, match=r"`Sound` must know `sample_rate`, which these data do not have \(they have"):
        fill_in(Sound, {}, {"channels": 1})
    assert fill_in(Sound, {"sample_rate": 5}, {"channels": 1}) == {}
    assert fill_in(Sound, {}, {"sample_rate": 7}) == {"sample_rate": 7}
    assert fill_in(SimCLR, {"temperature": 0.2}, {"nothing": 7}) == {}
