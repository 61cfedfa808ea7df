"""Encoders: normalised images in, one embedding a sample out, whose size is `feature_dim`."""

import difflib
import importlib
import os
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal

import torch
import torchvision
from lightly.models.modules import MaskedVisionTransformerTorchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer


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
        return self.rest(self.trunk(images))

    def trunk(self, images: Tensor) -> Tensor:
        """Compute the first block."""
        return self.blocks[:4](images)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, feature_dim)`."""
        return self.blocks[4:](hidden).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images to embeddings, and to the feature map that they are the mean of."""
        found = self.blocks(images)
        return found.mean(dim=(2, 3)), found


class StridedNet(Backbone):
    """DCGAN's discriminator without its last layer: strided convolutions and leaky ReLU, no pooling, no batch norm.

    Every convolution halves the side, until 3 to 5 px are left; the embedding is all that is left, flattened.

    Args:
        channels: Of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, at least 6; linked from the data.
        width: Channels after the first convolution; doubled by each one after it.

    Raises:
        ValueError: If the images are too small.

    Reference:
        A. Radford, L. Metz, S. Chintala, Unsupervised Representation Learning with DCGAN, ICLR 2016, arXiv 1511.06434;
        without batch norm as T. Miyato et al. 2018, arXiv 1802.05957, table 3.
    """

    def __init__(self, channels: int = 1, image_size: int = 28, width: int = 32) -> None:
        super().__init__(channels=channels, image_size=image_size, width=width)
        if image_size < 6:
            raise ValueError(f"`image_size={image_size}` is too small for `StridedNet`: at least 6 px; use `ConvNet`.")
        layers: list[nn.Module] = []
        before, after, side = channels, width, image_size
        while side > 5:
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
            before, after, side = after, 2 * after, side // 2
        self.feature_dim = before * side * side
        self.net = nn.Sequential(*layers, nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.net(images)  # type: ignore[no-any-return]


class LeNet(Backbone):
    """Network of the deep active learning papers on MNIST: two 5x5 convolutions and one hidden layer, all with dropout.

    With `Classifier(dropout=0.5)`, which adds dropout and the last layer, it is that of BatchBALD (A. Kirsch, J. van
    Amersfoort, Y. Gal 2019, arXiv 1906.08158, section 4.2). There is no batch norm.

    Args:
        channels: Of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, at least 16; linked from the data.
        dropout: Probability of dropping a whole feature map after each convolution (Dropout2d).

    Raises:
        ValueError: If the images are too small.
    """

    def __init__(self, channels: int = 1, image_size: int = 28, dropout: float = 0.5) -> None:
        super().__init__(channels=channels, image_size=image_size, dropout=dropout)
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"`image_size={image_size}` is too small for `LeNet`: at least 16 px; use `ConvNet`.")
        self.feature_dim = 128
        self.net = nn.Sequential(
            # dropping whole maps after pooling is the same as before it, as in the paper, and a quarter of the work
            nn.Conv2d(channels, 32, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(dropout),
            nn.Conv2d(32, 64, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(dropout),
            nn.Flatten(), nn.Linear(64 * side * side, 128), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, 128)`."""
        return self.rest(self.trunk(images))

    def trunk(self, images: Tensor) -> Tensor:
        """Compute the first convolution."""
        return self.net[:3](images)  # type: ignore[no-any-return]

    def rest(self, hidden: Tensor) -> Tensor:
        """Go on from `trunk` to embeddings `(N, 128)`."""
        return self.net[3:](hidden)  # type: ignore[no-any-return]


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


class ViT(Backbone):
    """Small vision transformer of torchvision's blocks, for images of a few patches a side; MAE and SimMIM take it.

    1.2 million parameters as it stands. Parameter names are torchvision's.

    Args:
        channels: Of the input; linked from the data on the command line.
        image_size: Side of the input in pixels; linked from the data.
        patch_size: Side of a patch in pixels, which must divide the image's; null for about 8 patches a side, of at
            least 2 px.
        dim: Size of a token and of the embedding, a multiple of 4 and of `heads`.
        depth: Blocks.
        heads: Of attention.
        mlp_dim: Of a block's hidden layer; null for 4 `dim`.
        pool: The embedding: `mean` of the patch tokens, or the class `token`.

    Raises:
        ValueError: If the numbers do not go together.

    Reference:
        A. Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv 2010.11929. Positions are sines
        and cosines that stay fixed (MAE, arXiv 2111.06377, appendix A.1).
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 32,
        patch_size: int | None = None,
        dim: int = 128,
        depth: int = 6,
        heads: int = 4,
        mlp_dim: int | None = None,
        pool: Literal["mean", "token"] = "mean",
    ) -> None:
        super().__init__(
            channels=channels, image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, heads=heads,
            mlp_dim=mlp_dim, pool=pool,
        )  # fmt: skip
        if patch_size is None:
            sides = [side for side in range(2, image_size // 2 + 1) if image_size % side == 0]
            if not sides:
                raise ValueError(f"`image_size={image_size}` is no multiple of patches of 2 px or more; resize images.")
            patch_size = min(sides, key=lambda side: abs(8 * side - image_size))
        if not 1 <= patch_size <= image_size // 2 or image_size % patch_size or dim % heads or dim % 4:
            raise ValueError(
                f"`patch_size={patch_size}` must divide `image_size={image_size}` at least twice, and `dim={dim}` be a "
                f"multiple of 4 and of `heads={heads}`."
            )
        self.feature_dim, self.pool = dim, pool
        self.net = VisionTransformer(image_size, patch_size, depth, heads, dim, mlp_dim or 4 * dim)
        self.net.heads = nn.Identity()
        if channels != 3:
            self.net.conv_proj = _with_channels(self.net.conv_proj, channels)
        MaskedVisionTransformerTorchvision(self.net)  # begins its weights as MAE does

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, dim)`."""
        if self.pool == "token":
            return self.net(images)  # type: ignore[no-any-return]
        tokens = self.net._process_input(images)
        tokens = self.net.encoder(torch.cat([self.net.class_token.expand(len(tokens), -1, -1), tokens], dim=1))
        return tokens[:, 1:].mean(dim=1)  # type: ignore[no-any-return]


class Torchvision(Backbone):
    """Any classification network of torchvision by its name, without its classifier.

    Parameter names are torchvision's, without those of the classifier.

    Args:
        name: As `torchvision.models.list_models(module=torchvision.models)` gives it, such as convnext_tiny.
        pretrained: Start from torchvision's weights, which are downloaded once.
        channels: Of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, which vision transformers must know; linked from the data.

    Raises:
        ValueError: If there is no such network, it cannot take such images, or its weights cannot be had.
    """

    def __init__(self, name: str, pretrained: bool = False, channels: int = 3, image_size: int = 224) -> None:
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
            self.net.set_submodule(path, _with_channels(first, channels))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        output = self.net(images)
        return output if isinstance(output, Tensor) else output[0]  # Inception adds auxiliary outputs in training


class Timm(Backbone):
    """Any network of timm by its name, without its classifier; needs the extra `timm`.

    Args:
        name: As `timm.list_models()` gives it.
        pretrained: Start from timm's weights, which are downloaded once.
        channels: Of the input; linked from the data on the command line.
        image_size: Side of the input in pixels, for networks that must know it; null for their own.

    Raises:
        ValueError: If timm is not installed, has no such network, or its weights cannot be had.
    """

    def __init__(self, name: str, pretrained: bool = False, channels: int = 3, image_size: int | None = None) -> None:
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

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, feature_dim)`."""
        return self.net(images)  # type: ignore[no-any-return]


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


def _require_name(name: str, names: Iterable[str], where: str) -> None:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, 3)
        meant = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(
            f"`name={name}` is no network of {where}{meant} ({len(names)} names: `{where}.list_models()`)."
        )


def _offline(name: str, cache: str, error: Exception) -> str:
    return (
        f"the pretrained weights of `{name}` are not in {cache} and cannot be downloaded ({type(error).__name__}); run "
        "once where there is a network, or copy that folder from there, or leave out `pretrained`."
    )


def _with_channels(first: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return a fresh convolution like the first, for another number of input channels."""
    return nn.Conv2d(
        channels, first.out_channels, first.kernel_size, first.stride, first.padding, first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )  # fmt: skip


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
