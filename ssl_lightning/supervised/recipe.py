"""How a classifier is trained, beside its optimizer: augmentation, a first head, averaged weights, balanced classes."""

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from ssl_lightning.engine.hparams import as_settings
from ssl_lightning.engine.ranges import between, one_of


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained, beside its optimizer.

    Args:
        augment: Train on the weak random views that the data suggest, where the classifier was given none.
        probe: Begin with a head that is logistic regression on the embeddings of the labelled samples, where the
            encoder is pretrained: linear probing first, then fine-tuning (Kumar et al. 2022, arXiv 2202.10054). With a
            frozen encoder that head is the result, and no step is taken.
        ema: Decay of the moving average of the weights, which is what is judged, saved and asked by strategies; 0 for
            none. At step t it is at most (1 + t) / (10 + t), so that short fits average, too.
        class_balance: Weight the loss of a class of n labels by (1 - b) / (1 - b^n), with b this number: 0 treats
            samples alike, near 1 classes (Cui et al. 2019, arXiv 1901.05555, Eq. 4).
        label_smoothing: Share of the target that is spread evenly over all classes in the cross-entropy.

    Raises:
        ValueError: If a number is out of its range.
    """

    augment: bool = True
    probe: bool = True
    ema: float = 0.99
    class_balance: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        try:
            one_of((False, True), augment=self.augment, probe=self.probe)
            between(0, 1, "[)", ema=self.ema, class_balance=self.class_balance, label_smoothing=self.label_smoothing)
        except ValueError as error:
            raise ValueError(str(error).replace("`", "`recipe.", 1)) from None


torch.serialization.add_safe_globals([Recipe])  # checkpoints hold it among the hyper-parameters


def as_recipe(recipe: Any) -> Recipe:
    """Return a recipe from one, its fields as a checkpoint keeps them, or null.

    Raises:
        ValueError: If it is anything else, or has a field that there is none of.

    Example:
        >>> as_recipe({"ema": 0.0}).ema
        0.0
    """
    return as_settings(Recipe, recipe, "recipe", "a `Recipe`, such as `Recipe(ema=0.99)`")


def class_weights(counts: Tensor, balance: float) -> Tensor:
    r"""Return the weight of each class's loss, :math:`w_c \propto (1 - \beta) / (1 - \beta^{n_c})`.

    They are scaled so that the mean over all samples is 1; a class without a sample has weight 0.

    Args:
        counts: Labelled samples of each class, `(C,)`.
        balance: :math:`\beta`, from 0 to below 1.

    Returns:
        `(C,)`, float32.

    Reference:
        Y. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, arXiv 1901.05555, Eq. 4.

    Example:
        >>> counts = torch.tensor([1, 3, 0])
        >>> class_weights(counts, 0.0), class_weights(counts, 0.9999).round(decimals=2)
        (tensor([1., 1., 0.]), tensor([2.0000, 0.6700, 0.0000]))
    """
    exact = counts.double()
    each = torch.where(counts > 0, (1 - balance) / (1 - balance**exact).clamp(min=1e-12), 0.0)
    return (each * exact.sum() / (each * exact).sum()).float()


class Averaging(WeightAveraging):
    """Keeps the moving average of a model's weights and buffers, which takes their place when a fit ends.

    Args:
        decay: At most; at step t it is (1 + t) / (10 + t) as long as that is less.
    """

    def __init__(self, decay: float) -> None:
        def average(mean: Tensor, current: Tensor, count: Any) -> Tensor:
            step = float(count)
            share = 1 - min(decay, (1 + step) / (10 + step))
            return mean.lerp(current, share) if mean.is_floating_point() else current

        super().__init__(avg_fn=average)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average of all steps, the last one included, whichever callback saves when."""
        if self._average_model is not None and trainer.global_step > self._latest_update_step:
            self._average_model.update_parameters(pl_module)
            self._latest_update_step = trainer.global_step
        if self._average_model is not None:  # else the weights are the average already
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with both in a fit; what only judges or predicts takes the average, which is in its place."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
