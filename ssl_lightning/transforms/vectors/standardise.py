"""The clean input of rows: numbers with mean 0 and deviation 1."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import above
from ssl_lightning.transforms.base import Clean
from ssl_lightning.transforms.vectors.row import numbers_of, with_numbers

FENCE = 20  # times the range of the middle half of a column: beyond, values count as if they were there


class Standardise(Clean):
    r"""Numbers of a table, standardised: :math:`(x - \text{mean}) / \text{std}`, cut at `clip` deviations.

    A number beyond what the training part has, as one that is wrong by a factor of a thousand, cannot move an encoder
    farther than the cut. Categories stay as they are.

    Args:
        mean: What is subtracted, one number or one for each column.
        std: What is divided by, likewise; positive.
        clip: Largest magnitude of the result.

    Raises:
        ValueError: If a number is not finite, `std` or `clip` is not positive, or there are not as many of both.

    Example:
        >>> Standardise([1.0, 0.0], [2.0, 1.0])(torch.tensor([[3.0, 99.0]]))
        tensor([[ 1., 10.]])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, clip: float = 10.0
    ) -> None:
        above(0, clip=clip)
        means, stds = ([value] if isinstance(value, int | float) else list(value) for value in (mean, std))
        for name, values, low in (("mean", means, -math.inf), ("std", stds, 0.0)):
            if len(means) != len(stds) or not all(math.isfinite(value) and value > low for value in values):
                sign = "positive " if name == "std" else ""
                raise ValueError(
                    f"`{name}={values!s:.80}` must be finite {sign}numbers, as many of `mean` ({len(means)}) as of "
                    f"`std` ({len(stds)})."
                )
        super().__init__(mean=means, std=stds, clip=clip)
        self.clip = clip
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(stds, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> Any:
        """Return the standardised inputs.

        Args:
            inputs: Vectors `(N, d)`, or a `Row`.
            generator: Not used; here so that every view is called alike.

        Returns:
            The same, numbers float32.

        Raises:
            ValueError: If they have another number of columns.
        """
        numbers = numbers_of(inputs)
        if len(self.mean) not in (1, numbers.shape[1]):
            raise ValueError(
                f"inputs of {numbers.shape[1]} numbers go to a transform for {len(self.mean)}; give rows of the same "
                "columns."
            )
        mean, std = onto(self.mean, numbers.device), onto(self.std, numbers.device)
        return with_numbers(inputs, ((numbers - mean) / std).clamp(-self.clip, self.clip).float())


def statistics_of(numbers: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and deviation of columns, as plain numbers, each of which divides without trouble.

    A value farther from the middle half of its column than 20 times the width of that half counts as if it were there:
    a single 1e30 does not make all others one. Of columns more than half of which is one value, as counts that are
    mostly 0, all values count as they are. A constant column has deviation 1, so that it becomes 0.

    Args:
        numbers: `(n, d)`, float64, n at least 1.

    Example:
        >>> statistics_of(np.array([[1.0, 5.0], [3.0, 5.0]]))
        ([2.0, 5.0], [1.0, 1.0])
    """
    if not numbers.size:
        return [], []
    low, high = np.quantile(numbers, 0.25, axis=0), np.quantile(numbers, 0.75, axis=0)
    width = np.where(high > low, FENCE * (high - low), np.inf)
    fenced = np.clip(numbers, low - width, high + width)
    mean, std = fenced.mean(axis=0), fenced.std(axis=0)
    constant = std <= 1e-7 * np.abs(mean)  # what float32 cannot tell apart
    return mean.tolist(), np.where(constant | (std < 1e-30), 1.0, std).tolist()
