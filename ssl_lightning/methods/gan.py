"""Generative adversarial network."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ssl_lightning.data.samples import Batch
from ssl_lightning.methods.adversarial import (
    AdversarialMethod,
    discriminator_loss,
    frozen,
    generator_loss,
)
from ssl_lightning.methods.base import Step
from ssl_lightning.networks.modes import full_precision, statistics_kept


class GAN(AdversarialMethod):
    r"""Generative adversarial network: a generator learns to deceive a discriminator, which learns to tell.

    .. math:: \min_G \max_D E_x[\log D(x)] + E_z[\log(1 - D(G(z)))]

    or its hinge form with spectral norm, which is stable for more settings. The discriminator's features are what is
    kept. Its other arguments are those of `AdversarialMethod`.

    Args:
        backbone: The discriminator without its head.

    Reference:
        A. Radford, L. Metz, S. Chintala, Unsupervised Representation Learning with DCGAN, ICLR 2016, arXiv 1511.06434;
        hinge loss and spectral norm: T. Miyato et al. 2018, arXiv 1802.05957. Both players step at once (M. Heusel et
        al. 2017, arXiv 1706.08500, section 2) instead of in turn.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = GAN(ConvNet(width=4), image_size=8)
        >>> model.paint(model.draw(2, torch.Generator().manual_seed(0))).shape  # two images of noise
        torch.Size([2, 1, 8, 8])
    """

    family: ClassVar[str] = "generative"

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Return the sum of both players' losses; each depends on its own parameters alone."""
        real = views[0]
        self.decoder.require_shape(real)
        made = self._format(self.paint(self.draw(len(real), self.local_generator("noise"))))
        h = self.backbone(real)
        with statistics_kept(self.backbone):
            h_fake, h_made = self.backbone(made.detach()), frozen(self.backbone, made)
        with full_precision(h):
            told = self.head(h.float())[:, 0], self.head(h_fake.float())[:, 0]
            telling = discriminator_loss(*told, self.loss_kind)
            deceiving = generator_loss(frozen(self.head, h_made.float())[:, 0], self.loss_kind)
        self.log_dict({"train/discriminator": telling, "train/generator": deceiving}, sync_dist=True)
        return {"loss": telling + deceiving, "embedding": h}
