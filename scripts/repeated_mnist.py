"""Labels needed on repeated MNIST: Random, BALD and BatchBALD by the network and protocol of the BatchBALD paper.

Command: `.venv/bin/python scripts/repeated_mnist.py --seeds 3` (hours on two cores; each finished run is kept, the same
command goes on). MNIST in `data/` (`fit -c configs/data/mnist.yaml` fetches it, or lay it there). Writes table.md and
curves.png to runs/repeated-mnist/; docs/strategies/repeated-mnist.md keeps them.

The protocol of A. Kirsch, J. van Amersfoort, Y. Gal, BatchBALD, NeurIPS 2019, arXiv 1906.08158, sections 4.1, 4.2:
every image three times with Gaussian noise of 0.1 (of normalised values; here pixels stay within 0 to 255), 20 balanced
initial labels, 10 more a round, 10 dropout masks, a fresh network each round, Adam 1e-3, batches of 64, 5,056 samples
an epoch, 1,024 validation samples, training until validation accuracy has not risen for 3 epochs, weights of the best
epoch. Ours: a pool of `--pool` images instead of 180,000, masks shared by all samples, and BatchBALD among the
`--candidates` best by BALD.
"""

import argparse
import csv
import logging
import os
import statistics
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import EarlyStopping

from ssl_lightning.active import BALD, AcquisitionStrategy, BatchBALD, PoolDataModule, Random, run_rounds
from ssl_lightning.backbones import LeNet
from ssl_lightning.data import MNIST, TensorSamples
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.supervised import Classifier, Recipe
from ssl_lightning.transforms.image import CleanView

ROOT = Path(__file__).parent.parent
OUT = Path("runs/repeated-mnist")
STD = 0.3081  # of MNIST's pixels
PAPER = {"BatchBALD": "120/120/130", "Random": "185/195/225", "BALD": "260/280/-"}


class RepeatedMNIST(MNIST):
    """MNIST with every training image several times, each with its own noise."""

    def __init__(self, images: int, repeats: int, noise: float, **options: Any) -> None:
        super().__init__(**options)
        self.images, self.repeats, self.noise = images, repeats, noise

    def load(self, split: Literal["train", "test"]) -> Any:
        """Take a fixed draw of the images, repeat it, add noise; 1,024 further ones validate."""
        whole = super().load(split)
        if split == "test":
            return whole
        drawn = torch.randperm(len(whole), generator=derive_generator(0, "images"))[: self.images + 1024]
        some = whole.__getitems__(drawn.tolist())
        images = torch.cat([some.input[1024:]] * self.repeats).float()
        noise = torch.randn(images.shape, generator=derive_generator(0, "noise")) * (self.noise * STD * 255)
        noisy = (images + noise).round().clamp(0, 255).to(torch.uint8)
        targets = torch.cat([some.target[1024:]] * self.repeats)
        return TensorSamples(torch.cat([some.input[:1024], noisy]), torch.cat([some.target[:1024], targets]))

    def split(self, samples: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Validate on images that are not in the pool: copies would give the labels away."""
        return torch.arange(1024, len(samples)), torch.arange(1024)


class Best(EarlyStopping):
    """Stops early, and goes back to the weights of the best epoch."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights if they are the best."""
        before = self.best_score.clone()
        super().on_validation_end(trainer, pl_module)
        if self.best_score > before:
            self.weights = {key: value.clone() for key, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore them."""
        pl_module.load_state_dict(self.weights)


def run(name: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Run one strategy with one seed, or go on with it."""
    strategies: dict[str, AcquisitionStrategy] = {
        "Random": Random(query_size=10),
        "BALD": BALD(members=10, query_size=10, batch_size=512),
        "BatchBALD": BatchBALD(members=10, candidates=arguments.candidates, query_size=10, batch_size=512),
    }
    L.seed_everything(seed, verbose=False)
    folder = OUT / f"{name}-{seed}"

    def make_trainer(callbacks: list[L.Callback]) -> L.Trainer:
        return L.Trainer(
            accelerator="auto", devices=1, logger=False, max_epochs=30, enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[Best("val/accuracy", patience=3, mode="max", check_on_train_epoch_end=False), *callbacks],
        )  # fmt: skip

    optimizer = OptimizerSpec("adamw", lr=1e-3, weight_decay=0.0, schedule="constant")
    clean = CleanView(mean=[0.1307], std=[STD])
    run_rounds(
        lambda: Classifier(
            10,
            LeNet(1, 28, 0.5),
            dropout=0.5,
            optimizer=optimizer,
            clean=clean,
            recipe=Recipe(augment=False, probe=False, ema=0.0),
        ),
        make_trainer,
        PoolDataModule(
            RepeatedMNIST(arguments.pool // 3, 3, 0.1, root=str(ROOT / "data"), batch_size=64),
            initial=20,
            balanced=True,
            steps_per_epoch=79,
        ),
        strategies[name],
        rounds=(arguments.labels - 20) // 10,
        folder=str(folder),
    )
    return folder


def labels_needed(folder: Path, accuracy: float) -> float:
    """Return the number of labels at which the test accuracy was first reached."""
    with (folder / "rounds.csv").open() as file:
        for row in csv.DictReader(file):
            if float(row["test/accuracy"]) >= accuracy:
                return float(row["labelled"])
    return float("inf")


def table(names: list[str], seeds: int) -> str:
    """Say for each strategy how many labels each seed needed."""
    lines = ["| | labels for 90 %, each seed | median | paper (quartiles) |", "| --- | --- | ---: | ---: |"]
    for name in names:
        folders = [OUT / f"{name}-{seed}" for seed in range(seeds) if (OUT / f"{name}-{seed}" / "rounds.csv").exists()]
        needed = [labels_needed(folder, 0.9) for folder in folders]
        shown = ", ".join("more" if value == float("inf") else f"{value:.0f}" for value in needed)
        middle = statistics.median(needed) if needed else float("nan")
        lines.append(f"| {name} | {shown} | {middle:.0f} | {PAPER[name]} |")
    return "\n".join(lines)


def plot(names: list[str], seeds: int) -> None:
    """Draw every seed's curve, and the mean over them."""
    figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for name, colour, style in zip(names, ("#4477aa", "#ee9944", "#44aa77"), ("-", "--", ":"), strict=False):
        curves = []
        for seed in range(seeds):
            with (OUT / f"{name}-{seed}" / "rounds.csv").open() as file:
                rows = [(int(row["labelled"]), 100 * float(row["test/accuracy"])) for row in csv.DictReader(file)]
            curves.append(dict(rows))
            axes.plot(*zip(*rows, strict=True), style, color=colour, alpha=0.25, linewidth=1)
        labels = sorted(set.intersection(*(set(curve) for curve in curves)))
        means = [statistics.mean(curve[count] for curve in curves) for count in labels]
        axes.plot(labels, means, style, color=colour, linewidth=2.5, label=name)
    axes.axhline(90, color="0.7", linewidth=1)
    axes.set(xlabel="labels", ylabel="test accuracy, %", ylim=(60, 98))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(OUT / "curves.png", dpi=110)


def main() -> None:
    """Run all, print the table, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="First seed; two commands can share the work.")
    parser.add_argument("--labels", type=int, default=300, help="Stop at so many.")
    parser.add_argument("--pool", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=2000, help="BatchBALD's, best by BALD.")
    parser.add_argument("--strategies", nargs="+", default=list(PAPER), choices=list(PAPER))
    arguments = parser.parse_args()
    quieten()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    for seed in range(arguments.first, arguments.seeds):
        for name in arguments.strategies:
            run(name, seed, arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    text = table(arguments.strategies, arguments.seeds)
    (OUT / "table.md").write_text(text + "\n")
    plot(arguments.strategies, arguments.seeds)
    print(text)


if __name__ == "__main__":
    main()
