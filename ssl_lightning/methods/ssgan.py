"""Self-supervised generative adversarial network."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import at_least
from ssl_lightning.methods.adversarial import (
    AdversarialMethod,
    discriminator_loss,
    frozen,
    generator_loss,
)
from ssl_lightning.methods.base import Step
from ssl_lightning.networks.modes import full_precision, statistics_kept
from ssl_lightning.transforms.image.tiles import turn


class SSGAN(AdversarialMethod):
    r"""GAN whose discriminator also predicts rotations, so that it does not forget what images show.

    .. math:: L_D = L_D^{GAN} - \beta\, E_x E_r \log Q(r \mid \mathrm{turn}(x, r)), \qquad
        L_G = L_G^{GAN} - \alpha\, E_z E_r \log Q(r \mid \mathrm{turn}(G(z), r))

    The discriminator learns rotations of real images, the generator makes images whose rotations can be told: here the
    players work together. A quarter of the batch is turned, by each of the four quarter turns.

    Args:
        backbone: The discriminator without its heads.
        views: One random view; null for the images themselves.
        alpha: Weight of the rotations for the generator.
        beta: Weight of the rotations for the discriminator.
        kwargs: As for `AdversarialMethod`: channels, image_size, latent_dim, width, loss, spectral, average, and those
            of `SSLMethod`.

    Raises:
        ValueError: If a weight is negative.

    Reference:
        T. Chen et al., Self-Supervised GANs via Auxiliary Rotation Loss, CVPR 2019, arXiv 1811.11212, Eq. 3 and 4;
        weights of section 4.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = SSGAN(ConvNet(width=4), image_size=8)
        >>> model.rotation_head(model.embed(torch.rand(3, 1, 8, 8))).shape  # by which quarter turn
        torch.Size([3, 4])
    """

    family: ClassVar[str] = "generative"

    def __init__(
        self, backbone: Backbone, views: nn.Module | None = None, alpha: float = 0.2, beta: float = 1.0, **kwargs: Any
    ) -> None:
        at_least(0, alpha=alpha, beta=beta)
        super().__init__(backbone, views, **kwargs)
        self.alpha, self.beta = alpha, beta
        self.rotation_head = self.limited(nn.Linear(self.backbone.feature_dim, 4), kwargs.get("spectral", True))

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Return the sum of both players' losses; each depends on its own parameters alone."""
        real = views[0]
        self.decoder.require_shape(real)
        made = self._format(self.paint(self.draw(len(real), self.local_generator("noise"))))
        part = max(1, len(real) // 4)
        turns = torch.arange(1, 4).repeat_interleave(part)
        labels = onto(torch.arange(4).repeat_interleave(part), real.device)
        h = self.backbone(real)
        with statistics_kept(self.backbone):
            h_turned = self.backbone(self._format(turn(real[:part].repeat(3, 1, 1, 1), turns)))
            h_fake = self.backbone(made.detach())
            # batch norm would notice if the generator were judged by other batches than the discriminator learns from
            h_made = frozen(self.backbone, made)
            h_made_turned = frozen(self.backbone, self._format(turn(made[:part].repeat(3, 1, 1, 1), turns)))
        with full_precision(h):
            told = self.head(h.float())[:, 0], self.head(h_fake.float())[:, 0]
            telling = discriminator_loss(*told, self.loss_kind)
            deceiving = generator_loss(frozen(self.head, h_made.float())[:, 0], self.loss_kind)
            logits = self.rotation_head(torch.cat([h[:part], h_turned]).float())
            logits_made = frozen(self.rotation_head, torch.cat([h_made[:part], h_made_turned]).float())
            real_turns, made_turns = cross_entropy(logits, labels), cross_entropy(logits_made, labels)
        self.log_dict(
            {
                "train/discriminator": telling, "train/generator": deceiving, "train/rotation": real_turns,
                "train/pretext_accuracy": (logits.argmax(dim=1) == labels).float().mean(),
            }, sync_dist=True,
        )  # fmt: skip
        return {
            "loss": telling + self.beta * real_turns + deceiving + self.alpha * made_turns,
            "embedding": h,
        }
