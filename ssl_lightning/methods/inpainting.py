"""Paint in what is missing of an image."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_lightning.backbones import Backbone, ConvNet
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import between, one_of, sizes
from ssl_lightning.methods.adversarial import clip_apart, discriminator_loss, frozen, generator_loss
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.decoders import ConvDecoder
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews
from ssl_lightning.transforms.image.masks import block_masks, centre_masks


class Inpainting(SSLMethod):
    r"""Context encoder: encode an image with a hole, and paint the hole in.

    .. math:: L = \lambda_{rec} \frac{1}{|M|} \| M \odot (x - F((1 - M) \odot x)) \|^2 + \lambda_{adv} L_{adv}

    over the hidden values M. With an adversary, a discriminator tells what is painted, within its surroundings, from
    real images, and the painter is to deceive it; both learn in the same step.

    Args:
        backbone: The encoder to pretrain.
        views: One random view; null for crops, flips and a little colour jitter.
        channels: Channels of the images; linked from the data on the command line.
        image_size: Side of the images in pixels; linked from the data on the command line.
        region: Where the hole is: the `centre`, or five squares at `random` places.
        share: Share of the side that a hole in the centre has, or of the area that random squares have.
        adversarial: Weight of deceiving the discriminator; the reconstruction has the rest. 0 for none; the paper's
            is 0.001.
        latent_dim: Size of the bottleneck.
        width: Width of decoder and discriminator.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range; when the first batch comes, if it has another size.

    Reference:
        D. Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016, arXiv 1604.07379, Eq. 1 to 3. The
        hole is filled by the mean colour; the paper's decoder makes the centre alone, ours the image, of which only
        the hole counts.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Inpainting(ConvNet(width=4), image_size=8, share=0.5)
        >>> int(model.masks(torch.zeros(1, 1, 8, 8), torch.Generator()).sum())  # 4 of 8 pixels a side
        16
    """

    family: ClassVar[str] = "pretext task"
    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        channels: int = 1,
        image_size: int = 28,
        region: Literal["centre", "random"] = "centre",
        share: float = 0.5,
        adversarial: float = 0.0,
        latent_dim: int = 256,
        width: int = 32,
        **kwargs: Any,
    ) -> None:
        sizes(1, channels=channels, image_size=image_size, latent_dim=latent_dim, width=width)
        one_of(("centre", "random"), region=region)
        between(0, 1, "()", share=share)
        between(0, 1, "[)", adversarial=adversarial)
        views = views or SimCLRViews(count=1, crop_scale=(0.5, 1.0), strength=0.25, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        self.region, self.share, self.adversarial = region, share, adversarial
        if self.region == "centre" and round(share * image_size) >= image_size:
            raise ValueError(f"`share={share}` hides all of an image of {image_size} px; lower it.")
        self.bottleneck = nn.Linear(self.backbone.feature_dim, latent_dim)
        self.decoder = ConvDecoder(latent_dim, channels, image_size, width)
        self.discriminator: nn.Module | None = None
        if adversarial > 0:
            self.discriminator = nn.Sequential(ConvNet(channels, width), nn.Linear(4 * width, 1))

    def masks(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the holes of images `(N, C, S, S)`, `(N, 1, S, S)`, true where hidden."""
        count, size = len(images), images.shape[-1]
        if self.region == "centre":
            return onto(centre_masks(count, size, self.share), images.device)
        return onto(block_masks(count, size, self.share, generator), images.device)

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Hide a part of the view, and paint it in."""
        view = views[0]
        self.decoder.require_shape(view)
        masks = self.masks(view, self.local_generator("masks"))
        h = self.backbone(self._format(view.masked_fill(masks, 0.0)))  # 0 is the mean colour
        with full_precision(h):
            real, painted = view.float(), self.decoder(self.bottleneck(h.float()))
            hole = masks.expand_as(real)
            loss = torch.where(hole, painted - real, 0.0).pow(2).sum() / hole.sum()
            if self.discriminator is not None:
                fake = torch.where(hole, painted, real)
                told = self.discriminator(real), self.discriminator(fake.detach())
                telling = discriminator_loss(*told, "non-saturating")
                deceiving = generator_loss(frozen(self.discriminator, fake), "non-saturating")
                self.log_dict({"train/reconstruction": loss, "train/discriminator": telling}, sync_dist=True)
                loss = (1 - self.adversarial) * loss + self.adversarial * deceiving + telling
        return {"loss": loss, "embedding": h}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the discriminator's gradients, if there is one, and the painter's, each by themselves."""
        clip_apart(self.discriminator or nn.Module(), self, gradient_clip_val, gradient_clip_algorithm)

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what is seen of them, and the hole painted in, `(N, C, H, W)` each."""
        masks = self.masks(images, generator)
        seen = images.masked_fill(masks, 0.0)
        painted = self.decoder(self.bottleneck(self.embed(seen)))
        return {"images": images, "seen": seen, "painted in": torch.where(masks, painted, images)}
