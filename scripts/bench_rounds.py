"""What a round costs beside its training steps and its passes over data: where the time goes, part by part.

    python scripts/bench_rounds.py

Runs `ssl-lightning active` as on a command line: a head on made-up embeddings of 128 numbers, 10,000 in the pool and
10,000 to test, 10 rounds of 10 labels and 200 steps. Seconds are the processor's, which other work does not lengthen.
"""

import argparse
import contextlib
import functools
import io
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from ssl_lightning.__main__ import main as command
from ssl_lightning.active import AcquisitionStrategy, PoolDataModule
from ssl_lightning.active.callbacks import SaveRound
from ssl_lightning.active.record import Record
from ssl_lightning.active.rounds import ActiveRun
from ssl_lightning.commands.predictions import write_embeddings
from ssl_lightning.commands.train import CLI

PARTS: list[tuple[str, Any, str]] = [  # what is timed; less what is within it
    ("training steps", _TrainingEpochLoop, "run"),
    ("test", _EvaluationLoop, "run"),
    ("scores and choice", AcquisitionStrategy, "query"),
    ("labels of the query, committed", PoolDataModule, "acquire"),
    ("labels, read", PoolDataModule, "synchronise"),
    ("config, saved", CLI, "_save_config"),
    ("trainer, made", CLI, "instantiate_trainer"),
    ("model and trainer", ActiveRun, "_make"),
    ("checkpoint", SaveRound, "on_train_end"),
    ("weight averaging", WeightAveraging, "on_train_end"),
    ("rounds.csv, queries.csv, pictures", Record, "write"),
    ("Lightning around the loops", L.Trainer, "_run"),
    ("round", ActiveRun, "_round"),
]


class Clock:
    """Counts the seconds that functions take, each without those of the others within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)  # of each round
        self._stack: list[float] = []

    def watch(self, name: str, owner: Any, method: str) -> None:
        """Count a method's seconds by a name."""
        inner: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if name == "round":
                for known in self.seconds.values():
                    known.append(0.0)
            begun = time.process_time()
            self._stack.append(0.0)
            try:
                return inner(*args, **kwargs)
            finally:
                spent = time.process_time() - begun
                own = spent - self._stack.pop()
                if self._stack:
                    self._stack[-1] += spent
                if self.seconds[name] or name == "round":
                    self.seconds[name][-1:] = [(self.seconds[name] or [0.0])[-1] + own]
                else:
                    self.seconds[name].append(own)

        setattr(owner, method, timed)


def embeddings(folder: Path) -> list[str]:
    """Make them up; return the options that name them."""
    centres = 0.35 * torch.randn(10, 128, generator=torch.Generator().manual_seed(0))
    for number, name in enumerate(("pool", "test")):
        generator = torch.Generator().manual_seed(number)
        targets = torch.randint(10, (10_000,), generator=generator)
        rows = centres[targets] + torch.randn(10_000, 128, generator=generator)
        keys = [f"{name}{place}" for place in range(10_000)]
        write_embeddings(folder / f"{name}.npy", keys, [str(target) for target in targets.tolist()], rows)
    return [
        "--data", "Vectors", "--data.path", str(folder / "pool.npy"), "--data.table", str(folder / "pool.csv"),
        "--data.test_path", str(folder / "test.npy"), "--data.test_table", str(folder / "test.csv"),
    ]  # fmt: skip


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="Margin")
    options = parser.parse_args()
    clock = Clock()
    for part in PARTS:
        clock.watch(*part)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        arguments = [
            "active", *embeddings(folder), "--data.batch_size", "64", "--data.val_size", "0", "--model", "Classifier",
            "--model.backbone", "Flat", "--model.recipe", "{probe: false}", "--steps_per_epoch", "200",
            "--strategy", options.strategy, "--strategy.batch_size", "1000", "--rounds", "10", "--initial", "10",
            "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1",
            "--folder", str(folder / "run"),
        ]  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            status = command(arguments)
        assert status == 0
    rounds = len(clock.seconds["round"])
    found = {name: statistics.median(times[-(rounds - 1) :]) for name, times in clock.seconds.items()}
    print("| Of a round | ms |\n|---|---:|")
    for name, seconds in sorted(found.items(), key=lambda item: -item[1]):
        print(f"| {name if name != 'round' else 'all else'} | {1000 * seconds:.1f} |")
    loops = {"training steps", "test", "scores and choice"}
    print(f"| **all but {', '.join(sorted(loops))}** | {1000 * sum(found[n] for n in found.keys() - loops):.0f} |")


if __name__ == "__main__":
    main()
