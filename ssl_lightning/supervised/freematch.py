"""FreeMatch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.engine.processes import mean_over_processes
from ssl_lightning.engine.ranges import at_least, between
from ssl_lightning.functional.tally import tally
from ssl_lightning.supervised.semi_supervised import Guess, SemiSupervised


class FreeMatch(SemiSupervised):
    r"""FixMatch with a threshold that adapts itself, to the model's confidence as a whole and to each class.

    With the confidence :math:`\tau`, the mean probabilities :math:`\tilde p` and the histogram of guesses
    :math:`\tilde h` of weak views, each a moving average over steps that begins at the even guess, a sample taken for
    class c counts if its probability is at least :math:`\tau_c` (Eq. 8), and fairness (Eq. 11 to 13) makes the strong
    views of those that count, :math:`\bar p` and :math:`\bar h`, as diverse as that:

    .. math:: \tau_c = \frac{\tilde p_c}{\max_k \tilde p_k} \tau, \qquad L_{unlabelled} = \frac1M \sum_m 1(\max q_m \ge
        \tau_{c}) H(\arg\max q_m, p_m) + w_f \sum_c \left[\frac{\tilde p}{\tilde h}\right]_c \log \left[\frac{\bar
        p}{\bar h}\right]_c

    where [.] scales to a sum of 1.

    Args:
        num_classes: Number of classes; linked from the data on the command line.
        backbone: The encoder; null for the one of `checkpoint`.
        momentum: Of the moving averages; 0.999 in the paper, whose fits are a thousand times as long.
        fairness: Weight of fairness, :math:`w_f`.
        kwargs: The other arguments, as for `SemiSupervised` and `Classifier`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Y. Wang et al., FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning, ICLR 2023, arXiv 2205.07246,
        Eq. 5 to 13. The fairness term is minimised with the sign of the authors' code: it is a negative cross-entropy,
        :math:`w_f` 0.01 to 0.05 there.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = FreeMatch(num_classes=3, backbone=ConvNet(width=4))
        >>> model.thresholds()  # of each class, before anything was seen
        tensor([0.3333, 0.3333, 0.3333])
    """

    confidence: Tensor
    mean: Tensor
    histogram: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module | None = None,
        momentum: float = 0.99,
        fairness: float = 0.01,
        **kwargs: Any,
    ) -> None:
        between(0, 1, "[)", momentum=momentum)
        at_least(0, fairness=fairness)
        super().__init__(num_classes, backbone, **kwargs)
        self.momentum, self.fairness = momentum, fairness

    def _count_classes(self, num_classes: int) -> None:
        super()._count_classes(num_classes)
        even = torch.full((num_classes,), 1 / num_classes)
        self.register_buffer("confidence", torch.tensor(1 / num_classes))
        self.register_buffer("mean", even.clone())
        self.register_buffer("histogram", even.clone())

    def compute_loss(self, guesses: Tensor, logits: Tensor) -> Guess:
        """Move the averages, then compute the loss of what counts by them."""
        probabilities = guesses.softmax(dim=1)
        confidence, target = probabilities.max(dim=1)
        self._follow(probabilities, confidence, target)
        mask = (confidence >= self.thresholds()[target]).float()
        loss = (cross_entropy(logits, target, reduction="none") * mask).mean()
        if self.fairness and mask.any():
            loss = loss + self.fairness * self.unfairness(logits[mask > 0].softmax(dim=1))
        return Guess(loss, target, mask)

    @torch.no_grad()
    def _follow(self, probabilities: Tensor, confidence: Tensor, target: Tensor) -> None:
        counts = tally(target, self.num_classes).float() / len(target)
        found = mean_over_processes(torch.cat([confidence.mean()[None], probabilities.mean(dim=0), counts]))
        share = 1 - self.momentum
        self.confidence.lerp_(found[0], share)
        self.mean.lerp_(found[1 : 1 + self.num_classes], share)
        self.histogram.lerp_(found[1 + self.num_classes :], share)

    def thresholds(self) -> Tensor:
        """Return the least probability that counts, of each class, `(num_classes,)` (Eq. 8)."""
        return self.confidence * self.mean / self.mean.max()

    def unfairness(self, strong: Tensor) -> Tensor:
        """Return the negative cross-entropy between the classes so far and those of some strong views (Eq. 13).

        Args:
            strong: Probabilities of those that count, `(K, num_classes)`, K at least 1.

        Returns:
            A scalar with gradient.
        """
        counts = tally(strong.argmax(dim=1), self.num_classes).to(strong)
        wanted = _scaled(self.mean, self.histogram)
        found = _scaled(strong.mean(dim=0), counts / counts.sum())
        return (wanted * (found + 1e-12).log()).sum()


def _scaled(mean: Tensor, histogram: Tensor) -> Tensor:
    """Divide by the histogram where it is not 0, and scale to a sum of 1."""
    rows = torch.where(histogram > 0, mean / histogram.clamp(min=1e-12), 0.0)
    return rows / rows.sum()
