"""What methods and classifiers have in common: optimizer, memory format, checkpoints, processes in step."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from ssl_lightning.checkpoint import note
from ssl_lightning.engine.optim import OptimizerSpec, configure_optimizers
from ssl_lightning.engine.passes import hold_buffers, release_buffers, require_precision
from ssl_lightning.engine.seeding import base_seed
from ssl_lightning.networks.modes import channels_last
from ssl_lightning.transforms.base import map_tensors


class Learner(L.LightningModule):
    """Base of all that is trained here; a subclass sets the attributes in its constructor.

    Attributes:
        optimizer_spec: What optimizer to build, and its schedule.
        channels_last: Give images to the encoder in channels-last memory format.
        facts: Of the data that it learns from, once they are known.
    """

    optimizer_spec: OptimizerSpec
    channels_last: bool
    facts: dict[str, Any]
    _seed: int = 0

    def setup(self, stage: str) -> None:
        """Refuse a precision that cannot work, and fix the seed that every step's randomness derives from."""
        require_precision(self.trainer)
        self._seed = self.trainer.strategy.broadcast(base_seed())

    def _format(self, inputs: Any) -> Any:
        return map_tensors(channels_last, inputs) if self.channels_last else inputs

    def on_validation_start(self) -> None:
        """Let all processes judge the same network."""
        hold_buffers(self.trainer, self)

    def on_validation_end(self) -> None:
        """Go on with training as before."""
        release_buffers(self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule."""
        return configure_optimizers(self, self.optimizer_spec)  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what others need to open the checkpoint without the config."""
        note(self, checkpoint)
