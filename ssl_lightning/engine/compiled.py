"""Functions that numba compiles for the processor they run on."""

from collections.abc import Iterable
from typing import Any

import numba


def compiled(function: Any, fast: Iterable[str] = ()) -> Any:
    """Compile a function when it is first called, and keep the result for other processes where that can be written.

    Args:
        function: Of arrays and numbers. It holds no lock while it runs.
        fast: What may be taken for granted of floating-point numbers, in LLVM's words; nothing, unless told.
    """
    options = {"nogil": True, "fastmath": set(fast), "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(**options)(function)
