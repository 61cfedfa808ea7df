"""Strategies that choose a batch as a whole, so that its samples do not repeat one another."""

import torch
from torch import Tensor

from ssl_lightning.active.classical import require_candidates
from ssl_lightning.active.disagreement import CommitteeStrategy
from ssl_lightning.active.strategy import AcquisitionStrategy, Predictions
from ssl_lightning.engine.processes import Rows
from ssl_lightning.engine.ranges import whole
from ssl_lightning.functional.batch_bald import batch_bald
from ssl_lightning.functional.scoring import informativeness, mutual_information, residuals
from ssl_lightning.functional.selection import badge, dbal, top


class BatchBALD(CommitteeStrategy):
    r"""Asks for the batch whose labels together tell most about the weights, :math:`I(y_1, \dots, y_b; w)`, greedily.

    A near copy of a chosen sample adds nothing, where `BALD` would ask for both. K members are told apart by log K
    nats: a batch that tells them is filled up by BALD scores. The cost grows with the query: for hundreds of labels
    lower `configurations`, or use `BADGE`.

    Args:
        members: Draws of the weights; null for all the model has (20 dropout masks).
        candidates: Choose from so many samples of best BALD score.
        configurations: Joint labels to draw once there are more than so many.
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        A. Kirsch, J. van Amersfoort, Y. Gal, BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian
        Active Learning, NeurIPS 2019, arXiv 1906.08158, algorithm 1. There the whole pool is searched; a sample adds at
        most its BALD score, so the best few thousand hold the batch.

    Example:
        >>> one = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])  # of four members
        >>> other = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
        >>> rows = {"samples": torch.stack([one, one, other]), "bald": torch.ones(3), "index": torch.arange(3)}
        >>> BatchBALD(query_size=2).select(rows, torch.Generator().manual_seed(0))  # not the copy
        tensor([0, 2])
    """

    def __init__(
        self,
        members: int | None = None,
        candidates: int = 2000,
        configurations: int = 10_000,
        query_size: int = 10,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(members, query_size, batch_size)
        require_candidates(candidates, query_size)
        whole(1, configurations=configurations)
        self.candidates, self.configurations = candidates, configurations

    def rows(self, predictions: Predictions) -> Rows:
        """Return BALD scores, `(N,)`, and every member's probabilities, `(N, members, classes)`."""
        samples = predictions.samples(self.members)
        return {"bald": mutual_information(samples), "samples": samples.exp().transpose(0, 1)}

    def local(self, rows: Rows) -> Rows:
        """Keep the best candidates by BALD."""
        return best(rows, "bald", self.candidates)

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Choose greedily."""
        near = top(rows["bald"], rows["index"], min(self.candidates, len(rows["index"]))).sort().values
        chosen, gains = batch_bald(
            rows["samples"][near], rows["index"][near], self.query_size, generator, self.configurations
        )
        rows["score"] = torch.zeros(len(rows["index"])).index_copy_(0, near[chosen], gains)
        return near[chosen]


class DBAL(AcquisitionStrategy):
    r"""Asks for the samples nearest to the centroids of a k-means weighted by informativeness: Diverse mini-Batch AL.

    Informativeness is one less the margin, :math:`1 - (p_{(1)} - p_{(2)})`; the `beta` times `query_size` most
    informative samples are clustered.

    Args:
        beta: How many times the query to cluster.
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        F. Zhdanov, Diverse Mini-Batch Active Learning, 2019, arXiv 1901.05954, algorithm 1 and section 4 (weighted).

    Example:
        >>> points = torch.tensor([[0.0, 0], [0.1, 0], [9.0, 0], [9.1, 0]])
        >>> rows = {"score": torch.tensor([0.9, 0.8, 0.8, 0.9]), "embedding": points, "index": torch.arange(4)}
        >>> sorted(DBAL(query_size=2).select(rows, torch.Generator().manual_seed(0)).tolist())  # one of each group
        [0, 3]
    """

    def __init__(self, beta: int = 10, query_size: int = 10, batch_size: int | None = None) -> None:
        super().__init__(query_size, batch_size)
        whole(1, beta=beta)
        self.beta = beta

    def rows(self, predictions: Predictions) -> Rows:
        """Return informativeness, `(N,)`, and embeddings, `(N, dim)`."""
        return {"score": informativeness(predictions.log_probabilities), "embedding": predictions.embeddings}

    def local(self, rows: Rows) -> Rows:
        """Keep the most informative."""
        return best(rows, "score", self.beta * self.query_size)

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Cluster."""
        count = min(self.beta * self.query_size, len(rows["index"]))
        near = top(rows["score"], rows["index"], count).sort().values
        return near[dbal(rows["embedding"][near], rows["score"][near], self.query_size, generator)]


class BADGE(AcquisitionStrategy):
    r"""Draws samples with long and different gradients of the last layer, by k-means++.

    The gradient is :math:`(p - \mathrm{onehot}(\arg\max p)) \otimes h`, had the predicted class been right.

    Args:
        query_size: Labels to ask for.
        batch_size: Samples a step of the pass over the pool; null for the data's.

    Reference:
        J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, Deep Batch Active Learning by Diverse, Uncertain
        Gradient Lower Bounds, ICLR 2020, arXiv 1906.03671, algorithm 1.

    Example:
        >>> residual = torch.tensor([[0.5, -0.5], [0.5, -0.5], [0.5, -0.5]])  # prediction less best guess
        >>> h = torch.tensor([[1.0, 0], [0, 1.0], [1.0, 0]])
        >>> rows = {"residual": residual, "embedding": h, "index": torch.arange(3)}
        >>> picked = BADGE(query_size=2).select(rows, torch.Generator().manual_seed(0))
        >>> 1 in picked.tolist()  # of the two copies one is enough
        True
    """

    def rows(self, predictions: Predictions) -> Rows:
        """Return residuals, `(N, classes)`, and embeddings, `(N, dim)`."""
        return {"residual": residuals(predictions.log_probabilities), "embedding": predictions.embeddings}

    def select(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """Draw."""
        return badge(rows["residual"], rows["embedding"], self.query_size, generator)


def best(rows: Rows, key: str, count: int) -> Rows:
    """Keep the rows of largest score: no other can be chosen."""
    if key not in rows:
        return rows
    keep = top(rows[key], rows["index"], min(count, len(rows["index"])))
    return {name: value[keep] for name, value in rows.items()}
