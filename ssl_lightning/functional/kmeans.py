"""k-means, on whichever engine is there; the same for a seed."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_lightning.functional.distances import close, middle, numbers, pairs, scale

Engine = Literal["auto", "torch", "sklearn", "faiss"]
_LARGE = 100_000  # rows, of which all are looked at in every iteration


class Clusters(NamedTuple):
    """What `kmeans` returns.

    Attributes:
        centroids: `(k, d)`; the paper's matrix C, transposed.
        assignments: The nearest centroid of each row, int64 `(N,)`.
        inertia: Sum of squared distances to it.
    """

    centroids: Tensor
    assignments: Tensor
    inertia: float


def kmeans(
    rows: Tensor,
    k: int,
    generator: torch.Generator,
    iterations: int = 20,
    engine: Engine = "auto",
    weights: Tensor | None = None,
) -> Clusters:
    r"""Minimise :math:`\sum_n w_n \min_c \lVert x_n - C_c \rVert^2` over k centroids C.

    Args:
        rows: `(N, d)`.
        k: Clusters, at most N.
        generator: Of the CPU; seeds every engine.
        iterations: Of Lloyd's algorithm, at most.
        engine: `torch` (here, on the device of `rows`), `sklearn`, `faiss` (the extra of that name), or `auto`: faiss
            for 100,000 rows on a CPU if it is installed, else torch. Of more rows than that, and than 512 k, without
            weights, torch finds centroids of a sample that stands for all, and moves them by all rows twice.
        weights: w, at least 0, `(N,)`; null for 1.

    Returns:
        Centroids, assignments and inertia, on the device of `rows`. With k distinct rows of some weight no cluster
        is empty.

    Raises:
        ValueError: If k is out of range, or faiss is asked for and not installed.

    Reference:
        S. Lloyd, Least Squares Quantization in PCM, 1982; initialised by k-means++ (D. Arthur, S. Vassilvitskii 2007).
        The centroid of an empty cluster moves to the row that is farthest from its own, as in scikit-learn; M. Caron et
        al. 2018 (arXiv 1807.05520, section 3.3) move it beside the centroid of a cluster drawn at random.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [0.1], [5.0]]), 2, torch.Generator().manual_seed(0))
        >>> bool(found.assignments[0] == found.assignments[1]), round(found.inertia, 3)
        (True, 0.005)
    """
    if not 1 <= k <= len(rows):
        raise ValueError(f"`k={k}` clusters of {len(rows)} samples; give 1 to {len(rows)}.")
    rows = numbers(rows.detach())
    unit = scale(rows)
    rows = rows if unit == 1 else rows * unit
    origin = middle(rows)
    points = (rows - origin).float()  # far from the origin squares would lose their digits
    weights = None if weights is None else weights.to(points)
    if engine == "auto":
        engine = "faiss" if len(rows) >= 100_000 and rows.device.type == "cpu" and _has_faiss() else "torch"
    if engine == "torch":
        found = _lloyd(points, k, generator, iterations, weights)
        return _placed(found, origin, unit)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    if engine == "sklearn":
        from sklearn.cluster import KMeans

        fitted = KMeans(k, n_init=1, max_iter=iterations, random_state=seed).fit(
            points.cpu().numpy(), sample_weight=None if weights is None else weights.cpu().numpy()
        )
        centroids = torch.from_numpy(fitted.cluster_centers_).to(points)
    else:
        centroids = _faiss(points, k, seed, iterations, weights)
    distances, assignments = _nearest(points, centroids)
    return _placed(Clusters(centroids, assignments, _inertia(distances, weights)), origin, unit)


def _placed(found: Clusters, origin: Tensor, unit: float) -> Clusters:
    """Return clusters of centred and scaled rows where the rows were."""
    return Clusters((found.centroids + origin) / unit, found.assignments, found.inertia / unit / unit)


def nearest(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance to, and the number of, the nearest centroid of each row.

    Args:
        rows: `(N, d)`.
        centroids: `(k, d)`.

    Returns:
        Squared distances `(N,)`, each to about a ten-thousandth of itself or better, and positions `(N,)`.
    """
    origin = middle(centroids)
    return _nearest(rows - origin, centroids - origin)


def _nearest(rows: Tensor, centroids: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return what `nearest` does, of rows that lie about the origin; their squared lengths may be known."""
    norms = centroids.pow(2).sum(dim=1)
    lengths = rows.pow(2).sum(dim=1) if lengths is None else lengths
    parts = []
    for part in torch.split(rows, max(1, 2**18 // len(centroids))):  # a product of 1 MiB at a time stays in cache
        parts.append(torch.addmm(norms, part, centroids.T, alpha=-2).min(dim=1))
    distances = torch.cat([part.values for part in parts]) + lengths
    positions = torch.cat([part.indices for part in parts])
    unsure = (distances < close(rows.shape[1]) * (lengths + norms[positions])).nonzero()[:, 0]
    if len(unsure):  # the norms are so much larger than the distance that only float64 tells which is the nearest
        ends = centroids.double()
        squares = ends.pow(2).sum(dim=1)
        for some in torch.split(unsure, max(1, 2**21 // len(centroids))):
            positions[some] = (squares - 2 * rows[some].double() @ ends.T).argmin(dim=1)
        distances[unsure] = pairs(rows, centroids, unsure, positions[unsure]).to(distances)
    return distances.clamp(min=0), positions


def weighted_draw(weights: Tensor, share: float) -> int:
    """Return the first position where the running sum of weights exceeds a share of the whole.

    Args:
        weights: At least 0, one of them more, `(N,)`.
        share: From 0 to below 1; drawn evenly, every position comes in proportion to its weight.

    Returns:
        A position of positive weight.

    Example:
        >>> [weighted_draw(torch.tensor([1.0, 0.0, 3.0]), share) for share in (0.2, 0.25, 0.99)]
        [0, 2, 2]
    """
    total = weights.double().cumsum(dim=0)
    place = int(torch.searchsorted(total, share * total[-1], right=True))
    return place if place < len(weights) else int(weights.nonzero()[-1])  # by rounding


def _plus_plus(rows: Tensor, k: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """Draw k rows as first centroids, each with probability by weight and squared distance to those before.

    Rows of no weight come after all others, copies after all distinct rows.
    """
    norms = rows.pow(2).sum(dim=1)
    free = torch.ones_like(norms)
    worth = free if weights is None or not (weights > 0).any() else weights
    if worth is free:
        chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    else:
        chosen = [weighted_draw(worth, float(torch.rand((), generator=generator, dtype=torch.float64)))]
    best = torch.full_like(norms, torch.inf)
    limit = close(rows.shape[1])
    for draw in torch.rand(k - 1, generator=generator, dtype=torch.float64).tolist():
        last = rows[chosen[-1]]
        base = norms + norms[chosen[-1]]
        found = torch.addmv(base, rows, last, alpha=-2)
        near = (found < limit * base).nonzero()[:, 0]
        found[near] = pairs(rows, last[None], near, torch.zeros_like(near)).to(found)
        best = torch.minimum(best, found)
        free[chosen[-1]] = 0
        chances = best if worth is free else best.double() * worth
        for otherwise in (best, free):
            chances = chances if (chances > 0).any() else otherwise
        chosen.append(weighted_draw(chances, draw))
    return rows[chosen].clone()


def _lloyd(rows: Tensor, k: int, generator: torch.Generator, iterations: int, weights: Tensor | None) -> Clusters:
    """Move every centroid to the mean of its rows, until no row changes cluster."""
    draws = max(_LARGE // 2, 256 * k)
    if weights is None and len(rows) > max(_LARGE, 2 * draws):
        some, worth = _coreset(rows, draws, generator)
        centroids, iterations = _lloyd(rows[some], k, generator, iterations, worth).centroids, 2
    else:
        centroids = _plus_plus(rows, k, generator, weights)
    weighted = rows if weights is None else rows * weights[:, None]
    lengths = rows.pow(2).sum(dim=1)
    distances, assignments = _nearest(rows, centroids, lengths)
    for _ in range(iterations):
        counts = torch.bincount(assignments, minlength=k)
        sums = _sums(weighted, assignments, k)
        mass = counts.to(rows) if weights is None else torch.zeros(k).to(rows).index_add_(0, assignments, weights)
        centroids = torch.where(mass[:, None] > 0, (sums / mass[:, None]).to(centroids), centroids)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            far = (distances if weights is None else distances * weights).topk(len(empty)).indices
            centroids[empty] = rows[far]
        before = assignments
        distances, assignments = _nearest(rows, centroids, lengths)
        if torch.equal(before, assignments):
            break
    return Clusters(centroids, assignments, _inertia(distances, weights))


def _coreset(rows: Tensor, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    r"""Draw rows that stand for all: half of them evenly, half in proportion to the squared distance to the mean.

    A row drawn with probability p is worth :math:`1 / p`, so that sums over all rows are kept on average, for any
    centroids; what lies far out, as an outlier, is among them surely.

    Args:
        rows: `(N, d)`.
        draws: How many times to draw; a row that is drawn twice is worth twice.
        generator: Of the draws.

    Returns:
        Positions in ascending order, and what each row is worth.

    Reference:
        O. Bachem, M. Lucic, A. Krause, Scalable k-Means Clustering via Lightweight Coresets, KDD 2018, arXiv
        1702.08248, algorithm 1.
    """
    mean = rows.mean(dim=0, dtype=torch.float64).to(rows)
    far = torch.cat([(part - mean).square().sum(dim=1) for part in torch.split(rows, 65_536)]).double()
    total = far.sum()
    chance = 0.5 / len(rows) + 0.5 * far / total if total > 0 else torch.full_like(far, 1 / len(rows))
    steps = chance.cumsum(dim=0)
    shares = torch.rand(draws, generator=generator, dtype=torch.float64).to(steps) * steps[-1]
    drawn = torch.searchsorted(steps, shares, right=True).clamp(max=len(rows) - 1)
    some, times = drawn.unique(return_counts=True)  # type: ignore[no-untyped-call]
    return some, (times / (draws * chance[some])).to(rows)


def _sums(rows: Tensor, assignments: Tensor, k: int) -> Tensor:
    """Sum the rows of each cluster, `(k, d)`, float64: float32 loses digits of many rows far from the origin."""
    sums = torch.zeros(k, rows.shape[1], dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), 65_536):
        sums.index_add_(0, assignments[start : start + 65_536], rows[start : start + 65_536].double())
    return sums


def _inertia(distances: Tensor, weights: Tensor | None) -> float:
    return float(distances.sum() if weights is None else distances @ weights)


def _has_faiss() -> bool:
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def _faiss(rows: Tensor, k: int, seed: int, iterations: int, weights: Tensor | None) -> Tensor:
    if not _has_faiss():
        raise ValueError('`engine="faiss"` needs faiss; `pip install "ssl-lightning[faiss]"`, or use `torch`.')
    import faiss

    fitted = faiss.Kmeans(rows.shape[1], k, niter=iterations, seed=seed, min_points_per_centroid=1)
    fitted.train(rows.cpu().numpy(), weights=None if weights is None else weights.cpu().numpy())
    return torch.from_numpy(fitted.centroids).to(rows)
