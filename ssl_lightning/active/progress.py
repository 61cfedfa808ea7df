"""One progress display for a whole active run: rounds, the fit of this round, the pass over the pool."""

from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
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

from ssl_lightning.data.samples import Batch


class RoundsProgress(Callback):
    """A rich progress display that stays up over the rounds of an active run and the trainers it is given to.

    It takes the place of the bar that a trainer makes by itself. Where the trainer shows none, or one that was named,
    or there is no terminal, it prints a line a round and no more.

    Args:
        rounds: How many models the run trains.
        done: How many it has trained before.
    """

    def __init__(self, rounds: int, done: int = 0) -> None:
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
        self._label: TaskID | None = None
        self.shown = False

    @property
    def has_terminal(self) -> bool:
        """Whether somebody sees a display: at a terminal, or in a notebook."""
        return self.progress.console.is_terminal or self.progress.console.is_jupyter

    def replaces_bar(self, trainer: L.Trainer) -> bool:
        """Say whether a trainer has a bar that it made by itself: behind all callbacks it was given, without options.

        Args:
            trainer: That this callback was given to.
        """
        bar, callbacks = trainer.progress_bar_callback, list(trainer.callbacks)  # type: ignore[attr-defined]
        if type(bar) is not RichProgressBar or callbacks.index(bar) < callbacks.index(self):
            return False
        plain = vars(RichProgressBar())
        options = ("_refresh_rate", "_leave", "theme", "_console_kwargs")
        return all(vars(bar).get(name) == plain.get(name) for name in options)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the place of the trainer's own bar, in the first process."""
        bar = trainer.progress_bar_callback
        if bar is None or not self.replaces_bar(trainer) or not trainer.is_global_zero:
            return
        bar.disable()
        if stage == "fit" and self.has_terminal and not self.shown:
            self.shown = True
            self.progress.start()

    def stop(self) -> None:
        """Take the display down."""
        if self.shown:
            self.progress.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bars where there are some.

        Args:
            line: Text without markup.
        """
        self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def answered(self, done: int | None, total: int) -> None:
        """Show how many queries are answered, while a run waits; null takes the bar down.

        Args:
            done: Answers that have come.
            total: Queries.
        """
        if done is None:
            if self._label is not None:
                self.progress.remove_task(self._label)
                self._label = None
            return
        if self.has_terminal and not self.shown:
            self.shown = True
            self.progress.start()
        if self._label is None:
            self._label = self.progress.add_task("labels", total=total, note="waiting")
        self.progress.update(self._label, completed=done, total=total)

    def finish_round(self, line: str) -> None:
        """Count a round and print a line above the bars.

        Args:
            line: What the round came to.
        """
        self.progress.advance(self._rounds)
        self.say(line)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the bar of this fit."""
        total = trainer.estimated_stepping_batches
        self.progress.reset(self._fit, total=None if total == float("inf") else int(total), note="")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance it."""
        self.progress.update(self._fit, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the metrics that modules marked for the progress bar."""
        numbers = [f"{key} {float(value):.3g}" for key, value in trainer.progress_bar_metrics.items()]
        self.progress.update(self._fit, note="  ".join(numbers))


def track(trainer: L.Trainer, loader: DataLoader[Batch], name: str) -> Iterator[Batch]:
    """Iterate over a loader, with a bar in the run's progress display if it is shown.

    Args:
        trainer: Whose display.
        loader: To iterate over.
        name: Of the bar.

    Yields:
        The batches.
    """
    displays = [callback for callback in trainer.callbacks if isinstance(callback, RoundsProgress)]  # type: ignore[attr-defined]
    if not displays or not displays[0].shown or not trainer.is_global_zero:
        yield from loader
        return
    progress = displays[0].progress
    task: TaskID = progress.add_task(name, total=len(loader), note="")
    try:
        for batch in loader:
            yield batch
            progress.advance(task)
    finally:
        progress.remove_task(task)
