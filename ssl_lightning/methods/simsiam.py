"""Simple Siamese representation learning."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import sizes
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision


class SimSiam(SSLMethod):
    r"""Predict the other view's projection, which is held fixed; no negatives, no second network.

    With :math:`D(p, z) = -\frac{p \cdot z}{\lVert p \rVert \lVert z \rVert}` and predictions :math:`p = h(z)` (Eq. 2
    and 4)

    .. math:: L = \tfrac12 D(p_1, stopgrad(z_2)) + \tfrac12 D(p_2, stopgrad(z_1))

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        stop_gradient: Hold z fixed. Without it the embedding collapses: docs/collapse.md shows how.
        projection_dim: Size of z.
        hidden_dim: Size of the hidden layers of the projector; a quarter of that in the predictor, a
            bottleneck as in the paper.
        kwargs: The other arguments, as for `SSLMethod`.

    Reference:
        X. Chen, K. He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566. Heads are
        lightly's, narrower by default than the paper's 2048.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model, z = SimSiam(ConvNet(width=4)), torch.eye(4, 8)
        >>> float(model.criterion(z, z))  # the least: each prediction is right
        -1.0
    """

    family: ClassVar[str] = "non-contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        stop_gradient: bool = True,
        projection_dim: int = 512,
        hidden_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        sizes(1, hidden_dim=hidden_dim)
        super().__init__(backbone, views, **kwargs)
        self.stop_gradient = stop_gradient
        self.projector = SimSiamProjectionHead(self.backbone.feature_dim, hidden_dim, projection_dim)
        self.predictor = SimSiamPredictionHead(projection_dim, max(1, hidden_dim // 4), projection_dim)
        self.criterion = NegativeCosineSimilarity()

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Predict each view's projection from the other's."""
        h = [self.backbone(view) for view in views]
        with full_precision(h[0]):
            z0, z1 = (self.projector(rows.float()) for rows in h)
            p0, p1 = self.predictor(z0), self.predictor(z1)
            if self.stop_gradient:
                z0, z1 = z0.detach(), z1.detach()
            loss = (self.criterion(p0, z1) + self.criterion(p1, z0)) / 2
        return {"loss": loss, "embedding": h[0]}
