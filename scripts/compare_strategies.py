"""All acquisition strategies on MNIST from self-supervised embeddings: accuracy against labels, pair by pair.

Command: `.venv/bin/python scripts/compare_strategies.py` (an hour on two cores; stopped, the same command goes on).
Needs data/MNIST. Writes runs/compare-strategies/, of which docs/strategies/comparison.md keeps areas.md and curves.png;
`ssl-lightning report runs/compare-strategies` makes a page.

The encoder is that of configs/experiment/mnist_pretrain.yaml (SimCLR without labels, trained here if it is not there).
It stays frozen, so images are encoded once: a sample is its embedding, standardised over the pool, as the data module
`Vectors` reads it. The pool is 10,000 training images, the test part all 10,000 test images. Every strategy begins with
the same 10 random labels of a seed, asks for 10 a round, and trains a fresh linear head with dropout of 0.5 each round.
VAAL, whose autoencoder wants pixels, gets the images of the same pool, and the same embeddings through the frozen
encoder; its networks are a quarter as wide as by default, to end within the hour.
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
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.commands.catalogue import entries
from ssl_lightning.commands.compare import CompareConfig, compare
from ssl_lightning.commands.predictions import write_embeddings
from ssl_lightning.data import MNIST, Samples, TensorSamples
from ssl_lightning.data.samples import Split
from ssl_lightning.experiments.aggregate import areas, curves_of, paired_difference, penalty_matrix
from ssl_lightning.experiments.runs import Comparison

ROOT = Path(__file__).parent.parent
OUT = Path("runs/compare-strategies")
CHECKPOINT = Path("runs/mnist-simclr/checkpoints/last.ckpt")
POOL = 10_000


class Images(MNIST):
    """The pool's images and all test images of MNIST."""

    def load(self, split: Split) -> Samples:
        """Take the first 10,000 training images: MNIST comes shuffled."""
        whole: Any = super().load(split)
        return whole if split == "test" else TensorSamples(whole.inputs[:POOL], whole.targets[:POOL], whole.keys[:POOL])


class Frozen(Backbone):
    """The encoder, frozen, and what standardises its embeddings; what `Vectors` were made by.

    Args:
        folder: That holds `scale.pt`.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder=folder)
        scale = torch.load(Path(folder) / "scale.pt", weights_only=True)
        self.encoder = Checkpoint.open(scale["checkpoint"]).backbone.requires_grad_(False)
        self.mean, self.std = scale["mean"], scale["std"]
        self.feature_dim = self.encoder.feature_dim

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode and standardise."""
        self.encoder.eval()
        return (self.encoder(images) - self.mean.to(images)) / self.std.to(images)


def embed(folder: Path) -> None:
    """Encode all images, and keep what `Vectors` reads."""
    opened = Checkpoint.open(CHECKPOINT)
    assert opened.clean is not None
    encoder = opened.backbone.eval()
    data = Images(root=str(ROOT / "data"))
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "pool"), ("test", "test")):
        part: Any = data.load(split)  # type: ignore[arg-type]
        with torch.no_grad():
            rows = torch.cat([encoder(opened.clean(batch)) for batch in torch.split(part.inputs, 500)])
        if split == "train":
            mean, std = rows.mean(dim=0), rows.std(dim=0) + 1e-6
            torch.save({"mean": mean, "std": std, "checkpoint": str(CHECKPOINT.resolve())}, folder / "scale.pt")
        classes = [data.class_names[target] for target in part.targets.tolist()]
        write_embeddings(folder / f"{name}.npy", part.keys, classes, (rows - mean) / std)


def config(seeds: int, jobs: int, folder: Path) -> CompareConfig:
    """Say what to compare."""
    common = [
        "--data.batch_size", "64", "--data.val_size", "0", "--model.dropout", "0.5",
        "--model.optimizer.name", "adamw", "--model.optimizer.lr", "0.003", "--initial", "10", "--rounds", "10",
        "--model.recipe", "{augment: false, probe: false, ema: 0.0}",  # as it was measured
        "--steps_per_epoch", "200", "--strategy.query_size", "10", "--strategy.batch_size", "1000",
        "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.logger", "false",
    ]  # fmt: skip
    given = [
        "--data", "Vectors", "--data.path", str(folder / "pool.npy"), "--data.table", str(folder / "pool.csv"),
        "--data.test_path", str(folder / "test.npy"), "--data.test_table", str(folder / "test.csv"),
        "--model", "Classifier", "--model.backbone", "Flat",
    ]  # fmt: skip
    images = [
        "--data", "compare_strategies.Images", "--data.root", str(ROOT / "data"),
        "--model", "Classifier", "--model.backbone", "compare_strategies.Frozen",
        "--model.backbone.folder", str(folder),
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
    "batches; adversarial": ["BatchBALD", "DBAL", "BADGE", "VAAL", "ByLabels"],
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
    folder = OUT.resolve()
    if not (folder / "test.csv").exists():
        embed(folder)
    comparison, failed = compare(config(arguments.seeds, arguments.jobs, folder))
    (OUT / "areas.md").write_text(conclude(comparison))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
