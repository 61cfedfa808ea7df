"""Nearest-neighbour contrastive learning."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightly.models.modules import NNMemoryBankModule
from lightly.models.modules.heads import NNCLRPredictionHead, NNCLRProjectionHead
from torch import nn
from torch.nn.functional import normalize

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, sizes
from ssl_lightning.functional.losses import info_nce
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.heads import lasting
from ssl_lightning.networks.modes import full_precision


class NNCLR(SSLMethod):
    r"""Contrastive learning whose positive is the nearest neighbour of a view among the last projections of others.

    With NN(z, Q) the nearest projection in the queue Q and :math:`p = g(z)` the predictor's output, the loss of a
    pair of views is (Eq. 3 and section 3.2)

    .. math:: L_i = -\log \frac{\exp(NN(z_i, Q) \cdot p_i^+ / \tau)}{\sum_k \exp(NN(z_i, Q) \cdot p_k^+ / \tau)}

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        temperature: Temperature of the softmax, :math:`\tau`.
        queue_size: Number of projections kept.
        projection_dim: Size of z and p.
        hidden_dim: Size of the hidden layers of the heads; twice that in the predictor.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        D. Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
        Representations, ICCV 2021, arXiv 2104.14548. The queue is lightly's, filled by all processes and random at the
        start; the loss is the paper's, without lightly's further negatives (neighbours among each other).

    Example:
        >>> import torch
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = NNCLR(ConvNet(width=4), queue_size=64, projection_dim=16)
        >>> model.predictor(model.projector(model.embed(torch.zeros(3, 1, 8, 8)))).shape
        torch.Size([3, 16])
    """

    family: ClassVar[str] = "contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        temperature: float = 0.1,
        queue_size: int = 4096,
        projection_dim: int = 256,
        hidden_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        above(0, temperature=temperature)
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        sizes(1, queue_size=queue_size, hidden_dim=hidden_dim)
        super().__init__(backbone, views, **kwargs)
        self.temperature = temperature
        self.projector = NNCLRProjectionHead(self.backbone.feature_dim, hidden_dim, projection_dim)
        self.predictor = NNCLRPredictionHead(projection_dim, 2 * hidden_dim, projection_dim)
        self.queue = lasting(NNMemoryBankModule((queue_size, projection_dim)))

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Let the neighbour of one view find the prediction of the other."""
        h = [self.backbone(view) for view in views]
        with full_precision(h[0]):
            z0, z1 = (self.projector(rows.float()) for rows in h)
            p0, p1 = self.predictor(z0), self.predictor(z1)
            near0 = self.queue(normalize(z0.detach(), dim=1), update=False)
            near1 = self.queue(normalize(z1.detach(), dim=1), update=False)
            loss = (info_nce(near0, p1, self.temperature) + info_nce(near1, p0, self.temperature)) / 2
            self.queue(normalize(z0.detach(), dim=1), update=True)
        return {"loss": loss, "embedding": h[0]}
