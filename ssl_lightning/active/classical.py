"""Strategies that ask no class probabilities: at random, or by where samples lie."""

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.engine.processes import Rows
from ssl_lightning.engine.ranges import one_of, whole
from ssl_lightning.functional.distances import distances
from ssl_lightning.functional.medoids import k_medoids
from ssl_lightning.functional.selection import farthest_first

Space = Literal["embedding", "input"]


class Random(AcquisitionStrategy):
    """Draws the query evenly from the unlabelled samples: the baseline every other strategy must beat.

    Needs no pass over the pool.

    Args:
        query_size: Labels to ask for.
        batch_size: Not used.

    Reference:
        B. Settles, Active Learning Literature Survey, University of Wisconsin-Madison, 2009, section 1.

    Example:
        >>> rows = {"index": torch.arange(100)}
        >>> picked = Random(query_size=5).select(rows, torch.Generator().manual_seed(0))
        >>> len(set(picked.tolist()))
        5
    """

    uses_model: ClassVar[bool] = False

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Draw without replacement."""
        return torch.randperm(len(rows["index"]), generator=generator)[: self.query_size]


class FarthestFirst(AcquisitionStrategy):
    r"""Asks, again and again, for the sample farthest from all that are labelled or asked: greedy k-centre, core-set.

    .. math:: \arg\max_{i} \min_{j \in \text{asked}} \lVert x_i - x_j \rVert

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        space: Where distances are measured: `embedding`, or `input`, the clean inputs themselves.

    Raises:
        ValueError: If a number is out of its range, or there is no such space.

    Reference:
        T. Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, 1985; O. Sener, S. Savarese, Active
        Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018, arXiv 1708.00489, algorithm 1.

    Example:
        >>> rows = {"point": torch.tensor([[0.0], [1.0], [5.0]]), "asked": torch.tensor([True, False, False])}
        >>> FarthestFirst(query_size=1).select(rows, torch.Generator().manual_seed(0))  # 5 is farther from 0 than 1 is
        tensor([2])
    """

    sees_asked: ClassVar[bool] = True

    def __init__(self, query_size: int = 10, batch_size: int | None = None, space: Space = "embedding") -> None:
        super().__init__(query_size, batch_size)
        one_of(get_args(Space), space=space)
        self.space = space

    def rows(self, predictions: Predictions) -> Rows:
        """Return points, `(N, dim)`."""
        return {"point": points(predictions, self.space)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Traverse."""
        return farthest_first(rows["point"], rows["asked"], self.query_size)


class KMedoids(AcquisitionStrategy):
    r"""Asks for the samples that, with the labelled ones, stand nearest to all others: least summed distance.

    .. math:: \min_M \sum_o \min_{m \in M \cup \text{asked}} \lVert x_o - x_m \rVert

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.
        space: Where distances are measured: `embedding`, or `input`, the clean inputs themselves.
        candidates: Look at so many unlabelled samples at most, drawn at random: memory is 4 bytes times its square.

    Raises:
        ValueError: If a number is out of its range, or there is no such space.

    Reference:
        L. Kaufman, P. Rousseeuw, Clustering by Means of Medoids, 1987; by FasterPAM (E. Schubert, P. Rousseeuw,
        arXiv 2008.05171). That what is labelled already stands as a medoid, fixed, is ours: else every round would ask
        for neighbours of the last round's picks.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> rows = {"point": points, "asked": torch.zeros(4, dtype=torch.bool)}
        >>> KMedoids(query_size=1).select(rows, torch.Generator().manual_seed(0))  # distances 1, 1 and 8
        tensor([1])
    """

    sees_asked: ClassVar[bool] = True

    def __init__(
        self,
        query_size: int = 10,
        batch_size: int | None = None,
        space: Space = "embedding",
        candidates: int = 10_000,
    ) -> None:
        super().__init__(query_size, batch_size)
        one_of(get_args(Space), space=space)
        require_candidates(candidates, query_size)
        self.space, self.candidates = space, candidates

    def rows(self, predictions: Predictions) -> Rows:
        """Return points, `(N, dim)`."""
        return {"point": points(predictions, self.space)}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Cluster."""
        left = thin((~rows["asked"]).nonzero()[:, 0], self.candidates, generator)
        unlabelled, asked = rows["point"][left], rows["point"][rows["asked"]]
        known = None
        if len(asked):
            parts = [distances(unlabelled, some).amin(dim=1) for some in torch.split(asked, 4096)]
            known = torch.stack(parts).amin(dim=0)
        between = distances(unlabelled, unlabelled)
        return left[k_medoids(between, self.query_size, generator, known)[0]]


def points(predictions: Predictions, space: Space) -> Tensor:
    """Return where samples lie, `(N, dim)`."""
    return predictions.embeddings if space == "embedding" else predictions.points


def thin(positions: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` positions at random if there are more, in order."""
    if len(positions) <= count:
        return positions
    return positions[torch.randperm(len(positions), generator=generator)[:count].sort().values]


def require_candidates(candidates: int, query_size: int) -> None:
    """Check that a query can be chosen from the candidates.

    Raises:
        ValueError: If there are too few.
    """
    whole(query_size, math.inf, f"`query_size={query_size}` are chosen from them", candidates=candidates)
