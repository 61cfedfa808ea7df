"""Has the representation collapsed?"""

import math
from typing import Any, Literal, get_args

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.data.samples import Batch
from ssl_lightning.engine.processes import Rows, gather, joined
from ssl_lightning.engine.ranges import at_least, between, whole
from ssl_lightning.evaluation.rank import directions, effective_rank, rankme
from ssl_lightning.evaluation.watcher import Watcher, keep_embeddings


def spread(embeddings: Tensor) -> float:
    r"""Standard deviation of normalised embeddings, averaged over dimensions, times :math:`\sqrt d`.

    Args:
        embeddings: `(N, d)`.

    Returns:
        0 if all point the same way, about 1 if they fill the sphere evenly.

    Reference:
        X. Chen, K. He, Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566, section 4.1.

    Example:
        >>> import torch
        >>> spread(torch.ones(5, 3)), round(spread(torch.cat([torch.eye(2), -torch.eye(2)])), 3)
        (0.0, 1.0)
    """
    return float(directions(embeddings).std(dim=0, correction=0).mean()) * math.sqrt(embeddings.shape[1])


State = Literal["healthy", "dimensional collapse", "complete collapse"]


def diagnose(std: float, rank: float, dim: int, min_std: float = 0.05, min_rank: float = 0.05) -> State:
    """Tell health and the two ways of collapsing apart.

    Args:
        std: `spread` of the embeddings.
        rank: Their `effective_rank`.
        dim: Their size.
        min_std: Complete collapse below this: all samples point almost the same way.
        min_rank: Dimensional collapse below this fraction of `dim`, and below 3 dimensions in any case (or half of
            `dim`, if that is less): samples differ, but in few directions.

    Returns:
        The state.

    Reference:
        L. Jing, P. Vincent, Y. LeCun, Y. Tian, Understanding Dimensional Collapse in Contrastive Self-Supervised
        Learning, ICLR 2022, arXiv 2110.09348.

    Example:
        >>> diagnose(0.8, 40, 128), diagnose(0.8, 4, 128), diagnose(0.01, 40, 128)
        ('healthy', 'dimensional collapse', 'complete collapse')
    """
    if std < min_std:
        return "complete collapse"
    return "dimensional collapse" if rank < max(min_rank * dim, min(3.0, dim / 2)) else "healthy"


_REMEDIES = {
    "complete collapse": "all samples point almost the same way. Look at what should prevent it (negatives, "
    "stop-gradient, centring, variance), or lower the learning rate",
    "dimensional collapse": "samples differ in few directions only. Try stronger views, a larger batch, a wider "
    "projector, or less weight decay",
}


class CollapseMonitor(Watcher):
    """Watches embeddings and projections of clean validation samples, and says in words when their state changes.

    Logs `val/embedding_std`, `val/effective_rank` and `val/rankme` of the backbone's embedding, `val/projection_std`
    and `val/projection_rank` of the projector's output, where a collapse shows first, and `val/collapse`, the worse of
    the two: 0 healthy, 1 dimensional collapse, 2 complete collapse.

    Args:
        min_std: Spread below which the collapse is complete, as for `diagnose`.
        min_rank: Fraction of the embedding's dimensions below which the collapse is dimensional; projections are judged
            by 3 dimensions alone.
        limit: Look at so many validation samples at most, in each process.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, min_std: float = 0.05, min_rank: float = 0.05, limit: int = 2048) -> None:
        at_least(0, min_std=min_std)
        between(0, 1, min_rank=min_rank)
        whole(1, limit=limit)
        self.min_std, self.min_rank, self.limit = min_std, min_rank, limit
        self.states: dict[str, State] = {}
        self._rows: list[Rows] = []

    def watch(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Batch) -> None:
        """Keep the embeddings."""
        if not trainer.sanity_checking and sum(len(rows["index"]) for rows in self._rows) < self.limit:
            keep_embeddings(self, self._rows, outputs, batch, ("embedding", "projection"))

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Measure, log, and tell of a change.

        Raises:
            ValueError: If the embeddings are not finite.
        """
        if trainer.sanity_checking:
            return
        rows = gather(joined(self._rows))  # in every process, also in one without samples
        self._rows.clear()
        levels = []
        for what, least in (("embedding", self.min_rank), ("projection", 0.0)):
            if what not in rows:
                continue
            if not rows[what].isfinite().all():
                raise ValueError(
                    f"the {what} of `{type(module).__name__}` holds NaN or infinity at epoch {trainer.current_epoch}: "
                    "the run has diverged. Lower `optimizer.lr`, add `warmup`, or clip gradients "
                    "(`--trainer.gradient_clip_val 1`)."
                )
            std, rank, dim = spread(rows[what]), effective_rank(rows[what]), rows[what].shape[1]
            module.log_dict(
                {f"val/{what}_std": std, "val/effective_rank" if what == "embedding" else f"val/{what}_rank": rank}
            )
            state = diagnose(std, rank, dim, self.min_std, least)
            self._tell(what, state, f"std {std:.3f} (1 is even), {rank:.1f} of {dim} dimensions in use", trainer)
            levels.append(get_args(State).index(state))
        if levels:
            module.log_dict({"val/rankme": rankme(rows["embedding"]), "val/collapse": float(max(levels))})

    def _tell(self, what: str, state: State, numbers: str, trainer: L.Trainer) -> None:
        before = self.states.get(what, "healthy")
        self.states[what] = state
        if state == before:
            return
        if state == "healthy":
            rank_zero_warn(f"epoch {trainer.current_epoch}: the {what} is healthy again: {numbers}.")
        else:
            rank_zero_warn(f"epoch {trainer.current_epoch}: {state} of the {what}: {_REMEDIES[state]}. Now: {numbers}.")
