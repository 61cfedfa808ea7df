"""The base of every self-supervised method: views, optimizer, logging and checkpoints, so that a method is its loss."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NotRequired, TypedDict

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_lightning.backbones import Backbone, describe
from ssl_lightning.catalogue import class_path
from ssl_lightning.data.base import Batch
from ssl_lightning.optim import OptimizerSpec, configure_optimizers, require_finite
from ssl_lightning.seeding import base_seed, count_epoch, derive_generator, position
from ssl_lightning.views import CleanView, clean_view


class Step(TypedDict):
    """What `compute_loss` returns.

    Attributes:
        loss: A scalar.
        embedding: Backbone outputs of the first view, `(N, dim)`, for the callbacks that watch them; left out by a
            method that encodes parts of views alone.
    """

    loss: Tensor
    embedding: NotRequired[Tensor]


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context without autocast: exponentials, logarithms and statistics of a batch want float32."""
    return torch.autocast(tensor.device.type, enabled=False)


@contextmanager
def statistics_kept(*modules: nn.Module) -> Iterator[None]:
    """Normalise by the batch, and leave the running statistics of batch norm as they are."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


class SSLMethod(L.LightningModule, ABC):
    """A self-supervised method: a subclass builds its heads and writes `compute_loss`.

    Training batches go through `views` on the device, every other batch through `clean`. Needs no labels.

    Args:
        backbone: The encoder to pretrain.
        views: Module that turns uint8 images and a generator into a list of views.
        optimizer: What to build.
        clean: Evaluation transform; null for `CleanView` with the normalisation of `views`.
        channels_last: Keep images and convolutions in channels-last memory format; faster with bf16.
    """

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module,
        optimizer: OptimizerSpec | None = None,
        clean: nn.Module | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last) if channels_last else backbone
        self.views = views
        self.clean = clean or clean_view(views)
        self.optimizer_spec = optimizer or OptimizerSpec()
        self.channels_last = channels_last
        self._seed = 0

    @abstractmethod
    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Compute the method's loss.

        Args:
            views: As `self.views` made them, each `(N, C, H, W)`.
            batch: The targets and indices.

        Returns:
            The loss, and the first view's embedding if the method has it.
        """

    def embed(self, images: Tensor) -> Tensor:
        """Encode clean, normalised images `(N, C, H, W)` to embeddings `(N, feature_dim)`."""
        embedding: Tensor = self.backbone(images)
        return embedding

    forward = embed

    def setup(self, stage: str) -> None:
        """Fix the seed that the views of every step derive from."""
        self._seed = self.trainer.strategy.broadcast(base_seed())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make the views, on the device; a function of seed, step and rank: a resumed run sees the same."""
        if not self.training:
            return batch._replace(input=self._format(self.clean(batch.input)))
        generator = derive_generator(self._seed, "views", *position(self))
        views = self.views(batch.input, generator)
        return batch._replace(input=[self._format(view) for view in views])

    def _format(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def training_step(self, batch: Batch, batch_idx: int) -> Step:
        """Compute and log the loss; stop where it is not finite."""
        count_epoch(self.trainer)
        step = self.compute_loss(batch.input, batch)
        require_finite(step["loss"], self, batch_idx)
        self.log("train/loss", step["loss"], prog_bar=True, sync_dist=True, batch_size=len(batch.target))
        if "embedding" in step:
            step["embedding"] = step["embedding"].detach()
        return step

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then what the method does after each."""
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """Do what a method does after each step of the optimizer, as moving its teacher."""

    def generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator: a function of seed, purpose, epoch and batch, the same on every rank."""
        return derive_generator(self._seed, purpose, *(position(self)[:2] if self._trainer else ()))

    def local_generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator as `generator` does, but another one on every rank."""
        return derive_generator(self._seed, purpose, *(position(self) if self._trainer else ()))

    @property
    def total_steps(self) -> float:
        """Optimizer steps of the whole fit; infinite where there is no trainer or no end."""
        return float(self.trainer.estimated_stepping_batches) if self._trainer else math.inf

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean images, and project them where there is a projector, for the callbacks that judge."""
        embedding = self.embed(batch.input)
        projector = getattr(self, "projector", None)
        if projector is None:
            return {"embedding": embedding}
        with full_precision(embedding):
            return {"embedding": embedding, "projection": projector(embedding.float())}

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed clean images."""
        return {"index": batch.index, "embedding": self.embed(batch.input)}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule."""
        return configure_optimizers(self, self.optimizer_spec)  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what others need to use the backbone without the config: architecture, normalisation, method."""
        checkpoint["backbone"] = describe(self.backbone)
        checkpoint["method"] = type(self).__name__
        checkpoint["class_path"] = class_path(type(self))
        if isinstance(self.clean, CleanView):
            checkpoint["clean"] = {"mean": self.clean.mean, "std": self.clean.std}
