"""The same picks from a frozen encoder, whether its embeddings are kept or not, by any batch and number of processes.

    OMP_NUM_THREADS=1 python scripts/same_picks.py --folder /tmp/same-picks

Pretrains on the bundled digits, then runs `ssl-lightning active` with its default strategies for the cold start and
after, and with others, for `--cache auto` and `off`, batches of the pool of 1, 7 and 256, and 1, 2 and 3 processes; the
queries, in their order, must be those of the first. Prints a line for each strategy, and fails where one differs.
"""

import argparse
import csv
import itertools
import subprocess
import sys
from pathlib import Path

CPU = ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]


def call(*arguments: str) -> None:
    """Run a command of ours."""
    done = subprocess.run(
        [sys.executable, "-m", "ssl_lightning", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")


def picks(folder: Path) -> list[tuple[str, ...]]:
    """Read what was asked for, in order."""
    with (folder / "queries.csv").open(newline="") as file:
        return [(row["round"], row["key"], row["class_name"]) for row in csv.DictReader(file)]


def main() -> None:
    """Pretrain once, run all, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--strategies", nargs="+", default=["ByLabels", "Margin", "BALD", "BADGE", "FarthestFirst"])
    options = parser.parse_args()
    last = options.folder / "ssl" / "checkpoints" / "last.ckpt"
    if not last.exists():
        call(
            "fit", "--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet",
            "--model.backbone.width", "16", "--trainer.max_epochs", "10", "--trainer.devices", "1", *CPU,
            "--folder", str(options.folder / "ssl"),
        )  # fmt: skip
    failed = False
    for strategy in options.strategies:
        first, differ, count = None, [], 0
        for cache, batch, devices in itertools.product(("auto", "off"), (1, 7, 256), (1, 2, 3)):
            name = f"{strategy}-{cache}-{batch}-{devices}"
            folder = options.folder / name
            spread = ["--trainer.strategy", "ddp"] if devices > 1 else []
            if not (folder / "rounds.csv").exists():
                call(
                    "active", "--data", "Digits", "--model", "Classifier", "--model.checkpoint", str(last),
                    "--model.freeze", "true", "--model.dropout", "0.5", "--strategy", strategy, "--strategy.query_size",
                    "10", "--strategy.batch_size", str(batch), "--initial", "10", "--rounds", "2", "--cache", cache,
                    "--trainer.devices", str(devices), *spread, *CPU, "--folder", str(folder),
                )  # fmt: skip
            found, count = picks(folder), count + 1
            first = first or found
            if found != first:
                differ.append(name)
        print(
            f"{strategy}: {len(first or [])} picks, {count} runs, {len(differ)} differ {' '.join(differ)}", flush=True
        )
        failed |= bool(differ)
    sys.exit(failed)


if __name__ == "__main__":
    main()
