"""Sequences of many lengths in one batch: sound, text. What lies behind a sequence's end never counts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Padded(NamedTuple):
    """Sequences of several lengths, filled up to one.

    Attributes:
        values: `(N, T, ...)`: samples of sound, numbers of tokens, frames of a spectrogram; 0 behind the end.
        length: Of each sequence, `(N,)`, int64, from 1 to T.
    """

    values: Tensor
    length: Tensor


def inside(length: Tensor, total: int) -> Tensor:
    """Tell what lies within the sequences.

    Args:
        length: Of each sequence, `(N,)`.
        total: T, what they are filled up to.

    Returns:
        Boolean, `(N, T)`, on the device of `length`; true before the end.

    Example:
        >>> inside(torch.tensor([1, 3]), 3)
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    return torch.arange(total, device=length.device) < length[:, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over what lies within each sequence.

    Args:
        values: `(N, T, d)`; what is behind the end may be anything, also NaN.
        mask: Boolean, `(N, T)`, true within; at least once a row.

    Returns:
        `(N, d)`.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    kept = values.masked_fill(~mask[..., None], 0)
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).to(values.dtype)


def fill_up(rows: Sequence[Tensor]) -> Padded:
    """Put sequences `(T_i, ...)` into one batch, filled up with zeros to the longest.

    Example:
        >>> fill_up([torch.tensor([5]), torch.tensor([6, 7])])
        Padded(values=tensor([[5, 0],
                [6, 7]]), length=tensor([1, 2]))
    """
    length = torch.tensor([len(row) for row in rows])
    total = int(length.max()) if len(rows) else 0
    ends = [0] * (2 * (rows[0].ndim - 1)) if rows else []
    return Padded(torch.stack([pad(row, (*ends, 0, total - len(row))) for row in rows]), length)
