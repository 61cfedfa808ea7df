"""Hyper-parameters: what a caller gave to a constructor, said once for all methods."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from types import FrameType
from typing import Any, TypeVar

from torch import nn

Settings = TypeVar("Settings")


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


def as_settings(kind: type[Settings], given: Any, argument: str, example: str) -> Settings:
    """Return settings of a dataclass from one, from its fields as a checkpoint keeps them, or from null: the defaults.

    Args:
        kind: The dataclass.
        given: What was given.
        argument: That it was given for, for the message.
        example: Of what may be given, for the message.

    Raises:
        ValueError: If it is anything else, or has a field that there is none of.
    """
    if given is None or isinstance(given, kind):
        return kind() if given is None else given
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(given, Mapping) or not set(given) <= known:
        raise ValueError(f"`{argument}={given!r:.80}` must be {example}, or a mapping of {', '.join(sorted(known))}.")
    return kind(**given)
