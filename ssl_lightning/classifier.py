"""The supervised module: from scratch, as a linear probe, or fine-tuned from a pretrained checkpoint; MC dropout."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ssl_lightning.backbones import Backbone, build, describe, plain
from ssl_lightning.data.base import Batch
from ssl_lightning.optim import OptimizerSpec, configure_optimizers, require_finite
from ssl_lightning.seeding import base_seed, count_epoch, derive_generator, derive_seed, position
from ssl_lightning.views import clean_view


class Classifier(L.LightningModule):
    """A linear classifier on a backbone, trained with labels.

    From scratch without `checkpoint`; with it, fine-tuned, or with `freeze` a linear probe.

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder; null for the one of `checkpoint`.
        checkpoint: Of a pretraining (or of another classifier), whose backbone weights are loaded.
        freeze: Train the head alone; the backbone stays in evaluation mode.
        dropout: Probability of dropping a value of the embedding before the head; MC dropout draws there.
        views: One random view for training batches; null for none.
        optimizer: What to build.
        label_smoothing: Of the cross-entropy.
        channels_last: Keep images and convolutions in channels-last memory format; faster with bf16.
        clean: Evaluation transform; null for `CleanView` with the normalisation of `views`. Give both that of the
            pretraining.

    Raises:
        ValueError: If there is neither backbone nor checkpoint, or they do not fit each other.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | None = None,
        checkpoint: str | None = None,
        freeze: bool = False,
        dropout: float = 0.0,
        views: nn.Module | None = None,
        optimizer: OptimizerSpec | None = None,
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        clean: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone", "views", "clean"])
        if num_classes < 2:
            raise ValueError(
                f"`num_classes={num_classes}` must be at least 2 to classify; a folder without class folders has "
                "no classes."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout={dropout}` must be a probability from 0 to below 1.")
        if freeze and checkpoint is None:
            raise ValueError(
                "`freeze=true` without `checkpoint` would probe random weights; give a pretrained checkpoint."
            )
        self.backbone = load_backbone(checkpoint, backbone)
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.backbone.feature_dim, num_classes))
        self.views, self.clean = views, clean or clean_view(views)
        self.num_classes, self.frozen, self.label_smoothing = num_classes, freeze, label_smoothing
        self.channels_last = channels_last
        self.optimizer_spec = optimizer or OptimizerSpec()
        self._seed = 0
        if freeze:
            self.backbone.requires_grad_(False).eval()
        for part in ("train", "val", "test"):
            self.add_module(f"{part}_loss", MeanMetric())
            self.add_module(f"{part}_accuracy", MulticlassAccuracy(num_classes, average="micro", ignore_index=-1))

    def train(self, mode: bool = True) -> "Classifier":
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def embed(self, images: Tensor) -> Tensor:
        """Encode clean, normalised images `(N, C, H, W)` to embeddings `(N, feature_dim)`."""
        embedding: Tensor = self.backbone(images)
        return embedding

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(N, num_classes)` of clean, normalised images `(N, C, H, W)`."""
        logits: Tensor = self.head(self.embed(images))
        return logits

    def member_logits(self, images: Tensor) -> Tensor:
        """Return the logits of all that are trained together, `(members, N, num_classes)`; here of one."""
        return self(images)[None]  # type: ignore[no-any-return]

    def sample_logits(self, images: Tensor, members: int | None, seed: int) -> Tensor:
        """Draw logits by MC dropout; what comes before the first dropout is run once.

        Args:
            images: `(N, C, H, W)`, clean and normalised.
            members: Number of dropout masks; null for 20.
            seed: Of the masks, which depend on nothing else.

        Returns:
            `(members, N, num_classes)`.

        Raises:
            ValueError: If the model has no dropout to draw from.

        Reference:
            Y. Gal, Z. Ghahramani, Dropout as a Bayesian Approximation, ICML 2016, arXiv 1506.02142.
        """
        members = 20 if members is None else members
        if any(layer.p > 0 for layer in dropout_layers(self.backbone)):
            hidden = self.backbone.trunk(images)
            return mc_dropout(self, hidden, members, seed, lambda hidden: self.head(self.backbone.rest(hidden)))
        return mc_dropout(self.head, self.embed(images), members, seed)

    def require_samples(self, members: int | None) -> None:
        """Check that there is something to draw from.

        Args:
            members: As for `sample_logits`.

        Raises:
            ValueError: If the model has no dropout.
        """
        require_dropout(self)

    def setup(self, stage: str) -> None:
        """Check that model and data agree, and fix the seed that every step's randomness derives from."""
        self._seed = self.trainer.strategy.broadcast(base_seed())
        found = getattr(getattr(self.trainer, "datamodule", None), "num_classes", self.num_classes)
        if found != self.num_classes:
            raise ValueError(
                f"`num_classes={self.num_classes}` of the classifier is not the data's {found}; labels would be out "
                f"of range. "
                "Leave it out on the command line, or pass `num_classes=data.num_classes`."
            )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make the view, on the device."""
        if self.training and self.views is not None:
            images = self.views(batch.input, derive_generator(self._seed, "views", *position(self)))
        else:
            images = self.clean(batch.input)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return batch._replace(input=images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log cross-entropy and accuracy; unlabelled samples do not count."""
        count_epoch(self.trainer)
        # dropout draws from the global generator: seeded by the step, a resumed run draws the same
        torch.manual_seed(derive_seed(self._seed, "dropout", *position(self)))
        loss = self._evaluate(batch, "train")
        require_finite(loss, self, batch_idx)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log cross-entropy and accuracy."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log cross-entropy and accuracy."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, part: str) -> Tensor:
        members = self.member_logits(batch.input) if part == "train" else self(batch.input)[None]
        known = int((batch.target >= 0).sum())
        smoothing = self.label_smoothing if part == "train" else 0.0
        totals = [
            cross_entropy(logits, batch.target, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
            for logits in members
        ]
        loss = torch.stack(totals).sum() / max(1, known)  # a sum: each member learns as it would alone
        logits = average(members)
        mean, accuracy = getattr(self, f"{part}_loss"), getattr(self, f"{part}_accuracy")
        mean.update(loss.detach() / len(members), weight=known)
        accuracy.update(logits.detach(), batch.target)
        self.log_dict({f"{part}/loss": mean, f"{part}/accuracy": accuracy}, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return index, predicted class and its probability."""
        confidence, prediction = self(batch.input).softmax(dim=1).max(dim=1)
        return {"index": batch.index, "prediction": prediction, "confidence": confidence}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule."""
        return configure_optimizers(self, self.optimizer_spec)  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the backbone's architecture, so that others can open the checkpoint without the config."""
        checkpoint["backbone"] = describe(self.backbone)


def average(members: Tensor) -> Tensor:
    """Return the log of the mean probabilities of logits `(members, N, classes)`; those of one member as they are."""
    if len(members) == 1:
        return members[0]
    return members.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(members))


def load_backbone(checkpoint: str | None, backbone: Backbone | None) -> Backbone:
    """Return a backbone with a checkpoint's weights.

    Args:
        checkpoint: File of a module with a `backbone`; null for fresh weights.
        backbone: Takes the weights; null to build the one that the checkpoint describes.

    Returns:
        The backbone.

    Raises:
        ValueError: If nothing says which backbone, the file is no such checkpoint, or its weights do not fit.
    """
    if checkpoint is None:
        if backbone is None:
            raise ValueError(
                "`backbone` and `checkpoint` are both missing; give a backbone (such as ConvNet), a checkpoint, or "
                "both."
            )
        return backbone
    if not Path(checkpoint).is_file():
        raise ValueError(f"`checkpoint={checkpoint}` is no file; give a checkpoint that `ssl-lightning fit` saved.")
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        named = saved["state_dict"].items()
        weights = plain({k.removeprefix("backbone."): v for k, v in named if k.startswith("backbone.")})
        description = saved["backbone"]
    except Exception as error:  # torch.load raises whatever the file's bytes lead to
        raise ValueError(
            f"`checkpoint={checkpoint}` is no checkpoint of ours ({type(error).__name__}: {str(error)[:200]}); give "
            f"one that "
            "`ssl-lightning fit` saved."
        ) from error
    backbone = backbone or build(description)
    mine = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in weights.items()}
    if mine != theirs:
        key = next(key for key in [*mine, *theirs] if mine.get(key) != theirs.get(key))
        raise ValueError(
            f"`checkpoint={checkpoint}` holds another architecture: {describe_briefly(description)}, not "
            f"{describe_briefly(describe(backbone))}; first difference `{key}`: {theirs.get(key, 'absent')} there, "
            f"{mine.get(key, 'absent')} here. Leave `backbone` out to take the checkpoint's, and use data of the "
            f"same channels."
        )
    backbone.load_state_dict(weights)
    return backbone


def describe_briefly(description: dict[str, Any]) -> str:
    """Write an architecture's description as a constructor call."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in description["init_args"].items())
    return f"{description['class_path'].rpartition('.')[2]}({arguments})"


def dropout_layers(module: nn.Module) -> list[Any]:
    """Return all dropout layers of a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]


def require_dropout(module: nn.Module) -> None:
    """Check that a module has dropout to draw from.

    Args:
        module: To be drawn from.

    Raises:
        ValueError: If no dropout layer has a positive probability.
    """
    if not any(layer.p > 0 for layer in dropout_layers(module)):
        raise ValueError(
            "the model has no dropout to draw from; give `dropout` to the classifier (`--model.dropout 0.5`) or its "
            "backbone."
        )


@contextmanager
def fixed_masks(module: nn.Module, seed: int) -> Iterator[None]:
    """Let a module in evaluation mode drop by one mask, the same for every sample, batch and process.

    Only what dropout layers return is masked: batch norm and everything else stay in evaluation mode, and the global
    random state is untouched. Dropout by `torch.nn.functional` is out of reach.

    Args:
        module: In evaluation mode, with dropout layers.
        seed: Of the mask; each layer's derives from it, the layer's place and its shape.
    """
    handles = []

    def mask(place: int, layer: Any) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            # Dropout2d and the like drop whole channels
            shape = output.shape[1:] if type(layer) is nn.Dropout else (output.shape[1], *[1] * (output.ndim - 2))
            kept = torch.rand(shape, generator=derive_generator(seed, "mask", place)) >= layer.p
            masked: Tensor = output * (kept.to(output) / (1 - layer.p))
            return masked

        return hook

    try:
        for place, layer in enumerate(dropout_layers(module)):
            if layer.p > 0:
                handles.append(layer.register_forward_hook(mask(place, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def mc_dropout(
    module: nn.Module, inputs: Tensor, members: int, seed: int, function: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Run a module once for each of several dropout masks.

    Args:
        module: In evaluation mode, with dropout layers.
        inputs: `(N, ...)`.
        members: Number of masks.
        seed: Of the masks.
        function: What of the module to run; null for all of it.

    Returns:
        `(members, N, ...)`.

    Raises:
        ValueError: If no dropout layer has a positive probability.
    """
    require_dropout(module)
    outputs = []
    for member in range(members):
        with fixed_masks(module, derive_seed(seed, "member", member)):
            outputs.append((function or module)(inputs))
    return torch.stack(outputs)
