"""Networks of torchvision and timm by their names."""

import os
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torchvision
from torch import Tensor, nn

from ssl_lightning.backbones.base import Backbone, convolves, with_channels
from ssl_lightning.engine.naming import meant
from ssl_lightning.engine.ranges import given, sizes, text


class Torchvision(Backbone):
    """Any classification network of torchvision by its name, without its classifier.

    Parameter names are torchvision's, without those of the classifier.

    Args:
        name: As `torchvision.models.list_models(module=torchvision.models)` gives it, such as convnext_tiny.
        pretrained: Start from torchvision's weights, which are downloaded once.
        channels: Channels of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, which vision transformers must know; linked from the data.

    Raises:
        ValueError: If there is no such network, it cannot take such images, or its weights cannot be had.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)

    def __init__(self, name: str, pretrained: bool = False, channels: int = 3, image_size: int = 224) -> None:
        text(name=name)
        sizes(1, channels=channels, image_size=image_size)
        # whoever builds it again loads the weights of the checkpoint
        super().__init__(name=name, pretrained=False, channels=channels, image_size=image_size)
        _require_name(name, torchvision.models.list_models(module=torchvision.models), "torchvision.models")
        if pretrained and channels != 3:
            raise ValueError(
                f"`pretrained=true` needs `channels=3`, got {channels}: the weights are for colour images."
            )
        sized = {"image_size": image_size} if name.startswith("vit_") else {}
        try:
            self.net = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **sized)
        except OSError as error:  # URLError is one
            raise ValueError(_offline(name, torch.hub.get_dir(), error)) from error
        except (ValueError, AssertionError) as error:  # a transformer takes one size, a multiple of its patches
            raise ValueError(f"`{name}` cannot be built for `image_size={image_size}`: {error}") from error
        heads = [(path, layer) for path, layer in self.net.named_modules() if isinstance(layer, nn.Linear)]
        if not heads:
            raise ValueError(f"`{name}` has no linear classifier to take off; choose another network.")
        path, head = heads[-1]
        self.feature_dim = head.in_features
        self.net.set_submodule(path, nn.Identity())
        if channels != 3:
            path, first = next(
                (path, layer) for path, layer in self.net.named_modules() if isinstance(layer, nn.Conv2d)
            )
            self.net.set_submodule(path, with_channels(first, channels))
        self.channels_last = convolves(self.net)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        output = self.net(images)
        return output if isinstance(output, Tensor) else output[0]  # Inception adds auxiliary outputs in training


class Timm(Backbone):
    """Any network of timm by its name, without its classifier; needs the extra `timm`.

    Args:
        name: As `timm.list_models()` gives it.
        pretrained: Start from timm's weights, which are downloaded once.
        channels: Channels of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, for networks that must know it; null for their own.

    Raises:
        ValueError: If timm is not installed, has no such network, or its weights cannot be had.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)

    def __init__(self, name: str, pretrained: bool = False, channels: int = 3, image_size: int | None = None) -> None:
        text(name=name)
        sizes(1, channels=channels, **given(image_size=image_size))
        super().__init__(name=name, pretrained=False, channels=channels, image_size=image_size)
        try:
            import timm
        except ImportError as error:
            raise ValueError('`Timm` needs timm: `pip install "ssl-lightning[timm]"`.') from error
        _require_name(name.partition(".")[0], timm.list_models(), "timm")
        options: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
        if (
            image_size is not None
            and "img_size" in timm.create_model(name, pretrained=False).__init__.__code__.co_varnames
        ):
            options["img_size"] = image_size
        try:
            self.net = timm.create_model(name, pretrained=pretrained, **options)
        except OSError as error:  # the hub's LocalEntryNotFoundError is one
            cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
            raise ValueError(_offline(name, cache, error)) from error
        except Exception as error:
            if not pretrained:
                raise
            raise ValueError(_offline(name, os.environ.get("HF_HOME", "~/.cache/huggingface"), error)) from error
        self.feature_dim = getattr(self.net, "head_hidden_size", None) or self.net.num_features
        self.channels_last = convolves(self.net)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.net(images)  # type: ignore[no-any-return]


def _require_name(name: str, names: Iterable[str], where: str) -> None:
    names = list(names)
    if name not in names:
        raise ValueError(
            f"`name={name}` is no network of {where}{meant(name, names)}; `{where}.list_models()` names all "
            f"{len(names)}."
        )


def _offline(name: str, cache: str, error: Exception) -> str:
    return (
        f"the pretrained weights of `{name}` are not in {cache} and cannot be downloaded ({type(error).__name__}); run "
        "once where there is a network, or copy that folder from there, or leave out `pretrained`."
    )
