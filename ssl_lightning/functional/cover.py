"""Greedy maximum coverage by balls, and the radius at which they are pure."""

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.engine.devices import home
from ssl_lightning.functional.balls import BLOCK, Balls
from ssl_lightning.functional.distances import distances, pairs, require_choice
from ssl_lightning.functional.kmeans import kmeans


def prob_cover(rows: Tensor, asked: Tensor, count: int, delta: float) -> Tensor:
    r"""Choose, again and again, the row with most uncovered rows within a distance: greedy maximum coverage.

    .. math:: \arg\max_x \big| \{ x' : \lVert x - x' \rVert < \delta \} \setminus \mathrm{covered} \big|

    Rows near to an asked or chosen one are covered. Fewer than `count` are chosen if nothing is left to cover. The
    graph is never kept: all balls are counted once; later a count is brought up to date only where it could be the
    largest, since counts only fall.

    Args:
        rows: Normalised embeddings, `(n, d)`.
        asked: Boolean `(n,)`.
        count: How many to choose at most.
        delta: Radius of a ball, from 0 to 2.

    Returns:
        Positions in the order of choice, at most `(count,)`.

    Raises:
        ValueError: If a row is not finite, or there are fewer rows than `count`.

    Reference:
        O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, Active Learning Through a Covering Lens, NeurIPS 2022, arXiv
        2205.11320, algorithm 1. Late counts: M. Minoux, Accelerated Greedy Algorithms for Maximizing Submodular Set
        Functions, 1978.

    Example:
        >>> line = torch.tensor([[0.0], [0.1], [0.2], [0.9]])
        >>> prob_cover(line, torch.zeros(4, dtype=torch.bool), 3, delta=0.15)  # 0.1 covers three, 0.9 itself
        tensor([1, 3])
    """
    rows, asked = home(rows, asked)
    require_choice(rows, asked, count)
    if not count:
        return torch.zeros(0, dtype=torch.int64)
    balls = Balls(rows, delta)
    asked = asked[balls.order]
    covered = _inside_any(balls, asked.nonzero()[:, 0])
    which = (~asked).nonzero()[:, 0]
    cover = _Cover(balls, which, balls.counts(~covered)[which], covered)
    chosen: list[int] = []
    while len(chosen) < count and (best := cover.largest()) is not None:
        chosen.append(int(balls.order[best]))
        cover.add(best[None])
    return torch.tensor(chosen, dtype=torch.int64)


def _inside_any(balls: Balls, which: Tensor) -> Tensor:
    """Tell which rows are in the ball around any of some, given in ascending order, boolean `(n,)`."""
    covered = torch.zeros(len(balls.order), dtype=torch.bool)
    for _, block, found in balls.around(which):
        covered[block] |= torch.from_numpy(found.any(axis=0))
    return covered


class _Cover:
    """What is covered, and what each centre would cover besides.

    Args:
        balls: Around the rows.
        which: The centres, positions in `balls`, `(m,)`.
        degree: Rows in the ball of each that are not covered, `(m,)`.
        covered: By those asked before, boolean `(n,)`.
    """

    def __init__(self, balls: Balls, which: Tensor, degree: Tensor, covered: Tensor) -> None:
        self.balls, self.which, self.degree, self.covered = balls, which, degree, covered
        self.gone = torch.zeros(0, dtype=torch.int64)  # the rows covered since, in the order in which they were
        self.seen = torch.zeros_like(which)  # how many of these each degree leaves out
        self._late = -balls.order[which]  # of equals the first row comes first

    def add(self, some: Tensor) -> None:
        """Cover what is in the ball around one, `(1,)`."""
        news = (_inside_any(self.balls, some) & ~self.covered).nonzero()[:, 0]
        self.covered[news] = True
        self.gone = torch.cat([self.gone, news])

    def largest(self) -> Tensor | None:
        """Return the first row of those that cover most; null where none covers any."""
        width = 16
        while len(self.which):
            rank = self.degree * len(self.covered) + self._late
            best = int(rank.argmax())
            if self.degree[best] == 0:
                break
            if self.seen[best] == len(self.gone):
                return self.which[best]
            some = rank.topk(min(width, len(rank))).indices
            self._renew(some[self.seen[some] < len(self.gone)])
            width = min(2 * width, BLOCK)
        return None

    def _renew(self, some: Tensor) -> None:
        """Bring some degrees up to date."""
        for start in range(int(self.seen[some].min()), len(self.gone), BLOCK):
            news = self.gone[start : start + BLOCK]
            near = some[self.balls.near(self.which[some], news)]
            if len(near):
                found = self.balls.inside(self.which[near], news)
                found &= np.arange(start, start + len(news)) >= self.seen[near].numpy()[:, None]
                self.degree[near] -= torch.from_numpy(found.sum(axis=1, dtype=np.int64))
        self.seen[some] = len(self.gone)


def pure_radius(
    rows: Tensor, classes: int, generator: torch.Generator, purity: float = 0.95, sample: int = 10_000
) -> float:
    r"""Return the largest radius at which a share of the balls is pure: all its rows in one cluster of a k-means.

    A ball is pure as long as its radius is below the distance to the nearest row of another cluster, so the radius is a
    quantile of these distances.

    Args:
        rows: Normalised embeddings, `(n, d)`.
        classes: Clusters.
        generator: Of the first centroids, and of the sample.
        purity: Share.
        sample: Look at the balls around so many rows at most, drawn at random; of 10,000 the share of pure balls errs
            by 0.2 % (its standard error).

    Returns:
        A distance, above 0; 2 where all rows are in one cluster.

    Reference:
        Yehuda et al., arXiv 2205.11320, section 3.3 and appendix B.
    """
    cluster = kmeans(rows, min(classes, len(rows)), generator, engine="torch").assignments
    some = torch.arange(len(rows))
    if len(rows) > sample:
        some = torch.randperm(len(rows), generator=generator)[:sample].sort().values
    place = min(len(some) - 1, int((1 - purity) * len(some) + 1e-9))
    few = some[torch.linspace(0, len(some) - 1, min(len(some), 4096)).long()]
    bounds = []  # what the distances are at most: those to some of the rows
    for part in torch.split(some, BLOCK):
        same = cluster[part, None] == cluster[few]
        bounds.append(distances(rows[part], rows[few]).masked_fill_(same, torch.inf).amin(dim=1))
    most = torch.cat(bounds).sort().values[place:]
    most = most[most > 0]
    if most[0] == torch.inf:
        return 2.0
    found = _nearest_of_another(rows, cluster, some, float(most[0]) * (1 + 1e-3)).sort().values[place:]
    found = found[found > 0]
    return min(2.0, float(found[0]) * (1 - 1e-5))  # below it: no pair of rows lies at the radius itself


def _nearest_of_another(rows: Tensor, cluster: Tensor, some: Tensor, most: float) -> Tensor:
    """Return how far the nearest row of another cluster is from some; infinity if it is not within a distance."""
    balls = Balls(rows, most)
    held = torch.zeros(len(rows), dtype=torch.bool)
    held[some] = True
    which, cluster = held[balls.order].nonzero()[:, 0], cluster[balls.order]
    nearest = torch.full((len(which),), torch.inf, dtype=torch.float64)
    for here, block, found in balls.around(which):
        found &= cluster[which[here]].numpy()[:, None] != cluster[block].numpy()
        left, right = (torch.from_numpy(part) for part in np.divmod(np.flatnonzero(found), found.shape[1]))
        squares = pairs(rows, rows, balls.order[which[here]][left], balls.order[block][right])
        nearest.scatter_reduce_(0, left + here.start, squares, "amin")
    return nearest.sqrt()
