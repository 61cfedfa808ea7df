"""Pseudo-labels."""

from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.engine.ranges import between
from ssl_lightning.supervised.semi_supervised import Guess, SemiSupervised


class PseudoLabel(SemiSupervised):
    r"""The model learns what it takes unlabelled samples for, with a weight that rises from 0.

    .. math:: L_{unlabelled} = \frac1{M} \sum_m H(\arg\max p_m, p_m)

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder; null for the one of `checkpoint`.
        threshold: Least probability that counts; 0 for the paper's, where all do.
        ramp: Fraction of the fit over which the weight rises from 0 (Eq. 16).
        kwargs: The other arguments, as for `SemiSupervised` and `Classifier`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        D.-H. Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks, ICML
        2013 workshop, Eq. 15 and 16. Departures: both views are random; the weight rises from the first step on, where
        the paper waits for 100 epochs, and ends at 1 by default, 3 there.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = PseudoLabel(num_classes=3, backbone=ConvNet(width=4))
        >>> sure = torch.tensor([[9.0, 0, 0]])
        >>> round(float(model.compute_loss(sure, torch.zeros(1, 3))[0]), 4)  # log 3: the guess is the label
        1.0986
    """

    second_view: ClassVar[Literal["weak", "strong"]] = "weak"

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module | None = None,
        threshold: float = 0.0,
        ramp: float = 0.5,
        **kwargs: Any,
    ) -> None:
        between(0, 1, threshold=threshold)
        super().__init__(num_classes, backbone, ramp=ramp, **kwargs)
        self.threshold = threshold

    def compute_loss(self, guesses: Tensor, logits: Tensor) -> Guess:
        """Compute the cross-entropy with the model's own guess."""
        confidence, target = guesses.softmax(dim=1).max(dim=1)
        mask = (confidence >= self.threshold).float()
        return Guess((cross_entropy(logits, target, reduction="none") * mask).mean(), target, mask)
