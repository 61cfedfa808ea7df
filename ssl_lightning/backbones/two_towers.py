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

TEXT = {"depth": 2, "dropout": 0.0}  # arguments of a small encoder of texts
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
        image: Encoder of images: the name of its class, such as `ResNet`, or one that is built.
        image_args: Its constructor's arguments, beside facts of the data, which are filled in.
        text: Encoder of texts, likewise.
        text_args: Its constructor's arguments, likewise; null for a `TextTransformer` of two layers without dropout.
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
        image: str | Backbone = "ConvNet",
        image_args: dict[str, Any] | None = None,
        text: str | Backbone = "TextTransformer",
        text_args: dict[str, Any] | None = None,
        dim: int = 128,
    ) -> None:
        sizes(2, dim=dim)
        sizes(1, vocab_size=vocab_size, channels=channels, image_size=image_size, max_length=max_length)
        facts = {
            "vocab_size": vocab_size, "channels": channels, "image_size": image_size, "max_length": max_length,
            "vocabulary": vocabulary,
        }  # fmt: skip
        if text_args is None and text == "TextTransformer":
            text_args = TEXT
        towers = [_tower("image", image, image_args or {}, facts), _tower("text", text, text_args or {}, facts)]
        told = [describe(tower) for tower in towers]
        super().__init__(
            **facts, image=told[0]["class_path"], image_args=told[0]["init_args"], text=told[1]["class_path"],
            text_args=told[1]["init_args"], dim=dim,
        )  # fmt: skip
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


def _tower(name: str, given: Any, own: dict[str, Any], facts: dict[str, Any]) -> Backbone:
    """Build an encoder of its class's name, with the facts that it has arguments for; or take one as it is."""
    if isinstance(given, nn.Module):
        if own:
            raise ValueError(
                f"`{name}_args={own!s:.60}` are for an encoder that is built here; `{name}` is built already."
            )
        return as_backbone(given)
    path = given if "." in str(given) else f"{OURS}.{given}"
    try:
        mine = set(arguments(known_class(path, Backbone)))
        init_args = {key: value for key, value in facts.items() if key in mine} | own
        return build({"class_path": path, "init_args": init_args})
    except ValueError as error:
        raise ValueError(f"`{name}={given!s:.100}`: {error}") from error
