"""A small vision transformer."""

from typing import Any, ClassVar, Literal

import torch
from lightly.models.modules import MaskedVisionTransformerTorchvision
from lightly.models.utils import get_2d_sine_cosine_positional_embedding, patchify
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ssl_lightning.backbones.base import Backbone, with_channels
from ssl_lightning.backbones.patches import Encoded, PatchEncoder, Patches, seen_first
from ssl_lightning.engine.devices import onto
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


class ImagePatches:
    """The patches of images, as a transformer of torchvision's sees them: a `PatchEncoder` over its layers.

    Args:
        net: The transformer.
    """

    prefix: int = 1  # the class token

    def __init__(self, net: VisionTransformer) -> None:
        self.net = net
        self.patch_area = net.patch_size**2
        self.patch_dim = net.conv_proj.in_channels * self.patch_area
        self.count: int | None = net.seq_length - 1

    def require(self, inputs: Any) -> None:
        """Check that images have the size that the transformer was built for."""
        net = self.net
        wanted = (net.conv_proj.in_channels, net.image_size, net.image_size)
        if not isinstance(inputs, Tensor):
            raise ValueError(f"the backbone takes images of {wanted}, but views are of type {type(inputs).__name__}.")
        if tuple(inputs.shape[1:]) != wanted:
            raise ValueError(
                f"the backbone takes images of {wanted}, but views are {tuple(inputs.shape[1:])}; give it `channels` "
                "and `image_size` of the data (the command line does)."
            )

    def cut(self, inputs: Tensor) -> Patches:
        """Cut images `(N, C, H, W)` into patches, row by row."""
        return Patches(patchify(inputs.float(), self.net.patch_size), None)

    def positions(self, patches: int, dim: int) -> Tensor:
        """Return fixed codes of the class token, 0, and of the places in the image."""
        codes = get_2d_sine_cosine_positional_embedding(dim, round(patches**0.5), cls_token=True)
        return onto(torch.from_numpy(codes).float(), self.net.class_token.device)

    def encode_seen(self, inputs: Tensor, seen: Tensor) -> Encoded:
        """Encode the class token and the patches that are seen, and nothing of the others."""
        encoder = MaskedVisionTransformerTorchvision(
            self.net, weight_initialization="skip", pos_embed_initialization="skip"
        )
        places, within = seen_first(nn.functional.pad(seen, (1, 0), value=True), inputs.device)
        return Encoded(encoder.encode(inputs, idx_keep=places), places, within)

    def encode_filled(self, inputs: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode all patches, with a token in the place of each hidden one."""
        encoder = MaskedVisionTransformerTorchvision(self.net, token, "skip", pos_embed_initialization="skip")
        encoded: Tensor = encoder.encode(inputs, mask=nn.functional.pad(hidden, (1, 0)))
        return encoded[:, 1:]


def patch_encoder_of(backbone: Backbone, method: str) -> PatchEncoder:
    """Return a backbone as what hides patches, or the torchvision transformer within it.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(backbone, PatchEncoder):
        return backbone
    net = getattr(backbone, "net", None)
    if not isinstance(net, VisionTransformer):
        raise ValueError(
            f"`{method}` hides patches and needs a vision transformer, not `{type(backbone).__name__}`; give "
            "`--model.backbone ViT`, or `Torchvision` with a name such as vit_b_16; for sound "
            "`--model.backbone SpectrogramTransformer`."
        )
    return ImagePatches(net)


def require_share(encoder: PatchEncoder, ratio: float) -> None:
    """Check that a share of patches to hide hides some and leaves some, where each sample has as many.

    Raises:
        ValueError: If it does not.
    """
    hidden = round(ratio * encoder.count) if encoder.count is not None else 1
    if encoder.count is not None and not 0 < hidden < encoder.count:
        raise ValueError(
            f"`mask_ratio={ratio}` hides {hidden} of {encoder.count} patches; hide at least one and leave at least one."
        )
