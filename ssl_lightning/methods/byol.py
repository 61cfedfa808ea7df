"""Bootstrap your own latent."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import between, sizes
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.networks.teacher import Teacher, momentum_at


class BYOL(SSLMethod):
    r"""Predict what a slow copy of the network makes of the other view; no negatives.

    With :math:`q(z)` the prediction from one view and :math:`z'` the target network's projection of the other (Eq. 2)

    .. math:: L = 2 - 2 \frac{q(z) \cdot z'}{\lVert q(z) \rVert \lVert z' \rVert}

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data. The paper's asymmetric ones are `BYOLViews`.
        momentum: Momentum of the target network at the start; it rises to 1 by a half cosine.
        projection_dim: Size of z.
        hidden_dim: Size of the hidden layers of projector and predictor.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        J.-B. Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020, arXiv
        2006.07733. The mean of both views' losses where the paper adds them; momentum starts at 0.99, which suits fits
        of some thousand steps, where the paper has 0.996.

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = BYOL(ConvNet(width=4))
        >>> z = torch.eye(4, 8)
        >>> float(2 + 2 * model.criterion(z, z))  # a prediction that is right
        0.0
    """

    family: ClassVar[str] = "non-contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        momentum: float = 0.99,
        projection_dim: int = 256,
        hidden_dim: int = 1024,
        **kwargs: Any,
    ) -> None:
        between(0, 1, momentum=momentum)
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        sizes(1, hidden_dim=hidden_dim)
        super().__init__(backbone, views, **kwargs)
        self.momentum = momentum
        self.projector = BYOLProjectionHead(self.backbone.feature_dim, hidden_dim, projection_dim)
        self.predictor = BYOLPredictionHead(projection_dim, hidden_dim, projection_dim)
        self.criterion = NegativeCosineSimilarity()
        self.teacher = Teacher(self.backbone, self.projector)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Predict each view's target from the other view."""
        h = [self.backbone(view) for view in views]
        targets = [self.teacher(view) for view in views]
        with full_precision(h[0]):
            q0, q1 = (self.predictor(self.projector(rows.float())) for rows in h)
            t0, t1 = (rows.float() for rows in targets)
            loss = 2 + self.criterion(q0, t1) + self.criterion(q1, t0)
        return {"loss": loss, "embedding": h[0]}

    def after_step(self) -> None:
        """Let the target network follow."""
        momentum = momentum_at(self.global_step, self.total_steps, self.momentum)
        self.teacher.follow(momentum, self.backbone, self.projector)
