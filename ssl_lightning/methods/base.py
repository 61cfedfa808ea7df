"""The base of every self-supervised method: views, optimizer, logging and checkpoints, so that a method is its loss."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_lightning.backbones import as_backbone
from ssl_lightning.checkpoint import require_facts, require_taken
from ssl_lightning.data.of_trainer import facts_of, require_batch, views_for
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.hparams import constructor_frame
from ssl_lightning.engine.optim import OptimizerSpec, as_spec, enough_samples, require_finite
from ssl_lightning.engine.ranges import of_kind
from ssl_lightning.engine.resume import count_epoch, position
from ssl_lightning.engine.seeding import derive_generator, seed_draws
from ssl_lightning.learner import Learner
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.base import as_views, make_views


class Step(TypedDict):
    """What `compute_loss` returns.

    Attributes:
        loss: A scalar.
        embedding: Backbone outputs of the first view, `(N, dim)`, for the callbacks that watch them; left out by a
            method that encodes parts of views alone.
    """

    loss: Tensor
    embedding: NotRequired[Tensor]


class SSLMethod(Learner, ABC):
    """A self-supervised method: a subclass builds its heads and writes `compute_loss`.

    Training batches go through `views` on the device, every other batch through `clean`. Needs no labels. The arguments
    of the constructor are its hyper-parameters, but for networks and transforms.

    Args:
        backbone: The encoder to pretrain: one of ours, or any network that returns a vector a sample.
        views: Makes random views: one of ours, which turn a batch and a generator into a list of views, or any
            function of one sample, as the transforms of torchvision are; null for those that suit the data.
        optimizer: What optimizer to build, and its schedule.
        clean: Makes the input of evaluation; null for the one that `views` carry, else that of the data.
        channels_last: Keep images and convolutions in channels-last memory format; null for what is faster: with
            convolutional encoders of ours, of torchvision and of timm.

    Raises:
        ValueError: If the encoder returns no vector a sample, or the views cannot be called.
    """

    family: ClassVar[str] = ""  # what it is listed with
    view_count: ClassVar[int] = 2  # views of a sample that `compute_loss` looks at, at least
    local_count: ClassVar[int] = 0  # further views that show a part, where the data have such
    takes: ClassVar[tuple[str, ...]] = ()  # what data it learns from, as `MODALITIES` calls them; empty for any
    least_batch: int = 2  # samples of a process that a step makes sense with

    def __init__(
        self,
        backbone: nn.Module,
        views: Any = None,
        optimizer: OptimizerSpec | None = None,
        clean: nn.Module | None = None,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone", "views", "clean"], frame=constructor_frame(self))
        self.optimizer_spec = as_spec(optimizer)
        of_kind(nn.Module, "CleanView()", clean=clean)
        self.backbone = as_backbone(backbone)
        self.format_as(channels_last)
        self.take(None if views is None else as_views(views, self.view_count), clean)
        self.facts = {}

    @abstractmethod
    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Compute the method's loss.

        Args:
            views: As `self.views` made them of `batch.input`, each of N samples.
            batch: The targets and indices, and the input as the data set holds it.

        Returns:
            The loss, and the first view's embedding if the method has it.
        """

    def embed(self, inputs: Any) -> Tensor:
        """Encode clean input of N samples, as `prepare` makes it, to embeddings `(N, feature_dim)`."""
        embedding: Tensor = self.backbone(inputs)
        return embedding

    forward = embed

    def setup(self, stage: str) -> None:
        """Take over the facts of the data, if they fit, and the transforms that suit them.

        Raises:
            ValueError: If the method, or its backbone, does not take such data.
        """
        self.facts = facts_of(self.trainer)
        require_taken(self, self.facts, "methods")
        require_facts(self.backbone, self.facts, f"the backbone `{type(self.backbone).__name__}`")
        super().setup(stage)

    def suggested_views(self) -> nn.Module | None:
        """Return the views that suit the data."""
        return views_for(self.trainer, self.view_count, self.local_count)

    def prepare(self, batch: Batch, random: bool = False) -> Any:
        """Return what the backbone takes of a batch, on its device.

        Args:
            batch: Its input as the data set holds it.
            random: Make the list of random views, which are a function of seed, step and rank, so that a resumed run
                sees the same; else the clean input.

        Raises:
            ValueError: If there are too few views, or nothing tells how to make clean input.
        """
        if random:
            epoch, number, rank = position(self) if self._trainer else (0, 1, 0)
            generator = derive_generator(self._seed, "views", epoch, number - 1, rank)
            make = self.views if batch.views is None else (lambda *_: batch.views)
            return [self._format(view) for view in make_views(make, batch.input, generator, self.view_count)]
        if self.clean is None:
            raise ValueError(
                f"`{type(self).__name__}` does not know how to make clean input: its views carry no transform for "
                "that, and there is no trainer with data; give `clean`, as `CleanView()` for images."
            )
        return self._format(self.clean(batch.input))

    def training_step(self, batch: Batch, batch_idx: int) -> Step:
        """Compute and log the loss; stop where it is not finite."""
        require_batch(batch)
        count_epoch(self.trainer)
        # dropout draws from the global generator: seeded by the step, a resumed run draws the same
        seed_draws(self.device, self._seed, "dropout", *position(self))
        with enough_samples(len(batch.target), self.least_batch, self):
            step = self.compute_loss(self.prepare(batch, random=True), batch)
        require_finite(step["loss"], self, batch_idx)
        self.log("train/loss", step["loss"], prog_bar=True, sync_dist=True, batch_size=len(batch.target))
        if "embedding" in step:
            step["embedding"] = step["embedding"].detach()
        return step

    def tell_missing_labels(self, consequence: str) -> None:
        """Warn where a fit that wants labels has none at all.

        Args:
            consequence: What the method does then.
        """
        targets = getattr(getattr(self.trainer.train_dataloader, "dataset", None), "targets", None)
        if isinstance(targets, Tensor) and not bool((targets >= 0).any()):
            rank_zero_warn(
                f"`{type(self).__name__}` learns from labels, and no training sample has one: {consequence}."
            )

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
        """Embed clean input, and project it where there is a projector, for the callbacks that judge."""
        require_batch(batch)
        embedding = self.embed(self.prepare(batch))
        projector = getattr(self, "projector", None)
        if projector is None:
            return {"embedding": embedding}
        with full_precision(embedding):
            return {"embedding": embedding, "projection": projector(embedding.float())}

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Embed clean input."""
        require_batch(batch)
        return {"index": batch.index, "embedding": self.embed(self.prepare(batch))}
