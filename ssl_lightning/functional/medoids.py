"""k-medoids: the samples that stand for all others, by FasterPAM."""

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.engine.devices import home

_ROUNDING = (
    2e-6  # of a distance between embeddings in float32, as a share of it: batches of other sizes round otherwise
)


def k_medoids(
    distances: Tensor,
    k: int,
    generator: torch.Generator,
    known: Tensor | None = None,
    medoids: Tensor | None = None,
    sweeps: int = 100,
) -> tuple[Tensor, float]:
    r"""Choose k rows with least summed distance of all rows to the nearest of them, by FasterPAM.

    .. math:: \mathrm{TD} = \sum_o \min\big(\mathrm{known}_o, \min_{m \in M} d(o, m)\big)

    Every row is tried in turn against all medoids at once, and swapped in as soon as that lowers the sum (eager swaps),
    until a whole turn brings nothing: a local optimum of PAM. A trial costs :math:`O(n)`.

    Args:
        distances: Symmetric, `(n, n)`.
        k: Medoids, at most n.
        generator: Draws the first medoids.
        known: Distance of each row to what stands already, `(n,)`; null for nothing.
        medoids: To begin with, `(k,)`; null to draw them.
        sweeps: At most so many turns over all rows.

    Returns:
        Positions, in ascending order, `(k,)`, and TD.

    Raises:
        ValueError: If k is out of range.

    Reference:
        E. Schubert, P. Rousseeuw, Fast and Eager k-Medoids Clustering: O(k) Runtime Improvement of the PAM, CLARA, and
        CLARANS Algorithms, Information Systems 2021, arXiv 2008.05171, algorithm 3.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
        >>> k_medoids(torch.cdist(line, line), 2, torch.Generator().manual_seed(0))
        (tensor([1, 4]), 4.0)
    """
    (distances,) = home(distances)
    total = len(distances)
    if not 1 <= k <= total:
        raise ValueError(f"`k={k}` medoids of {total} samples; give 1 to {total}.")
    if medoids is None:
        medoids = torch.randperm(total, generator=generator)[:k]
    if k == 1 and known is None:  # there is no second nearest
        sums = distances.double().sum(dim=1)
        best = int((sums <= sums.min() * (1 + _ROUNDING)).nonzero()[0])
        return torch.tensor([best]), float(sums[best])
    swaps = _Swaps(distances.numpy(), medoids.numpy(), None if known is None else known.numpy())
    still = 0  # rows tried since the last swap
    for candidate in list(range(total)) * sweeps:
        still = 0 if swaps.try_in(candidate) else still + 1
        if still >= total:
            break
    return torch.from_numpy(np.sort(swaps.medoids[swaps.medoids >= 0])), swaps.loss


class _Swaps:
    """Nearest and second nearest medoid of every row, kept up to date over swaps.

    What is known already stands as one more medoid, of number -1, that is never taken out.
    """

    def __init__(self, distances: np.ndarray, medoids: np.ndarray, known: np.ndarray | None) -> None:
        self.distances, self.medoids = distances, medoids.copy()
        self.rows = distances[medoids]  # (k, n)
        if known is not None:
            self.medoids = np.append(self.medoids, -1)
            self.rows = np.concatenate([self.rows, known[None].astype(distances.dtype)])
        everyone = np.arange(distances.shape[1])
        self.near = np.zeros(len(everyone), dtype=np.int64)
        self.second = np.zeros_like(self.near)
        self.near_distance, self.second_distance = np.zeros((2, len(everyone)), dtype=distances.dtype)
        self._assign(everyone)
        self._weigh()

    @property
    def loss(self) -> float:
        """Summed distance to the nearest medoid."""
        return float(self.near_distance.sum(dtype=np.float64))

    def _assign(self, which: np.ndarray) -> None:
        """Find the two nearest medoids of some rows."""
        some = self.rows[:, which]
        columns = np.arange(len(which))
        near = some.argmin(axis=0)
        self.near[which], self.near_distance[which] = near, some[near, columns]
        some[near, columns] = np.inf
        second = some.argmin(axis=0)
        self.second[which], self.second_distance[which] = second, some[second, columns]

    def _weigh(self) -> None:
        """Sum up what taking each medoid out would cost, `(k,)`."""
        cost = np.subtract(self.second_distance, self.near_distance, dtype=np.float64)
        self.removal = np.bincount(self.near, cost, minlength=len(self.medoids))
        self.removal[self.medoids < 0] = np.inf

    def try_in(self, candidate: int) -> bool:
        """Swap a row in for the best medoid to take out, if that lowers the loss."""
        row = self.distances[candidate]
        which = np.flatnonzero(row < self.second_distance)
        there, near, second = row[which], self.near_distance[which], self.second_distance[which]
        change = np.subtract(np.maximum(there, near), second, dtype=np.float64)
        gains = self.removal + np.bincount(self.near[which], change, minlength=len(self.medoids))
        out = int(gains.argmin())
        lower = np.minimum(np.subtract(there, near, dtype=np.float64), 0)
        gain = gains[out] + lower.sum()
        if gain >= 0 or candidate in self.medoids:
            return False
        after = np.minimum(row, np.where(self.near == out, self.second_distance, self.near_distance))
        before = self.near_distance.sum(where=after != self.near_distance, dtype=np.float64)
        if gain >= -_ROUNDING * before:  # of those distances that change: the others are not compared
            return False
        self._swap(out, candidate, row)
        return True

    def _swap(self, out: int, candidate: int, row: np.ndarray) -> None:
        self.medoids[out], self.rows[out] = candidate, row
        lost = (self.near == out) | (self.second == out)
        nearest = ~lost & (row < self.near_distance)
        between = ~lost & ~nearest & (row < self.second_distance)
        self.second[nearest], self.second_distance[nearest] = self.near[nearest], self.near_distance[nearest]
        self.near[nearest], self.near_distance[nearest] = out, row[nearest]
        self.second[between], self.second_distance[between] = out, row[between]
        self._assign(np.flatnonzero(lost))
        self._weigh()
