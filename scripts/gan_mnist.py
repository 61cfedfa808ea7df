"""GAN and SSGAN side by side on MNIST: are the samples digits, all ten of them, and how steadily does it get there?

Command: `.venv/bin/python scripts/gan_mnist.py` (needs data/MNIST; stopped, the same command goes on with the runs that
are missing). Writes runs/gan-mnist/: table.md, curves.png, samples.png and runs/NAME-SEED.json; docs/gan-mnist.md
keeps copies.

Every run is configs/method/{gan,ssgan}.yaml on MNIST's 59,000 training images, in bf16 with channels last, on one
thread. After each epoch 1,000 samples are judged by a classifier trained on the real digits: how sure it is of them,
how many of the ten classes make up at least 2 % each, how far the shares of the classes are from even (KL divergence in
nats), and the Frechet distance of its embeddings to those of 10,000 real digits (as FID, of another network: comparable
within this page alone).
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor

from ssl_lightning.backbones import ConvNet, StridedNet
from ssl_lightning.data import MNIST
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.evaluation import KNN
from ssl_lightning.evaluation.pictures import sheet_of, to_pixels
from ssl_lightning.methods import GAN, SSGAN
from ssl_lightning.supervised import Classifier, Recipe

OUT = Path("runs/gan-mnist")
ROOT = Path(__file__).parent.parent
ARMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "GAN": (GAN, {}),
    "SSGAN": (SSGAN, {}),
    "GAN, non-saturating, no spectral norm": (GAN, {"loss": "non-saturating", "spectral": False}),
    "SSGAN, non-saturating, no spectral norm": (SSGAN, {"loss": "non-saturating", "spectral": False}),
}
MAIN = ("GAN", "SSGAN")  # the others, for comparison, have one seed


def trainer(epochs: int, callbacks: list[Callback]) -> L.Trainer:
    """Return a quiet trainer."""
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, precision="bf16-mixed", logger=False, callbacks=callbacks,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip


def judge() -> tuple[Classifier, float]:
    """Train a classifier on the real digits, or read it; return it and its accuracy on the test part."""
    data = MNIST(root=str(ROOT / "data"), batch_size=256)
    model = Classifier(
        10, ConvNet(), optimizer=OptimizerSpec("adamw", lr=3e-3), recipe=Recipe(augment=False, probe=False, ema=0.0)
    )
    path = OUT / "judge.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["weights"])
        return model.eval(), float(saved["accuracy"])
    L.seed_everything(0, verbose=False)
    fit = trainer(4, [])
    fit.fit(model, datamodule=data)
    accuracy = fit.test(model, datamodule=data, verbose=False)[0]["test/accuracy"]
    torch.save({"weights": model.state_dict(), "accuracy": accuracy}, path)
    return model.eval(), accuracy


@torch.inference_mode()
def embed(judge: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the judge's embeddings and class probabilities of uint8 images."""
    parts = [judge.backbone(judge.clean(part)) for part in torch.split(pixels, 500)]
    rows = torch.cat(parts)
    return rows.double(), judge.head(rows).softmax(dim=1)


def frechet(one: Tensor, other: Tensor) -> float:
    """Return the squared Frechet distance of two Gaussians fitted to rows (M. Heusel et al. 2017, arXiv 1706.08500)."""
    a, b = torch.cov(one.t()), torch.cov(other.t())
    values = torch.linalg.eigvals(a @ b).real.clamp(min=0)
    return float((one.mean(0) - other.mean(0)).pow(2).sum() + a.trace() + b.trace() - 2 * values.sqrt().sum())


class Watch(Callback):
    """Judges samples after every epoch."""

    def __init__(self, judge: Classifier, real: Tensor) -> None:
        self.judge, self.real, self.rows = judge, real, list[dict[str, float]]()
        self.losses: list[tuple[float, float]] = []
        self.pixels = torch.zeros(0)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Keep both losses."""
        found = trainer.callback_metrics
        self.losses.append((float(found["train/discriminator"]), float(found["train/generator"])))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Sample and judge."""
        pl_module.eval()
        with torch.inference_mode():
            self.pixels = to_pixels(pl_module.sample(1000, derive_generator(0, "watch")), pl_module)
        pl_module.train()
        rows, share = embed(self.judge, self.pixels)
        classes = share.argmax(dim=1).bincount(minlength=10) / 1000
        telling, deceiving = torch.tensor(self.losses).unbind(dim=1)
        self.losses.clear()
        entropy = -(classes.clamp(min=1e-9) * classes.clamp(min=1e-9).log()).sum()
        self.rows.append({
            "confidence": float(share.max(dim=1).values.mean()),
            "sure": float((share.max(dim=1).values > 0.9).float().mean()),
            "classes": int((classes >= 0.02).sum()),
            "divergence": float(torch.tensor(10.0).log() - entropy),
            "frechet": frechet(rows, self.real),
            "discriminator": float(telling.mean()), "generator": float(deceiving.mean()),
            "swing": float(deceiving.std()),
            "knn": float(trainer.callback_metrics.get("val/knn_accuracy", float("nan"))),
        })  # fmt: skip


def run(name: str, seed: int, epochs: int) -> None:
    """Train one arm with one seed, and write what was seen."""
    path = OUT / "runs" / f"{name}-{seed}.json"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    model_judge, accuracy = judge()
    data = MNIST(root=str(ROOT / "data"), batch_size=64, val_size=1000)
    data.setup("fit")
    data.setup("test")
    real, _ = embed(model_judge, data.load("test").images)
    L.seed_everything(seed, verbose=False)
    kind, options = ARMS[name]
    optimizer = OptimizerSpec("adamw", lr=5e-4, weight_decay=0.0, momentum=0.5, schedule="constant")
    model = kind(StridedNet(), optimizer=optimizer, **options)
    watch = Watch(model_judge, real)
    begun, cpu = time.monotonic(), time.process_time()
    trainer(epochs, [KNN(every_n_epochs=epochs), watch]).fit(model, datamodule=data)
    side = [torch.split(watch.pixels[:100], 10)]
    sheet = sheet_of({str(row): part for row, part in enumerate(side[0])}, scale=28)
    Image.fromarray(sheet[0].numpy()).save(path.with_suffix(".png"))
    path.write_text(json.dumps({
        "epochs": watch.rows, "seconds": time.monotonic() - begun, "cpu": time.process_time() - cpu,
        "judge": accuracy,
    }))  # fmt: skip


def conclude(seeds: int) -> str:
    """Write the table, draw the curves, and put the samples side by side."""
    found = {
        name: [
            json.loads((OUT / "runs" / f"{name}-{seed}.json").read_text())
            for seed in range(seeds if name in MAIN else 1)
        ]
        for name in ARMS
    }
    lines = [
        "| | sure of it, > 0.9 | mean confidence | classes | KL from even | Frechet | worst Frechet after epoch 2 "
        "| kNN % | generator's loss, swing | CPU minutes |",
        "| --- |" + " ---: |" * 9,
    ]
    for name, runs in found.items():
        last = [run["epochs"][-1] for run in runs]

        def each(key: str, form: str, last: list[dict[str, float]] = last) -> str:
            return ", ".join(format(row[key], form) for row in last)

        worst = ", ".join(f"{max(row['frechet'] for row in run['epochs'][2:]):.1f}" for run in runs)
        lines.append(
            f"| {name} | {each('sure', '.0%')} | {each('confidence', '.1%')} | {each('classes', 'd')} | "
            f"{each('divergence', '.3f')} | {each('frechet', '.1f')} | {worst} | {each('knn', '.1%')} | "
            f"{each('swing', '.2f')} | {', '.join(format(run['cpu'] / 60, '.1f') for run in runs)} |"
        )
    model, accuracy = judge()
    _, share = embed(model, MNIST(root=str(ROOT / "data")).load("test").images)
    sure, confidence = (share.max(dim=1).values > 0.9).float().mean(), share.max(dim=1).values.mean()
    classes = int((share.argmax(dim=1).bincount(minlength=10) >= 0.02 * len(share)).sum())
    lines.append(f"| real test images | {sure:.0%} | {confidence:.1%} | {classes} | | | | | | |")
    lines += ["", f"The judge is right on {accuracy:.1%} of MNIST's test images."]
    figure, panels = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    titles = ("frechet", "classes", "discriminator", "generator")
    for axes, key in zip(panels.flat, titles, strict=True):
        for color, (name, runs) in enumerate(found.items()):
            for number, run in enumerate(runs):
                label = name if number == 0 else None
                axes.plot([row[key] for row in run["epochs"]], "-o", markersize=3, color=f"C{color}", label=label)
        axes.set_title({"frechet": "Frechet distance", "classes": "classes with 2 % or more"}.get(key, f"{key}'s loss"))
        axes.grid(alpha=0.3)
        axes.set_xlabel("epoch")
    panels[0, 0].set_yscale("log")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(OUT / "curves.png", dpi=90)
    images = [Image.open(OUT / "runs" / f"{name}-0.png") for name in list(ARMS)[:2]]
    sheet = Image.new("L", (images[0].width * 2 + 20, images[0].height), 255)
    for place, image in enumerate(images):
        sheet.paste(image, (place * (image.width + 20), 0))
    sheet.save(OUT / "samples.png")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train all, and conclude."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--only", nargs=2, metavar=("ARM", "SEED"), help="one run, without concluding")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if options.only:
        torch.set_num_threads(1)
        run(options.only[0], int(options.only[1]), options.epochs)
        return
    judge()
    commands = [
        [sys.executable, __file__, "--epochs", str(options.epochs), "--only", name, str(seed)]
        for seed in range(options.seeds)
        for name in ARMS
        if seed == 0 or name in MAIN
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True), commands))
    (OUT / "table.md").write_text(conclude(options.seeds))
    print((OUT / "table.md").read_text())


if __name__ == "__main__":
    main()
