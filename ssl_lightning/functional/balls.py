"""Which rows lie within a radius of which: by matrix products with a bounded error, and exactly where that decides."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_lightning.functional.distances import TIE, distances, middle, numbers, pairs, rounding, scale
from ssl_lightning.functional.half import WRONG, factors, fast_half

Array = npt.NDArray[Any]
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
        self._slack = self._wrong(0.0).float() * (1 + 1e-6)
        self._half: tuple[Tensor, Tensor] | None = None
        if fast_half():
            self._half = factors(points, shares)
            self._bits = self._wrong(WRONG).bfloat16().view(torch.int16) + 1
        size = min(BLOCK, len(rows)) ** 2
        kinds = (torch.bfloat16, torch.float32, torch.bool, torch.int32)
        self._room = [torch.empty(size, dtype=kind) for kind in kinds]
        self._some: slice | Tensor | None = None  # those whose factors are at hand
        self._left = self.points[:0]
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

    def around(self, which: Tensor) -> Iterator[tuple[slice, slice, Array]]:
        """Pass over the blocks that can hold rows in the balls around some.

        Args:
            which: Positions in ascending order, `(m,)`.

        Yields:
            Some of `which`, a block, and what `inside` tells of them.
        """
        block_of = self._block_of[which]
        for start in range(0, len(which), BLOCK):
            here = slice(start, min(start + BLOCK, len(which)))
            mine = which[here]
            apart = self._apart[block_of[here].unique()].amin(dim=0)  # type: ignore[no-untyped-call]
            for other in (apart < self.delta).nonzero()[:, 0].tolist():
                found = self.inside(mine, self.blocks[other])
                if found.any():
                    yield here, self.blocks[other], found

    def near(self, some: Tensor, others: Tensor) -> Tensor:
        """Tell around which of some the ball can hold any of the others, by the blocks they are in, `(len(some),)`."""
        apart = self._apart[:, self._block_of[others].unique()].amin(dim=1)  # type: ignore[no-untyped-call]
        near: Tensor = (apart < self.delta)[self._block_of[some]]
        return near

    def inside(self, some: slice | Tensor, others: slice | Tensor) -> Array:
        """Tell which others are in the balls around some, boolean `(len(some), len(others))`, until the next call.

        Args:
            some: At most `BLOCK` positions.
            others: Likewise.
        """
        from ssl_lightning.functional.decided import decide, decide_bits  # numba takes half a second to import

        if self._some is not some:  # the same ones meet many others
            left = self.points[some]
            self._some, self._left = some, torch.cat([left[:, :-2], left[:, -1:], left[:, -2:-1]], dim=1)
        shape = (len(self._left), len(self.order[others]))
        room = [part[: shape[0] * shape[1]].view(shape) for part in self._room[:3]]  # new memory would cost as much
        above, places = room[2].numpy(), self._room[3].numpy()
        if self._half is not None:
            torch.mm(self._half[0][some], self._half[1][others].T, out=room[0])
            sums, wrong = room[0].view(torch.int16).numpy(), self._bits[some].numpy()
            unsure, total = decide_bits(sums, wrong, above, places[:_UNSURE])
            if not total or unsure <= _UNSURE:
                return self._settle(above, places[:unsure], some, others)
        torch.mm(self._left, self.points[others].T, out=room[1])
        unsure, _ = decide(room[1].numpy(), self._slack[some].numpy(), above, places)
        return self._settle(above, places[:unsure], some, others)

    def _settle(self, above: Array, places: Array, some: slice | Tensor, others: slice | Tensor) -> Array:
        """Measure the pairs at some places."""
        if len(places):
            few, many = (torch.from_numpy(found) for found in np.divmod(places.astype(np.int64), above.shape[1]))
            squares = pairs(self.rows, self.rows, self.order[some][few], self.order[others][many])
            above.reshape(-1)[places] = (squares < self.radius).numpy()
        return above

    def counts(self, among: Tensor) -> Tensor:
        """Count those rows in the ball around each that are among some, int64 `(n,)`; each pair is looked at once.

        Args:
            among: Boolean `(n,)`.
        """
        from ssl_lightning.functional.decided import tally

        total, none = np.zeros(len(self.rows), dtype=np.int32), np.zeros(0, dtype=np.int32)
        counted = [among[block].numpy() for block in self.blocks]
        for number, block in enumerate(self.blocks):
            for other in range(number, len(self.blocks)):
                if self._apart[number, other] >= self.delta or not (counted[number].any() or counted[other].any()):
                    continue
                found, there = self.inside(block, self.blocks[other]), self.blocks[other]
                tally(found, total[block], total[there] if other > number else none, counted[number], counted[other])
        return torch.from_numpy(total).long()


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
