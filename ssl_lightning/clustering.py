"""k-means, on whichever engine is there; the same for a seed."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Engine = Literal["auto", "torch", "sklearn", "faiss"]


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
            for 100,000 rows on a CPU if it is installed, else torch.
        weights: w, at least 0, `(N,)`; null for 1.

    Returns:
        Centroids, assignments and inertia, on the device of `rows`. With distinct rows no cluster is empty.

    Raises:
        ValueError: If k is out of range, or faiss is asked for and not installed.

    Reference:
        S. Lloyd, Least Squares Quantization in PCM, 1982; initialised by k-means++ (D. Arthur, S. Vassilvitskii 2007).
        An empty cluster gets the centroid of the largest one, slightly moved, as in M. Caron et al. 2018 (arXiv
        1807.05520, section 3.3), which draws the non-empty cluster at random.

    Example:
        >>> found = kmeans(torch.tensor([[0.0], [0.1], [5.0]]), 2, torch.Generator().manual_seed(0))
        >>> bool(found.assignments[0] == found.assignments[1]), round(found.inertia, 3)
        (True, 0.005)
    """
    if not 1 <= k <= len(rows):
        raise ValueError(f"`k={k}` clusters of {len(rows)} samples; give 1 to {len(rows)}.")
    rows = rows.detach().float()
    weights = None if weights is None else weights.to(rows)
    if engine == "auto":
        engine = "faiss" if len(rows) >= 100_000 and rows.device.type == "cpu" and _has_faiss() else "torch"
    if engine == "torch":
        return _lloyd(rows, k, generator, iterations, weights)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    if engine == "sklearn":
        from sklearn.cluster import KMeans

        fitted = KMeans(k, n_init=1, max_iter=iterations, random_state=seed).fit(
            rows.cpu().numpy(), sample_weight=None if weights is None else weights.cpu().numpy()
        )
        centroids = torch.from_numpy(fitted.cluster_centers_).to(rows)
    else:
        centroids = _faiss(rows, k, seed, iterations, weights)
    distances, assignments = nearest(rows, centroids)
    return Clusters(centroids, assignments, _inertia(distances, weights))


def nearest(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance to, and the number of, the nearest centroid of each row.

    Args:
        rows: `(N, d)`.
        centroids: `(k, d)`.

    Returns:
        Squared distances `(N,)` and positions `(N,)`.
    """
    norms = centroids.pow(2).sum(dim=1)
    parts = []
    for part in torch.split(rows, max(1, 2**22 // len(centroids))):  # a product of 16 MiB at a time stays in cache
        parts.append((norms - 2 * part @ centroids.T).min(dim=1))
    distances = torch.cat([part.values for part in parts]) + rows.pow(2).sum(dim=1)
    return distances.clamp(min=0), torch.cat([part.indices for part in parts])


def _plus_plus(rows: Tensor, k: int, generator: torch.Generator, weights: Tensor | None) -> Tensor:
    """Draw k rows as first centroids, each with probability by weight and squared distance to those before."""
    if weights is None:
        chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    else:
        total = weights.double().cumsum(dim=0)
        first = torch.rand((), generator=generator, dtype=torch.float64).to(total.device) * total[-1]
        chosen = [min(int(torch.searchsorted(total, first, right=True)), len(rows) - 1)]
    norms = rows.pow(2).sum(dim=1)
    best = torch.full_like(norms, torch.inf)
    for draw in torch.rand(k - 1, generator=generator, dtype=torch.float64).tolist():
        last = rows[chosen[-1]]
        best = torch.minimum(best, (norms + last @ last - 2 * rows @ last).clamp(min=0))
        best[chosen[-1]] = 0  # not by a rounding error above it
        total = (best if weights is None else best * weights).double().cumsum(dim=0)
        place = int(torch.searchsorted(total, draw * total[-1], right=True))
        chosen.append(min(place, len(rows) - 1))
    return rows[chosen].clone()


def _lloyd(rows: Tensor, k: int, generator: torch.Generator, iterations: int, weights: Tensor | None) -> Clusters:
    centroids = _plus_plus(rows, k, generator, weights)
    weighted = rows if weights is None else rows * weights[:, None]
    distances, assignments = nearest(rows, centroids)
    for _ in range(iterations):
        counts = torch.bincount(assignments, minlength=k)
        sums = torch.zeros_like(centroids).index_add_(0, assignments, weighted)
        mass = counts.clamp(min=1) if weights is None else torch.zeros(k).to(rows).index_add_(0, assignments, weights)
        centroids = torch.where(mass[:, None] > 0, sums / mass.clamp(min=1e-30)[:, None], centroids)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            full = counts.argsort(descending=True, stable=True)[torch.arange(len(empty), device=rows.device) % k]
            noise = torch.randn(len(empty), rows.shape[1], generator=generator).to(rows)
            scale = rows.std(dim=0, correction=0) * 1e-3
            centroids[empty] = centroids[full] + noise * scale
        before = assignments
        distances, assignments = nearest(rows, centroids)
        if torch.equal(before, assignments):
            break
    return Clusters(centroids, assignments, _inertia(distances, weights))


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
