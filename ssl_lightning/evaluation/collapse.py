"""Has the representation collapsed?"""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.data.base import Batch
from ssl_lightning.evaluation.inference import Rows, gather
from ssl_lightning.evaluation.knn import keep_embeddings


def spread(embeddings: Tensor) -> float:
    r"""Standard deviation of normalised embeddings, averaged over dimensions, times :math:`\sqrt d`.

    Args:
        embeddings: `(N, d)`.

    Returns:
        0 if all point the same way, about 1 if they fill the sphere evenly.

    Reference:
        X. Chen, K. He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566, section 4.1.

    Example:
        >>> spread(torch.ones(5, 3)), round(spread(torch.cat([torch.eye(2), -torch.eye(2)])), 3)
        (0.0, 1.0)
    """
    return float(normalize(embeddings.float(), dim=1).std(dim=0, correction=0).mean()) * math.sqrt(embeddings.shape[1])


def effective_rank(embeddings: Tensor) -> float:
    r"""Exponential of the entropy of the singular values: how many dimensions the embeddings use.

    With :math:`p_k = \sigma_k / \sum_j \sigma_j` over the singular values of the centred, normalised embeddings,
    the rank is :math:`\exp(-\sum_k p_k \log p_k)`.

    Args:
        embeddings: `(N, d)`.

    Returns:
        From 1 to min(N, d); 0 if all embeddings are the same.

    Reference:
        O. Roy, M. Vetterli, The Effective Rank: a Measure of Effective Dimensionality, EUSIPCO 2007. RankMe (Garrido
        et al. 2023, arXiv 2210.02885) is the same without centring and normalising; we centre, so that a common
        offset, which tells no sample from another, does not hide what does.

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(3), -torch.eye(3)])), 3), effective_rank(torch.ones(4, 3))
        (3.0, 0.0)
    """
    rows = normalize(embeddings.double(), dim=1)
    rows = rows - rows.mean(dim=0)
    values = torch.linalg.svdvals(rows)
    if values.sum() < 1e-6 * len(rows):
        return 0.0
    p = values / values.sum()
    return float(torch.special.entr(p).sum().exp())


class CollapseMonitor(L.Callback):
    """Logs `val/embedding_std` and `val/effective_rank`, and warns in words of a collapsed embedding.

    Args:
        min_std: Warn of complete collapse below this `spread`.
        min_rank: Warn of dimensional collapse below this `effective_rank`.
        limit: Look at so many validation samples at most.
    """

    def __init__(self, min_std: float = 0.05, min_rank: float = 3.0, limit: int = 2048) -> None:
        self.min_std, self.min_rank, self.limit = min_std, min_rank, limit
        self._rows: list[Rows] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the embeddings."""
        if not trainer.sanity_checking and sum(len(rows["index"]) for rows in self._rows) < self.limit:
            keep_embeddings(self, self._rows, outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Measure, log, warn."""
        if not self._rows:
            return
        embeddings = gather({key: torch.cat([rows[key] for rows in self._rows]) for key in self._rows[0]})["embedding"]
        self._rows.clear()
        std, rank = spread(embeddings), effective_rank(embeddings)
        module.log_dict({"val/embedding_std": std, "val/effective_rank": rank})
        dim = embeddings.shape[1]
        if std < self.min_std:
            rank_zero_warn(
                f"epoch {trainer.current_epoch}: the embedding has collapsed: all images point almost the same way "
                f"(std {std:.4f}, "
                "1 is even). Lower the learning rate, or look at what should prevent it: negatives, stop-gradient, "
                "centring."
            )
        elif rank < self.min_rank:
            rank_zero_warn(
                f"epoch {trainer.current_epoch}: the embedding has collapsed to {rank:.1f} of its {dim} dimensions. "
                f"Try stronger views, "
                "a larger batch or a wider projector."
            )
