"""Masked images with a plain linear decoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightly.models.modules import MaskedVisionTransformerTorchvision
from lightly.models.utils import patchify, unpatchify
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.vit import require_size, transformer_of
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import between
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.image.masks import patch_masks


class SimMIM(SSLMethod):
    r"""Masked images simply: a mask token in the place of every hidden patch, and one linear layer for its pixels.

    .. math:: L = \frac{1}{|M|} \sum_{i \in M} \frac1P \| \hat p_i - p_i \|_1

    over the hidden patches M of P values each. Every image has its own draw of patches.

    Args:
        backbone: A vision transformer: `ViT`, or `Torchvision` of a vit_ name.
        views: One random view; null for crops and flips.
        mask_ratio: Share of the patches to hide.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the backbone is no vision transformer, or a number is out of range.

    Reference:
        Z. Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022, arXiv 2111.09886, section 3.
        There patches of 32 px are hidden of 192 px images; here a patch is the transformer's.
    """

    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(
        self, backbone: Backbone, views: nn.Module | None = None, mask_ratio: float = 0.6, **kwargs: Any
    ) -> None:
        between(0, 1, "()", mask_ratio=mask_ratio)
        views = views or SimCLRViews(count=1, crop_scale=(0.67, 1.0), strength=0.0, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        net = transformer_of(self.backbone, "SimMIM")
        patch_masks(1, net.seq_length - 1, mask_ratio, torch.Generator())  # checks the share
        self.mask_ratio = mask_ratio
        self.mask_token = nn.Parameter(torch.randn(1, 1, self.backbone.feature_dim) * 0.02)
        self.head = nn.Linear(self.backbone.feature_dim, net.conv_proj.in_channels * net.patch_size**2)

    def reconstruct(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all patches.

        Args:
            images: `(N, C, H, W)`.
            masks: True where hidden, `(N, patches)`.

        Returns:
            Predictions `(N, patches, P)`, of which those of hidden patches count; embeddings `(N, dim)`.
        """
        encoder = MaskedVisionTransformerTorchvision(
            transformer_of(self.backbone, "SimMIM"), self.mask_token, "skip", pos_embed_initialization="skip"
        )
        encoded = encoder.encode(images, mask=nn.functional.pad(masks, (1, 0)).to(images.device))[:, 1:]
        return self.head(encoded), encoded.mean(dim=1)

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Hide patches of the view, and predict them."""
        view, net = views[0], transformer_of(self.backbone, "SimMIM")
        require_size(view, net)
        masks = patch_masks(len(view), net.seq_length - 1, self.mask_ratio, self.local_generator("masks"))
        predicted, _ = self.reconstruct(view, masks)
        hidden = masks.to(view.device)
        with full_precision(predicted):
            loss = (predicted.float() - patchify(view.float(), net.patch_size))[hidden].abs().mean()
        return {"loss": loss}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what is seen of them, and the hidden patches built up, `(N, C, H, W)` each."""
        net, channels = transformer_of(self.backbone, "SimMIM"), images.shape[1]
        masks = patch_masks(len(images), net.seq_length - 1, self.mask_ratio, generator)
        predicted, _ = self.reconstruct(images, masks)
        hidden, patches = masks[..., None].to(images.device), patchify(images, net.patch_size)
        return {
            "images": images,
            "seen": unpatchify(patches.masked_fill(hidden, 0.0), net.patch_size, channels),
            "rebuilt": unpatchify(torch.where(hidden, predicted.float(), patches), net.patch_size, channels),
        }
