"""Pretext tasks: their labels, losses and what they leave in the backbone."""

from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from support import LargeDigits
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import Backbone, ConvNet, StridedNet, ViT
from ssl_lightning.data import Batch, Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import (
    GAN,
    MAE,
    SSGAN,
    VAE,
    Autoencoder,
    Colorization,
    Inpainting,
    Jigsaw,
    RelativePosition,
    Rotation,
    SimMIM,
)
from ssl_lightning.networks.modes import statistics_kept
from ssl_lightning.transforms.image import CleanView
from ssl_lightning.transforms.image.tiles import cut_tiles, normalise_tiles

BATCH = Batch(torch.zeros(0), torch.zeros(6), torch.zeros(6))


@pytest.fixture(autouse=True)
def _no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Jigsaw, RelativePosition, Rotation, VAE, GAN, SSGAN):
        monkeypatch.setattr(kind, "log", lambda *args, **kwargs: None)
        monkeypatch.setattr(kind, "log_dict", lambda *args, **kwargs: None)


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
    for net, kind in ((ViT(1, 8, dim=16, depth=1, heads=2), "ViT"), (StridedNet(1, 8, 2), "StridedNet")):
        with pytest.raises(ValueError, match=f"`{kind}` cannot encode tiles of 3 px"):
            Jigsaw(net).compute_loss([torch.zeros(2, 1, 8, 8)], BATCH)
    with pytest.raises(ValueError, match=r"`grid=1` must be at least 2"):
        Jigsaw(ConvNet(width=4), grid=1)
    with pytest.raises(ValueError, match=r"`permutations=30` must be from 2 to 24"):
        Jigsaw(ConvNet(width=4), permutations=30)


class Listener(Backbone):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(channels=3, image_size=32)
        self.feature_dim = 1
        self.heard: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.heard.append(images)
        return images.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("make", "places", "light"),
    [
        (lambda net: Rotation(net), 4, 0.0),  # where light falls from is content: it may tell a turn
        (lambda net: Jigsaw(net, grid=3, gap=2, permutations=10), 9, 50.0),
        (lambda net: RelativePosition(net), 9, 50.0),
    ],
    ids=["Rotation", "Jigsaw", "RelativePosition"],
)
def test_labels_cannot_be_read_off_means_borders_or_padding(make: Any, places: int, light: float) -> None:
    """Images without content, under light from the upper left: what the backbone gets of them after the method's views.

    Nothing is linear in the label there: not means and deviations, not the rim, not the rim's squares, which
    interpolation or padding would change.
    """
    count, net = 240, Listener()
    method = make(net)
    slope = light * torch.linspace(1, -1, 32)
    noise = 25 * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = (128 + slope[:, None] + slope + noise).clamp(0, 255).to(torch.uint8)
    view = method.views(images, torch.Generator().manual_seed(1))[0]
    batch = Batch(torch.zeros(0), torch.zeros(count), torch.zeros(count))
    method.compute_loss([view], batch)
    seen = net.heard[0]
    assert len(seen) == places * count
    labels = torch.arange(4).repeat_interleave(count) if places == 4 else torch.arange(9).repeat(count)
    edges = torch.cat([seen[..., 0, :], seen[..., -1, :], seen[..., 0], seen[..., -1]], dim=-1).flatten(1)
    moments = torch.cat([seen.mean(dim=(2, 3)), seen.std(dim=(2, 3))], dim=1)
    # all parts of an image are on one side of a split, else they would tell of each other
    groups = torch.arange(count).repeat(4) if places == 4 else torch.arange(count).repeat_interleave(9)
    chance = 1 / places
    error = (chance * (1 - chance) / len(labels)) ** 0.5
    for rows in (moments, edges, edges.square()):
        model = LogisticRegression(max_iter=300, C=0.01)
        found = cross_val_score(model, rows.numpy(), labels.numpy(), groups=groups.numpy(), cv=GroupKFold(3)).mean()
        assert found < chance + 4 * error


@pytest.mark.parametrize("size", [8, 28, 64, 224])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: Rotation(ConvNet(3, 2)),
        lambda size: Jigsaw(ConvNet(3, 2)),
        lambda size: Jigsaw(ConvNet(3, 2), grid=3, permutations=50),
        lambda size: RelativePosition(ConvNet(3, 2)),
        lambda size: Colorization(ConvNet(3, 2), image_size=size, width=4),
        lambda size: Inpainting(ConvNet(3, 2), channels=3, image_size=size, width=2, region="random", adversarial=0.1),
        lambda size: Autoencoder(ConvNet(3, 2), channels=3, image_size=size, width=2),
        lambda size: VAE(ConvNet(3, 2), channels=3, image_size=size, width=2),
        lambda size: GAN(StridedNet(3, size, 2), channels=3, image_size=size, width=2),
        lambda size: SSGAN(StridedNet(3, size, 2), channels=3, image_size=size, width=2),
        lambda size: MAE(ViT(3, size, dim=16, depth=1, heads=2)),
        lambda size: SimMIM(ViT(3, size, dim=16, depth=1, heads=2)),
    ],
    ids=[
        "Rotation", "Jigsaw 2 x 2", "Jigsaw 3 x 3", "RelativePosition", "Colorization", "Inpainting", "Autoencoder",
        "VAE", "GAN", "SSGAN", "MAE", "SimMIM",
    ],
)  # fmt: skip
def test_from_8_to_224_px(make: Any, size: int, request: pytest.FixtureRequest) -> None:
    """A step at every size; where the task makes no sense, an error with the least size."""
    model = make(size)
    images = torch.randint(256, (4, 3, size, size), dtype=torch.uint8)
    batch = Batch(torch.zeros(0), torch.zeros(4), torch.zeros(4))
    views = model.views(images, torch.Generator().manual_seed(0)) if model.views else [CleanView()(images)]
    if size == 8 and ("3 x 3" in request.node.name or isinstance(model, RelativePosition)):
        with pytest.raises(ValueError, match=r"leave tiles of . px of an image of 8 px.*use images of 1[25] px"):
            model.compute_loss(views, batch)
        return
    step = model.compute_loss(views, batch)
    step["loss"].backward()
    assert torch.isfinite(step["loss"])
    if isinstance(model, MAE | SimMIM):  # these see parts of the view alone
        assert "embedding" not in step
        assert model.embed(views[0]).shape == (4, model.backbone.feature_dim)
    else:
        assert step["embedding"].shape == (4, model.backbone.feature_dim)
    learnt = [weight.grad for weight in model.parameters() if weight.requires_grad and weight.ndim > 1]
    assert sum(float(grad.abs().sum()) > 0 for grad in learnt if grad is not None) == len(learnt)
