"""Where a fit is, the same whether it was resumed or not, and what it leaves to go on from."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveWhenTerminated(Callback):
    """Saves where a fit is when its process is told to end, by SIGTERM.

    In the middle of a validation, and with several processes, which hear of the signal at different steps, it does not.

    Args:
        path: Of the checkpoint, which takes the place of another.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save between two steps of an epoch."""
        within = trainer.training and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if isinstance(exception, SIGTERMException) and within and trainer.world_size == 1:
            trainer.save_checkpoint(self.path)


def count_epoch(trainer: L.Trainer) -> None:
    """Count the running epoch as begun, where Lightning did not.

    Resumed from a checkpoint of an epoch's last batch, it skips the count of the next epoch; a checkpoint saved in that
    epoch then looks like one of its end, and resuming from it would train too many steps.

    Args:
        trainer: In a training step.
    """
    progress = trainer.fit_loop.epoch_progress
    for name in ("ready", "started"):
        missing = progress.current.processed + 1 - getattr(progress.current, name)  # type: ignore[attr-defined]
        if missing > 0:
            for counts in (progress.current, progress.total):
                setattr(counts, name, getattr(counts, name) + missing)


def position(module: L.LightningModule) -> tuple[int, int, int]:
    """Return where in a fit a module is: epoch, batch and rank, the same whether the run was resumed or not.

    Resumed from an epoch's end, a fit by `max_steps` counts batches on and epochs late: the data know better.
    """
    trainer = module.trainer
    epoch = getattr(getattr(trainer, "datamodule", None), "epoch", None)
    batch, steps = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.num_training_batches
    batch = int((batch - 1) % steps + 1) if batch > steps else batch
    return module.current_epoch if epoch is None else epoch, batch, module.global_rank
