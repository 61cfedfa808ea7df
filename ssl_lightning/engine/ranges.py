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

LARGEST = 1_000_000  # of a layer, a queue, or the side of a view: no memory holds what is built of more
LARGEST_DEPTH = 1000  # layers that can still be trained
LARGEST_SEED = 2**32 - 1  # that numpy and Lightning take
LARGEST_RATE = 1000  # of a learning rate or weight decay: whatever it moves, it moves to infinity


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


def sizes(least: int, remedy: str = "", /, **values: Any) -> None:
    """Require sizes of layers, queues or views: whole numbers, of which none is absurd.

    Args:
        least: Smallest that is allowed; the largest is a million.
        remedy: What to do about one that is too small, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no whole number, or outside the range.

    Example:
        >>> sizes(1, width=10**12)
        Traceback (most recent call last):
        ValueError: `width=1000000000000` must be at most 1000000.
    """
    whole(least, math.inf, remedy, **values)
    at_most(LARGEST, **values)


def layers(**values: Any) -> None:
    """Require numbers of layers: whole numbers from 1 to 1,000.

    Args:
        values: Arguments by name.

    Raises:
        ValueError: If one is none.
    """
    whole(1, **values)
    at_most(LARGEST_DEPTH, **values)


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


def at_most(high: float, remedy: str = "", /, **values: Any) -> None:
    """Require numbers not above another.

    Args:
        high: The other.
        remedy: What to do about it, for the end of the message.
        values: Arguments by name.

    Raises:
        ValueError: If one is no finite number, or above it.

    Example:
        >>> at_most(1000, "a larger rate diverges", lr=1e99)
        Traceback (most recent call last):
        ValueError: `lr=1e+99` must be at most 1000; a larger rate diverges.
    """
    for name, value in values.items():
        _require(name, value, lambda number: number <= high, f"at most {high}", remedy)


def rates(**values: Any) -> None:
    """Require learning rates or weight decays: numbers not below 0, and none that can only diverge.

    Args:
        values: Arguments by name.

    Raises:
        ValueError: If one is no finite number, or outside the range.

    Example:
        >>> rates(lr=1e-3, weight_decay=0)
        >>> rates(lr=1e99)
        Traceback (most recent call last):
        ValueError: `lr=1e+99` must be at most 1000; whatever is larger diverges.
    """
    at_least(0, **values)
    at_most(LARGEST_RATE, "whatever is larger diverges", **values)


def seeds(**values: Any) -> None:
    """Require seeds: whole numbers from 0 to 2^32 - 1.

    Args:
        values: Arguments by name.

    Raises:
        ValueError: If one is none.
    """
    whole(0, LARGEST_SEED, **values)


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


def several(count: int | None, low: float, high: float, ends: Ends = "[]", remedy: str = "", /, **values: Any) -> None:
    """Require so many numbers of an interval, in any order.

    Args:
        count: How many; null for one or more.
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
        fits = len(found) == count if count is not None else len(found) > 0
        if not fits or not all(_finite(number) and _inside(number, low, high, ends) for number in found):
            _refuse(name, value, f"{count or 'one or more'} numbers, each {_words(low, high, ends)}", remedy)


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


def text(**values: Any) -> None:
    """Require names or other text.

    Args:
        values: Arguments by name.

    Raises:
        ValueError: If one is no text, or empty.

    Example:
        >>> text(metric=0)
        Traceback (most recent call last):
        ValueError: `metric=0` must be text, and not empty.
    """
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            _refuse(name, value, "text, and not empty", "")


def of_kind(kind: type, remedy: str, **given: Any) -> None:
    """Refuse an argument that is neither null nor of a kind.

    Args:
        kind: A class.
        remedy: An example of one.
        given: The argument, by its name.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> of_kind(int, "3", count=None)
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"`{name}={value!r:.80}` must be of the kind `{kind.__name__}`, such as `{remedy}`.")


def given(**values: Any) -> dict[str, Any]:
    """Return the arguments that are not None.

    Example:
        >>> given(size=None, count=2)
        {'count': 2}
    """
    return {name: value for name, value in values.items() if value is not None}


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or math.isfinite(value)  # a whole number may be too large for a float


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
