"""Active learning on a million samples, as a person starts it: minutes and memory of the whole command.

    python scripts/million.py --strategies Margin BADGE TypiClust

Writes made-up embeddings, 1,000,000 rows of 64 numbers in 10 classes, and 10,000 to test, as `.npy` files with a table
of keys and classes beside them. Then `ssl-lightning active` starts from 1,000 labels, asks once for 100, trains again
and tests, in a process of its own, which maps the rows from the file. The peak is of that process's resident memory,
with the pages of the file that it has read.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch


def write(folder: Path, name: str, count: int, seed: int) -> None:
    """Write embeddings, and the table of their keys and classes."""
    centres = 0.4 * np.random.default_rng(0).standard_normal((10, 64), dtype=np.float32)
    draws = np.random.default_rng(seed)
    classes = draws.integers(10, size=count)
    rows = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, 64))
    for start in range(0, count, 100_000):
        part = classes[start : start + 100_000]
        rows[start : start + 100_000] = centres[part] + draws.standard_normal((len(part), 64), dtype=np.float32)
    rows.flush()
    with open(folder / f"{name}.csv", "w", encoding="utf-8") as file:
        file.write("key,class\n")
        file.writelines(f"{name}{place:07},class{label}\n" for place, label in enumerate(classes.tolist()))


def run(folder: Path, strategy: str) -> int:
    """Run the command; return its status."""
    command = [
        sys.executable, "-m", "ssl_lightning", "active", "--data", "Vectors",
        "--data.path", str(folder / "pool.npy"), "--data.table", str(folder / "pool.csv"),
        "--data.test_path", str(folder / "test.npy"), "--data.test_table", str(folder / "test.csv"),
        "--data.memory_gib", "0.1", "--data.batch_size", "64", "--data.val_size", "0",
        "--model", "Classifier", "--model.backbone", "Flat", "--steps_per_epoch", "200",
        "--strategy", strategy, "--strategy.query_size", "100", "--strategy.batch_size", "4096",
        "--rounds", "1", "--initial", "1000", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--folder", str(folder / strategy),
    ]  # fmt: skip
    with open(folder / f"{strategy}.log", "w", encoding="utf-8") as log:
        return subprocess.run(command, stdout=log, stderr=log, check=False).returncode


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["Margin", "BADGE", "TypiClust"])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:  # a process of its own, so that the peak is of one run alone
        begun = time.perf_counter()
        status = run(options.one, options.strategies[0])
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall, peak = time.perf_counter() - begun, used.ru_maxrss / 2**20
        print(f"| {options.strategies[0]} | {wall / 60:.2f} | {used.ru_utime + used.ru_stime:.0f} | {peak:.2f} |")
        if status:
            raise SystemExit((options.one / f"{options.strategies[0]}.log").read_text()[-3000:])
        return
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {threads} threads, {options.size:,} samples\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, "pool", options.size, 1)
        write(folder, "test", 10_000, 2)
        print("| Strategy | Minutes | Seconds of the processor | Peak, GiB |\n|---|---:|---:|---:|", flush=True)
        for strategy in options.strategies:
            own = ["--one", str(folder), "--strategies", strategy]
            subprocess.run([sys.executable, __file__, *own], check=True)


if __name__ == "__main__":
    main()
