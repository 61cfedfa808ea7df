"""Predict where one part of an image lies beside another."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.backbones import Backbone
from ssl_lightning.data.base import Batch
from ssl_lightning.methods.base import Step, full_precision
from ssl_lightning.methods.pretext import TileMethod

CENTRE = 4  # of 3 x 3 tiles


class RelativePosition(TileMethod):
    r"""Pretext task: of the tile in the middle and one of the eight around it, predict which of the eight it is.

    .. math:: L = -\frac{1}{8N} \sum_i \sum_{k=1}^{8} \log p_k\big(f(t_{\mathrm{centre}}), f(t_k)\big)

    Args:
        backbone: The encoder to pretrain; it must take tiles.
        views: One random view; null for crops, flips, some colour jitter and some gray images.
        gap: Pixels by which a tile is smaller than its cell, a ninth of the image.
        hidden_dim: Of the head.
        kwargs: As for `SSLMethod`.

    Raises:
        ValueError: If a number is out of range; when the first batch comes, if a ninth of the image is too small.

    Reference:
        C. Doersch, A. Gupta, A. Efros, Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015,
        arXiv 1505.05192, section 3. There one pair is drawn from an image, with a gap of half a tile; here all eight
        pairs share the encoded tiles. Instead of dropping colours against chromatic aberration, tiles are normalised in
        every channel and some views are gray.
    """

    def __init__(
        self, backbone: Backbone, views: nn.Module | None = None, gap: int = 2, hidden_dim: int = 512, **kwargs: Any
    ) -> None:
        super().__init__(backbone, views, 3, gap, **kwargs)
        self.save_hyperparameters(ignore=["backbone", "views", "clean"])
        self.head = nn.Sequential(nn.Linear(2 * backbone.feature_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 8))

    def compute_loss(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Pair the middle tile with each other, and classify where that is."""
        features, embedding = self.encode(views[0])
        around = [place for place in range(9) if place != CENTRE]
        labels = torch.arange(8, device=features.device).expand(len(features), 8)
        with full_precision(features):
            middle = features[:, CENTRE, None].expand(-1, 8, -1)
            logits = self.head(torch.cat([middle, features[:, around]], dim=2).float())  # (N, 8, 8)
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
        self.log("train/pretext_accuracy", (logits.argmax(dim=2) == labels).float().mean(), sync_dist=True)
        return {"loss": loss, "embedding": embedding}
