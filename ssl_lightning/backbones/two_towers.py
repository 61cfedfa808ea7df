"""An encoder of images and one of texts, side by side, that meet in one space."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.backbones.base import Backbone, as_backbone, build, describe
from ssl_lightning.engine.naming import arguments, known_class
from ssl_lightning.engine.ranges import sizes
from ssl_lightning.transforms.padded import Padded
from ssl_lightning.transforms.pairs import Pair

TEXT = {"class_path": "TextTransformer", "init_args": {"depth": 2, "dropout": 0.0}}
OURS = "ssl_lightning.backbones"  # where a name without a module is looked for


class TwoTowers(Backbone):
    r"""An encoder of images and one of texts, each with a linear projection to a joint space.

    The embedding of a pair is both projections, normalised, one behind the other, times :math:`\sqrt{d}`, so that its
    numbers are about 1.

    Args:
        vocab_size: Tokens of the vocabulary; linked from the data on the command line.
        channels: Channels of the image; linked from the data.
        image_size: Side of the image in pixels; linked from the data.
        max_length: Tokens at most of a text; linked from the data.
        vocabulary: Short hash of the tokenizer; linked from the data, so that others are refused.
        image: Encoder of images: its class's name (`ResNet`), `class_path` and `init_args`, or one that is built; null
            for `ConvNet`. Facts of the data are filled in by name.
        text: Encoder of texts, likewise; null for a `TextTransformer` of two layers
            without dropout.
        dim: Size d of the joint space.

    Raises:
        ValueError: If a number is out of its range, or an encoder cannot be built.
    """

    takes: ClassVar[tuple[str, ...]] = ("images with text",)

    def __init__(
        self,
        vocab_size: int,
        channels: int = 3,
        image_size: int = 32,
        max_length: int = 128,
        vocabulary: str | None = None,
        image: str | dict[str, Any] | Backbone | None = None,
        text: str | dict[str, Any] | Backbone | None = None,
        dim: int = 128,
    ) -> None:
        sizes(2, dim=dim)
        sizes(1, vocab_size=vocab_size, channels=channels, image_size=image_size, max_length=max_length)
        facts = {
            "vocab_size": vocab_size, "channels": channels, "image_size": image_size, "max_length": max_length,
            "vocabulary": vocabulary,
        }  # fmt: skip
        towers = [_tower("image", image or "ConvNet", facts), _tower("text", text or TEXT, facts)]
        super().__init__(**facts, image=describe(towers[0]), text=describe(towers[1]), dim=dim)
        self.image, self.text = towers
        self.image_projection = nn.Linear(self.image.feature_dim, dim, bias=False)
        self.text_projection = nn.Linear(self.text.feature_dim, dim, bias=False)
        self.dim, self.feature_dim = dim, 2 * dim

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode clean images `(N, C, S, S)` to points of length 1 in the joint space, `(N, d)`."""
        return normalize(self.image_projection(self.image(images)), dim=1)

    def encode_text(self, text: Padded) -> Tensor:
        """Encode texts, tokens `(N, T)`, to points of length 1 in the joint space, `(N, d)`."""
        return normalize(self.text_projection(self.text(text)), dim=1)

    def forward(self, pairs: Pair) -> Tensor:
        """Encode clean pairs to embeddings `(N, 2 d)`."""
        both = torch.cat([self.encode_image(pairs.image), self.encode_text(pairs.text)], dim=1)
        return both * math.sqrt(self.dim)


def _tower(name: str, given: Any, facts: dict[str, Any]) -> Backbone:
    """Build an encoder of a name or a description, with the facts that it has arguments for; or take one as it is."""
    if isinstance(given, nn.Module):
        return as_backbone(given)
    description: dict[str, Any] = {"class_path": given} if isinstance(given, str) else dict(given)
    path = str(description.get("class_path", ""))
    path = path if "." in path else f"{OURS}.{path}"
    try:
        kind = known_class(path, Backbone)
        mine = set(arguments(kind))
        init_args = {key: value for key, value in facts.items() if key in mine} | dict(
            description.get("init_args") or {}
        )
        return build({"class_path": path, "init_args": init_args})
    except ValueError as error:
        raise ValueError(f"`{name}={given!s:.100}`: {error}") from error
