"""Swapped assignments between views."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.utils import dist
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, at_least, between, sizes
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.heads import lasting, without_bias
from ssl_lightning.networks.modes import full_precision


class SwAV(SSLMethod):
    r"""Predict a view's cluster from another view, the clusters being evenly filled in every batch.

    With prototypes C, codes q found by the Sinkhorn-Knopp iteration from the scores :math:`z^\top C` of a large crop,
    and every other crop s (Eq. 2)

    .. math:: \ell(z_s, q) = -\sum_k q_k \log p_k, \qquad p = softmax(z_s^\top C / \tau)

    Args:
        backbone: The encoder to pretrain; must take input of the small crops' size.
        views: The first two are large crops; null for those of the data.
        prototypes: Number of prototypes, the columns of C.
        temperature: Temperature of the softmax, :math:`\tau`.
        epsilon: Smoothness of the codes that the Sinkhorn-Knopp iteration finds; 0.05 in the paper, whose code advises
            0.03 where the loss does not fall. At least 0.025, of which float32 still holds the exponentials.
        queue_size: Number of projections of the last batches that help to find the codes, where a batch is smaller than
            the number of prototypes; 0 for none.
        queue_start: Fraction of all steps before the queue is used.
        projection_dim: Size of z.
        hidden_dim: Size of the hidden layer of the projector.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        M. Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020,
        arXiv 2006.09882. Loss and heads are lightly's; its prototypes lose their bias, which the paper's have not. They
        are held fixed in the first epoch, as in the authors' code. Codes are found over all processes.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = SwAV(ConvNet(width=4), prototypes=10, projection_dim=16)
        >>> model.prototypes(model.projector(model.embed(torch.rand(3, 1, 8, 8)))).shape  # a score with each prototype
        torch.Size([3, 10])
    """

    family: ClassVar[str] = "clustering"
    local_count: ClassVar[int] = 4

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        prototypes: int = 300,
        temperature: float = 0.1,
        epsilon: float = 0.03,
        queue_size: int = 1024,
        queue_start: float = 0.5,
        projection_dim: int = 128,
        hidden_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        sizes(2, prototypes=prototypes)
        above(0, temperature=temperature)
        at_least(0.025, "float32 holds no exponential of a score by less", epsilon=epsilon)
        sizes(0, queue_size=queue_size)
        between(0, 1, queue_start=queue_start)
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        sizes(1, hidden_dim=hidden_dim)
        super().__init__(backbone, views, **kwargs)
        self.queue_start = queue_start
        self.projector = SwaVProjectionHead(self.backbone.feature_dim, hidden_dim, projection_dim)
        self.prototypes = without_bias(SwaVPrototypes(projection_dim, prototypes))
        self.criterion = SwaVLoss(temperature, sinkhorn_epsilon=epsilon, sinkhorn_gather_distributed=True)
        count = 2 if queue_size else 0
        self.queues = nn.ModuleList(lasting(MemoryBankModule((queue_size, projection_dim))) for _ in range(count))

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Predict the codes of the first two views from all others."""
        self.prototypes.normalize()  # type: ignore[operator]
        h = [self.backbone(view) for view in views]
        with full_precision(h[0]):
            z = [normalize(self.projector(rows.float()), dim=1) for rows in h]
            scores = [self.prototypes(rows) for rows in z]
            loss = self.criterion(scores[:2], scores[2:], self._queued(z)).squeeze()
        return {"loss": loss, "embedding": h[0]}

    @torch.no_grad()
    def _queued(self, z: list[Tensor]) -> list[Tensor] | None:
        """Return the scores of the queued projections, this rank's share of them, and queue those of this batch."""
        scores = []
        for queue, rows in zip(self.queues, z, strict=False):
            _, bank = queue(rows, update=True)  # (dim, queue), from before the update
            scores.append(self.prototypes(bank.T[dist.rank() :: dist.world_size()]))
        begun = self._trainer is None or self.global_step >= self.queue_start * self.total_steps
        return scores if scores and begun else None

    def on_after_backward(self) -> None:
        """Hold the prototypes fixed in the first epoch."""
        if self.current_epoch == 0:
            for parameter in self.prototypes.parameters():
                parameter.grad = None
