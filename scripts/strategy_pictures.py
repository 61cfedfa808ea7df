"""Draw what every acquisition strategy asks for on one plane of samples: docs/images/strategies/NAME.png.

Command: `.venv/bin/python scripts/strategy_pictures.py` (a minute or two).

Three classes in the plane: two that overlap (a label there is a coin's throw), one apart; a dense clump of near copies
and a few outliers. A sample is an image of 16 px with a bright spot at its place. The encoder is fixed: it finds the
spot's centre, and tells how near it is to each of a grid of places. A linear head with dropout is trained on the same
15 labels for every strategy, which then asks for 15 more. The background is the head's class, darker where it is sure.
"""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor

import ssl_lightning.active as active
from ssl_lightning.active import AcquisitionStrategy, PoolDataModule
from ssl_lightning.backbones import Backbone
from ssl_lightning.commands.catalogue import entries
from ssl_lightning.data import ImageData, TensorSamples
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.supervised import Classifier, Recipe
from ssl_lightning.transforms.image import CleanView

OUT = Path(__file__).parent.parent / "docs" / "images" / "strategies"
SIDE = 16
COLOURS = ["#4477aa", "#ee9944", "#44aa77"]
GROUPS = [  # class, samples, centre, spread
    (0, 130, (0.30, 0.62), 0.085),
    (1, 130, (0.48, 0.62), 0.085),
    (2, 120, (0.70, 0.28), 0.07),
    (0, 60, (0.26, 0.24), 0.012),
    (1, 4, (0.90, 0.86), 0.03),
    (2, 3, (0.92, 0.55), 0.02),
]
OPTIONS: dict[str, dict[str, Any]] = {"VAAL": {"latent_dim": 8, "width": 16}, "Stream": {"budget": 0.2, "window": 20}}


def places() -> tuple[Tensor, Tensor]:
    """Return where samples lie, `(N, 2)` in the unit square, and their classes."""
    generator = torch.Generator().manual_seed(3)
    points = [torch.tensor(c) + s * torch.randn(n, 2, generator=generator) for _, n, c, s in GROUPS]
    targets = [torch.full((n,), label) for label, n, _, _ in GROUPS]
    order = torch.randperm(sum(n for _, n, _, _ in GROUPS), generator=generator)
    return torch.cat(points).clamp(0.04, 0.96)[order], torch.cat(targets)[order]


def images_of(points: Tensor) -> Tensor:
    """Paint a bright spot at each place, `(N, 1, SIDE, SIDE)`, from 0 to 1."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    across, down = ((axis - points[:, i, None]).pow(2) / (2 * 0.08**2) for i in (0, 1))
    return (-(down[:, :, None] + across[:, None, :])).exp()[:, None]


class Plane(ImageData):
    """The samples."""

    num_classes, channels, image_size = 3, 1, SIDE

    def load(self, split: str) -> TensorSamples:
        """Paint them."""
        points, targets = places()
        return TensorSamples(images_of(points), targets)


class Grid(Backbone):
    """Finds the spot, and tells how near it is to each place of a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 81

    def forward(self, images: Tensor) -> Tensor:
        """Encode `(N, 1, SIDE, SIDE)`."""
        mass = images.flatten(1) / images.sum(dim=(1, 2, 3), keepdim=True).flatten(1)
        axis = (torch.arange(SIDE) + 0.5) / SIDE
        down, across = torch.meshgrid(axis, axis, indexing="ij")
        centre = torch.stack([mass @ across.flatten(), mass @ down.flatten()], dim=1)
        nodes = torch.cartesian_prod(*[torch.linspace(0, 1, 9)] * 2)
        return (-torch.cdist(centre, nodes).pow(2) / (2 * 0.11**2)).exp()


def draw(strategy: AcquisitionStrategy, path: Path) -> None:
    """Fit, ask, and draw the plane."""
    L.seed_everything(0, verbose=False)
    pool = PoolDataModule(Plane(batch_size=64, val_size=0), initial=15, steps_per_epoch=400)
    optimizer = OptimizerSpec("adamw", lr=0.03, weight_decay=0.001)
    model = Classifier(
        3,
        Grid(),
        dropout=0.3,
        optimizer=optimizer,
        clean=CleanView(0.0, 1.0),
        recipe=Recipe(augment=False, probe=False, ema=0.0),
    )
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[strategy], logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=pool)
    points, targets = places()
    initial = pool.asked(-1)
    asked = pool.asked(0)
    axis = torch.linspace(0, 1, 120)
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    model.eval()
    with torch.no_grad():
        guess = model(images_of(torch.stack([across.flatten(), down.flatten()], dim=1))).softmax(dim=1)
    sure, best = guess.max(dim=1)
    colours = torch.tensor([to_rgb(colour) for colour in COLOURS])[best]
    strength = ((sure - 1 / 3) * 1.5)[:, None] * 0.45
    field = (1 - strength) + strength * colours
    figure, axes = plt.subplots(figsize=(4.4, 4.2), layout="constrained")
    axes.imshow(field.reshape(120, 120, 3).numpy(), origin="lower", extent=(0, 1, 0, 1), interpolation="bilinear")
    for label, colour in enumerate(COLOURS):
        axes.scatter(*points[targets == label].T, s=7, color=colour, linewidths=0)
    axes.scatter(*points[initial].T, s=38, marker="s", facecolors="none", edgecolors="black", linewidths=1.2)
    axes.scatter(*points[asked].T, s=70, facecolors="none", edgecolors="#cc1133", linewidths=1.6)
    for place, index in enumerate(asked[:9], 1):
        axes.annotate(str(place), tuple(points[index].tolist()), xytext=(5, 4), textcoords="offset points",
                      fontsize=8, color="#cc1133")  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], title=type(strategy).__name__)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Draw all, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [entry.name for entry in entries() if entry.kind == "strategies"]
    parser.add_argument("names", nargs="*", default=names, help="of strategies; none for all")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    quieten()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name in arguments.names:
        draw(getattr(active, name)(query_size=15, **OPTIONS.get(name, {})), OUT / f"{name.lower()}.png")
        print(OUT / f"{name.lower()}.png")


if __name__ == "__main__":
    main()
