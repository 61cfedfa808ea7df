"""One progress display for a whole active run: rounds, the fit of this round, the pass over the pool."""

from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.data import DataLoader

from ssl_lightning.data.base import Batch


class RoundsProgress(ProgressBar):
    """A rich progress display that stays up over the rounds of an active run and the trainers it is given to.

    Args:
        rounds: How many models the run trains.
        done: How many it has trained before.
    """

    def __init__(self, rounds: int, done: int = 0) -> None:
        super().__init__()
        self.progress = Progress(
            TextColumn("{task.description:<6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._rounds = self.progress.add_task("rounds", total=rounds, completed=done, note="")
        self._fit = self.progress.add_task("fit", total=None, note="")
        self._enabled = True

    def disable(self) -> None:
        """Stay silent; Lightning calls it in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def start(self) -> None:
        """Show the display."""
        if self._enabled:
            self.progress.start()

    def stop(self) -> None:
        """Take the display down."""
        self.progress.stop()

    def finish_round(self, line: str) -> None:
        """Count a round and print a line above the bars.

        Args:
            line: What the round came to.
        """
        self.progress.advance(self._rounds)
        if self._enabled:
            self.progress.console.print(line, highlight=False)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Begin the bar of this fit."""
        total = trainer.estimated_stepping_batches
        self.progress.reset(self._fit, total=None if total == float("inf") else int(total), note="")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance it."""
        self.progress.update(self._fit, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the metrics that modules marked for the progress bar."""
        metrics = self.get_metrics(trainer, module)
        numbers = [f"{key} {value:.3g}" for key, value in metrics.items() if isinstance(value, int | float)]
        self.progress.update(self._fit, note="  ".join(numbers))


def track(trainer: L.Trainer, loader: DataLoader[Batch], name: str) -> Iterator[Batch]:
    """Iterate over a loader, with a bar in the trainer's progress display if that is a rich one.

    Args:
        trainer: Whose display.
        loader: To iterate over.
        name: Of the bar.

    Yields:
        The batches.
    """
    progress = getattr(trainer.progress_bar_callback, "progress", None)
    if not isinstance(progress, Progress) or not trainer.is_global_zero:
        yield from loader
        return
    task: TaskID = progress.add_task(name, total=len(loader), note="")
    try:
        for batch in loader:
            yield batch
            progress.advance(task)
    finally:
        progress.remove_task(task)
