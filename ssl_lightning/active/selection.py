"""From scores to a query: which samples, in which order."""

import torch
from torch import Tensor


def top(scores: Tensor, indices: Tensor, count: int) -> Tensor:
    """Choose the samples of largest score; ties by smaller index.

    Scores are compared to a millionth (of a nat or a probability), since the last bits of a network's outputs depend
    on the batch a sample was in, and must not decide.

    Args:
        scores: `(n,)`; larger is chosen first.
        indices: Dataset index of each, `(n,)`, distinct.
        count: How many, at most n.

    Returns:
        Positions in `scores`, best first, `(count,)`.

    Raises:
        ValueError: If a score is NaN, or there are fewer samples than `count`.

    Example:
        >>> top(torch.tensor([0.1, 0.7, 0.7]), torch.tensor([5, 9, 2]), 2)
        tensor([2, 1])
    """
    if count > len(scores):
        raise ValueError(f"`count={count}` exceeds the {len(scores)} samples to choose from.")
    if torch.isnan(scores).any():
        index = int(indices[torch.isnan(scores)][0])
        raise ValueError(
            f"the score of sample {index} is NaN: the model's outputs are not finite; look at its training loss."
        )
    by_index = indices.argsort(stable=True)
    rounded = torch.round(scores.double()[by_index], decimals=6)
    return by_index[rounded.argsort(descending=True, stable=True)[:count]]
