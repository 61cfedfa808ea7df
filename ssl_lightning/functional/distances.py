"""Distances that keep their digits: far from the origin, beside outliers, between near copies.

A matrix product gives all squared distances at once, :math:`|x|^2 + |c|^2 - 2 x c`, but errs by a share of the squared
norms, which can be larger than the distance itself. So rows are centred, and whatever that share could still decide is
found again from differences, in float64.
"""

import math

import torch
from torch import Tensor

TIE = 5e-7  # squared distances that differ by less, as a share of themselves, are equal
_BLOCK = 2**20  # floats looked at together; stays in cache


def rounding(dim: int) -> float:
    r"""Return by how much an expanded squared distance can be wrong at most, as a share of both squared norms' sum.

    In whichever order they add up, with u half of float32's epsilon, a product errs by less than
    :math:`d u |x| |c|` and norms by less than :math:`d u |x|^2`; twelve u more are for centring and the last sum.
    """
    return torch.finfo(torch.float32).eps * (dim + 6)


def close(dim: int) -> float:
    """Return the share of the squared norms below which a squared distance is not known to a ten-thousandth.

    By four times what random rows err: `rounding`, which holds for any rows, would have most distances found twice.
    """
    return 1e4 * torch.finfo(torch.float32).eps * (12 + math.sqrt(dim) / 4)


def numbers(rows: Tensor) -> Tensor:
    """Return rows in a type to compute with: float64 as it is, all else as float32."""
    return rows if rows.dtype == torch.float64 else rows.float()


def scale(*parts: Tensor) -> float:
    """Return a power of two, by which to multiply rows lest their squares overflow or vanish in float32; mostly 1.

    Example:
        >>> scale(torch.tensor([3.0])), scale(torch.tensor([1e20]), torch.ones(1)) < 1e-10
        (1.0, True)
    """
    largest = max((float(torch.stack(part.aminmax()).abs().max()) for part in parts if part.numel()), default=0.0)
    if largest == 0 or not math.isfinite(largest) or 1e-6 < largest < 1e12:
        return 1.0
    most = 120 if all(part.dtype == torch.float32 for part in parts) else 1000  # the power itself must be a number
    return 2.0 ** min(20 - math.frexp(largest)[1], most)


def require_choice(rows: Tensor, asked: Tensor, count: int) -> None:
    """Check that so many rows can be chosen, and that they are numbers."""
    left = int((~asked).sum())
    if count > left:
        raise ValueError(f"`count={count}` exceeds the {left} samples to choose from.")
    if len(rows) and not torch.stack(rows.aminmax()).isfinite().all():  # one pass without a copy
        place = int((~rows.isfinite().all(dim=1)).nonzero()[0])
        raise ValueError(
            f"the embedding in row {place} is NaN or infinite: the model has diverged; look at its training loss."
        )


def middle(rows: Tensor) -> Tensor:
    """Return a point amid most of `(n, d)` rows, `(d,)`: one outlier would move the mean, but not this."""
    return rows[:: max(1, len(rows) // 100)].median(dim=0).values


def distances(rows: Tensor, others: Tensor) -> Tensor:
    r"""Return all distances :math:`\lVert x_i - y_j \rVert`, each to about a ten-thousandth of itself or better.

    As fast as `torch.cdist` where distances are about as large as norms. Copies are exactly 0 apart.

    Args:
        rows: x, `(n, d)`.
        others: y, `(m, d)`.

    Returns:
        `(n, m)`, in float32.

    Example:
        >>> distances(torch.tensor([[1e6, 0.0]]), torch.tensor([[1e6, 0.0], [1e6, 0.5]]))
        tensor([[0.0000, 0.5000]])
    """
    rows, others = numbers(rows), numbers(others)
    unit = scale(rows, others)
    if unit != 1:
        return distances(rows * unit, others * unit).double().div_(unit).float()
    origin = middle(others)
    points, ends = (rows - origin).float(), (others - origin).float()
    norms, lengths = (x.pow(2).sum(dim=1, keepdim=True) for x in (points, ends))
    left = torch.cat([-2 * points, norms, torch.ones_like(norms)], dim=1)
    right = torch.cat([ends, torch.ones_like(lengths), lengths], dim=1)  # whose product is the squared distances
    limit = 3 * close(rows.shape[1]) * norms  # of both norms: so near to one another they are about the same
    found = points.new_empty(len(rows), len(others))
    width = max(1, _BLOCK // max(1, len(others)))
    for start in range(0, len(rows), width):
        part = slice(start, start + width)
        block = torch.mm(left[part], right.T, out=found[part])
        few, many = (block < limit[part]).nonzero(as_tuple=True)
        block[few, many] = pairs(rows[part], others, few, many).float()
        block.sqrt_()
    return found


def pairs(rows: Tensor, others: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the squared distances between `rows[left]` and `others[right]` from their differences, in float64."""
    width = max(1, _BLOCK // rows.shape[1])
    parts = [
        (rows[some].double() - others[those].double()).pow(2).sum(dim=1)
        for some, those in zip(torch.split(left, width), torch.split(right, width), strict=True)
    ]
    return torch.cat(parts)


def first_least(values: Tensor) -> int:
    """Return the first position whose value is the least, up to rounding: squared distances of `TIE`."""
    return int((values <= values.min() * (1 + TIE)).nonzero()[0])


class Nearest:
    """How far rows are from the nearest of ever more centres: a bound for every row, the value for those asked for.

    Args:
        rows: The rows, of which some become centres, `(n, d)`.
        room: How many may become centres.

    Attributes:
        upper: What the squared distances are at most, as of the last pass, `(n,)`.
        known: What they are, where that was asked for, else infinite; of the centres of that time, `(n,)`.
    """

    def __init__(self, rows: Tensor, room: int) -> None:
        self.rows = numbers(rows)
        self._centre()
        if not 1e-12 < float(self.norms.max()) < 1e24:  # which row is farther does not hang on the scale
            self.rows = self.rows * scale(self.rows)
            self._centre()
        self.share = rounding(rows.shape[1])
        self.upper = torch.full_like(self.norms, torch.inf)
        self.centres = torch.zeros(0, dtype=torch.int64)
        self._ends = self.points.new_empty(room, rows.shape[1])  # the centres' points, one after the other
        self.known = torch.full(self.norms.shape, torch.inf, dtype=torch.float64)
        self._seen = torch.zeros(len(rows), dtype=torch.int64)  # centres that the known value is of
        self._passed = 0  # centres that the bounds know

    def _centre(self) -> None:
        self.origin = middle(self.rows)
        self.points = (self.rows - self.origin).float()
        self.norms = self.points.pow(2).sum(dim=1)

    def outermost(self) -> int:
        """Return the row farthest from the mean of all; the first of equals."""
        mean = self.rows.mean(dim=0, dtype=torch.float64)
        shift = (mean - self.origin).float()
        base = (self.norms + shift.double().square().sum().float()) * (1 + self.share)
        upper = torch.addmv(base, self.points, shift, alpha=-2)
        least = float((upper - 2 * self.share * base).max())
        some = (upper >= least * (1 - TIE)).nonzero()[:, 0]
        found = pairs(self.rows, mean[None], some, torch.zeros_like(some))
        return int(some[(found >= found.max() * (1 - TIE)).nonzero()[0]])

    def add(self, places: Tensor) -> None:
        """Let some rows be centres from here on; `upper` stays as it is till the next pass."""
        count = len(self.centres)
        torch.index_select(self.points, 0, places, out=self._ends[count : count + len(places)])
        self.centres = torch.cat([self.centres, places])

    def pass_over(self) -> Tensor:
        """Lower the bounds of all rows by what the centres since the last pass tell; return them."""
        self.upper = torch.minimum(self.upper, self.known.float())
        news = range(self._passed, len(self.centres))
        for start in range(0, len(self.rows), 4096):  # products that stay in cache
            part = slice(start, start + 4096)
            for first in news[::1024]:
                found = self.bound(self.points[part], self.norms[part], first, min(first + 1024, len(self.centres)))
                self.upper[part] = torch.minimum(self.upper[part], found)
        self._passed = len(self.centres)
        return self.upper

    def bound(self, points: Tensor, norms: Tensor, first: int, last: int) -> Tensor:
        """Return what the squared distances of some rows to the nearest of some centres are at most."""
        grown = 1 + self.share
        lengths = self.norms[self.centres[first:last]]
        if last == first + 1:
            return (norms + lengths).mul_(grown).addmv_(points, self._ends[first], alpha=-2).clamp_(min=0)
        found = torch.addmm(lengths * grown, points, self._ends[first:last].T, alpha=-2)
        return found.amin(dim=1).add_(norms, alpha=grown).clamp_(min=0)

    def farthest(self, upper: Tensor, places: Tensor, outside: float) -> int | None:
        """Return which of some rows is farthest from its nearest centre; the first of equals.

        Args:
            upper: What their squared distances are at most, `(m,)`; minus infinity for a row that is taken. Lowered
                where the distances are found.
            places: The rows, in ascending order, `(m,)`.
            outside: What the squared distances of all other rows are at most.

        Returns:
            The row; null if another may be as far.
        """
        top = int(upper.argmax())
        # were it less, the nearest centre c would be that near, so |c| <= |x| + d, which bounds the error of d^2
        least = (float(upper[top]) - 6 * self.share * float(self.norms[places[top]])) * (1 - 4 * self.share)
        goal = least * (1 - TIE) if least > 0 else 0.0
        contenders = (upper >= goal).nonzero()[:, 0]
        if len(contenders) == 1 and goal > outside:
            return int(places[top])
        found = torch.full(upper.shape, -torch.inf, dtype=torch.float64)
        width = 8
        while len(contenders):  # the largest bounds first: most others then need no look
            some = contenders[upper[contenders].topk(min(width, len(contenders))).indices]
            found[some] = self.exact(places[some])
            upper[some] = found[some].float()
            goal = float(found.max()) * (1 - TIE)
            contenders = ((upper >= goal) & (found == -torch.inf)).nonzero()[:, 0]
            width *= 4
        return int(places[(found >= goal).nonzero()[0]]) if goal > outside else None

    def exact(self, which: Tensor) -> Tensor:
        """Return the squared distances of some rows to the nearest centre, in float64."""
        total = len(self.centres)
        seen = self._seen[which].masked_fill_(self.known[which] == 0, total)  # nothing is nearer than 0
        for count in set(seen.tolist()) - {total}:
            for some in torch.split(which[seen == count], max(1, _BLOCK // (total - count))):
                self.known[some] = torch.minimum(self.known[some], self._exact(some, count))
        self._seen[which] = total
        return self.known[which]

    def _exact(self, which: Tensor, first: int) -> Tensor:
        """Measure from the centres that can be the nearest, only."""
        centres = self.centres[first:]
        base = self.norms[which, None] + self.norms[centres]
        found = torch.addmm(base, self.points[which], self._ends[first : first + len(centres)].T, alpha=-2)
        slack = base.mul_(self.share)
        few, many = (found - slack <= (found + slack).amin(dim=1, keepdim=True)).nonzero(as_tuple=True)
        squares = pairs(self.rows, self.rows, which[few], centres[many])
        nearest = torch.full((len(which),), torch.inf, dtype=torch.float64)
        return nearest.scatter_reduce_(0, few, squares, "amin")
