"""Strategies for the cold start: what is typical of the data, by self-supervised embeddings."""

from typing import ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.active.classical import require_candidates, thin
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.engine.processes import Rows
from ssl_lightning.engine.ranges import between, given, whole
from ssl_lightning.functional.cover import prob_cover, pure_radius
from ssl_lightning.functional.selection import farthest_first, typiclust


class TypiClust(AcquisitionStrategy):
    r"""Asks for the most typical sample of each cluster that has no label yet, the largest clusters first.

    .. math:: \mathrm{typicality}(x) = \Big( \frac1k \sum_{x_i \in k\mathrm{NN}(x)} \lVert x - x_i \rVert \Big)^{-1}

    For budgets of a few labels a class, where uncertainty means nothing yet. Wants self-supervised embeddings: a
    pretrained backbone with `freeze: true`, or those of the fine-tuned one are clustered.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        neighbours: k.
        max_clusters: There are as many clusters as labels, so many at most.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        G. Hacohen, A. Dekel, D. Weinshall, Active Learning on a Budget, ICML 2022, arXiv 2202.02794, algorithm 1. There
        the first query comes before any label; here one label (`initial: 1`) comes before it.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> rows = {"point": points, "asked": torch.zeros(6, dtype=torch.bool)}
        >>> picked = TypiClust(query_size=2).select(rows, torch.Generator().manual_seed(0))
        >>> sorted(place // 3 for place in picked.tolist())  # one of each cluster
        [0, 1]
    """

    sees_asked: ClassVar[bool] = True

    def __init__(
        self, query_size: int = 10, batch_size: int | None = None, neighbours: int = 20, max_clusters: int = 500
    ) -> None:
        super().__init__(query_size, batch_size)
        whole(1, neighbours=neighbours, max_clusters=max_clusters)
        self.neighbours, self.max_clusters = neighbours, max_clusters

    def rows(self, predictions: Predictions) -> Rows:
        """Return normalised embeddings, `(N, dim)`."""
        return {"point": normalize(predictions.embeddings, dim=1)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Cluster."""
        return typiclust(rows["point"], rows["asked"], self.query_size, generator, self.neighbours, self.max_clusters)


class ProbCover(AcquisitionStrategy):
    r"""Asks, again and again, for the sample with most uncovered samples within a radius: greedy maximum coverage.

    .. math:: \arg\max_x \big| \{ x' : \lVert x - x' \rVert < \delta \} \setminus \mathrm{covered} \big|

    The radius is the largest at which 95 % of the balls are pure by a k-means with as many clusters as classes. Once
    all is covered, the rest of a query is the farthest first. Wants self-supervised embeddings, as `TypiClust` does.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        delta: Radius between normalised embeddings, above 0 to 2; null to find it.
        candidates: Look at so many unlabelled samples at most, drawn at random, to choose from and to cover: the cost
            grows with its square. Up to so many the choice is exact; beyond, what a ball covers is estimated.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, Active Learning Through a Covering Lens, NeurIPS 2022, arXiv
        2205.11320, algorithm 1 and section 3.3.

    Example:
        >>> points = torch.tensor([[0.0], [0.4], [0.8], [9.0]])
        >>> rows = {"point": points, "asked": torch.zeros(4, dtype=torch.bool)}
        >>> ProbCover(delta=0.5, query_size=1).select(rows, torch.Generator().manual_seed(0))  # it covers three
        tensor([1])
    """

    sees_asked: ClassVar[bool] = True

    def __init__(
        self,
        query_size: int = 10,
        batch_size: int | None = None,
        delta: float | None = None,
        candidates: int = 100_000,
    ) -> None:
        super().__init__(query_size, batch_size)
        require_candidates(candidates, query_size)
        between(0, 2, "(]", "it is a distance on the unit sphere; null finds it", **given(delta=delta))
        self.delta, self.candidates = delta, candidates
        self._classes = 2

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Remember the number of classes, too."""
        super().on_fit_start(trainer, module)
        self._classes = trainer.datamodule.num_classes  # type: ignore[attr-defined]

    def rows(self, predictions: Predictions) -> Rows:
        """Return normalised embeddings, `(N, dim)`."""
        return {"point": normalize(predictions.embeddings, dim=1)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Cover."""
        asked = rows["asked"]
        left = torch.cat([thin((~asked).nonzero()[:, 0], self.candidates, generator), asked.nonzero()[:, 0]])
        left = left.sort().values
        points, asked = rows["point"][left], asked[left].clone()
        delta = self.delta if self.delta is not None else pure_radius(points, self._classes, generator)
        chosen = prob_cover(points, asked, self.query_size, delta)
        if len(chosen) < self.query_size:
            rank_zero_warn(
                f"`ProbCover` covers all with {len(chosen)} of {self.query_size} labels at `delta={delta:.3f}`; "
                "the rest are the farthest first. Lower `delta`, or choose by uncertainty from here on."
            )
            asked[chosen] = True
            rest = farthest_first(points, asked, self.query_size - len(chosen))
            chosen = torch.cat([chosen, rest])
        return left[chosen]
