"""Images and texts that find each other: recall of a search, what chance finds, and what counts as the same."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightly.utils import dist
from torch import Tensor

from ssl_lightning.engine.devices import onto

BLOCK = 2**20  # values of an image that are hashed at once


def recall_at(scores: Tensor, right: Tensor, k: int) -> float:
    """Return the share of queries for which one of the k best candidates is right.

    Ties count against the query: candidates that are all alike find nothing.

    Args:
        scores: Of each query and candidate, `(N, M)`; larger is better.
        right: Whether the candidate is right, boolean, `(N, M)`; at least one a row.
        k: Candidates that are looked at.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: If a score is no number, or a query has no right candidate.

    Example:
        >>> recall_at(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.eye(2, dtype=torch.bool), 1)
        0.5
    """
    if scores.isnan().any():
        raise ValueError("`scores` holds NaN: the encoder's training diverged, or its precision is too low.")
    if not right.any(dim=1).all():
        raise ValueError("`right` has a query without a right candidate; leave it out.")
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    before = ((scores >= best) & ~right).sum(dim=1)
    return float((before < k).double().mean())


def chance_at(right: Tensor, k: int) -> float:
    r"""Return the recall that a random order of the candidates has.

    .. math:: 1 - \binom{M - r}{k} / \binom{M}{k}, \text{ the mean over queries with r right ones of M}

    Args:
        right: As for `recall_at`.
        k: Candidates that are looked at.

    Example:
        >>> round(chance_at(torch.eye(20, dtype=torch.bool), 5), 6)
        0.25
    """
    total = right.shape[1]
    looked, counts = min(k, total), right.sum(dim=1).tolist()
    whole = math.comb(total, looked)
    return sum(1 - math.comb(total - count, looked) / whole for count in counts) / len(counts)


def same(images: Tensor, texts: Tensor, other_images: Tensor, other_texts: Tensor) -> Tensor:
    """Tell which pairs have the same image or the same text.

    Args:
        images: Numbers that tell images apart, `(N,)`.
        texts: Numbers that tell texts apart, `(N,)`.
        other_images: Of other pairs, `(M,)`.
        other_texts: Likewise.

    Returns:
        Boolean, `(N, M)`.
    """
    return (images[:, None] == other_images) | (texts[:, None] == other_texts)


def content_ids(pairs: Any) -> tuple[Tensor, Tensor]:
    """Return numbers that tell images, and texts, apart: the same content has the same number, on every process.

    Args:
        pairs: A batch of pairs as the data set holds it: images, and texts padded with 0.

    Returns:
        Hashes of 63 bits, `(N,)` each.

    Example:
        >>> from ssl_lightning.transforms.padded import Padded
        >>> from ssl_lightning.transforms.pairs import Pair
        >>> texts = Padded(torch.tensor([[5, 6], [5, 0]]), torch.tensor([2, 1]))
        >>> images, captions = content_ids(Pair(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), texts))
        >>> bool(images[0] == images[1]), bool(captions[0] == captions[1])
        (True, False)
    """
    return _hashes(pairs.image.flatten(1)), _hashes(pairs.text.values)


def _hashes(rows: Tensor) -> Tensor:
    """Hash rows of whole numbers: a sum with fixed odd factors modulo 2^64, to which zeros at the end add nothing."""
    rows = rows.contiguous().view(torch.int32) if rows.is_floating_point() else rows  # of float32: by their bits
    factors = torch.randint(2**62, (rows.shape[1],), generator=torch.Generator().manual_seed(0)) * 2 + 1
    factors = onto(factors, rows.device)
    parts = [(part.long() * factors).sum(dim=1) for part in torch.split(rows, max(1, BLOCK // max(1, rows.shape[1])))]
    return torch.cat(parts)


def gathered(*rows: Tensor) -> tuple[int, Sequence[Tensor]]:
    """Join rows of all processes, each of which has as many; gradients find their way back.

    Args:
        rows: Tensors `(N, ...)`.

    Returns:
        Where this process's begin, and the tensors of all.
    """
    if dist.world_size() == 1:
        return 0, rows
    return dist.rank() * len(rows[0]), [torch.cat(dist.gather(part.contiguous())) for part in rows]
