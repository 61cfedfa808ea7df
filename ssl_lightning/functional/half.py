"""Products in bfloat16, several times as fast where the processor has them, whose error is known."""

import torch
from torch import Tensor

WRONG = 1.01 * 2.0**-7  # of a product of rounded factors, at most, as a share of both lengths


def fast_half() -> bool:
    """Tell whether this processor multiplies matrices of bfloat16 faster than of float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def factors(points: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the two factors, in bfloat16, of the sums :math:`x y + a_x + a_y` of all rows x and y.

    Where a sum is small it has all its digits: as unsigned 16-bit numbers, sums from 0 up come in order, and after them
    those from 0 down.

    Args:
        points: x, `(n, d)`.
        shares: a, float64 `(n,)`; they keep the digits of float32.

    Returns:
        Left and right, `(n, width)` each, of which `left @ right.T` are the sums. The width is a multiple of 32, by
        which processors multiply.
    """
    parts, rest = [], shares[:, None]
    for _ in range(3):  # three of bfloat16 have the digits of one float32
        parts.append(rest.bfloat16())
        rest = rest - parts[-1].double()
    rows, ones = points.bfloat16(), torch.ones(len(points), 3, dtype=torch.bfloat16)
    none = ones.new_zeros(len(points), -(points.shape[1] + 6) % 32)
    return torch.cat([rows, *parts, ones, none], dim=1), torch.cat([rows, ones, *parts, none], dim=1)
