"""How often each number occurs, without asking a GPU for the largest."""

import torch
from torch import Tensor


def tally(numbers: Tensor, count: int) -> Tensor:
    """Return how often each of the numbers from 0 below `count` occurs.

    `torch.bincount` waits for a GPU, since a larger number would make a longer answer.

    Args:
        numbers: `(N,)`, int64.
        count: Of the numbers there are.

    Returns:
        int64, `(count,)`.

    Example:
        >>> tally(torch.tensor([0, 2, 2]), 4)
        tensor([1, 0, 2, 0])
    """
    return torch.zeros(count, dtype=torch.int64, device=numbers.device).index_add_(0, numbers, torch.ones_like(numbers))
