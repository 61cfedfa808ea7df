"""Which sums are above 0 although each is a little wrong: one pass of compiled code over a block of them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_lightning.engine.compiled import compiled

Array = npt.NDArray[Any]


@compiled
def decide(sums: Array, wrong: Array, above: Array, unsure: Array) -> tuple[int, int]:
    """Mark the sums that are above 0 beyond doubt, and note those that may be.

    Args:
        sums: float32 `(m, n)`.
        wrong: By how much those of each row can be wrong, float32 `(m,)`, from 0.
        above: Becomes whether a sum is above 0 beyond doubt, boolean `(m, n)`.
        unsure: Becomes the places of those that may or may not be, row by row, as many as fit.

    Returns:
        How many may or may not be, and how many are or may be.
    """
    doubts, total = 0, 0
    for row in range(sums.shape[0]):
        bound, sure, wide = wrong[row], 0, 0
        for column in range(sums.shape[1]):
            one = sums[row, column] > bound
            above[row, column] = one
            sure += one
            wide += sums[row, column] >= -bound
        if wide > sure:
            for column in range(sums.shape[1]):
                if sums[row, column] >= -bound and not above[row, column]:
                    if doubts < len(unsure):
                        unsure[doubts] = row * sums.shape[1] + column
                    doubts += 1
        total += wide
    return doubts, total


@compiled
def decide_bits(sums: Array, wrong: Array, above: Array, unsure: Array) -> tuple[int, int]:
    """Do the same with numbers in bfloat16, all of them given as the int16 of the same bits.

    Those from 0 up come in order, and those from 0 down likewise after their sign is taken away.
    """
    doubts, total = 0, 0
    for row in range(sums.shape[0]):
        bound, sure, wide = wrong[row], 0, 0
        for column in range(sums.shape[1]):
            bits = sums[row, column]
            one = bits > bound
            above[row, column] = one
            sure += one
            wide += (bits >= 0) | ((bits & np.int16(0x7FFF)) <= bound)
        if wide > sure:
            for column in range(sums.shape[1]):
                bits = sums[row, column]
                if not above[row, column] and (bits >= 0 or (bits & np.int16(0x7FFF)) <= bound):
                    if doubts < len(unsure):
                        unsure[doubts] = row * sums.shape[1] + column
                    doubts += 1
        total += wide
    return doubts, total


@compiled
def tally(above: Array, rows: Array, columns: Array, counted_rows: Array, counted_columns: Array) -> None:
    """Add to each row how many counted columns are marked in it, and to each column how many counted rows.

    Args:
        above: Boolean `(m, n)`.
        rows: int32 `(m,)`.
        columns: int32 `(n,)`; `(0,)` adds nothing to columns.
        counted_rows: Boolean `(m,)`.
        counted_columns: Boolean `(n,)`.
    """
    for row in range(above.shape[0]):
        count = 0
        for column in range(above.shape[1]):
            count += above[row, column] & counted_columns[column]
        rows[row] += count
        if counted_rows[row]:
            for column in range(len(columns)):
                columns[column] += above[row, column]
