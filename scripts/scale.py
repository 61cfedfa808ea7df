"""Measure what each sample of a large set costs beside its model: memory, seconds, bytes between processes.

    OMP_NUM_THREADS=1 python scripts/scale.py --folder /tmp/scale --counts 200000 1000000

Random vectors in a memory-mapped file; a linear classifier, one query by entropy and one by BADGE.
Each count is measured in a process of its own; slopes between counts are what one more sample costs. From the slopes,
and from how fast a `ConvNet` encodes images of 32 px here, it works out what 10^7 to 10^9 samples would take.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from ssl_lightning.active import BADGE, Entropy, PoolDataModule
from ssl_lightning.backbones import ConvNet, Flat
from ssl_lightning.data import Vectors
from ssl_lightning.data.sampling import TrainSampler
from ssl_lightning.supervised import Classifier

DIM, CLASSES = 32, 10


def write(folder: Path, count: int) -> None:
    """Write vectors and their classes."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(0)
    np.save(folder / "vectors.npy", drawn.standard_normal((count, DIM), dtype=np.float32))
    with (folder / "vectors.csv").open("w") as file:
        file.write("key,class\n")
        file.writelines(f"shard-{place // 10_000:05d}/{place:09d}.jpg,{place % CLASSES}\n" for place in range(count))


def peak() -> float:
    """Return the most memory that the process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Set up a pool, train, and ask twice."""
    found: dict[str, Any] = {"count": count, "start GB": peak()}

    def timed(name: str, do: Any) -> Any:
        begun = time.monotonic()
        result = do()
        found[f"{name} s"], found[f"{name} GB"] = time.monotonic() - begun, peak()
        return result

    data = Vectors(str(folder / "vectors.npy"), table=str(folder / "vectors.csv"), batch_size=1024)
    pool = PoolDataModule(data, initial=1000, steps_per_epoch=20)
    timed("set up", lambda: (pool.prepare_data(), pool.setup("fit")))
    timed("draw an epoch", lambda: sum(1 for _ in TrainSampler(torch.arange(count), 1024, None, 0)))
    for strategy in (Entropy(query_size=100), BADGE(query_size=100)):
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, default_root_dir=folder,
        )  # fmt: skip
        model = Classifier(CLASSES, Flat(DIM))
        trainer.fit(model, datamodule=pool)
        timed(type(strategy).__name__, lambda strategy=strategy, t=trainer, m=model: strategy.query(t, m, pool))
    return found


def encoded() -> float:
    """Return how many seconds a million images of 32 px take a `ConvNet` here, without training."""
    net, images = ConvNet(3).eval(), torch.rand(512, 3, 32, 32)
    with torch.inference_mode():
        net(images)
        begun = time.monotonic()
        for _ in range(8):
            net(images)
        return (time.monotonic() - begun) / (8 * len(images)) * 1e6


def forecast(slopes: dict[str, float]) -> None:
    """Print a table of what larger sets would take; every process sets up all samples and passes over its share."""
    encode = encoded()
    print(f"\n{'encode s':20} {encode:10.2f} a million, ConvNet, 32 px\n")
    print("| Samples | Processes | GB in each | set up, h | a pass, h | choose by Entropy, h | by BADGE, h |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for power in (7, 8, 9):
        millions = 10.0 ** (power - 6)
        for processes in (1, 8, 64):
            seconds = (
                slopes["set up s"] * millions, encode * millions / processes,
                slopes["Entropy s"] * millions / processes, slopes["BADGE s"] * millions,
            )  # fmt: skip
            told = " | ".join(f"{value / 3600:.2g}" for value in seconds)
            print(f"| 10^{power} | {processes} | {slopes['set up GB'] * millions:.0f} | {told} |")


def main() -> None:
    """Measure each count in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--one", type=int, help="measure this count here")
    given = parser.parse_args()
    if given.one:
        print("found", json.dumps(measure(given.folder / str(given.one), given.one)))
        return
    rows = []
    for count in given.counts:
        write(given.folder / str(count), count)
        command = [sys.executable, __file__, "--folder", str(given.folder), "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("found"))[6:]))
    slopes = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        slope = slopes[name] = (values[-1] - values[0]) / (given.counts[-1] - given.counts[0]) * 1e6
        print(f"{name:20} " + "  ".join(f"{value:10.2f}" for value in values) + f"  {slope:10.2f} a million")
    forecast(slopes)


if __name__ == "__main__":
    main()
