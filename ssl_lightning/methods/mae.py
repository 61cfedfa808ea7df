"""Masked autoencoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightly.models.modules import MAEDecoder, MaskedVisionTransformerTorchvision
from lightly.models.utils import get_at_index, patchify, set_at_index, unpatchify
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.vit import require_size, transformer_of
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.image.masks import patch_masks


class MAE(SSLMethod):
    r"""Masked autoencoder: hide most patches, encode what is seen, and build the hidden ones up from it.

    .. math:: L = \frac{1}{|M|} \sum_{i \in M} \frac1P \| \hat p_i - \tilde p_i \|^2

    over the hidden patches M of P values each. The encoder sees the other patches alone, a quarter of the work; a small
    decoder gets them with a mask token for each hidden one. Every image has its own draw of patches.

    Args:
        backbone: A vision transformer: `ViT`, or `Torchvision` of a vit_ name.
        views: One random view; null for crops and flips.
        mask_ratio: Share of the patches to hide.
        decoder_dim: Size of the decoder's tokens, a multiple of 4 and of `decoder_heads`.
        decoder_depth: Number of blocks of the decoder.
        decoder_heads: Number of heads of the decoder's attention.
        norm_pixels: Predict patches with mean 0 and variance 1, which asks for their structure.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If the backbone is no vision transformer, or a number is out of range.

    Reference:
        K. He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv 2111.06377, section 3. The
        encoder with masks and the decoder are lightly's.
    """

    view_count: ClassVar[int] = 1
    least_batch: int = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        mask_ratio: float = 0.75,
        decoder_dim: int = 64,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        norm_pixels: bool = True,
        **kwargs: Any,
    ) -> None:
        between(0, 1, "()", mask_ratio=mask_ratio)
        whole(1, decoder_dim=decoder_dim, decoder_depth=decoder_depth, decoder_heads=decoder_heads)
        if decoder_dim % 4 or decoder_dim % decoder_heads:
            raise ValueError(
                f"`decoder_dim={decoder_dim}` must be a multiple of 4 and of `decoder_heads={decoder_heads}`."
            )
        views = views or SimCLRViews(count=1, crop_scale=(0.5, 1.0), strength=0.0, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        net = transformer_of(self.backbone, "MAE")
        patch_masks(1, net.seq_length - 1, mask_ratio, torch.Generator())  # checks the share
        if norm_pixels and net.patch_size == 1:
            raise ValueError(
                "`norm_pixels=true` leaves nothing to predict of patches of one pixel; give "
                "`--model.backbone.patch_size 2` or more, or `--model.norm_pixels false`."
            )
        self.mask_ratio, self.norm_pixels = mask_ratio, norm_pixels
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder_dim) * 0.02)
        self.decoder = MAEDecoder(
            seq_length=net.seq_length,
            num_layers=decoder_depth,
            num_heads=decoder_heads,
            embed_input_dim=self.backbone.feature_dim,
            hidden_dim=decoder_dim,
            mlp_dim=4 * decoder_dim,
            out_dim=net.conv_proj.in_channels * net.patch_size**2,
        )

    def reconstruct(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all patches from those that are seen.

        Args:
            images: `(N, C, H, W)`.
            masks: True where hidden, equally many a row, `(N, patches)`.

        Returns:
            Predictions `(N, patches, P)`, of which those of hidden patches count; class tokens `(N, dim)`.
        """
        net = transformer_of(self.backbone, "MAE")
        encoder = MaskedVisionTransformerTorchvision(net, weight_initialization="skip", pos_embed_initialization="skip")
        # places count the class token, which is always seen; the stable sort keeps the places in order
        seen = nn.functional.pad((~masks).to(images.device), (1, 0), value=True)
        keep = seen.byte().argsort(dim=1, descending=True, stable=True)[:, : int(seen[0].sum())]
        encoded = encoder.encode(images, idx_keep=keep)
        embedded = self.decoder.embed(encoded)
        tokens = self.mask_token.to(embedded.dtype).expand(len(images), net.seq_length, -1)
        decoded = self.decoder.decode(set_at_index(tokens, keep, embedded))
        return self.decoder.predict(decoded[:, 1:]), encoded[:, 0]

    def targets(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cut images into patches.

        Args:
            images: `(N, C, H, W)`.

        Returns:
            What to predict, `(N, patches, P)`; what was taken from each patch, and by what it was divided,
            `(N, patches, 1)`.
        """
        patches = patchify(images.float(), transformer_of(self.backbone, "MAE").patch_size)
        mean = patches.mean(dim=2, keepdim=True)
        spread = (patches.var(dim=2, keepdim=True, unbiased=False) + 1e-6).sqrt()
        if not self.norm_pixels:
            mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
        return (patches - mean) / spread, mean, spread

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Hide patches of the view, and predict them."""
        view, net = views[0], transformer_of(self.backbone, "MAE")
        require_size(view, net)
        masks = patch_masks(len(view), net.seq_length - 1, self.mask_ratio, self.local_generator("masks"))
        predicted, _ = self.reconstruct(view, masks)
        hidden = masks.nonzero()[:, 1].view(len(view), -1).to(view.device)
        with full_precision(predicted):
            wanted, _, _ = self.targets(view)
            loss = (get_at_index(predicted.float(), hidden) - get_at_index(wanted, hidden)).pow(2).mean()
        return {"loss": loss}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what is seen of them, and the hidden patches built up, `(N, C, H, W)` each."""
        net = transformer_of(self.backbone, "MAE")
        masks = patch_masks(len(images), net.seq_length - 1, self.mask_ratio, generator)
        predicted, _ = self.reconstruct(images, masks)
        _, mean, spread = self.targets(images)
        hidden, patches = masks[..., None].to(images.device), patchify(images, net.patch_size)
        channels = images.shape[1]
        rebuilt = torch.where(hidden, predicted.float() * spread + mean, patches)
        return {
            "images": images,
            "seen": unpatchify(patches.masked_fill(hidden, 0.0), net.patch_size, channels),
            "rebuilt": unpatchify(rebuilt, net.patch_size, channels),
        }
