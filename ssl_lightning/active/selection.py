"""From scores, embeddings and samples to a query: which rows, in which order. Rows come by dataset index."""

import torch
from torch import Tensor

from ssl_lightning.clustering import kmeans


def top(scores: Tensor, indices: Tensor, count: int, decimals: int = 6) -> Tensor:
    """Choose the samples of largest score; ties by smaller index.

    Scores are compared to a millionth (of a nat or a probability), since the last bits of a network's outputs depend
    on the batch a sample was in, and must not decide.

    Args:
        scores: `(n,)`; larger is chosen first.
        indices: Dataset index of each, `(n,)`, distinct.
        count: How many, at most n.
        decimals: To which scores are compared.

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
    rounded = torch.round(scores.double()[by_index], decimals=decimals)
    return by_index[rounded.argsort(descending=True, stable=True)[:count]]


def farthest_first(rows: Tensor, asked: Tensor, count: int, block: int = 2048) -> Tensor:
    r"""Choose, again and again, the row farthest from all that are chosen or asked: greedy k-centre.

    .. math:: \arg\max_{i} \min_{j \in \text{asked} \cup \text{chosen}} \lVert x_i - x_j \rVert

    Exact, in few passes over the rows: while the best of the `block` farthest rows is farther than all others were at
    the last pass, it is the farthest of all, since distances only fall. Distances that differ by less than rounding
    errors are equal, and go by position. Without any row asked, the first is the farthest from the mean.

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
    rows = rows - rows.mean(dim=0)  # differences of large norms would round
    norms = rows.pow(2).sum(dim=1)
    tolerance = 1e-5 * float(norms.max())
    distances = torch.full_like(norms, torch.inf) if asked.any() else norms.clone()
    distances = _approach(distances, rows, norms, rows[asked])
    distances[asked] = -1
    chosen: list[int] = []
    news: list[int] = []  # chosen since the last pass
    while len(chosen) < count:
        if news:
            distances = _approach(distances, rows, norms, rows[news])
        elif chosen:
            break
        distances[chosen] = -1
        news = [int((distances >= distances.max() - tolerance).nonzero()[0])]
        chosen.append(news[0])
        if len(chosen) == 1 and not asked.any():
            distances = torch.full_like(norms, torch.inf)
            continue
        width = min(block, len(rows))
        far, places = distances.topk(width)
        bound = float(far[-1]) if width < len(rows) else -1.0
        far, places = far[places.argsort()].clone(), places.sort().values
        near, near_norms = rows[places], norms[places]
        while len(chosen) < count:
            last = rows[chosen[-1]]
            far = torch.minimum(far, (near_norms + last @ last).addmv(near, last, alpha=-2).clamp(min=0))
            far[places == chosen[-1]] = -1
            best = float(far.max())
            if best - tolerance <= bound:
                break
            chosen.append(int(places[(far >= best - tolerance).nonzero()[0, 0]]))
            news.append(chosen[-1])
    return torch.tensor(chosen)


def _approach(distances: Tensor, rows: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """Lower squared distances to the nearest centre by those to some more centres."""
    if not len(centres):
        return distances
    squares = centres.pow(2).sum(dim=1)
    for start in range(0, len(rows), 4096):  # products that stay in cache
        part = slice(start, start + 4096)
        for some, lengths in zip(torch.split(centres, 1024), torch.split(squares, 1024), strict=True):
            found = torch.addmm(lengths, rows[part], some.T, alpha=-2).amin(dim=1) + norms[part]
            distances[part] = torch.minimum(distances[part], found.clamp(min=0))
    return distances


def _require(rows: Tensor, asked: Tensor, count: int) -> None:
    """Check that so many rows can be chosen, and that they are numbers."""
    left = int((~asked).sum())
    if count > left:
        raise ValueError(f"`count={count}` exceeds the {left} samples to choose from.")
    if not rows.isfinite().all():
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
    free = torch.ones(len(residuals), dtype=torch.bool, device=residuals.device)
    _require(torch.cat([residuals.sum(dim=1, keepdim=True), embeddings.sum(dim=1, keepdim=True)], 1), ~free, count)
    lengths = residuals.pow(2).sum(dim=1) * embeddings.pow(2).sum(dim=1)
    tolerance = 1e-5 * float(lengths.max())
    distances = torch.full_like(lengths, torch.inf)
    chosen = [int((lengths >= lengths.max() - tolerance).nonzero()[0])]
    for draw in torch.rand(count - 1, generator=generator, dtype=torch.float64).tolist():
        last = chosen[-1]
        products = (residuals @ residuals[last]) * (embeddings @ embeddings[last])
        distances = torch.minimum(distances, lengths + lengths[last] - 2 * products)
        distances[distances <= tolerance] = 0  # copies of a chosen one, up to rounding
        free[last] = False
        distances[last] = 0
        weights = distances if (distances > 0).any() else free
        total = weights.double().cumsum(dim=0)
        chosen.append(int(torch.searchsorted(total, draw * total[-1], right=True).clamp(max=len(total) - 1)))
    return torch.tensor(chosen)


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
    weights = informativeness.clamp(min=0) + 1e-6  # where all are 0, all are alike
    found = kmeans(embeddings, count, generator, weights=weights)
    heavy = torch.zeros(count).index_add_(0, found.assignments, weights.float())
    chosen: list[int] = []
    taken = torch.zeros(len(embeddings), dtype=torch.bool)
    for centroid in found.centroids[heavy.argsort(descending=True, stable=True)]:
        distances = (embeddings - centroid).pow(2).sum(dim=1).masked_fill(taken, torch.inf)
        chosen.append(int((distances <= distances.min() * (1 + 1e-5)).nonzero()[0]))
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
                typical = _typicality(rows[waiting[c]], neighbours)
                place = int((typical >= typical.max() * (1 - 1e-5)).nonzero()[0])
                chosen.append(int(waiting[c][place]))
                waiting[c] = torch.cat([waiting[c][:place], waiting[c][place + 1 :]])
    return torch.tensor(chosen)


def _typicality(rows: Tensor, neighbours: int) -> Tensor:
    """Return one over the mean distance to the nearest other rows, `(n,)`."""
    k = min(neighbours, max(1, len(rows) // 2))
    if len(rows) == 1:
        return torch.ones(1)
    parts = []
    for start in range(0, len(rows), 1024):
        distances = torch.cdist(rows[start : start + 1024], rows)
        distances[torch.arange(len(distances)), torch.arange(start, start + len(distances))] = torch.inf
        parts.append(distances.topk(k, dim=1, largest=False).values.mean(dim=1))
    return 1 / (torch.cat(parts) + 1e-5)


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
    radius = delta**2 - 1e-6  # ties at the rim do not hang on rounding
    norms = rows.pow(2).sum(dim=1)

    def inside(some: Tensor) -> Tensor:
        """Tell which rows are in the balls around some, `(n, len(some))`."""
        return torch.addmm(norms[some], rows, rows[some].T, alpha=-2) + norms[:, None] < radius

    def counts(covered: Tensor) -> Tensor:
        """Count each row's neighbours among some, `(n,)`."""
        total = torch.zeros(len(rows), dtype=torch.int64)
        for some in torch.split(covered, 512):
            total += inside(some).sum(dim=1)
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
        news[best] = uncovered[best]
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
        A distance.

    Reference:
        Yehuda et al., arXiv 2205.11320, section 3.3 and appendix B.
    """
    cluster = kmeans(rows, min(classes, len(rows)), generator).assignments
    parts = []
    for start in range(0, len(rows), 1024):
        distances = torch.cdist(rows[start : start + 1024], rows)
        same = cluster[start : start + 1024, None] == cluster
        parts.append(distances.masked_fill(same, torch.inf).amin(dim=1))
    distances = torch.cat(parts).sort().values
    place = min(len(rows) - 1, int((1 - purity) * len(rows)))
    return float(distances[place].clamp(min=1e-3, max=2.0))
