"""Pretext tasks: their labels, losses and what they leave in the backbone."""

from typing import Any

import pytest
import torch
from support import LargeDigits
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Batch, Digits
from ssl_lightning.methods import Jigsaw, RelativePosition, Rotation
from ssl_lightning.methods.base import statistics_kept
from ssl_lightning.optim import OptimizerSpec
from ssl_lightning.views.tiles import cut_tiles, normalise_tiles

BATCH = Batch(torch.zeros(0), torch.zeros(6), torch.zeros(6))


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Jigsaw, RelativePosition, Rotation):
        monkeypatch.setattr(kind, "log", lambda *args, **kwargs: None)


def test_rotation_loss_by_turning_each_image() -> None:
    model = Rotation(ConvNet(width=4)).eval()
    images = torch.randn(6, 1, 8, 8)
    expected = torch.zeros(())
    for image in images:
        for quarter in range(4):
            logits = model.head(model.backbone(torch.rot90(image, quarter, (1, 2))[None]))
            expected = expected + cross_entropy(logits, torch.tensor([quarter])) / 24
    step = model.compute_loss([images], BATCH)
    torch.testing.assert_close(step["loss"], expected)
    torch.testing.assert_close(step["embedding"], model.backbone(images))


def test_jigsaw_loss_by_shuffling_the_tiles_themselves() -> None:
    model = Jigsaw(ConvNet(width=4), permutations=10).eval()
    images = torch.randn(6, 1, 8, 8)
    labels = torch.randint(10, (6,), generator=model.local_generator("permutations"))
    tiles = normalise_tiles(cut_tiles(images, 2, 1, model.local_generator("tiles")))
    expected = torch.zeros(())
    for sample in range(6):
        shuffled = tiles[sample][model.orders[labels[sample]]]
        logits = model.head(model.backbone(shuffled).flatten()[None])
        expected = expected + cross_entropy(logits, labels[sample, None]) / 6
    step = model.compute_loss([images], BATCH)
    torch.testing.assert_close(step["loss"], expected)
    torch.testing.assert_close(step["embedding"], model.backbone(images))


def test_relative_position_loss_pair_by_pair() -> None:
    model = RelativePosition(ConvNet(width=4)).eval()
    images = torch.randn(6, 1, 24, 24)
    tiles = normalise_tiles(cut_tiles(images, 3, 2, model.local_generator("tiles")))
    expected = torch.zeros(())
    for sample in range(6):
        for label, place in enumerate((0, 1, 2, 3, 5, 6, 7, 8)):
            pair = model.backbone(tiles[sample, [4, place]]).flatten()[None]
            expected = expected + cross_entropy(model.head(pair), torch.tensor([label])) / 48
    torch.testing.assert_close(model.compute_loss([images], BATCH)["loss"], expected)


@pytest.mark.parametrize(
    ("make", "data", "chance"),
    [
        (lambda optimizer: Rotation(ConvNet(width=8), optimizer=optimizer), Digits, 1 / 4),
        (lambda optimizer: Jigsaw(ConvNet(width=8), optimizer=optimizer), Digits, 1 / 24),
        (lambda optimizer: RelativePosition(ConvNet(width=8), optimizer=optimizer), LargeDigits, 1 / 8),
    ],
    ids=["Rotation", "Jigsaw", "RelativePosition"],
)
def test_the_task_is_learnt(
    make: Any, data: type[Digits], chance: float, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # log again
    model = make(OptimizerSpec("adamw", lr=1e-2))
    fit = trainer(max_epochs=6)
    fit.fit(model, datamodule=data(batch_size=128))
    assert fit.callback_metrics["train/pretext_accuracy"] > 2 * chance


def test_running_statistics_are_those_of_whole_images() -> None:
    model = RelativePosition(ConvNet(width=4)).train()
    images = 3 + torch.randn(6, 1, 24, 24)
    plain = ConvNet(width=4).train()
    plain.load_state_dict(model.backbone.state_dict())
    plain(images)
    model.compute_loss([images], BATCH)
    for key, value in plain.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(model.backbone.state_dict()[key], value)
    assert all(layer.momentum == 0.1 for layer in model.backbone.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    with pytest.raises(ArithmeticError), statistics_kept(model.backbone):
        raise ArithmeticError
    assert all(layer.momentum == 0.1 for layer in model.backbone.modules() if isinstance(layer, torch.nn.BatchNorm2d))


def test_what_is_too_small_says_why(trainer: Any) -> None:
    monkey = RelativePosition(ConvNet(width=4))
    with pytest.raises(ValueError, match=r"`grid=3` and `gap=2` leave tiles of 0 px of an image of 8 px"):
        monkey.compute_loss([torch.zeros(2, 1, 8, 8)], BATCH)
    with pytest.raises(ValueError, match=r"`grid=1` must be at least 2"):
        Jigsaw(ConvNet(width=4), grid=1)
    with pytest.raises(ValueError, match=r"`permutations=30` must be from 2 to 24"):
        Jigsaw(ConvNet(width=4), permutations=30)
