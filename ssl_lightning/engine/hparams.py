"""Hyper-parameters: what a caller gave to a constructor, said once for all methods."""

import inspect
from types import FrameType

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
