"""Hyper-parameters: what a caller gave to a constructor, said once for all methods."""

import inspect
from types import FrameType
from typing import Any

from torch import nn


def constructor_frame(module: nn.Module) -> FrameType | None:
    """Return the frame of the outermost constructor that builds a module: its arguments are what the caller gave.

    Args:
        module: Being built.
    """
    here = inspect.currentframe()
    frame = here.f_back if here is not None else None
    while frame is not None and (outer := frame.f_back) is not None:
        if outer.f_code.co_name != "__init__" or outer.f_locals.get("self") is not module:
            break
        frame = outer
    return frame


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
