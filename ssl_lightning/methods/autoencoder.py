"""Compress an image, and build it up again."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import at_least, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.decoders import ConvDecoder
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews


class Autoencoder(SSLMethod):
    r"""Compress an image to a few numbers, and build it up from them; by option from a noisy copy (denoising).

    .. math:: L = \frac{1}{ND} \sum_i \lVert x_i - g(f(x_i + \sigma \epsilon)) \rVert^2

    over the D values of a normalised image.

    Args:
        backbone: The encoder to pretrain.
        views: One random view; null for the images themselves.
        channels: Channels of the images; linked from the data on the command line.
        image_size: Side of the images in pixels; linked from the data on the command line.
        latent_dim: Size of the code that an image is compressed to.
        width: Width of the decoder: channels before its last layer.
        noise: Standard deviation, of normalised pixels, of what is added to the input; 0 for a plain autoencoder.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range; when the first batch comes, if it has another size.

    Reference:
        P. Vincent, H. Larochelle, Y. Bengio, P.-A. Manzagol, Extracting and Composing Robust Features with Denoising
        Autoencoders, ICML 2008; plain: G. Hinton, R. Salakhutdinov, Science 2006. A survey with both: arXiv 2003.05991.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = Autoencoder(ConvNet(width=4), latent_dim=3, image_size=8)
        >>> numbers = model.bottleneck(model.embed(torch.zeros(2, 1, 8, 8)))
        >>> numbers.shape, model.decoder(numbers).shape
        (torch.Size([2, 3]), torch.Size([2, 1, 8, 8]))
    """

    family: ClassVar[str] = "generative"
    takes: ClassVar[tuple[str, ...]] = ("images",)
    view_count: ClassVar[int] = 1

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        channels: int = 1,
        image_size: int = 28,
        latent_dim: int = 64,
        width: int = 32,
        noise: float = 0.0,
        **kwargs: Any,
    ) -> None:
        whole(1, channels=channels, latent_dim=latent_dim, width=width)
        at_least(0, noise=noise)
        views = views or SimCLRViews(count=1, crop_scale=(1.0, 1.0), flip=0.0, strength=0.0, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        self.noise = noise
        self.bottleneck = nn.Linear(self.backbone.feature_dim, latent_dim)
        self.decoder = ConvDecoder(latent_dim, channels, image_size, width)

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Reconstruct the view."""
        view = views[0]
        self.decoder.require_shape(view)
        seen = view
        if self.noise > 0:
            drawn = torch.randn(view.shape, generator=self.local_generator("noise"))
            seen = self._format(view + self.noise * onto(drawn, view.device, view.dtype))
        h = self.backbone(seen)
        with full_precision(h):
            loss = mse_loss(self.decoder(self.bottleneck(h.float())), view.float())
        return {"loss": loss, "embedding": h}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what the encoder sees of them, and what is built up, `(N, C, H, W)` each."""
        seen = images + self.noise * torch.randn(images.shape, generator=generator).to(images)
        found = {"images": images, "noisy": seen, "reconstructed": self.decoder(self.bottleneck(self.embed(seen)))}
        return found if self.noise > 0 else {name: rows for name, rows in found.items() if name != "noisy"}
