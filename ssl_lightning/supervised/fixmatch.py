"""FixMatch."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.engine.ranges import between
from ssl_lightning.supervised.semi_supervised import Guess, SemiSupervised


class FixMatch(SemiSupervised):
    r"""What the model is sure of on a weak view, it learns on a strong one.

    With :math:`q_b` the probabilities of the weak view of an unlabelled sample, and p those of the strong one (Eq. 4)

    .. math:: L_{unlabelled} = \frac1{\mu B} \sum_b 1(\max q_b \ge \tau) H(\arg\max q_b, p_b)

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder; null for the one of `checkpoint`.
        threshold: Least probability that counts, :math:`\tau`.
        kwargs: The other arguments, as for `SemiSupervised` and `Classifier`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        K. Sohn et al., FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence, NeurIPS 2020,
        arXiv 2001.07685, Eq. 3 and 4. There :math:`\mu` is 7, SGD runs for 2^20 steps, and the weak view is encoded in
        one batch with the others.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = FixMatch(num_classes=3, backbone=ConvNet(width=4))
        >>> unsure = torch.zeros(5, 3)
        >>> float(model.compute_loss(unsure, unsure)[0])  # what it is not sure of it does not learn
        0.0
    """

    def __init__(
        self, num_classes: int, backbone: nn.Module | None = None, threshold: float = 0.95, **kwargs: Any
    ) -> None:
        between(0, 1, threshold=threshold)
        super().__init__(num_classes, backbone, **kwargs)
        self.threshold = threshold

    def compute_loss(self, guesses: Tensor, logits: Tensor) -> Guess:
        """Compute the cross-entropy of what is sure."""
        confidence, target = guesses.softmax(dim=1).max(dim=1)
        mask = (confidence >= self.threshold).float()
        return Guess((cross_entropy(logits, target, reduction="none") * mask).mean(), target, mask)
