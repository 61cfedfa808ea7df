"""Plain lines of progress, for logs: where no terminal shows a bar."""

import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor


class ProgressLines(Callback):
    """Prints how far a fit is, a few times an epoch: epoch, step, loss, and the metrics that a bar would show.

    Args:
        per_epoch: Lines an epoch at most.
        seconds: That must pass between two lines.
        to_the_end: Print the fit's last line in any case.
    """

    def __init__(self, per_epoch: int = 4, seconds: float = 5.0, to_the_end: bool = True) -> None:
        self.per_epoch, self.seconds, self.to_the_end = per_epoch, seconds, to_the_end
        self._said = -math.inf
        self._said_step = -1
        self._began: float | None = None  # seconds on the clock when the first step was done
        self._done = 0.0  # the share of the fit that was done then
        self._loss: Tensor | None = None  # of the last step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count the seconds."""
        self._said, self._said_step = time.monotonic(), -1
        self._began = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line, at one of a few steps of the epoch."""
        if self._began is None:  # the first step, which warms up, tells nothing of the others
            self._began, self._done = time.monotonic(), _share(trainer, batch_idx + 1)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._loss = loss if isinstance(loss, Tensor) else None
        steps = trainer.num_training_batches
        if math.isinf(steps) or (batch_idx + 1) % math.ceil(steps / self.per_epoch) == 0:
            self._say(trainer, batch_idx + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the last line."""
        if self.to_the_end:
            self._say(trainer, trainer.fit_loop.epoch_loop.batch_idx + 1, last=True)

    def _say(self, trainer: L.Trainer, step: int, last: bool = False) -> None:
        now = time.monotonic()
        if not trainer.is_global_zero or not (last or now - self._said >= self.seconds):
            return
        if last and self._said_step == trainer.global_step:
            return
        self._said, self._said_step = now, trainer.global_step
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        epoch = min(trainer.current_epoch + (not last), epochs or trainer.current_epoch + 1)
        of_epochs = f" of {epochs}" if epochs else ""
        total = trainer.num_training_batches
        of_steps = "" if math.isinf(total) else f" of {int(total)}"
        # those of a step are shown by the name that their mean over the epoch has
        metrics = {name.removesuffix("_step"): float(value) for name, value in trainer.progress_bar_metrics.items()}
        if self._loss is not None:
            metrics = {"loss": float(self._loss), **{k: v for k, v in metrics.items() if k != "train/loss"}}
        numbers = "".join(f"  {name} {value:.4g}" for name, value in metrics.items() if not name.endswith("_epoch"))
        left = "" if last else self._left(now, _share(trainer, step))
        print(f"epoch {max(epoch, 1)}{of_epochs}, step {step}{of_steps}{numbers}{left}", flush=True)

    def _left(self, now: float, done: float) -> str:
        """Tell how long the rest takes, as what is done took; nothing where the fit has no end that is known."""
        if self._began is None or not self._done < done < 1:
            return ""
        return f"  {duration((now - self._began) / (done - self._done) * (1 - done))} left"


def duration(seconds: float) -> str:
    """Write a duration.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10.0 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _share(trainer: L.Trainer, step: int) -> float:
    """Return the share of a fit that is done, by epochs or by steps, whichever ends it first; 0 where neither does."""
    shares = [0.0]
    if trainer.max_epochs and trainer.max_epochs > 0:
        steps = trainer.num_training_batches
        shares.append((trainer.current_epoch + (0 if math.isinf(steps) else step / max(1, steps))) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return max(shares)
