"""Gray images for an encoder of colour."""

from typing import Any

import torch
from torch import Tensor, nn


class GrayAsColour(nn.Module):
    """Gives gray images the three channels of a colour encoder, before a transform.

    Args:
        transform: From uint8 images, and perhaps a generator, to what the encoder takes.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Any:
        """Transform images `(N, 1, H, W)`, expanded to three channels."""
        return self.transform(images.expand(-1, 3, -1, -1), generator)
