"""A clock for the steps of a fit, which it ends."""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ssl_lightning.engine.csv_files import replacing

WARM_STEPS = 2  # that are not counted: the first are slower
MOST_TRIED = 40  # steps of a trial


class StepClock(Callback):
    """Measures how long a step takes, and ends the fit.

    Args:
        seconds: After which the fit ends, if three steps are done.
        file: Of JSON, which gets the seconds of a step; null for none.

    Attributes:
        seconds_a_step: The median.
        waiting: Share of that spent on waiting for data, 0 to 1.
        samples: Of this process's last batch.
    """

    def __init__(self, seconds: float = 10.0, file: str | None = None) -> None:
        self.seconds, self.file = seconds, file
        self.seconds_a_step, self.waiting, self.samples = 0.0, 0.0, 0
        self._times: list[tuple[float, float]] = []  # when the batch of each step was there, and when it was done
        self._begun = self._arrived = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin."""
        self._times, self._begun = [], time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note when the batch has arrived."""
        self._arrived = time.perf_counter()
        self.samples = len(getattr(batch, "index", ()))

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Note when the step is done."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        self._times.append((self._arrived, time.perf_counter()))
        done = len(self._times)
        enough = self._times[-1][1] - self._begun > self.seconds and done > WARM_STEPS
        # each process has its clock, and all must take the same steps
        trainer.should_stop |= trainer.strategy.reduce_boolean_decision(enough or done >= MOST_TRIED, all=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the middle step, and write it."""
        if not self._times:
            return
        ends = [self._begun, *(done for _, done in self._times)]
        steps = [(after - before, there - before) for before, (there, after) in zip(ends, self._times, strict=False)]
        counted = steps[WARM_STEPS:] or steps
        self.seconds_a_step = statistics.median(step for step, _ in counted)
        self.waiting = sum(wait for _, wait in counted) / sum(step for step, _ in counted)
        if self.file is not None:
            with replacing(Path(self.file)) as file:
                json.dump(self.seconds_a_step, file)
