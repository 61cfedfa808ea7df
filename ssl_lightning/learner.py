"""What methods and classifiers have in common: optimizer, memory format, checkpoints, processes in step."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.checkpoint import describe_briefly, note, require_same_columns, require_same_tokens, require_taken
from ssl_lightning.data.of_trainer import clean_for, facts_of
from ssl_lightning.engine.optim import OptimizerSpec, configure_optimizers
from ssl_lightning.engine.passes import hold_buffers, release_buffers, require_precision
from ssl_lightning.engine.seeding import base_seed
from ssl_lightning.networks.modes import channels_last
from ssl_lightning.transforms.base import (
    build_clean,
    clean_of,
    describe_clean,
    end_alike,
    map_tensors,
    tell_foreign_views,
)


class Learner(L.LightningModule):
    """Base of all that is trained here; a subclass sets the attributes in its constructor.

    What is judged is normalised as what is trained on: by the clean transform that was given, else by the one that the
    given views carry, else by that of the data it is fitted on, which a checkpoint brings along.

    Attributes:
        backbone: The encoder.
        views: Makes random views; null for none.
        clean: Makes clean input; null until the data are known.
        optimizer_spec: What optimizer to build, and its schedule.
        channels_last: Give images to the encoder in channels-last memory format.
        facts: Of the data that it learns from, once they are known.
    """

    views: nn.Module | None
    clean: Any
    backbone: Backbone
    optimizer_spec: OptimizerSpec
    channels_last: bool
    facts: dict[str, Any]
    _seed: int = 0
    _suggested: tuple[nn.Module | None, nn.Module | None] = (None, None)  # by the data: views and clean transform

    def format_as(self, channels_last: bool | None) -> None:
        """Choose the memory format of images and convolutions.

        Args:
            channels_last: Whether it is channels-last; null for what the encoder says it is faster by.
        """
        self.channels_last = self.backbone.channels_last if channels_last is None else channels_last
        if self.channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    def take(self, views: nn.Module | None, clean: nn.Module | None) -> None:
        """Take over the transforms that were given, or none.

        Args:
            views: As `as_views` returns them.
            clean: The clean transform.
        """
        self.views, self.clean = views, clean or clean_of(views)
        end_alike(self.views, self.clean)

    def suggested_views(self) -> nn.Module | None:
        """Return the views that suit the data, where none were given; here none."""
        return None

    def setup(self, stage: str) -> None:
        """Fix the seed that every step's randomness derives from, and ask the data for transforms that were not given.

        Raises:
            ValueError: If the trainer's precision cannot work, or the encoder takes other data.
        """
        require_precision(self.trainer)
        self._seed = self.trainer.strategy.broadcast(base_seed())
        if stage == "fit" or self.clean is None:
            self._ask_data()
        if (self.views, self.clean) == self._suggested:  # else transforms that were given may make others of the data
            require_taken(self.backbone, facts_of(self.trainer), "backbones")
        require = getattr(self.views, "require_encoder", None)
        if callable(require):
            require(self.backbone)

    def _ask_data(self) -> None:
        """Take the transforms that suit the data where none were given; those of an earlier fit's data give way."""
        views, clean = self._suggested
        if self.views is views:
            self.views = views = self.suggested_views()
        if self.clean is clean:
            self.clean = clean = clean_of(self.views) or clean_for(self.trainer)
            tell_foreign_views(self.views, self.clean)
        self._suggested = views, clean
        end_alike(self.views, self.clean)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the clean transform of a checkpoint, or say that another was given."""
        told = checkpoint.get("ssl_lightning", {})
        require_same_tokens(told.get("facts"), self.facts, "the checkpoint")
        require_same_columns(told.get("facts"), self.facts, "the checkpoint")
        described = told.get("clean")
        if not isinstance(described, dict) or described == describe_clean(self.clean):
            return
        if self.clean is None or self.clean is self._suggested[1]:
            self.clean = build_clean(described)
            self._suggested = (self._suggested[0], self.clean)
            end_alike(self.views, self.clean)
        else:
            rank_zero_warn(
                f"the checkpoint was trained with clean input by {describe_briefly(described)}, and what was given "
                f"makes it by {describe_briefly(describe_clean(self.clean) or {})}: that is taken."
            )

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
