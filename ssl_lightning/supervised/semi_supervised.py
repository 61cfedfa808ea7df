"""The base of semi-supervised classifiers: labelled and unlabelled samples in every step, two views of the latter."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ssl_lightning.data.of_trainer import require_batch, view_for
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import Copied
from ssl_lightning.engine.optim import enough_samples, require_finite
from ssl_lightning.engine.ranges import at_least, between, whole
from ssl_lightning.engine.resume import count_epoch, position
from ssl_lightning.engine.seeding import derive_generator, seed_draws
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.supervised.running import RunningMean
from ssl_lightning.transforms.base import as_views, end_alike, join, make_views


class Guess(NamedTuple):
    """What a method makes of the unlabelled samples of a step.

    Attributes:
        loss: A scalar, to be added to that of the labelled samples.
        target: Class that each unlabelled sample was taken for, `(M,)`.
        mask: How much each counts, `(M,)`, 0 to 1.
    """

    loss: Tensor
    target: Tensor
    mask: Tensor


class SemiSupervised(Classifier, ABC):
    r"""A classifier that learns from labelled and unlabelled samples: a subclass writes `compute_loss`.

    Each step has a batch of labelled samples and `ratio` times as many unlabelled ones. Its loss is

    .. math:: L = L_{labelled} + w(t) L_{unlabelled}, \qquad w(t) = w \, \min(1, t / rT)

    where the method makes the second of two logits of each unlabelled sample: of a weak view, without gradient, and of
    the view that it learns by. Labelled samples are among the unlabelled ones, too, as in the papers. Logged are
    `train/mask`, how much the unlabelled samples count, and where the data know the truth `train/pseudo_accuracy`, how
    many of those that count were taken for what they are. Nothing is ever learnt from that.

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder; null for the one of `checkpoint`.
        ratio: Unlabelled samples with each labelled one, :math:`\mu`.
        weight: Of the unlabelled loss at the end, w.
        ramp: Fraction of the fit over which the weight rises linearly from 0, r.
        strong_views: One strong random view for unlabelled samples; null for that of the data.
        kwargs: The other arguments, as for `Classifier`.

    Raises:
        ValueError: If a number is out of its range, or as for `Classifier`.
    """

    second_view: ClassVar[Literal["weak", "strong"]] = "strong"  # the view that it learns by

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module | None = None,
        ratio: int = 4,
        weight: float = 1.0,
        ramp: float = 0.0,
        strong_views: Any = None,
        **kwargs: Any,
    ) -> None:
        whole(1, ratio=ratio)
        at_least(0, weight=weight)
        between(0, 1, ramp=ramp)
        super().__init__(num_classes, backbone, **kwargs)
        if self.frozen:
            raise ValueError(
                "`freeze=true` leaves the encoder nothing to learn from unlabelled samples; leave it out, or take "
                "`Classifier`."
            )
        self.unlabelled_ratio, self.weight, self.ramp = ratio, weight, ramp
        self.strong_views: nn.Module | None = None if strong_views is None else as_views(strong_views, 1)
        self._strong_given = strong_views is not None
        self.train_mask, self.train_pseudo_accuracy = RunningMean(), RunningMean()
        self._copied = Copied()

    @abstractmethod
    def compute_loss(self, guesses: Tensor, logits: Tensor) -> Guess:
        """Compute the loss of unlabelled samples.

        Args:
            guesses: Logits of the weak view by `guess`, `(M, C)`, float32, without gradient.
            logits: Of the view that is learnt by, `(M, C)`, float32.

        Returns:
            The loss, with what each sample was taken for.
        """

    def guess(self, inputs: Any) -> Tensor:
        """Return the logits of the weak view that unlabelled samples are judged by; by the model as it is."""
        return self(inputs)  # type: ignore[no-any-return]

    def setup(self, stage: str) -> None:
        """Ask the data for the strong view, where none was given.

        Raises:
            ValueError: If there are no random views.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if not self._strong_given:
            self.strong_views = view_for(self.trainer, "strong_views")
        if self.views is None or self.strong_views is None:
            what = "views" if self.views is None else "strong_views"
            raise ValueError(
                f"`{type(self).__name__}` compares random views of unlabelled samples, and these data suggest none: "
                f"give `{what}`, any function of one sample, or take `Classifier`."
            )
        end_alike(self.strong_views, self.clean)

    def on_train_start(self) -> None:
        """Warn where there is no unlabelled sample."""
        super().on_train_start()
        sampler: Any = getattr(self.trainer.train_dataloader, "sampler", None)
        others = getattr(sampler, "unlabelled", None)
        if others is not None and len(others.indices) <= len(sampler.indices):
            rank_zero_warn(
                f"`{type(self).__name__}` has no unlabelled sample beside the {len(sampler.indices)} labelled ones: "
                "`Classifier` learns as much in less time."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log the loss of labelled and unlabelled samples."""
        require_batch(batch)
        count_epoch(self.trainer)
        place = position(self)
        # dropout draws from the global generator: seeded by the step, a resumed run draws the same
        seed_draws(self.device, self._seed, "dropout", *place)
        count = len(batch.target) // (1 + self.unlabelled_ratio)
        labelled, unlabelled = _rows(batch, slice(count)), _rows(batch, slice(count, None))
        weak = self.prepare(batch, random=True)
        first = pytree.tree_map(lambda rows: rows[:count], weak)
        second = pytree.tree_map(lambda rows: rows[count:], weak)
        with enough_samples(count, 1, self):
            with torch.no_grad():
                guesses = self.guess(second).float()
            learnt = self._second(unlabelled, place)
            logits = self._together(first, learnt).float()
        loss = self._loss(logits[None, :count], labelled.target)
        found = self.compute_loss(guesses, logits[count:])
        total = loss + self.weight * self._rise() * found.loss
        require_finite(total, self, batch_idx)
        self._note_guesses(found, unlabelled.index)
        self._note(loss, logits[:count], labelled.target)
        return total

    def _together(self, first: Any, second: Any) -> Tensor:
        """Return the logits of both, by one forward where they are alike: batch norm then sees them together."""
        shapes = [[leaf.shape[1:] for leaf in pytree.tree_leaves(part)] for part in (first, second)]
        if shapes[0] == shapes[1]:
            return self(join([first, second]))  # type: ignore[no-any-return]
        return torch.cat([self(first), self(second)])

    def _second(self, unlabelled: Batch, place: tuple[int, int, int]) -> Any:
        """Return the view of unlabelled samples that is learnt by."""
        views = self.strong_views if self.second_view == "strong" else self.views
        generator = derive_generator(self._seed, "second view", *place)
        return self._format(make_views(views, unlabelled.input, generator, 1)[0])

    def _rise(self) -> float:
        total = self.ramp * float(self.trainer.estimated_stepping_batches)
        return min(1.0, self.global_step / total) if 0 < total < float("inf") else 1.0

    def _note_guesses(self, found: Guess, index: Tensor) -> None:
        """Count how much the unlabelled samples of a step count and, where the truth is known, what they are."""
        mask = found.mask.detach().float()
        self.train_mask.update(mask, torch.ones_like(mask))
        if (truth := self._truth()) is not None:
            known = self._copied.there(truth, index.device)[index]
            judged = ((mask > 0) & (known >= 0)).float()
            self.train_pseudo_accuracy.update((found.target == known).float(), judged)

    def _truth(self) -> Tensor | None:
        """Return the labels of all samples, where answers are simulated by them."""
        return getattr(getattr(self.trainer, "datamodule", None), "truth", None)

    def _log(self, part: str) -> None:
        """Log, with what the unlabelled samples were taken for, where any counted; in every process alike."""
        super()._log(part)
        if part != "train":
            return
        self.log("train/mask", self.train_mask, on_step=False, on_epoch=True, prog_bar=True)
        if self._truth() is not None:
            right = self.train_pseudo_accuracy.compute()
            self.train_pseudo_accuracy.reset()
            if right.isfinite():
                self.log("train/pseudo_accuracy", right, on_step=False, on_epoch=True, batch_size=1)


def _rows(batch: Batch, part: slice) -> Batch:
    """Return some of a batch's samples."""
    views = None if batch.views is None else pytree.tree_map(lambda rows: rows[part], batch.views)
    return Batch(pytree.tree_map(lambda rows: rows[part], batch.input), batch.target[part], batch.index[part], views)
