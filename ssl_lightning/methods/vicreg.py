"""Variance, invariance, covariance."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import at_least, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision


class VICReg(SSLMethod):
    r"""Keep views together, every dimension spread, and dimensions uncorrelated.

    .. math:: L = \lambda\, s(Z, Z') + \tfrac{\mu}{2} [v(Z) + v(Z')] + \nu [c(Z) + c(Z')]

    with s the mean squared difference, v the mean over dimensions of max(0, 1 - standard deviation), and c the sum of
    squared off-diagonal covariances, divided by the dimension.

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        invariance: Weight of the distance of the views, :math:`\lambda`.
        variance: Weight of the spread of each dimension, :math:`\mu`.
        covariance: Weight of the correlation of dimensions, :math:`\nu`.
        projection_dim: Size of Z; this method likes wide ones.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        A. Bardes, J. Ponce, Y. LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
        Learning, ICLR 2022, arXiv 2105.04906, Eq. 6, with the authors' code: the variance term is halved, and s is also
        divided by the dimension. Variance and covariance are those of all processes' samples.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = VICReg(ConvNet(width=4), invariance=1.0, variance=0.0, covariance=0.0)
        >>> float(model.criterion(torch.zeros(4, 2), torch.ones(4, 2)))  # the mean squared distance of the views
        1.0
    """

    family: ClassVar[str] = "non-contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        projection_dim: int = 1024,
        **kwargs: Any,
    ) -> None:
        at_least(0, invariance=invariance, variance=variance, covariance=covariance)
        whole(1, projection_dim=projection_dim)
        super().__init__(backbone, views, **kwargs)
        self.projector = VICRegProjectionHead(self.backbone.feature_dim, projection_dim, projection_dim)
        self.criterion = VICRegLoss(invariance, variance, covariance, gather_distributed=True)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Weigh the three terms."""
        h = [self.backbone(view) for view in views]
        with full_precision(h[0]):
            loss = self.criterion(*(self.projector(rows.float()) for rows in h))
        return {"loss": loss, "embedding": h[0]}
