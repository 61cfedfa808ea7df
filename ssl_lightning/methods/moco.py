"""Momentum contrast."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead
from torch import nn

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.ranges import above, between, one_of, sizes
from ssl_lightning.functional.losses import info_nce
from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.networks.heads import lasting
from ssl_lightning.networks.modes import full_precision
from ssl_lightning.networks.teacher import Teacher, momentum_at


class MoCo(SSLMethod):
    r"""Momentum contrast: a query finds its key, made by a slow copy of the network, among many others.

    Version 2 takes the negatives from a queue of the last keys, so that they need no large batch (Eq. 1):

    .. math:: L = -\log \frac{\exp(q \cdot k_+ / \tau)}{\exp(q \cdot k_+ / \tau) + \sum_{k \in queue}
        \exp(q \cdot k / \tau)}

    Version 3 takes the other keys of the batch, puts a predictor on the queries and scales by :math:`2 \tau`. Both
    views are queries and keys in turn.

    Args:
        backbone: The encoder to pretrain.
        views: Two random views; null for those of the data.
        version: Version of the method, 2 or 3; see above.
        temperature: Temperature of the softmax, :math:`\tau`.
        queue_size: Number of keys kept, for version 2.
        momentum: Momentum of the key network, m; in version 3 it rises to 1 by a half cosine.
        projection_dim: Size of q and k.
        hidden_dim: Size of the hidden layers of the heads.
        kwargs: The other arguments, as for `SSLMethod`.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        K. He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, arXiv 1911.05722;
        X. Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020, arXiv 2003.04297 (v2); X. Chen, S.
        Xie, K. He, An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021, arXiv 2104.02057,
        algorithm 1 (v3). Departures: version 2 is symmetric; batches are not shuffled between processes before batch
        norm; the queue is lightly's, filled by all processes, and starts random as in the authors' code.

    Example:
        >>> from ssl_lightning.backbones import ConvNet
        >>> model = MoCo(ConvNet(width=4), queue_size=64)
        >>> own, slow = model.backbone.parameters(), model.teacher.parameters()
        >>> all(bool((a == b).all()) for a, b in zip(own, slow, strict=False))  # the slow copy begins as a copy
        True
    """

    family: ClassVar[str] = "contrastive"

    def __init__(
        self,
        backbone: Backbone,
        views: nn.Module | None = None,
        version: Literal[2, 3] = 2,
        temperature: float = 0.2,
        queue_size: int = 4096,
        momentum: float = 0.99,
        projection_dim: int = 128,
        hidden_dim: int = 512,
        **kwargs: Any,
    ) -> None:
        one_of((2, 3), version=version)
        above(0, temperature=temperature)
        between(0, 1, momentum=momentum)
        sizes(2, "a normalised number is 1 or -1", projection_dim=projection_dim)
        sizes(1, queue_size=queue_size, hidden_dim=hidden_dim)
        super().__init__(backbone, views, **kwargs)
        self.least_batch = 1 if version == 2 else 2  # a queue has negatives enough
        self.version, self.temperature, self.momentum = version, temperature, momentum
        layers, norm = (2, False) if version == 2 else (3, True)
        self.projector = MoCoProjectionHead(self.backbone.feature_dim, hidden_dim, projection_dim, layers, norm)
        self.predictor: nn.Module = nn.Identity()
        if version == 3:
            self.predictor = MoCoProjectionHead(projection_dim, hidden_dim, projection_dim, 2, batch_norm=True)
        else:
            self.criterion = NTXentLoss(temperature, (queue_size, projection_dim), gather_distributed=True)
            lasting(self.criterion.memory_bank)
        self.teacher = Teacher(self.backbone, self.projector)

    def compute_loss(self, views: Sequence[Any], batch: Batch) -> Step:
        """Let each view's query find the other view's key."""
        h = [self.backbone(view) for view in views]
        queries = [self.predictor(self.projector(rows)) for rows in h]
        keys = [self.teacher(view) for view in views]
        with full_precision(h[0]):
            (q0, q1), (k0, k1) = ([rows.float() for rows in part] for part in (queries, keys))
            if self.version == 2:  # at once: a view's own key must not be in the queue when its query is contrasted
                loss = self.criterion(torch.cat([q0, q1]), torch.cat([k1, k0]))  # and then queues the keys
            else:
                loss = info_nce(q0, k1, self.temperature) + info_nce(q1, k0, self.temperature)
                loss = 2 * self.temperature * loss
        return {"loss": loss, "embedding": h[0]}

    def after_step(self) -> None:
        """Let the key network follow."""
        end = 1.0 if self.version == 3 else self.momentum
        momentum = momentum_at(self.global_step, self.total_steps, self.momentum, end)
        self.teacher.follow(momentum, self.backbone, self.projector)
