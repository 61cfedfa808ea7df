"""Variational autoencoder."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import above, at_least, whole
from ssl_lightning.functional.losses import gaussian_divergence
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.decoders import ConvDecoder
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.image import SimCLRViews


class VAE(SSLMethod):
    r"""Variational autoencoder: encode an image as a Gaussian near the standard one, decode a draw from it.

    .. math:: L = -\frac1D \Big( E_{q(z|x)}[\log p(x|z)] - \beta\, KL(q(z|x) \| N(0, 1)) \Big), \qquad
        p(x|z) = N(g(z), s^2)

    for images of D values; z = mean + deviation times noise (reparameterised). Logs `train/elbo` and `train/kl`, in
    nats an image.

    Args:
        backbone: The encoder to pretrain.
        views: One random view; null for the images themselves.
        channels: Channels of the images; linked from the data on the command line.
        image_size: Side of the images in pixels; linked from the data on the command line.
        latent_dim: Size of z.
        width: Width of the decoder: channels before its last layer.
        beta: Weight of the divergence; above 1 for a latent whose dimensions mean something (beta-VAE).
        deviation: s, of normalised pixels: how exact a reconstruction must be.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range; when the first batch comes, if it has another size.

    Reference:
        D. Kingma, M. Welling, Auto-Encoding Variational Bayes, ICLR 2014, arXiv 1312.6114, Eq. 10; beta: I. Higgins et
        al., ICLR 2017. The loss is divided by D, so that a learning rate serves any size. Means are batch-normalised
        with a learnt scale (Q. Zhu et al. 2020, arXiv 2004.12585, section 3.2, where the scale is fixed): the decoder's
        own batch norm hides their scale, which would come near the prior's in tens of epochs only.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = VAE(ConvNet(width=4), latent_dim=3, image_size=8).eval()
        >>> mean, log_variance = model.encode(model.embed(torch.zeros(2, 1, 8, 8)))
        >>> mean.shape, model.decoder(torch.randn(5, 3)).shape  # draws decode to new images
        (torch.Size([2, 3]), torch.Size([5, 1, 8, 8]))
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
        latent_dim: int = 32,
        width: int = 32,
        beta: float = 1.0,
        deviation: float = 0.5,
        **kwargs: Any,
    ) -> None:
        whole(1, channels=channels, latent_dim=latent_dim, width=width)
        at_least(0, beta=beta)
        above(0, deviation=deviation)
        views = views or SimCLRViews(count=1, crop_scale=(1.0, 1.0), flip=0.0, strength=0.0, grayscale=0.0)
        super().__init__(backbone, views, **kwargs)
        self.beta, self.deviation, self.latent_dim = beta, deviation, latent_dim
        self.bottleneck = nn.Linear(self.backbone.feature_dim, 2 * latent_dim)
        self.scale = nn.BatchNorm1d(latent_dim)
        self.decoder = ConvDecoder(latent_dim, channels, image_size, width)

    def encode(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances of z, `(N, latent_dim)` each, of embeddings `(N, feature_dim)`."""
        mean, log_variance = self.bottleneck(embedding).chunk(2, dim=1)
        return self.scale(mean), log_variance

    def log_likelihood(self, images: Tensor, decoded: Tensor) -> Tensor:
        """Return log p(x|z) in nats, `(N,)`."""
        squares = ((images - decoded) / self.deviation).pow(2).flatten(1).sum(dim=1)
        return -0.5 * squares - images[0].numel() * (math.log(self.deviation) + 0.5 * math.log(2 * math.pi))

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Return the negative bound a pixel value."""
        view = views[0]
        self.decoder.require_shape(view)
        h = self.backbone(view)
        with full_precision(h):
            mean, log_variance = self.encode(h.float())
            noise = onto(torch.randn(mean.shape, generator=self.local_generator("latent")), mean.device, mean.dtype)
            decoded = self.decoder(mean + (0.5 * log_variance).exp() * noise)
            likelihood = self.log_likelihood(view.float(), decoded).mean()
            divergence = gaussian_divergence(mean, log_variance).mean()
            loss = (self.beta * divergence - likelihood) / view[0].numel()
        self.log_dict({"train/elbo": likelihood - divergence, "train/kl": divergence}, sync_dist=True)
        return {"loss": loss, "embedding": h}

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Decode draws of the standard Gaussian.

        Args:
            count: How many.
            generator: Of the draws, on the CPU.

        Returns:
            Normalised, `(count, C, S, S)`.
        """
        decoded: Tensor = self.decoder(onto(torch.randn(count, self.latent_dim, generator=generator), self.device))
        return decoded

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images, what is built up from their means, and images of drawn z, `(N, C, H, W)` each."""
        mean, _ = self.encode(self.embed(images))
        drawn = self.sample(len(images), generator)
        return {"images": images, "reconstructed": self.decoder(mean), "drawn": drawn}
