"""What several tests share and no fixture is."""

import os
from pathlib import Path
from typing import Any, Literal

import torch

from ssl_lightning.data import Digits, TensorImages

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("SSL_LIGHTNING_DATA", ROOT / "data"))


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Tell whether two modules have bit-equal parameters and buffers."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class LargeDigits(Digits):
    """The digits, each pixel enlarged to nine: 24 px, for what 8 px are too small for."""

    image_size = 24

    def load(self, split: Literal["train", "test"]) -> Any:
        """Enlarge them."""
        small = super().load(split)
        large = small.images.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
        return TensorImages(large, small.targets)


class ColourDigits(Digits):
    """The digits, each in a colour of its class: 8 px, three channels."""

    channels = 3

    def load(self, split: Literal["train", "test"]) -> Any:
        """Colour them."""
        small = super().load(split)
        hues = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))[small.targets, :, None, None]
        return TensorImages((small.images * hues).to(torch.uint8), small.targets)
