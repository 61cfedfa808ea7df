"""Rows of a table in one batch: numbers and categories side by side."""

from typing import Any, NamedTuple

from torch import Tensor


class Row(NamedTuple):
    """Rows with categories; rows without are plain vectors.

    Attributes:
        numbers: `(N, a)`, float32; `a` may be 0.
        categories: Code of each category, `(N, b)`, int64; 0 is one that the training part does not have.
    """

    numbers: Tensor
    categories: Tensor


def numbers_of(inputs: Any) -> Tensor:
    """Return the numbers of vectors `(N, d)` or of rows, as floats.

    Raises:
        ValueError: If inputs are neither.
    """
    numbers = inputs.numbers if isinstance(inputs, Row) else inputs
    if not isinstance(numbers, Tensor) or numbers.ndim != 2:
        shown = tuple(numbers.shape) if isinstance(numbers, Tensor) else type(inputs).__name__
        raise ValueError(f"inputs of {shown} must be vectors `(N, d)`, or a `Row` of numbers and categories.")
    return numbers if numbers.is_floating_point() else numbers.float()


def with_numbers(inputs: Any, numbers: Tensor) -> Any:
    """Return inputs, vectors or rows, with other numbers."""
    return inputs._replace(numbers=numbers) if isinstance(inputs, Row) else numbers
