"""Masked autoencoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightly.models.modules import MAEDecoder
from lightly.models.utils import patchify, unpatchify
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.backbones.patches import Patches, draw_hidden, run_blocks
from ssl_lightning.backbones.vit import ImagePatches, patch_encoder_of, require_share
from ssl_lightning.data.of_trainer import views_for
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision


class MAE(SSLMethod):
    r"""Masked autoencoder: hide most patches, encode what is seen, and build the hidden ones up from it.

    .. math:: L = \frac{1}{|M|} \sum_{i \in M} \frac1P \| \hat p_i - \tilde p_i \|^2

    over the hidden patches M of P values each. The encoder sees the other patches alone, a quarter of the work; a small
    decoder gets them with a mask token for each hidden one. Every sample has its own draw of patches, a share of those
    that it has: images, or spectrograms of any length.

    Args:
        backbone: A vision transformer: `ViT`, or `Torchvision` of a vit_ name; for sound `SpectrogramTransformer`.
        views: One random view; null for the mild ones of the data, as crops.
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
        encoder with masks of images and the decoder's layers are lightly's.

    Example:
        >>> from ssl_lightning.backbones import ViT
        >>> model = MAE(ViT(1, 8, patch_size=2, dim=12, depth=1, heads=3), decoder_dim=12, decoder_depth=1)
        >>> hidden = torch.arange(16)[None] >= 4  # all of 16 patches but the first four
        >>> model.reconstruct(torch.rand(1, 1, 8, 8), hidden)[0].shape  # four pixels of each patch
        torch.Size([1, 16, 4])
    """

    family: ClassVar[str] = "masked"
    takes: ClassVar[tuple[str, ...]] = ("images", "sound")
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
        super().__init__(backbone, views, **kwargs)
        encoder = patch_encoder_of(self.backbone, "MAE")
        require_share(encoder, mask_ratio)
        if norm_pixels and encoder.patch_area == 1:
            raise ValueError(
                "`norm_pixels=true` leaves nothing to predict of patches of one pixel; give "
                "`--model.backbone.patch_size 2` or more, or `--model.norm_pixels false`."
            )
        self.mask_ratio, self.norm_pixels, self.decoder_dim = mask_ratio, norm_pixels, decoder_dim
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder_dim) * 0.02)
        self.decoder = MAEDecoder(
            seq_length=1 + (encoder.count or 1),
            num_layers=decoder_depth,
            num_heads=decoder_heads,
            embed_input_dim=self.backbone.feature_dim,
            hidden_dim=decoder_dim,
            mlp_dim=4 * decoder_dim,
            out_dim=encoder.patch_dim,
        )
        del self.decoder.pos_embedding  # the encoder tells where patches are

    def suggested_views(self) -> nn.Module | None:
        """Return mild views that suit the data."""
        return views_for(self.trainer, self.view_count, mild=True)

    def reconstruct(self, inputs: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all patches from those that are seen.

        Args:
            inputs: Of N samples, as the encoder takes them.
            hidden: Boolean, `(N, P)`.

        Returns:
            Predictions `(N, P, D)`, of which those of hidden patches count; tokens of what is seen `(N, K, dim)`.
        """
        encoder = patch_encoder_of(self.backbone, "MAE")
        inside = encoder.cut(inputs).inside
        seen = ~hidden if inside is None else inside.to(hidden.device) & ~hidden
        encoded = encoder.encode_seen(inputs, seen)
        embedded = self.decoder.embed(encoded.tokens)
        total = encoder.prefix + hidden.shape[1]
        # one place more, for what is padding among the tokens
        tokens = self.mask_token.to(embedded.dtype).expand(len(hidden), total + 1, -1)
        tokens = tokens.scatter(1, encoded.places[..., None].expand_as(embedded), embedded)[:, :total]
        tokens = tokens + encoder.positions(hidden.shape[1], self.decoder_dim)
        within = None if inside is None else nn.functional.pad(inside, (encoder.prefix, 0), value=True)
        decoded = self.decoder.ln(run_blocks(self.decoder.layers, tokens, within))
        return self.decoder.predict(decoded[:, encoder.prefix :]), encoded.tokens

    def targets(self, patches: Patches) -> tuple[Tensor, Tensor, Tensor]:
        """Say what is to be predicted.

        Args:
            patches: `(N, P, D)`.

        Returns:
            That, `(N, P, D)`; what was taken from each patch, and by what it was divided, `(N, P, 1)`.
        """
        values = patches.values
        mean = values.mean(dim=2, keepdim=True)
        spread = (values.var(dim=2, keepdim=True, unbiased=False) + 1e-6).sqrt()
        if not self.norm_pixels:
            mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
        return (values - mean) / spread, mean, spread

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Hide patches of the view, and predict them."""
        view, encoder = views[0], patch_encoder_of(self.backbone, "MAE")
        encoder.require(view)
        patches = encoder.cut(view)
        hidden = draw_hidden(patches, self.mask_ratio, self.local_generator("masks"))
        predicted, _ = self.reconstruct(view, hidden)
        with full_precision(predicted):
            wanted, _, _ = self.targets(patches)
            sample, place = onto(hidden.nonzero(), predicted.device).unbind(1)
            errors = (predicted.float()[sample, place] - wanted[sample, place]).pow(2)
            loss = errors.sum() / max(1, errors.numel())  # sounds of one patch hide none
        return {"loss": loss}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the fixed places that earlier checkpoints kept."""
        checkpoint["state_dict"].pop("decoder.pos_embedding", None)
        super().on_load_checkpoint(checkpoint)

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what is seen of them, and the hidden patches built up, `(N, C, H, W)` each."""
        encoder = patch_encoder_of(self.backbone, "MAE")
        if not isinstance(encoder, ImagePatches):
            raise ValueError(f"`{type(self.backbone).__name__}` makes no pictures; leave out the callback `Pictures`.")
        patches, side = encoder.cut(images), encoder.net.patch_size
        hidden = draw_hidden(patches, self.mask_ratio, generator).to(images.device)
        predicted, _ = self.reconstruct(images, hidden)
        _, mean, spread = self.targets(patches)
        values, channels = patchify(images, side), images.shape[1]
        rebuilt = torch.where(hidden[..., None], predicted.float() * spread + mean, values)
        return {
            "images": images,
            "seen": unpatchify(values.masked_fill(hidden[..., None], 0.0), side, channels),
            "rebuilt": unpatchify(rebuilt, side, channels),
        }
