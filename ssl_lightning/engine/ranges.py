"""Ranges of arguments: one way to say them, in the first lines of a constructor, before anything is built.

Every function takes the arguments by name and raises a `ValueError` of one line that names the first that does not fit,
its value and what is required. None is refused too; `given` leaves out those that may be None. No function takes NaN,
infinity, or a truth value for a number.

Example:
    >>> whole(1, queue_size=4096, projection_dim=128)
    >>> above(0, temperature=0)
    Traceback (most recent call last):
    ValueError: `temperature=0` must be above 0.
    >>> whole(1, **given(limit=None, count=2.5))
    Traceback (most recent call last):
    ValueError: `count=2.5` must be a whole number, at least 1.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, NoReturn

from torch import Tensor

Ends = Literal["[]", "[)", "(]", "()"]


def whole(least: int, most: float = math.inf, remedy: str = "", /, **values: Any) -> None:
    """Require whole numbers.

    Args:
        least: Smallest that is allowed.
        most: Largest that is allowed.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no whole number (`2.0` is none), or outside the range.

    Example:
        >>> whole(1, 6, "use `ConvNet`", depth=7)
        Traceback (most recent call last):
        ValueError: `depth=7` must be from 1 to 6; use `ConvNet`.
    """
    wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            _refuse(name, value, f"a whole number, {wanted}", remedy)
        if not least <= int(value) <= most:
            _refuse(name, value, wanted, remedy)


def above(low: float, remedy: str = "", /, **values: Any) -> None:
    """Require numbers above another, which is not allowed itself.

    Args:
        low: The other.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no finite number, or not above it.
    """
    for name, value in values.items():
        _require(name, value, lambda number: number > low, f"above {low}", remedy)


def at_least(low: float, remedy: str = "", /, **values: Any) -> None:
    """Require numbers not below another.

    Args:
        low: The other.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no finite number, or below it.
    """
    for name, value in values.items():
        _require(name, value, lambda number: number >= low, f"at least {low}", remedy)


def between(low: float, high: float, ends: Ends = "[]", remedy: str = "", /, **values: Any) -> None:
    """Require numbers of an interval.

    Args:
        low: Its begin.
        high: Its end.
        ends: Which of the two it contains, as one writes it in mathematics: `[` and `]` do, `(` and `)` do not.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no finite number, or outside.

    Example:
        >>> between(0, 1, "[)", dropout=1.0)
        Traceback (most recent call last):
        ValueError: `dropout=1.0` must be from 0 to below 1.
    """
    for name, value in values.items():
        _require(name, value, lambda number: _inside(number, low, high, ends), _words(low, high, ends), remedy)


def ordered(low: float, high: float, ends: Ends = "[]", remedy: str = "", /, **values: Any) -> None:
    """Require pairs of numbers of an interval, the smaller first; both may be the same.

    Args:
        low: Begin of the interval.
        high: Its end.
        ends: Which of the two it contains, as for `between`.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no such pair.

    Example:
        >>> ordered(0, 1, "(]", crop_scale=(0.2, 1.0))
        >>> ordered(0, 1, "(]", crop_scale=0.4)
        Traceback (most recent call last):
        ValueError: `crop_scale=0.4` must be two numbers, each above 0 and at most 1, the smaller first.
    """
    for name, value in values.items():
        pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        if (
            len(pair) != 2
            or not all(_finite(number) and _inside(number, low, high, ends) for number in pair)
            or pair[0] > pair[1]
        ):
            _refuse(name, value, f"two numbers, each {_words(low, high, ends)}, the smaller first", remedy)


def several(count: int, low: float, high: float, ends: Ends = "[]", remedy: str = "", /, **values: Any) -> None:
    """Require so many numbers of an interval, in any order.

    Args:
        count: How many.
        low: Begin of the interval.
        high: Its end.
        ends: Which of the two it contains, as for `between`.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If there are more or fewer, or one does not fit.

    Example:
        >>> several(2, 0, 1, blur=(1.0, 1.5))
        Traceback (most recent call last):
        ValueError: `blur=(1.0, 1.5)` must be 2 numbers, each from 0 to 1.
    """
    for name, value in values.items():
        found = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        if len(found) != count or not all(_finite(number) and _inside(number, low, high, ends) for number in found):
            _refuse(name, value, f"{count} numbers, each {_words(low, high, ends)}", remedy)


def one_of(choices: Sequence[Any], /, **values: Any) -> None:
    """Require choices.

    Args:
        choices: What is allowed, as `typing.get_args` of a `Literal` gives it.
        values: Arguments by name.

    Raises:
        ValueError: If one is no such choice.

    Example:
        >>> one_of((2, 3), version=4)
        Traceback (most recent call last):
        ValueError: `version=4` must be one of 2, 3.
    """
    for name, value in values.items():
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            _refuse(name, value, f"one of {', '.join(map(str, choices))}", "")


def given(**values: Any) -> dict[str, Any]:
    """Return the arguments that are not None.

    Example:
        >>> given(size=None, count=2)
        {'count': 2}
    """
    return {name: value for name, value in values.items() if value is not None}


def _finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _inside(number: float, low: float, high: float, ends: Ends) -> bool:
    return low <= number <= high and (ends[0] == "[" or number > low) and (ends[1] == "]" or number < high)


def _words(low: float, high: float, ends: Ends) -> str:
    if high == math.inf:
        return f"{'at least' if ends[0] == '[' else 'above'} {low}"
    return {
        "[]": f"from {low} to {high}", "[)": f"from {low} to below {high}",
        "(]": f"above {low} and at most {high}", "()": f"above {low} and below {high}",
    }[ends]  # fmt: skip


def _require(name: str, value: Any, fits: Callable[[float], bool], wanted: str, remedy: str) -> None:
    if not _finite(value):
        _refuse(name, value, f"a finite number {wanted}", remedy)
    if not fits(value):
        _refuse(name, value, wanted, remedy)


def _refuse(name: str, value: Any, wanted: str, remedy: str) -> NoReturn:
    shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    brief = shown if len(shown) <= 80 else f"{shown[:77]}..."
    raise ValueError(f"`{name}={brief}` must be {wanted}{f'; {remedy}' if remedy else ''}.")
