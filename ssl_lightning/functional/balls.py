"""Which rows lie within a radius of which: by matrix products with a bounded error, and exactly where that decides."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.functional.distances import TIE, distances, middle, numbers, pairs, rounding, scale
from ssl_lightning.functional.half import WRONG, factors, fast_half

BLOCK = 1024  # rows on each side of a product; it stays in cache
_UNSURE = 512  # pairs of a block that are measured one by one; if there are more, the block is multiplied in float32
_CELL = 2048  # rows that lie together, about


class Balls:
    r"""Tells which rows lie within a radius of which, as differences in float64 would.

    With :math:`a = \delta^2 / 4 - |x|^2 / 2`, two rows are within the radius if :math:`x y + a_x + a_y > 0`. That sum
    is one product of rows that are longer by `a` and 1, so that it is small, and has all its digits, where it decides.
    What its error could decide is measured from differences. Rows are held in an order that keeps near ones together;
    blocks that are farther apart than the radius, by the triangle inequality, are passed over.

    Args:
        rows: `(n, d)`.
        delta: The radius. Pairs at the radius itself, up to rounding, are outside.

    Attributes:
        order: Which row each of those held is, int64 `(n,)`; all positions below are of the rows held.
    """

    def __init__(self, rows: Tensor, delta: float) -> None:
        unit = scale(rows)
        self.rows = numbers(rows) if unit == 1 else numbers(rows) * unit
        self.delta = delta * unit
        self.radius = self.delta**2 * (1 - TIE)  # ties at the rim do not hang on rounding
        points, dim = (self.rows - middle(self.rows)).float(), rows.shape[1]
        self.order, self.blocks = _together(points)
        points = points[self.order]
        norms = torch.cat([part.double().square().sum(dim=1) for part in torch.split(points, 65_536)])
        self.lengths, shares = norms.sqrt(), self.radius / 4 - norms / 2
        self.points = torch.cat([points, shares[:, None].float(), torch.ones(len(rows), 1)], dim=1)
        self._share = rounding(dim)
        self._slack = self._wrong(0.0).float()[:, None] * (1 + 1e-6)
        self._half: tuple[Tensor, Tensor] | None = None
        if fast_half():
            self._half = factors(points, shares)
            self._bits = self._wrong(WRONG).bfloat16().view(torch.int16).numpy()[:, None] + np.int16(1)
        size = min(BLOCK, len(rows)) ** 2
        self._room = [torch.empty(size, dtype=kind) for kind in (torch.bfloat16, torch.float32, torch.bool, torch.bool)]
        self._apart = self._gaps()
        self._block_of = torch.repeat_interleave(torch.tensor([block.stop - block.start for block in self.blocks]))

    def _wrong(self, product: float) -> Tensor:
        """Return by how much the sums of each row can be wrong at most where they decide, float64 `(n,)`.

        Args:
            product: By how much rounded factors spoil a product, as a share of both lengths.
        """
        share = product + 2 * self._share
        reach = self.lengths + (2 * share * self.lengths).clamp(min=self.delta)  # what is longer is outside surely
        rounded = self._share * (self.lengths.square() + reach.square() + self.delta**2)
        return 1.02 * (product * self.lengths * reach + rounded)

    def _gaps(self) -> Tensor:
        """Return how far the rows of two blocks are apart at least, `(blocks, blocks)`."""
        members = [self.points[block, :-2] for block in self.blocks]
        centres = torch.stack([rows.mean(dim=0) for rows in members])
        each = [distances(rows, centres) for rows in members]
        radii = torch.stack([rows[:, number].max() for number, rows in enumerate(each)])
        least = torch.stack([rows.amin(dim=0) for rows in each])  # how far the rows of one are from the others' centres
        gaps = least - radii - 1e-3 * (least + radii)  # for rounding
        return torch.maximum(gaps, gaps.T) - 1e-6 * float(self.lengths.max())

    def around(self, which: Tensor) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Pass over the blocks that can hold rows in the balls around some.

        Args:
            which: Positions in ascending order, `(m,)`.

        Yields:
            Some of `which`, a block, and what `inside` tells of them.
        """
        block_of = self._block_of[which]
        for start in range(0, len(which), BLOCK):
            here = slice(start, min(start + BLOCK, len(which)))
            apart = self._apart[block_of[here].unique()].amin(dim=0)  # type: ignore[no-untyped-call]
            for other in (apart < self.delta).nonzero()[:, 0].tolist():
                found = self.inside(which[here], self.blocks[other])
                if found.any():
                    yield here, self.blocks[other], found

    def near(self, some: Tensor, others: Tensor) -> Tensor:
        """Tell around which of some the ball can hold any of the others, by the blocks they are in, `(len(some),)`."""
        apart = self._apart[:, self._block_of[others].unique()].amin(dim=1)  # type: ignore[no-untyped-call]
        near: Tensor = (apart < self.delta)[self._block_of[some]]
        return near

    def inside(self, some: slice | Tensor, others: slice | Tensor) -> np.ndarray:
        """Tell which others are in the balls around some, boolean `(len(some), len(others))`, until the next call.

        Args:
            some: At most `BLOCK` positions.
            others: Likewise.
        """
        points = self._half[0][some] if self._half is not None else self.points[some]
        shape = (len(points), len(self.order[others]))
        room = [part[: shape[0] * shape[1]].reshape(shape) for part in self._room]  # new memory would cost as much
        wide, sure = room[2].numpy(), room[3].numpy()
        if self._half is not None:
            found = torch.mm(points, self._half[1][others].T, out=room[0])
            bits = self._bits[some]
            np.less_equal(found.view(torch.uint16).numpy(), bits.view(np.uint16) + np.uint16(0x8000), out=wide)
            total = np.count_nonzero(wide)
            if not total:
                return wide
            np.greater(found.view(torch.int16).numpy(), bits, out=sure)
            unsure = total - np.count_nonzero(sure)
            if unsure <= _UNSURE:
                return self._settle(sure, wide, some, others) if unsure else sure
            points = self.points[some]
        ends = self.points[others]
        ends = torch.cat([ends[:, :-2], ends[:, -1:], ends[:, -2:-1]], dim=1)
        products, slack = torch.mm(points, ends.T, out=room[1]).numpy(), self._slack[some].numpy()
        np.greater(products, slack, out=sure)
        np.greater_equal(products, -slack, out=wide)
        return self._settle(sure, wide, some, others)

    def _settle(self, sure: np.ndarray, wide: np.ndarray, some: slice | Tensor, others: slice | Tensor) -> np.ndarray:
        """Measure the pairs that are in `wide` and not sure."""
        np.not_equal(sure, wide, out=wide)
        places = np.flatnonzero(wide)
        if len(places):
            few, many = (torch.from_numpy(found) for found in np.divmod(places, wide.shape[1]))
            squares = pairs(self.rows, self.rows, self.order[some][few], self.order[others][many])
            sure.reshape(-1)[places] = (squares < self.radius).numpy()
        return sure

    def counts(self, among: Tensor) -> Tensor:
        """Count those rows in the ball around each that are among some, int64 `(n,)`; each pair is looked at once.

        Args:
            among: Boolean `(n,)`.
        """
        total = np.zeros(len(self.rows), dtype=np.int64)
        counted = [among[block].numpy() for block in self.blocks]
        for number, block in enumerate(self.blocks):
            for other in (self._apart[number, number:] < self.delta).nonzero()[:, 0].tolist():
                if not (counted[number].any() or counted[number + other].any()):
                    continue
                found = self.inside(block, self.blocks[number + other])
                if found.any():
                    total[block] += _sum(found, 1, counted[number + other])
                    if other:
                        total[self.blocks[number + other]] += _sum(found, 0, counted[number])
        return torch.from_numpy(total)


def _sum(found: np.ndarray, axis: int, counted: np.ndarray) -> np.ndarray:
    """Count along an axis of at most `BLOCK`, which 16 bits can, those that are counted."""
    if not counted.all():
        found = found.compress(counted, axis=axis)
    total: np.ndarray = found.sum(axis=axis, dtype=np.uint16)
    return total.astype(np.int64)


def _together(points: Tensor) -> tuple[Tensor, list[slice]]:
    """Return an order of rows in which near ones are together, and its blocks, each of one cell."""
    pivots = points[:: max(_CELL, len(points) // 1024)]
    lengths = pivots.square().sum(dim=1)
    parts = torch.split(points, max(1, 2**22 // len(pivots)))
    cell = torch.cat([torch.addmm(lengths, part, pivots.T, alpha=-2).argmin(dim=1) for part in parts])
    order = cell.argsort(stable=True)
    ends = torch.bincount(cell, minlength=len(pivots)).cumsum(dim=0).tolist()
    blocks = [
        slice(first, min(first + BLOCK, stop))
        for start, stop in zip([0, *ends[:-1]], ends, strict=True)
        for first in range(start, stop, BLOCK)
    ]
    return order, blocks
