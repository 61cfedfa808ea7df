"""Encoders: normalised images in, one embedding a sample out, whose size is `feature_dim`."""

import importlib
from itertools import pairwise
from typing import Any, Literal

import torchvision
from torch import Tensor, nn


class Backbone(nn.Module):
    """Base of all encoders; remembers how it was built, so that a checkpoint can be opened without its config.

    A subclass passes its constructor's arguments on to this one and sets `feature_dim`.

    Args:
        init_args: The subclass's constructor arguments, plain numbers and strings.
    """

    feature_dim: int

    def __init__(self, **init_args: Any) -> None:
        super().__init__()
        self.init_args = init_args


class ConvNet(Backbone):
    """Small convolutional network for images of 8 to 64 px: three blocks of convolution, batch norm, ReLU and pooling.

    93 thousand parameters at the default width and one channel.

    Args:
        channels: Of the input; linked from the data on the command line.
        width: Channels after the first block; the embedding has four times as many values.
        dropout: Probability of dropping a whole feature map after each block (Dropout2d); for MC dropout.
    """

    def __init__(self, channels: int = 1, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__(channels=channels, width=width, dropout=dropout)
        self.feature_dim = 4 * width
        sizes = [channels, width, 2 * width, 4 * width]
        blocks: list[nn.Module] = []
        for before, after in pairwise(sizes):
            # ceil_mode keeps odd sizes, and 8 px end as 1 px
            blocks += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
            if dropout > 0:
                blocks.append(nn.Dropout2d(dropout))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.blocks(images).mean(dim=(2, 3))  # type: ignore[no-any-return]


class ResNet(Backbone):
    """Residual network of torchvision, with the stem for small images where they are small.

    The small stem is a 3x3 convolution of stride 1 without max-pooling, as is customary on CIFAR-10 (He et al. 2016,
    arXiv 1512.03385, section 4.2; Chen et al. 2020, arXiv 2002.05709, appendix B.9). Parameter names are torchvision's.

    Args:
        name: Depth.
        channels: Of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, which decides `stem="auto"`; linked from the data.
        stem: `small`, `imagenet` (7x7 of stride 2 and max-pooling), or `auto`: small up to 64 px.
    """

    def __init__(
        self,
        name: Literal["resnet18", "resnet34", "resnet50"] = "resnet18",
        channels: int = 3,
        image_size: int = 32,
        stem: Literal["auto", "small", "imagenet"] = "auto",
    ) -> None:
        super().__init__(name=name, channels=channels, image_size=image_size, stem=stem)
        self.net = torchvision.models.get_model(name)
        self.feature_dim = self.net.fc.in_features
        self.net.fc = nn.Identity()
        if stem == "small" or (stem == "auto" and image_size <= 64):
            self.net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            self.net.maxpool = nn.Identity()
        elif channels != 3:
            self.net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.net(images)  # type: ignore[no-any-return]


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return what `build` needs to make the same architecture again: class path and constructor arguments."""
    kind = type(backbone)
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": dict(backbone.init_args)}


def build(description: dict[str, Any]) -> Backbone:
    """Build the architecture that `describe` described, with fresh weights.

    Args:
        description: As `describe` returns it.

    Returns:
        The backbone.

    Raises:
        ValueError: If its class cannot be imported, as one that lived in a notebook.
    """
    module, _, name = description["class_path"].rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the checkpoint's backbone `{description['class_path']}` cannot be imported ({error}); "
            "pass `backbone=` yourself, or put its class in a module that can be imported."
        ) from error
    backbone: Backbone = kind(**description["init_args"])
    return backbone
