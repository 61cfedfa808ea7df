"""All acquisition strategies on MNIST from self-supervised embeddings: accuracy against labels, pair by pair.

Command: `.venv/bin/python scripts/compare_strategies.py` (an hour on two cores; stopped, the same command goes on).
Needs data/MNIST. Writes runs/compare-strategies/, of which docs/strategies/comparison.md keeps areas.md and curves.png;
`ssl-lightning report runs/compare-strategies` makes a page.

The encoder is that of configs/experiment/mnist_pretrain.yaml (SimCLR without labels, trained here if it is not there).
It stays frozen, so images are encoded once: a sample is its embedding, standardised over the pool, with 8 bits a value.
The pool is 10,000 training images, the test part all 10,000 test images. Every strategy begins with the same 10 random
labels of a seed, asks for 10 a round, and trains a fresh linear head with dropout of 0.5 each round. VAAL, whose
autoencoder wants pixels, gets the images of the same pool, and the same embeddings through the frozen encoder; its
networks are a quarter as wide as by default, to end within the hour.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from ssl_lightning.__main__ import main as command
from ssl_lightning.backbones import Backbone
from ssl_lightning.checkpoint import load_backbone
from ssl_lightning.commands.catalogue import entries
from ssl_lightning.commands.compare import CompareConfig, compare
from ssl_lightning.data import MNIST, ImageData, TensorSamples
from ssl_lightning.experiments.aggregate import areas, curves_of, paired_difference, penalty_matrix
from ssl_lightning.experiments.runs import Comparison
from ssl_lightning.transforms.image import CleanView

ROOT = Path(__file__).parent.parent
OUT = Path("runs/compare-strategies")
CHECKPOINT = Path("runs/mnist-simclr/checkpoints/last.ckpt")
POOL = 10_000


class Images(MNIST):
    """The pool's images and all test images of MNIST."""

    def load(self, split: str) -> Any:
        """Take the first 10,000 training images: MNIST comes shuffled."""
        whole = super().load(split)  # type: ignore[arg-type]
        return whole if split == "test" else TensorSamples(whole.inputs[:POOL], whole.targets[:POOL])


class Embeddings(ImageData):
    """Embeddings of the same, `(N, 1, 1, dim)`, as if they were images one pixel high."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path
        self.num_classes, self.channels, self.image_size = 10, 1, 1

    def load(self, split: str) -> TensorSamples:
        """Read them."""
        return TensorSamples(*torch.load(self.path, weights_only=True)[split])


class Given(Backbone):
    """Takes a sample for its embedding."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__(feature_dim=feature_dim)
        self.feature_dim = feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """Flatten `(N, 1, 1, dim)`."""
        return images.flatten(1)


class Frozen(Backbone):
    """The encoder, frozen, and what standardises its embeddings; what `Given` was given."""

    def __init__(self, path: str) -> None:
        super().__init__(path=path)
        found = torch.load(path, weights_only=True)
        self.encoder = load_backbone(str(found["checkpoint"]), None).requires_grad_(False)
        self.mean, self.std = found["mean"], found["std"]
        self.feature_dim = self.encoder.feature_dim

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode and standardise."""
        self.encoder.eval()
        return (self.encoder(images) - self.mean.to(images)) / self.std.to(images)


def embed(path: Path) -> None:
    """Encode all images, and keep them."""
    encoder = load_backbone(str(CHECKPOINT), None).eval()
    data = Images(root=str(ROOT / "data"))
    found: dict[str, Any] = {}
    for split in ("train", "test"):
        part = data.load(split)
        with torch.no_grad():
            batches = torch.split(part.inputs, 500)
            rows = torch.cat([encoder(CleanView()(batch)) for batch in batches])
        if split == "train":
            mean, std = rows.mean(dim=0), rows.std(dim=0) + 1e-6
            found.update(mean=mean, std=std, checkpoint=str(CHECKPOINT.resolve()))
        levels = ((rows - mean) / std / 8 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)  # to 4 deviations
        found[split] = (levels[:, None, None], part.targets)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, path)


def config(seeds: int, jobs: int, path: Path) -> CompareConfig:
    """Say what to compare."""
    common = [
        "--data.batch_size", "64", "--data.val_size", "0", "--model.dropout", "0.5",
        "--model.optimizer.name", "adamw", "--model.optimizer.lr", "0.003", "--initial", "10", "--rounds", "10",
        "--steps_per_epoch", "200", "--strategy.query_size", "10", "--strategy.batch_size", "1000",
        "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.logger", "false",
    ]  # fmt: skip
    dim = torch.load(path, weights_only=True)["train"][0].shape[-1]
    given = [
        "--data", "compare_strategies.Embeddings", "--data.path", str(path),
        "--model", "Classifier", "--model.backbone", "compare_strategies.Given",
        "--model.backbone.feature_dim", str(dim),
        "--model.clean", "CleanView", "--model.clean.std", "0.125",
    ]  # fmt: skip
    images = [
        "--data", "compare_strategies.Images", "--data.root", str(ROOT / "data"),
        "--model", "Classifier", "--model.backbone", "compare_strategies.Frozen", "--model.backbone.path", str(path),
    ]  # fmt: skip
    names = [entry.name for entry in entries() if entry.kind == "strategies"]
    arms = {name: ("--strategy", name, *given, *common) for name in names if name != "VAAL"}
    arms["ProbCover, wide"] = ("--strategy", "ProbCover", "--strategy.delta", "0.7", *given, *common)
    arms["VAAL"] = ("--strategy", "VAAL", "--strategy.width", "8", *images, *common)
    pairs = tuple((name, "Random") for name in arms if name != "Random")
    return CompareConfig(OUT, arms, tuple(range(seeds)), pairs=pairs, jobs=jobs)


FAMILIES = {
    "no predictions": ["FarthestFirst", "KMedoids", "TypiClust", "ProbCover", "ProbCover, wide"],
    "one model": ["LeastConfidence", "Margin", "Ratio", "Entropy", "Stream"],
    "several opinions, one by one": ["HighestDisagreement", "VoteEntropy", "BALD", "PowerBALD", "EPIG"],
    "batches; adversarial": ["BatchBALD", "DBAL", "BADGE", "VAAL"],
}


def conclude(comparison: Comparison) -> str:
    """Write a table by area under the budget curve, and the matrix of who beats whom; draw the curves."""
    curves = curves_of(comparison)
    under, (first, last) = areas(curves)
    order = sorted(curves, key=lambda name: -under[name].mean())
    names, beats = penalty_matrix([curves])
    place = {name: names.index(name) for name in order}
    columns = [30, 50, 80, 110]
    lines = [
        f"| | area, {first} to {last} labels | " + " | ".join(f"{count} labels" for count in columns)
        + " | against Random, points (95 %) | is beaten | beats |",
        "| --- | ---: |" + " ---: |" * (len(columns) + 3),
    ]  # fmt: skip
    for name in order:
        at = dict(zip(curves[name].labels.tolist(), curves[name].mean, strict=True))
        against = ""
        if name != "Random":
            found = paired_difference(curves, name, "Random")
            low, high = found.interval or (float("nan"), float("nan"))
            against = f"{100 * found.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        spread = f"{100 * under[name].mean():.1f} ± {100 * under[name].std(ddof=1):.1f}"
        cells = [f"{100 * at[count]:.1f}" for count in columns]
        beaten, wins = beats[:, place[name]].sum(), beats[place[name]].sum()
        lines.append(f"| {name} | {spread} | " + " | ".join(cells) + f" | {against} | {beaten:.1f} | {wins:.1f} |")
    lines += ["", "| beats | " + " | ".join(order) + " |", "| --- |" + " ---: |" * len(order)]
    for one in order:
        cells = ["" if one == two else f"{beats[place[one], place[two]]:.1f}".replace("0.0", "·") for two in order]
        lines.append(f"| {one} | " + " | ".join(cells) + " |")
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), sharex=True, sharey=True, layout="constrained")
    for axes, (family, members) in zip(panels.flat, FAMILIES.items(), strict=True):
        for name, style in zip(["Random", *members], ("-", "-o", "--s", ":^", "-.v", "-x"), strict=False):
            shade = {"color": "0.6", "linewidth": 4} if name == "Random" else {"markersize": 4}
            axes.plot(curves[name].labels, 100 * curves[name].mean, style, label=name, **shade)
        axes.set_title(family)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=9)
    figure.supxlabel("labels")
    figure.supylabel("test accuracy, %, mean over seeds")
    figure.savefig(OUT / "curves.png", dpi=90)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Pretrain, embed, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if not CHECKPOINT.exists() and command(["fit", "-c", str(ROOT / "configs/experiment/mnist_pretrain.yaml")]):
        sys.exit("the pretraining failed")
    path = OUT.resolve() / "embeddings.pt"
    if not path.exists():
        embed(path)
    comparison, failed = compare(config(arguments.seeds, arguments.jobs, path))
    (OUT / "areas.md").write_text(conclude(comparison))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
