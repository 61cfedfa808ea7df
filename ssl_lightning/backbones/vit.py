"""A small vision transformer."""

from typing import ClassVar, Literal

import torch
from lightly.models.modules import MaskedVisionTransformerTorchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ssl_lightning.backbones.base import Backbone, with_channels
from ssl_lightning.engine.ranges import given, layers, one_of, sizes


class ViT(Backbone):
    """Small vision transformer of torchvision's blocks, for images of a few patches a side; MAE and SimMIM take it.

    1.2 million parameters as it stands. Parameter names are torchvision's.

    Args:
        channels: Channels of the input; linked from the data on the command line.
        image_size: Side of the input in pixels; linked from the data.
        patch_size: Side of a patch in pixels, which must divide the image's; null for about 8 patches a side, of at
            least 2 px.
        dim: Size of a token and of the embedding, a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Number of heads of the attention.
        mlp_dim: Size of a block's hidden layer; null for 4 `dim`.
        pool: The embedding: `mean` of the patch tokens, or the class `token`.

    Raises:
        ValueError: If the numbers do not go together.

    Reference:
        A. Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv 2010.11929. Positions are sines
        and cosines that stay fixed (MAE, arXiv 2111.06377, appendix A.1).
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)

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
        sizes(1, channels=channels, dim=dim, heads=heads, **given(patch_size=patch_size, mlp_dim=mlp_dim))
        sizes(2, image_size=image_size)
        layers(depth=depth)
        one_of(("mean", "token"), pool=pool)
        super().__init__(
            channels=channels, image_size=image_size, patch_size=patch_size, dim=dim, depth=depth, heads=heads,
            mlp_dim=mlp_dim, pool=pool,
        )  # fmt: skip
        if patch_size is None:
            sides = [side for side in range(2, image_size // 2 + 1) if image_size % side == 0]
            if not sides:
                raise ValueError(f"`image_size={image_size}` is no multiple of patches of 2 px or more; resize images.")
            patch_size = min(sides, key=lambda side: abs(8 * side - image_size))
        if patch_size > image_size // 2 or image_size % patch_size or dim % heads or dim % 4:
            raise ValueError(
                f"`patch_size={patch_size}` must divide `image_size={image_size}` at least twice, and `dim={dim}` be a "
                f"multiple of 4 and of `heads={heads}`."
            )
        self.feature_dim, self.pool = dim, pool
        self.net = VisionTransformer(image_size, patch_size, depth, heads, dim, mlp_dim or 4 * dim)
        self.net.heads = nn.Identity()
        if channels != 3:
            self.net.conv_proj = with_channels(self.net.conv_proj, channels)
        MaskedVisionTransformerTorchvision(self.net)  # begins its weights as MAE does

    def forward(self, images: Tensor) -> Tensor:
        """Encode images `(N, channels, H, W)` to embeddings `(N, dim)`."""
        if self.pool == "token":
            return self.net(images)  # type: ignore[no-any-return]
        tokens = self.net._process_input(images)
        tokens = self.net.encoder(torch.cat([self.net.class_token.expand(len(tokens), -1, -1), tokens], dim=1))
        return tokens[:, 1:].mean(dim=1)  # type: ignore[no-any-return]


def transformer_of(backbone: Backbone, method: str) -> VisionTransformer:
    """Return the torchvision transformer within a backbone.

    Raises:
        ValueError: If there is none.
    """
    net = getattr(backbone, "net", None)
    if not isinstance(net, VisionTransformer):
        raise ValueError(
            f"`{method}` hides patches and needs a vision transformer, not `{type(backbone).__name__}`; give "
            "`--model.backbone ViT`, or `Torchvision` with a name such as vit_b_16."
        )
    return net


def require_size(images: Tensor, net: VisionTransformer) -> None:
    """Check that images have the size that a transformer was built for.

    Raises:
        ValueError: If they have not.
    """
    wanted = (net.conv_proj.in_channels, net.image_size, net.image_size)
    if tuple(images.shape[1:]) != wanted:
        raise ValueError(
            f"the backbone takes images of {wanted}, but views are {tuple(images.shape[1:])}; give it `channels` and "
            "`image_size` of the data (the command line does)."
        )
