"""From scores, embeddings and samples to a query: which rows, in which order. Rows come by dataset index."""

import torch
from torch import Tensor

from ssl_lightning.functional.distances import (
    TIE,
    Nearest,
    close,
    distances,
    first_least,
    middle,
    numbers,
    pairs,
    rounding,
    scale,
)
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
    _require(rows, asked, count)
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


def _require(rows: Tensor, asked: Tensor, count: int) -> None:
    """Check that so many rows can be chosen, and that they are numbers."""
    left = int((~asked).sum())
    if count > left:
        raise ValueError(f"`count={count}` exceeds the {left} samples to choose from.")
    if len(rows) and not torch.stack(rows.aminmax()).isfinite().all():  # one pass without a copy
        place = int((~rows.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(
            f"the embedding in row {place} is NaN or infinite: the model has diverged; look at its training loss."
        )


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
    free = torch.ones(len(residuals), dtype=torch.bool)
    _require(torch.stack([residuals.double().sum(dim=1), embeddings.double().sum(dim=1)], dim=1), ~free, count)
    sizes = residuals.double().norm(dim=1)
    units = (residuals.double() / sizes.masked_fill(sizes == 0, 1)[:, None]).float()
    unit = scale(embeddings)
    embeddings = embeddings.float() if unit == 1 else (numbers(embeddings) * unit).float()
    lengths = sizes.square() * embeddings.pow(2).sum(dim=1)
    limit = close(embeddings.shape[1])
    nearest = torch.full_like(lengths, torch.inf)
    chosen = [int((lengths >= lengths.max() * (1 - TIE)).nonzero()[0])]
    for draw in torch.rand(count - 1, generator=generator, dtype=torch.float64).tolist():
        last = chosen[-1]
        free[last] = False
        products = (units @ units[last]) * (embeddings @ embeddings[last]) * (sizes * sizes[last])
        base = lengths + lengths[last]
        found = base - 2 * products
        near = ((found < limit * base) & free).nonzero()[:, 0]
        if len(near):
            found[near] = _between(near, last, units, embeddings, sizes)
        nearest = torch.minimum(nearest, found)
        nearest[last] = 0
        chosen.append(weighted_draw(nearest if (nearest > 0).any() else free, draw))
    return torch.tensor(chosen)


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
    rows = numbers(embeddings) * scale(embeddings)
    rows = (rows - middle(rows)).float()  # centroids far from the origin would be rounded
    weights = informativeness.double().clamp(min=0)
    weights = weights / weights.max() if (weights > 0).any() else torch.ones_like(weights)
    found = kmeans(rows, count, generator, weights=weights)
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
    _require(rows, asked, count)
    clusters = min(int(asked.sum()) + count, max_clusters, len(rows))
    cluster = kmeans(rows, clusters, generator).assignments
    sizes, known = (torch.bincount(cluster[which], minlength=clusters) for which in (asked | ~asked, asked))
    turn = sorted(range(clusters), key=lambda c: (bool(sizes[c] <= 5), int(known[c]), -int(sizes[c]), c))
    chosen: list[int] = []
    waiting = {c: (((cluster == c) & ~asked).nonzero()[:, 0]) for c in turn}
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
    means = torch.cat([nearest(some, k)[0].mean(dim=1) for some in torch.split(torch.arange(len(rows)), 1024)])
    near = (means <= means.min() * (1 + 3e-4)).nonzero()[:, 0]  # that is how well distances are known
    if len(near) == 1 or means.min() == 0:
        return int(near[0])
    best = []
    for some in torch.split(near, 1024):
        others = nearest(some, k + 8)[1]
        found = pairs(rows, rows, some.repeat_interleave(others.shape[1]), others.flatten()).reshape(others.shape)
        best.append(found.sqrt().topk(k, dim=1, largest=False).values.mean(dim=1))
    return int(near[first_least(torch.cat(best))])


def prob_cover(rows: Tensor, asked: Tensor, count: int, delta: float) -> Tensor:
    r"""Choose, again and again, the row with most uncovered rows within a distance: greedy maximum coverage.

    .. math:: \arg\max_x \big| \{ x' : \lVert x - x' \rVert < \delta \} \setminus \mathrm{covered} \big|

    Rows near to an asked or chosen one are covered. Fewer than `count` are chosen if nothing is left to cover. The
    graph is never kept: each row is looked at when it is covered, once, so that all picks together cost about two
    products of all rows with all.

    Args:
        rows: Normalised embeddings, `(n, d)`.
        asked: Boolean `(n,)`.
        count: How many to choose at most.
        delta: Radius of a ball, from 0 to 2.

    Returns:
        Positions in the order of choice, at most `(count,)`.

    Reference:
        O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, Active Learning Through a Covering Lens, NeurIPS 2022, arXiv
        2205.11320, algorithm 1.

    Example:
        >>> line = torch.tensor([[0.0], [0.1], [0.2], [0.9]])
        >>> prob_cover(line, torch.zeros(4, dtype=torch.bool), 3, delta=0.15)  # 0.1 covers three, 0.9 itself
        tensor([1, 3])
    """
    _require(rows, asked, count)
    unit = scale(rows)
    rows, delta = numbers(rows) * unit, delta * unit
    points = (rows - middle(rows)).float()
    norms = points.pow(2).sum(dim=1)
    radius = delta**2 * (1 - TIE)  # ties at the rim do not hang on rounding
    # what a product can be wrong by at the rim, where the other end is at most delta farther from the origin
    slack = rounding(rows.shape[1]) * (norms + (norms.sqrt() + delta).square())

    def inside(some: Tensor, part: slice = slice(None)) -> Tensor:
        """Tell which rows are in the balls around some, `(n, len(some))`."""
        found = torch.addmm(norms[some], points[part], points[some].T, alpha=-2)
        sure = found < (radius - norms - slack)[part, None]
        few, many = (sure ^ (found < (radius - norms + slack)[part, None])).nonzero(as_tuple=True)
        sure[few, many] = pairs(rows[part], rows, few, some[many]) < radius
        return sure

    def counts(covered: Tensor) -> Tensor:
        """Count each row's neighbours among some, `(n,)`."""
        total = torch.zeros(len(rows), dtype=torch.int64)
        for start in range(0, len(rows), 1024):  # products that stay in cache
            part = slice(start, start + 1024)
            for some in torch.split(covered, 512):
                total[part] += inside(some, part).sum(dim=1)
        return total

    uncovered = torch.ones(len(rows), dtype=torch.bool)
    for some in torch.split(asked.nonzero()[:, 0], 512):
        uncovered &= ~inside(some).any(dim=1)
    degree = counts(uncovered.nonzero()[:, 0])
    chosen: list[int] = []
    while len(chosen) < count:
        degree[asked] = 0
        best = int(degree.argmax())  # the first of equals
        if degree[best] == 0:
            break
        chosen.append(best)
        news = inside(torch.tensor([best]))[:, 0] & uncovered
        degree -= counts(news.nonzero()[:, 0])
        uncovered &= ~news
    return torch.tensor(chosen, dtype=torch.int64)


def pure_radius(rows: Tensor, classes: int, generator: torch.Generator, purity: float = 0.95) -> float:
    r"""Return the largest radius at which a share of the balls is pure: all its rows in one cluster of a k-means.

    A ball is pure as long as its radius is below the distance to the nearest row of another cluster, so the radius is a
    quantile of these distances.

    Args:
        rows: Normalised embeddings, `(n, d)`.
        classes: Clusters.
        generator: Of the first centroids.
        purity: Share.

    Returns:
        A distance, above 0; 2 where all rows are in one cluster.

    Reference:
        Yehuda et al., arXiv 2205.11320, section 3.3 and appendix B.
    """
    cluster = kmeans(rows, min(classes, len(rows)), generator).assignments
    parts = []
    for start in range(0, len(rows), 1024):
        same = cluster[start : start + 1024, None] == cluster
        parts.append(distances(rows[start : start + 1024], rows).masked_fill_(same, torch.inf).amin(dim=1))
    found = torch.cat(parts).sort().values
    found = found[min(len(rows) - 1, int((1 - purity) * len(rows) + 1e-9)) :]
    return min(2.0, float(found[found > 0][0]) * (1 - 1e-5))  # below it: no pair of rows lies at the radius itself
