"""SimCLR."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.loss import DCLLoss, NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, sizes
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.transforms.base import join


class SimCLR(SSLMethod):
    r"""Contrastive learning: two views of a sample attract, those of different samples repel.

    With :math:`z` the normalised projections of the 2N views of a batch, a positive pair (i, j) has the loss (Eq. 1)

    .. math:: \ell_{i,j} = -\log \frac{\exp(z_i \cdot z_j / \tau)}{\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        temperature: Temperature of the softmax, :math:`\tau`; 0.5 was best on CIFAR-10 (appendix B.9).
        projection_dim: Size of the projection z.
        decoupled: Leave the positive out of the denominator (Yeh et al. 2022, arXiv 2110.06848, Eq. 6, unweighted):
            less sensitive to the batch size.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        T. Chen, S. Kornblith, M. Norouzi, G. Hinton, A Simple Framework for Contrastive Learning of Visual
        Representations, ICML 2020, arXiv 2002.05709. The loss is lightly's, gathered over all processes.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model, same = SimCLR(ConvNet(width=4)), torch.ones(4, 128)
        >>> round(float(model.criterion(same, same)), 3)  # of 2N - 1 = 7 candidates all are alike: log 7
        1.946
    """

    family: ClassVar[str] = "contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        temperature: float = 0.5,
        projection_dim: int = 128,
        decoupled: bool = False,
        **kwargs: Any,
    ) -> None:
        above(0, temperature=temperature)
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        super().__init__(backbone, views, **kwargs)
        self.projector = SimCLRProjectionHead(self.backbone.feature_dim, self.backbone.feature_dim, projection_dim)
        loss = DCLLoss if decoupled else NTXentLoss
        self.criterion = loss(temperature, gather_distributed=True)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Pull the two views of each sample together, push all others away."""
        h = self.backbone(join(views))  # (2 * N, dim)
        with full_precision(h):
            z0, z1 = self.projector(h.float()).chunk(2)
            loss = self.criterion(z0, z1)
        return {"loss": loss, "embedding": h[: len(batch.target)]}
