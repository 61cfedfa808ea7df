"""A pair of an image and a text, and its clean input."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lightning.transforms.image import CleanView
from ssl_lightning.transforms.padded import Padded


class Pair(NamedTuple):
    """Images with their texts.

    Attributes:
        image: As the data set holds it uint8, as an encoder takes it normalised, `(N, C, S, S)`.
        text: Numbers of tokens, `(N, T)`, and how many of them count.
    """

    image: Tensor
    text: Padded


class CleanPair(CleanView):
    """The clean input of pairs: the image normalised, the text as it is.

    Args:
        mean: What is subtracted from pixels, one number or one for each channel, in units of the pixel range [0, 1].
        std: What they are divided by, likewise; positive.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> pair = Pair(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), Padded(torch.tensor([[2, 3]]), torch.tensor([2])))
        >>> CleanPair()(pair).image.item(), CleanPair()(pair).text.values.tolist()
        (2.0, [[2, 3]])
    """  # noqa: E501

    def __init__(self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25) -> None:
        super().__init__(mean, std)

    def forward(self, pairs: Pair, generator: torch.Generator | None = None) -> Pair:  # type: ignore[override]
        """Return the pairs with normalised images, float32."""
        return Pair(super().forward(pairs.image), pairs.text)
