"""From the start of a process to the end of its first training step: torch alone, Lightning, and our `fit`.

    OMP_NUM_THREADS=1 python scripts/bench_start.py

Each is a process of its own, in turns; seconds of the clock and of the processor, medians. The first two train a linear
layer and import nothing else: no program that trains by them can be quicker.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TORCH = """
import torch
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
"""
LIGHTNING = """
import lightning, torch
class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
    def training_step(self, batch, number):
        return self.layer(batch[0]).sum()
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2)))
lightning.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False).fit(Model(), data)
"""
FIT = ["fit", "--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--trainer.max_steps", "1"]
FIT += ["--trainer.limit_val_batches", "0", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]
COMMANDS = {
    "a step of torch's AdamW": ["-c", TORCH],
    "the same under Lightning": ["-c", LIGHTNING],
    "`ssl-lightning fit`, one step of SimCLR": ["-m", "ssl_lightning", *FIT],
}


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a process, and return its seconds of the clock and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*command, "--folder", str(Path(folder) / "run")] if "fit" in command else command
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([sys.executable, *given], check=True, capture_output=True, cwd=folder)
        passed, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    for command in COMMANDS.values():
        seconds(command)
    turns = [[seconds(command) for command in COMMANDS.values()] for _ in range(repetitions)]
    print("| Seconds | clock | processor | times torch's step |\n|---|---:|---:|---:|")
    rows = [[statistics.median(part) for part in zip(*times, strict=True)] for times in zip(*turns, strict=True)]
    for name, (clock, processor) in zip(COMMANDS, rows, strict=True):
        print(f"| {name} | {clock:.1f} | {processor:.1f} | {clock / rows[0][0]:.2f} |")


if __name__ == "__main__":
    main()
