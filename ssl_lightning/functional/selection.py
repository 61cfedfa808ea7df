"""From scores, embeddings and samples to a query: which rows, in which order. Rows come by dataset index."""

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.engine.devices import home
from ssl_lightning.functional.distances import (
    TIE,
    Nearest,
    close,
    distances,
    first_least,
    middle,
    numbers,
    pairs,
    require_choice,
    rounding,
    scale,
)
from ssl_lightning.functional.half import WRONG, factors, fast_half
from ssl_lightning.functional.kmeans import kmeans, weighted_draw


def top(scores: Tensor, indices: Tensor, count: int, decimals: int = 6) -> Tensor:
    """Choose the samples of largest score; ties by smaller index.

    Scores are compared to a millionth (of a nat or a probability), those of 10 or more to six digits more than their
    first, and those below 0.01, of which a confident model gives many, to four more: the last bits of a network's
    outputs depend on the batch a sample was in, and must not decide.

    Args:
        scores: `(n,)`; larger is chosen first.
        indices: Dataset index of each, `(n,)`, distinct.
        count: How many, at most n.
        decimals: To which scores from 0.01 to 10 are compared; the others by so many more or fewer digits of their own.

    Returns:
        Positions in `scores`, best first, `(count,)`.

    Raises:
        ValueError: If a score is NaN, or there are fewer samples than `count`.

    Example:
        >>> top(torch.tensor([0.1, 0.7, 0.7]), torch.tensor([5, 9, 2]), 2)
        tensor([2, 1])
    """
    if count > len(scores):
        raise ValueError(f"`count={count}` exceeds the {len(scores)} samples to choose from.")
    if torch.isnan(scores).any():
        index = int(indices[torch.isnan(scores)][0])
        raise ValueError(
            f"the score of sample {index} is NaN: the model's outputs are not finite; look at its training loss."
        )
    by_index = indices.argsort(stable=True)
    ordered = scores.double()[by_index]
    first = ordered.abs().log10().floor().nan_to_num(posinf=0.0, neginf=0.0)  # of each score, not of the largest
    unit = 10 ** torch.where(first < 0, (first + 2).clamp(max=0), first)
    rounded = torch.round(ordered / unit, decimals=decimals) * unit
    return by_index[rounded.argsort(descending=True, stable=True)[:count]]


def farthest_first(rows: Tensor, asked: Tensor, count: int, block: int = 2048) -> Tensor:
    r"""Choose, again and again, the row farthest from all that are chosen or asked: greedy k-centre.

    .. math:: \arg\max_{i} \min_{j \in \text{asked} \cup \text{chosen}} \lVert x_i - x_j \rVert

    Exact, in few passes over the rows: while the best of the `block` farthest rows is farther than all others were at
    the last pass, it is the farthest of all, since distances only fall. Distances that differ by less than float32
    can tell apart are equal, and go by position. Without any row asked, the first is the farthest from the mean.

    Args:
        rows: `(n, d)`.
        asked: Centres to begin with, boolean `(n,)`.
        count: How many to choose.
        block: Rows whose distances are kept up to date between passes; speed alone.

    Returns:
        Positions in the order of choice, `(count,)`.

    Reference:
        T. Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, 1985; as a strategy: O. Sener, S.
        Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018, arXiv 1708.00489,
        algorithm 1.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [4.0], [9.0]])
        >>> farthest_first(line, torch.tensor([True, False, False, False]), 3)  # 9 is 9 away, then 4 is 4, then 1
        tensor([3, 2, 1])
    """
    rows, asked = home(rows, asked)
    require_choice(rows, asked, count)
    field, taken = Nearest(rows, int(asked.sum()) + count), asked.clone()
    field.add(asked.nonzero()[:, 0])
    chosen: list[int] = []
    if not asked.any():
        chosen.append(field.outermost())
        field.add(torch.tensor(chosen))
    while len(chosen) < count:
        taken[chosen] = True
        far = field.pass_over().masked_fill(taken, -torch.inf)
        pick = field.farthest(far, torch.arange(len(rows)), -torch.inf)
        if field.known[pick] == 0:  # only copies of what is taken are left: in their order
            return torch.cat([torch.tensor(chosen, dtype=torch.int64), (~taken).nonzero()[: count - len(chosen), 0]])
        found, places = far.topk(min(block, len(rows)))
        outside = float(found[-1]) if len(places) < len(rows) else -torch.inf
        places = places.sort().values
        far, points, norms = far[places], field.points[places], field.norms[places]
        while pick is not None and len(chosen) < count:
            chosen.append(pick)
            field.add(torch.tensor([pick]))
            far = torch.minimum(far, field.bound(points, norms, len(field.centres) - 1, len(field.centres)))
            far[places == pick] = -torch.inf
            pick = field.farthest(far, places, outside) if len(chosen) < count else None
    return torch.tensor(chosen)


def badge(residuals: Tensor, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
    r"""Draw a batch of diverse and large gradients of the last layer, by k-means++.

    The gradient of sample i, were its predicted class right, is the outer product of its residual
    :math:`q = p - \mathrm{onehot}(\arg\max p)` and its embedding h. It is never formed:

    .. math:: \lVert g - g' \rVert^2
        = \lVert q \rVert^2 \lVert h \rVert^2 + \lVert q' \rVert^2 \lVert h' \rVert^2 - 2 (q \cdot q') (h \cdot h')

    The first is the longest, each further one is drawn with probability proportional to its squared distance to the
    nearest before it; evenly, where all distances are 0.

    Args:
        residuals: q, `(n, classes)`.
        embeddings: h, `(n, d)`.
        count: How many to choose.
        generator: Of the draws.

    Returns:
        Positions in the order of choice, `(count,)`.

    Reference:
        J. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, Deep Batch Active Learning by Diverse, Uncertain
        Gradient Lower Bounds, ICLR 2020, arXiv 1906.03671, algorithm 1; the longest first, as in the authors' code.
    """
    residuals, embeddings = home(residuals, embeddings)
    free = torch.ones(len(residuals), dtype=torch.bool)
    sums = torch.stack([residuals.sum(dim=1, dtype=torch.float64), embeddings.sum(dim=1, dtype=torch.float64)], dim=1)
    require_choice(sums, ~free, count)
    field = _Gradients(residuals, embeddings)
    lengths = field.lengths
    nearest = torch.full_like(lengths, torch.inf)
    chosen = [int((lengths >= lengths.max() * (1 - TIE)).nonzero()[0])]
    for draw in torch.rand(count - 1, generator=generator, dtype=torch.float64).tolist():
        free[chosen[-1]] = False
        field.lower(nearest, chosen[-1], free)
        chosen.append(weighted_draw(nearest if (nearest > 0).any() else free, draw))
    return torch.tensor(chosen)


class _Gradients:
    """Gradients q h of the last layer, never formed.

    Args:
        residuals: q, `(n, classes)`.
        embeddings: h, `(n, d)`.

    Attributes:
        lengths: Squared, float64 `(n,)`.
    """

    def __init__(self, residuals: Tensor, embeddings: Tensor) -> None:
        self.sizes = residuals.double().norm(dim=1)
        self.units = (residuals.double() / self.sizes.masked_fill(self.sizes == 0, 1)[:, None]).float()
        unit = scale(embeddings)
        self.embeddings = embeddings.float() if unit == 1 else (numbers(embeddings) * unit).float()
        self.lengths = self.sizes.square() * self.embeddings.pow(2).sum(dim=1)
        self.limit = close(embeddings.shape[1])
        self._roots = self.lengths.sqrt()
        self._room = torch.empty_like(self.lengths)
        self._rows = torch.empty(1024, self.embeddings.shape[1])

    def lower(self, nearest: Tensor, last: int, free: Tensor) -> None:
        r"""Lower squared distances to the nearest of some gradients by those to another.

        Two gradients are at least :math:`|g|^2 + |g'|^2 - 2 |g| |g'| |q q'| / |q| |q'|` apart: where that is no less,
        as it mostly is between samples of different classes, the embeddings need not be read.

        Args:
            nearest: The squared distances, float64 `(n,)`; changed.
            last: The other one.
            free: Gradients that are not chosen, boolean `(n,)`.
        """
        turns = self.units @ self.units[last]
        least = torch.mul(self._roots, turns, out=self._room).abs_().mul_(-2 * (1 + 1e-5) * self._roots[last])
        some = (least.add_(self.lengths).add_(self.lengths[last]) < nearest).nonzero()[:, 0]
        if 2 * len(some) > len(nearest):  # reading all in order is as fast
            some, dots = torch.arange(len(nearest)), self.embeddings @ self.embeddings[last]
        else:
            dots = self._dots(some, self.embeddings[last])
        products = turns[some] * dots * (self.sizes[some] * self.sizes[last])
        base = self.lengths[some] + self.lengths[last]
        found = base - 2 * products
        near = ((found < self.limit * base) & free[some]).nonzero()[:, 0]
        if len(near):
            found[near] = _between(some[near], last, self.units, self.embeddings, self.sizes)
        nearest[some] = torch.minimum(nearest[some], found)
        nearest[last] = 0

    def _dots(self, some: Tensor, other: Tensor) -> Tensor:
        """Multiply some embeddings with another, through a few rows of memory that stay in cache."""
        dots = other.new_empty(len(some))
        for part, out in zip(torch.split(some, len(self._rows)), torch.split(dots, len(self._rows)), strict=True):
            rows = torch.index_select(self.embeddings, 0, part, out=self._rows[: len(part)])
            torch.mv(rows, other, out=out)
        return dots


def _between(some: Tensor, last: int, units: Tensor, embeddings: Tensor, sizes: Tensor) -> Tensor:
    r"""Return the squared distances of gradients near to one, without a difference of large numbers.

    With unit vectors u and :math:`k = |q| h`, and both of one gradient turned so that :math:`u u' > 0`,
    :math:`\lVert u k - u' k' \rVert^2 = \lVert k - k' \rVert^2 + \lVert u - u' \rVert^2 (k \cdot k')`.
    """
    parts = [torch.zeros(0, dtype=torch.float64)]
    for part in torch.split(some, max(1, 2**20 // embeddings.shape[1])):
        unit, there = units[part].double(), units[last].double()
        turn = torch.sign(unit @ there)[:, None]
        long, those = embeddings[part].double() * sizes[part, None], embeddings[last].double() * sizes[last] * turn
        apart = (unit - there * turn).pow(2).sum(dim=1)
        parts.append((long - those).pow(2).sum(dim=1) + apart * (long * those).sum(dim=1))
    return torch.cat(parts)


def dbal(embeddings: Tensor, informativeness: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose the rows nearest to the centroids of a k-means weighted by informativeness, each row once.

    Args:
        embeddings: Of the most informative samples, `(n, d)`.
        informativeness: `(n,)`, at least 0.
        count: How many to choose, and of clusters.
        generator: Of the first centroids.

    Returns:
        Positions, those of the heaviest clusters first, `(count,)`.

    Reference:
        F. Zhdanov, Diverse Mini-Batch Active Learning, 2019, arXiv 1901.05954, algorithm 1.
    """
    embeddings, informativeness = home(embeddings, informativeness)
    rows = numbers(embeddings) * scale(embeddings)
    rows = (rows - middle(rows)).float()  # centroids far from the origin would be rounded
    weights = informativeness.double().clamp(min=0)
    weights = weights / weights.max() if (weights > 0).any() else torch.ones_like(weights)
    found = kmeans(rows, count, generator, engine="torch", weights=weights)
    heavy = torch.zeros(count, dtype=torch.float64).index_add_(0, found.assignments, weights)
    chosen: list[int] = []
    taken = torch.zeros(len(rows), dtype=torch.bool)
    for centroid in found.centroids[heavy.argsort(descending=True, stable=True)]:
        chosen.append(first_least((rows - centroid).pow(2).sum(dim=1).masked_fill(taken, torch.inf)))
        taken[chosen[-1]] = True
    return torch.tensor(chosen)


def typiclust(
    rows: Tensor, asked: Tensor, count: int, generator: torch.Generator, neighbours: int = 20, max_clusters: int = 500
) -> Tensor:
    r"""Choose the most typical row of each cluster that has no label yet, the largest clusters first.

    .. math:: \mathrm{typicality}(x) = \Big( \frac1k \sum_{x_i \in k\mathrm{NN}(x)} \lVert x - x_i \rVert \Big)^{-1}

    among the unasked rows of a cluster, of which there are as many as samples asked and to be asked, `max_clusters` at
    most. Clusters of 5 rows or fewer come last. More rows than clusters are taken in turns.

    Args:
        rows: Normalised embeddings, `(n, d)`.
        asked: Boolean `(n,)`.
        count: How many to choose.
        generator: Of the first centroids.
        neighbours: k, at most half of a cluster's rows.
        max_clusters: At most so many.

    Returns:
        Positions in the order of choice, `(count,)`.

    Reference:
        G. Hacohen, A. Dekel, D. Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets,
        ICML 2022, arXiv 2202.02794, Eq. 1 and algorithm 1.
    """
    rows, asked = home(rows, asked)
    require_choice(rows, asked, count)
    clusters = min(int(asked.sum()) + count, max_clusters, len(rows))
    cluster = kmeans(rows, clusters, generator, engine="torch").assignments
    sizes, known = (torch.bincount(cluster[which], minlength=clusters) for which in (asked | ~asked, asked))
    turn = sorted(range(clusters), key=lambda c: (bool(sizes[c] <= 5), int(known[c]), -int(sizes[c]), c))
    chosen: list[int] = []
    unasked = (~asked).nonzero()[:, 0]
    unasked = unasked[cluster[unasked].argsort(stable=True)]
    waiting = dict(enumerate(torch.split(unasked, (sizes - known).tolist())))
    while len(chosen) < count:
        for c in turn:
            if len(waiting[c]) and len(chosen) < count:
                place = _most_typical(rows[waiting[c]], neighbours)
                chosen.append(int(waiting[c][place]))
                waiting[c] = torch.cat([waiting[c][:place], waiting[c][place + 1 :]])
    return torch.tensor(chosen)


def _most_typical(rows: Tensor, neighbours: int) -> int:
    """Return the row with the least mean distance to its nearest others; the first of equals."""
    k = min(neighbours, max(1, len(rows) // 2))

    def nearest(some: Tensor, count: int) -> tuple[Tensor, Tensor]:
        found = distances(rows[some], rows)
        found[torch.arange(len(some)), some] = torch.inf
        return found.topk(min(count, len(rows) - 1), dim=1, largest=False)

    if len(rows) == 1:
        return 0
    likely = _likely(rows, k) if len(rows) > 1024 and fast_half() else torch.arange(len(rows))
    means = torch.cat([nearest(some, k)[0].mean(dim=1) for some in torch.split(likely, 1024)])
    near = likely[means <= means.min() * (1 + 3e-4)]  # that is how well distances are known
    if len(near) == 1 or means.min() == 0:
        return int(near[0])
    best = []
    for some in torch.split(near, 1024):
        others = nearest(some, k + 8)[1]
        found = pairs(rows, rows, some.repeat_interleave(others.shape[1]), others.flatten()).reshape(others.shape)
        best.append(found.sqrt().topk(k, dim=1, largest=False).values.mean(dim=1))
    return int(near[first_least(torch.cat(best))])


def smallest(values: np.ndarray, count: int, groups: int = 16) -> np.ndarray:
    """Return the smallest numbers of each row, in no order: a third of the time of a partition of whole rows.

    They are in those columns whose smallest of each `groups` numbers is among the smallest.

    Args:
        values: `(N, M)`.
        count: How many, from 1 to M.
        groups: Numbers that are compared first.

    Returns:
        `(N, count)`.

    Example:
        >>> sorted(smallest(np.array([[5, 1, 4, 2, 3, 6]]), 2, groups=2)[0].tolist())
        [1, 2]
    """
    width = values.shape[1] // groups
    if width <= count:
        return np.partition(values, count - 1, axis=1)[:, :count].copy()
    stacked = values[:, : groups * width].reshape(len(values), groups, width)
    columns = np.argpartition(stacked.min(axis=1), count - 1, axis=1)[:, None, :count]
    near = np.take_along_axis(stacked, columns, axis=2).reshape(len(values), -1)
    near = np.concatenate([near, values[:, groups * width :]], axis=1)
    return np.partition(near, count - 1, axis=1)[:, :count].copy()


def _likely(rows: Tensor, k: int) -> Tensor:
    """Return the rows that can have the least mean distance to their k nearest others, by products in bfloat16."""
    unit = scale(rows)
    points = numbers(rows) * unit
    points = (points - middle(points)).float()
    norms = points.double().square().sum(dim=1)
    left, right = factors(points, -norms / 2)
    lengths = norms.sqrt()
    least, most = [], []
    for some in torch.split(torch.arange(len(rows)), 1024):
        bits = (left[some] @ right.T).view(torch.uint16).numpy()  # of minus half the squared distances
        bits = smallest(bits, k + 1)  # the row itself, at no distance, is one of them
        found = torch.from_numpy(bits).view(torch.bfloat16).double().clamp(max=0) * -2
        base = lengths[some].square() + norms.max()
        wrong = 2 * WRONG * lengths[some] * lengths.max() + rounding(rows.shape[1]) * base
        least.append((found * (1 - 2**-7) - wrong[:, None]).clamp(min=0).sqrt().sum(dim=1))
        most.append((found * (1 + 2**-7) + wrong[:, None]).sqrt().sum(dim=1))
    limit = torch.cat(most).min() * (1 + 1e-3)
    return (torch.cat(least) <= limit).nonzero()[:, 0]
