"""What a collapse looks like: SimSiam on the digits with and without stop-gradient, VICReg with only invariance.

Command: `.venv/bin/python scripts/collapse_example.py` (about a minute on two cores). Writes docs/images/collapse.png
and prints the last numbers, those of docs/collapse.md.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.pyplot as plt

from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.evaluation import KNN, CollapseMonitor
from ssl_lightning.methods import SimSiam, SSLMethod, VICReg
from ssl_lightning.transforms.image import SimCLRViews

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "collapse.png"
SHOWN = {
    "train/loss": "SimSiam's loss (-1 is the least)",
    "val/projection_std": "std of the projection (1 is even)",
    "val/projection_rank": "dimensions of the projection in use (of 64)",
    "val/knn_accuracy": "kNN accuracy of the embedding",
}


class Diary(L.Callback):
    """Keeps the logged numbers of every epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write a row."""
        self.rows.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def make(name: str) -> SSLMethod:
    """Build a method that stays healthy, or does not."""
    options: dict[str, Any] = {"views": SimCLRViews(flip=0, crop_scale=(0.4, 1)), "projection_dim": 64}
    options["optimizer"] = OptimizerSpec("sgd", lr=0.3, weight_decay=1e-4)
    if name == "VICReg, invariance alone":
        return VICReg(ConvNet(width=16), variance=0.0, covariance=0.0, **options)
    return SimSiam(ConvNet(width=16), stop_gradient=name == "SimSiam", hidden_dim=64, **options)


def run(name: str, epochs: int = 60) -> list[dict[str, float]]:
    """Fit, and return the numbers of every epoch."""
    L.seed_everything(0, verbose=False)
    diary = Diary()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[KNN(), CollapseMonitor(), diary],
    )  # fmt: skip
    trainer.fit(make(name), datamodule=Digits(batch_size=128))
    return diary.rows


def main() -> None:
    """Run both, draw, print."""
    quieten()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    names = ("SimSiam", "SimSiam without stop-gradient", "VICReg, invariance alone")
    runs = {name: run(name) for name in names}
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
    for axis, (key, title) in zip(axes, SHOWN.items(), strict=True):
        for (name, rows), style in zip(runs.items(), ("-", "--", ":"), strict=True):
            if key == "train/loss" and name.startswith("VICReg"):
                continue  # another scale
            axis.plot([row[key] for row in rows], style, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncol=3)
    figure.savefig(PICTURE, dpi=110, facecolor="white")
    keys = [*SHOWN, "val/embedding_std", "val/effective_rank", "val/collapse"]
    print("| | " + " | ".join(runs) + " |\n| --- | ---: | ---: | ---: |")
    for key in keys:
        print(f"| `{key}` | " + " | ".join(f"{rows[-1][key]:.3f}" for rows in runs.values()) + " |")


if __name__ == "__main__":
    main()
