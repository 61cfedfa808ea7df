"""Train every method by one protocol on a part of CIFAR-10, judge them alike, and write one table.

Command: `.venv/bin/python scripts/methods_table.py` (after scripts/install.sh; needs data/cifar10; about two hours on
two cores). Give it again after an interruption: it goes on where it was. `--methods A,B` renews those rows alone.
Writes docs/methods-table.json, which keeps the numbers, and docs/methods-table.md.

Protocol: configs/experiment/cifar10_methods.yaml, the same backbone, images, epochs, batch size and optimizer for all;
`SETTINGS` says what else a method was given, chosen on the 1,000 validation images. Judged on CIFAR-10's 10,000 test
images by `ssl-lightning evaluate`, last epoch. MAE and SimMIM have a `ViT` of 1.2 million parameters instead, and are
compared with it untrained. GAN and SSGAN are judged by their features alone: 1,560 steps with this backbone make
textures, not images (docs/gan-mnist.md has images). Images/s are measured afterwards for all, one after the other. One
seed: a difference of a point between methods says nothing.
"""

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ssl_lightning.commands.catalogue import entries

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "methods"
CONFIG = "configs/experiment/cifar10_methods.yaml"
DATA = ["--data", "ImageFolder", "--data.root", "data/cifar10", "--data.limit", "11000", "--data.val_size", "1000"]
TABLE = ROOT / "docs" / "methods-table.md"
KEPT = ROOT / "docs" / "methods-table.json"
BASES = ["pixels", "untrained", "untrained ViT"]
FAMILIES = {entry.name: entry.family for entry in entries() if entry.kind == "methods"}
# fmt: off
GAN = ["--model.optimizer.momentum", "0.5", "--model.optimizer.lr", "0.0005", "--model.optimizer.schedule", "constant"]
SETTINGS: dict[str, list[str]] = {
    "SupCon": ["--model", "SupCon"],
    "Triplet": ["--model", "Triplet"],
    "SimCLR": ["--model", "SimCLR"],
    "MoCo": ["--model", "MoCo", "--model.queue_size", "2048"],
    "NNCLR": ["--model", "NNCLR", "--model.queue_size", "2048"],
    "BYOL": ["--model", "BYOL", "--model.momentum", "0.97", "--model.optimizer.weight_decay", "0.05"],
    "SimSiam": ["--model", "SimSiam", "--model.optimizer.weight_decay", "0.05"],
    "BarlowTwins": ["--model", "BarlowTwins"],
    "VICReg": ["--model", "VICReg"],
    "DINO": ["--model", "DINO", "--model.momentum", "0.97", "--model.outputs", "256"],
    "DeepCluster": [  # a fresh classifier needs a learning rate until the end
        "--model", "DeepCluster", "--model.every_n_epochs", "4", "--model.views", "SimCLRViews",
        "--model.views.count", "2", "--model.optimizer.schedule", "constant",
    ],
    "SwAV": ["--model", "SwAV", "--model.prototypes", "100", "--model.queue_size", "512", "--model.queue_start", "0.5"],
    "Rotation": ["--model", "Rotation"],
    "Jigsaw": ["--model", "Jigsaw", "--model.gap", "2"],
    "RelativePosition": ["--model", "RelativePosition"],
    "Autoencoder": ["--model", "Autoencoder", "--model.noise", "0.5"],
    "VAE": ["--model", "VAE"],
    "Colorization": ["--model", "Colorization"],
    "Inpainting": ["--model", "Inpainting"],
    "GAN": ["--model", "GAN", *GAN],
    "SSGAN": ["--model", "SSGAN", *GAN],
    "MAE": ["--model", "MAE", "--model.backbone", "ViT"],
    "SimMIM": ["--model", "SimMIM", "--model.backbone", "ViT"],
}
# fmt: on


def lightning(*arguments: str, threads: int | None = None) -> None:
    """Run our command."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    subprocess.run([sys.executable, "-m", "ssl_lightning", *arguments], cwd=ROOT, check=True, env=environment)


def checkpoint(name: str) -> Path:
    """Return where a method's weights are."""
    return RUNS / name / "checkpoints" / "last.ckpt"


def train(name: str, threads: int) -> None:
    """Fit one method, or go on with it, or leave it if it is done."""
    done = RUNS / name / "seconds"
    if done.exists():
        return
    begun = time.monotonic()
    resume = ["--ckpt_path", str(checkpoint(name))] if checkpoint(name).exists() else []
    lightning("fit", "-c", CONFIG, *SETTINGS[name], "--folder", str(RUNS / name), *resume, threads=threads)
    done.write_text(f"{time.monotonic() - begun:.0f}")


def images_per_second(names: list[str], steps: int = 30) -> dict[str, float]:
    """Return the speed of training with all cores: the median over the steps of a short fit, one after the other."""
    commands = {}
    for name in names:
        commands[name] = [
            "fit",
            "-c",
            CONFIG,
            *SETTINGS[name],
            "--folder",
            str(RUNS / "speed"),
            "--trainer.callbacks=null",
        ]
        commands[name] += ["--trainer.max_steps", str(steps), "--trainer.enable_checkpointing", "false"]
        commands[name] += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
    environment = {**os.environ, "SPEED_FILE": str(RUNS / "speeds.json")}
    subprocess.run([sys.executable, "-c", CLOCK, json.dumps(commands)], cwd=ROOT, check=True, env=environment)
    times: dict[str, list[float]] = json.loads((RUNS / "speeds.json").read_text())
    return {name: 128 / statistics.median(times[name][5:]) for name in names}


CLOCK = """
import functools, json, os, sys, time
from ssl_lightning.__main__ import main
from ssl_lightning.data import ImageFolder
from ssl_lightning.methods import SSLMethod
times, last = {}, [0.0]
def end(self, *_):
    now = time.perf_counter()
    times[name].append(now - last[0])
    last[0] = now
SSLMethod.on_train_batch_end = end
decoded, load = {}, ImageFolder.load
ImageFolder.load = lambda self, part: decoded[part] if part in decoded else decoded.setdefault(part, load(self, part))
for name, command in json.loads(sys.argv[1]).items():
    times[name] = []
    if main(command) != 0:
        sys.exit(1)
json.dump(times, open(os.environ["SPEED_FILE"], "w"))
"""


def renew(names: list[str]) -> dict[str, dict[str, Any]]:
    """Put what was found of the bases and of some methods into the file, and return all that is in it."""
    with (RUNS / "results.csv").open() as file:
        rows: list[dict[str, str]] = list(csv.DictReader(file))
    with (RUNS / "vit.csv").open() as file:
        rows += [{**row, "checkpoint": "untrained ViT"} for row in csv.DictReader(file)]
    kept: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in [*BASES, *names]:
        subject = str(checkpoint(name).relative_to(ROOT)) if name in SETTINGS else name
        found = [row for row in rows if row["checkpoint"] == subject]
        kept[name] = {
            row["metric"] if row["protocol"] == "rank" else row["protocol"]: round(float(row["value"]), 4)
            for row in found
        }
        kept[name]["date"] = found[0]["date"]
    kept = {name: kept[name] for name in [*BASES, *SETTINGS] if name in kept}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def table(kept: dict[str, dict[str, Any]], speeds: dict[str, float]) -> str:
    """Write the table in Markdown."""
    lines = [
        "| method | family | kNN % | above untrained | linear % | above untrained | RankMe | LiDAR | images/s | date |",
        "| --- | --- |" + " ---: |" * 8,
    ]
    for name, found in kept.items():
        base = kept["untrained ViT" if "ViT" in SETTINGS.get(name, []) else "untrained"]
        lift = [f"{100 * (found[key] - base[key]):+.1f}" if name in SETTINGS else "" for key in ("knn", "linear")]
        rank = [f"{found[key]:.1f}" if key in found else "" for key in ("rankme", "lidar")]
        speed = f"{speeds[name]:.0f}" if name in speeds else ""
        scores = [f"{100 * found['knn']:.1f}", lift[0], f"{100 * found['linear']:.1f}", lift[1]]
        cells = [name, FAMILIES.get(name, ""), *scores, *rank, speed, found["date"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def settings_table(names: list[str]) -> str:
    """Say what each method was given beyond the protocol."""
    return "\n".join(f"- {name}: `{' '.join(SETTINGS[name])}`" for name in names)


def write(kept: dict[str, dict[str, Any]], speeds: dict[str, float]) -> None:
    """Write the page."""
    text = __doc__.split("\n\n", 1)[1]
    torch = importlib.metadata.version("torch").split("+")[0]
    TABLE.write_text(
        f"# The methods, side by side\n\n{text}\n{table(kept, speeds)}\n\n"
        f"{os.cpu_count()} cores, no GPU, torch {torch}; images/s of {datetime.date.today()}. Images are JPEG copies "
        f"of CIFAR-10, so pixels differ slightly from the official ones. SupCon sees the labels of the 10,000 training "
        f"images.\n\nBeyond the protocol:\n\n{settings_table([name for name in kept if name in SETTINGS])}\n"
    )


def main() -> None:
    """Train, judge, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(SETTINGS), help="which, with commas")
    parser.add_argument("--jobs", type=int, default=2, help="methods trained at a time, sharing the cores")
    parser.add_argument("--no-speed", action="store_true", help="leave the speeds out")
    parser.add_argument("--only-train", action="store_true", help="leave judging and the table to a later call")
    options = parser.parse_args()
    names: list[str] = options.methods.split(",")
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:  # two processes of one thread do more than one of two
        list(pool.map(lambda name: train(name, threads), names))
    if options.only_train:
        return
    paths = [str(checkpoint(name).relative_to(ROOT)) for name in names]
    judge = [*DATA, "--protocols", "knn,linear,rank", "--fractions", "1.0", "--results"]
    lightning("evaluate", "untrained", "--backbone", "ViT", *judge, str(RUNS / "vit.csv"))
    lightning("evaluate", "untrained", "pixels", *paths, "--backbone", "ConvNet", *judge, str(RUNS / "results.csv"))
    kept = renew(names)
    write(kept, {} if options.no_speed else images_per_second([name for name in kept if name in SETTINGS]))
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
