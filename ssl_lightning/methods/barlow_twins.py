"""Barlow Twins."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, whole
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision


class BarlowTwins(SSLMethod):
    r"""Make the cross-correlation of two views' projections the identity: invariant, and without redundancy.

    With C the cross-correlation over the batch of the projections' dimensions (Eq. 1)

    .. math:: L = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        redundancy: Weight of the second term, :math:`\lambda`.
        projection_dim: Size of the projection; this method likes wide ones.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        J. Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021, arXiv 2103.03230.
        The projector is narrower by default than the paper's 8192. Under DDP the correlations of the processes are
        averaged, each of its own batch's normalised projections, as in the authors' code.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = BarlowTwins(ConvNet(width=4), redundancy=0.5)
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(float(model.criterion(z, z)), 4)  # the same views, and dimensions that do not repeat one another
        0.0
        >>> twice = z[:, [0, 0]]
        >>> round(float(model.criterion(twice, twice)), 4)  # twice the same: 0.5 for each of two
        1.0
    """

    family: ClassVar[str] = "non-contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        redundancy: float = 5e-3,
        projection_dim: int = 1024,
        **kwargs: Any,
    ) -> None:
        above(0, redundancy=redundancy)
        whole(1, projection_dim=projection_dim)
        super().__init__(backbone, views, **kwargs)
        self.projector = BarlowTwinsProjectionHead(self.backbone.feature_dim, projection_dim, projection_dim)
        self.criterion = BarlowTwinsLoss(redundancy, gather_distributed=True)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Correlate each dimension with itself and with no other."""
        h = [self.backbone(view) for view in views]
        with full_precision(h[0]):
            loss = self.criterion(*(self.projector(rows.float()) for rows in h))
        return {"loss": loss, "embedding": h[0]}
