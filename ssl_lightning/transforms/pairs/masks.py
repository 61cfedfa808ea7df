"""What ViLBERT does to pairs: partners from elsewhere, and masks over words and regions."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.transforms.padded import Padded, inside
from ssl_lightning.transforms.pairs.pair import Pair
from ssl_lightning.transforms.text.tokens import MASK, SPECIAL
from ssl_lightning.transforms.text.views import scattered

DRAWS = 3  # for each word: whether it is masked, how, and by which


class Masked(NamedTuple):
    """What is masked of pairs.

    Attributes:
        text: The text as it is read, masked words replaced.
        words: Which words must be told, boolean, `(N, T)`.
        hidden: Which regions' features are set to 0, boolean, `(N, R)`.
        regions: Which regions must be told, boolean, `(N, R)`: the hidden ones and some others.
    """

    text: Padded
    words: Tensor
    hidden: Tensor
    regions: Tensor


def partners(alike: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw for each pair of a batch others, none of which has the same image or the same text.

    Args:
        alike: Which have either in common, boolean, `(N, N)`.
        count: Others of each pair, drawn one by one: one may come twice.
        generator: Of the CPU.

    Returns:
        Their places, `(count, N)`, and where there is one at all, boolean, `(count, N)`.
    """
    draws = onto(torch.rand(count, *alike.shape, generator=generator), alike.device)
    best, places = draws.masked_fill(alike, -1.0).max(dim=2)
    return places, best >= 0


def mask_pairs(pairs: Pair, share: float, regions: int, vocab_size: int, generator: torch.Generator) -> Masked:
    """Mask words as in BERT, and regions as in ViLBERT, of each pair by a draw of its own.

    Args:
        pairs: N of them.
        share: Of the words, and of the regions.
        regions: Regions of an image, R.
        vocab_size: Tokens, of which a word is replaced by any but the special ones.
        generator: Of the CPU.
    """
    length, total = pairs.text.length, pairs.text.values.shape[1]
    words = torch.stack([scattered(length, total, generator) for _ in range(DRAWS)])
    return _masked(pairs, share, words, torch.rand(2, len(length), regions, generator=generator), vocab_size)


def mask_each(pairs: Pair, index: Tensor, share: float, regions: int, vocab_size: int) -> Masked:
    """Mask as `mask_pairs` does, each pair the same whenever and beside whatever it comes.

    Args:
        pairs: N of them.
        index: That tells them apart, `(N,)`.
        share: Of the words, and of the regions.
        regions: Regions of an image, R.
        vocab_size: Number of tokens.
    """
    total = pairs.text.values.shape[1]
    words, cells = [], []
    for number, length in zip(index.tolist(), pairs.text.length.cpu(), strict=True):
        generator = derive_generator("masks", number)
        words.append(torch.stack([scattered(length[None], total, generator) for _ in range(DRAWS)]))
        cells.append(torch.rand(2, 1, regions, generator=generator))
    return _masked(pairs, share, torch.cat(words, dim=1), torch.cat(cells, dim=1), vocab_size)


def _masked(pairs: Pair, share: float, words: Tensor, cells: Tensor, vocab_size: int) -> Masked:
    values, (choice, kind, other) = pairs.text.values, onto(words, pairs.text.values.device)
    chosen = inside(pairs.text.length, values.shape[1]) & (values >= SPECIAL) & (choice < share)
    instead = (SPECIAL + other * (vocab_size - SPECIAL)).to(values.dtype).clamp(max=vocab_size - 1)
    read = torch.where(kind < 0.8, torch.full_like(values, MASK), torch.where(kind < 0.9, instead, values))
    regions, lot = onto(cells < torch.tensor([share, 0.9])[:, None, None], pairs.image.device)
    return Masked(Padded(torch.where(chosen, read, values), pairs.text.length), chosen, regions & lot, regions)
