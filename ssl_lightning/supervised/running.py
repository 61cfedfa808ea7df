"""A mean over many steps that never asks a GPU what it holds."""

import torch
from torch import Tensor
from torchmetrics import Metric


class RunningMean(Metric):
    """Mean of values by weights, over steps and processes.

    torchmetrics' `MeanMetric` looks for NaN at each update, and `MulticlassAccuracy` for what is to be ignored: a GPU
    is waited for each time.

    Args:
        counts: Whether values and weights are whole numbers, whose sum is exact, and whose mean over nothing is 0; else
            that is NaN.

    Example:
        >>> mean = RunningMean()
        >>> mean.update(torch.tensor([1.0, 4.0]), torch.tensor([2, 1]))
        >>> mean.compute()
        tensor(2.)
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self, counts: bool = False) -> None:
        super().__init__()
        self.counts = counts
        zero = torch.zeros((), dtype=torch.int64 if counts else torch.float32)
        self.add_state("total", zero.clone(), dist_reduce_fx="sum")
        self.add_state("weight", zero.clone(), dist_reduce_fx="sum")

    def update(self, values: Tensor, weights: Tensor) -> None:
        """Add values `(...)` with weights of the same shape."""
        kind = self.total.dtype
        self.total += (values.to(kind) * weights.to(kind)).sum()
        self.weight += weights.to(kind).sum()

    def compute(self) -> Tensor:
        """Return the mean, a scalar."""
        return self.total / (self.weight.clamp(min=1) if self.counts else self.weight)
