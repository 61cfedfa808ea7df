"""The base of all encoders, and how a checkpoint builds its encoder again."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.catalogue import class_path, import_class


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

    def trunk(self, images: Tensor) -> Tensor:
        """Compute what comes before the first dropout: once for all dropout masks."""
        return images

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, feature_dim)`."""
        return self(hidden)  # type: ignore[no-any-return]

    def with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images and keep where things are: what the last pooling over all places is given.

        Args:
            images: `(N, channels, H, W)`.

        Returns:
            Embeddings `(N, feature_dim)`; the feature map `(N, D, h, w)`.

        Raises:
            ValueError: If the network has no such pooling.
        """
        pools = [layer for layer in self.modules() if isinstance(layer, nn.AdaptiveAvgPool2d)]
        kept: list[Tensor] = []
        if pools:
            with pools[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])):
                embedding = self(images)
        if not kept or kept[-1].ndim != 4:
            raise ValueError(
                f"`{type(self).__name__}` has no feature map to decode places from; take `ConvNet`, `ResNet`, or a "
                "convolutional network of `Torchvision` or `Timm`."
            )
        return embedding, kept[-1]


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return what `build` needs to make the same architecture again: class path and constructor arguments."""
    return {"class_path": class_path(type(backbone)), "init_args": dict(backbone.init_args)}


def build(description: dict[str, Any]) -> Backbone:
    """Build the architecture that `describe` described, with fresh weights.

    Args:
        description: As `describe` returns it.

    Returns:
        The backbone.

    Raises:
        ValueError: If its class cannot be imported, as one that lived in a notebook.
    """
    try:
        kind = import_class(description["class_path"])
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the checkpoint's backbone `{description['class_path']}` cannot be imported ({error}); "
            "pass `backbone=` yourself, or put its class in a module that can be imported."
        ) from error
    backbone: Backbone = kind(**description["init_args"])
    return backbone


def plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of a network with spectral norm into those of one without, which does the same in evaluation.

    Args:
        weights: A state dict, with the keys of `torch.nn.utils.parametrizations.spectral_norm` or without.

    Returns:
        A state dict without them.
    """
    mark = ".parametrizations.weight."
    found = {key: value for key, value in weights.items() if mark not in key}
    for key, value in weights.items():
        if key.endswith(mark + "original"):
            layer = key.removesuffix(mark + "original")
            left, right = (weights[f"{layer}{mark}0.{side}"] for side in ("_u", "_v"))
            found[f"{layer}.weight"] = value / torch.vdot(left, value.flatten(1) @ right)
    return found


def with_channels(first: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return a fresh convolution like the first, for another number of input channels."""
    return nn.Conv2d(
        channels, first.out_channels, first.kernel_size, first.stride, first.padding, first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )  # fmt: skip
