"""Masked images with a plain linear decoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightly.models.utils import patchify, unpatchify
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.patches import draw_hidden
from ssl_lightning.backbones.vit import ImagePatches, patch_encoder_of, require_share
from ssl_lightning.data.of_trainer import views_for
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision


class SimMIM(SSLMethod):
    r"""Masked images simply: a mask token in the place of every hidden patch, and one linear layer for its pixels.

    .. math:: L = \frac{1}{|M|} \sum_{i \in M} \frac1P \| \hat p_i - p_i \|_1

    over the hidden patches M of P values each. Every sample has its own draw of patches, a share of
    those that it has: images, or spectrograms of any length.

    Args:
        backbone: A vision transformer: `ViT`, or `Torchvision` of a vit_ name; for sound `SpectrogramTransformer`.
        views: One random view; null for the mild ones of the data, as crops.
        mask_ratio: Share of the patches to hide.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the backbone is no vision transformer, or a number is out of range.

    Reference:
        Z. Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022, arXiv 2111.09886, section 3.
        There patches of 32 px are hidden of 192 px images; here a patch is the transformer's.

    Example:
        >>> from ssl_lightning.backbones import ViT
        >>> model = SimMIM(ViT(1, 8, patch_size=2, dim=12, depth=1, heads=3))
        >>> hidden = torch.arange(16)[None] >= 8  # half of 16 patches
        >>> model.reconstruct(torch.rand(1, 1, 8, 8), hidden)[0].shape  # four pixels of each patch
        torch.Size([1, 16, 4])
    """

    family: ClassVar[str] = "masked"
    takes: ClassVar[tuple[str, ...]] = ("images", "sound")
    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(
        self, backbone: Backbone, views: nn.Module | None = None, mask_ratio: float = 0.6, **kwargs: Any
    ) -> None:
        between(0, 1, "()", mask_ratio=mask_ratio)
        super().__init__(backbone, views, **kwargs)
        encoder = patch_encoder_of(self.backbone, "SimMIM")
        require_share(encoder, mask_ratio)
        self.mask_ratio = mask_ratio
        self.mask_token = nn.Parameter(torch.randn(1, 1, self.backbone.feature_dim) * 0.02)
        self.head = nn.Linear(self.backbone.feature_dim, encoder.patch_dim)

    def suggested_views(self) -> nn.Module | None:
        """Return mild views that suit the data."""
        return views_for(self.trainer, self.view_count, mild=True)

    def reconstruct(self, inputs: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all patches.

        Args:
            inputs: Of N samples, as the encoder takes them.
            hidden: Boolean, `(N, P)`.

        Returns:
            Predictions `(N, P, D)`, of which those of hidden patches count; tokens of all patches `(N, P, dim)`.
        """
        encoder = patch_encoder_of(self.backbone, "SimMIM")
        encoded = encoder.encode_filled(inputs, onto(hidden, self.mask_token.device), self.mask_token)
        return self.head(encoded), encoded

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Hide patches of the view, and predict them."""
        view, encoder = views[0], patch_encoder_of(self.backbone, "SimMIM")
        encoder.require(view)
        patches = encoder.cut(view)
        hidden = draw_hidden(patches, self.mask_ratio, self.local_generator("masks"))
        predicted, _ = self.reconstruct(view, hidden)
        with full_precision(predicted):
            sample, place = onto(hidden.nonzero(), predicted.device).unbind(1)
            errors = (predicted.float() - patches.values)[sample, place].abs()
            loss = errors.sum() / max(1, errors.numel())  # sounds of one patch hide none
        return {"loss": loss}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what is seen of them, and the hidden patches built up, `(N, C, H, W)` each."""
        encoder = patch_encoder_of(self.backbone, "SimMIM")
        if not isinstance(encoder, ImagePatches):
            raise ValueError(f"`{type(self.backbone).__name__}` makes no pictures; leave out the callback `Pictures`.")
        patches, side, channels = encoder.cut(images), encoder.net.patch_size, images.shape[1]
        hidden = draw_hidden(patches, self.mask_ratio, generator).to(images.device)
        predicted, _ = self.reconstruct(images, hidden)
        values = patchify(images, side)
        return {
            "images": images,
            "seen": unpatchify(values.masked_fill(hidden[..., None], 0.0), side, channels),
            "rebuilt": unpatchify(torch.where(hidden[..., None], predicted.float(), values), side, channels),
        }
