"""A device that is not there: its tensors live in the CPU's memory, and it refuses and counts what a GPU would.

What is computed is what the CPU computes, bit for bit, so results can be compared; but a tensor of the device and one
of the CPU do not mix, the CPU's generators do not draw on it, and whatever makes the CPU wait for a GPU is noted with
the line of ours that asks for it: values and shapes that are read back, and copies that wait for the stream.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "standin"
OURS = str(Path(__file__).parent.parent / "ssl_lightning")
aten: Any = torch.ops.aten

# a GPU tells how much came out, and the CPU waits for it
SHAPED_BY_VALUES = {
    aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount,
    aten.equal,
}  # fmt: skip
TRANSFERS = {aten._to_copy, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}

waits: Counter[str] | None = None  # what made the CPU wait, where somebody counts


_LIBRARY, _ATEN = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")


def _made(func: Any, *args: Any, **kwargs: Any) -> Any:
    return run(func, args, kwargs)


class Backend(ModuleType):
    """What torch asks a kind of device for."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        """Do nothing: what is drawn on the device is drawn from the CPU's generator."""

    manual_seed_all = manual_seed

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def register() -> torch.device:
    """Make the device known to torch, once in a process."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, Backend(NAME))
        _LIBRARY.fallback(lambda func, *args, **kwargs: run(func, args, kwargs), "PrivateUse1")
        for name in ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm"):
            # torch makes these by resizing an empty tensor, which a wrapper cannot follow
            overload = getattr(getattr(aten, name.partition(".")[0]), name.partition(".")[2] or "default")
            _ATEN.impl(name, partial(_made, overload), "PrivateUse1")
        torch._C._set_only_lift_cpu_tensors(True)  # else `torch.tensor(..., device=...)` passes by the fallback
    return torch.device(NAME, 0)


class Held(torch.Tensor):
    """A tensor of the device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Held":
        made: Any = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Held({self.inner!r})"

    @property
    def data(self) -> Any:
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: Any) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch has none for subclasses

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"a tensor of {NAME} is no array; copy it to the CPU first.")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._can_decompose():  # in inference mode, where no autograd takes it apart
            found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation of which some tensors, or the result, are of the device."""
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    held = [leaf for leaf in leaves if isinstance(leaf, Held)]
    packet = func.overloadpacket
    target = kwargs.get("device")
    target = torch.device(target) if target is not None else None
    refuse(func, packet, args, leaves, held, kwargs)
    note(func, packet, args, kwargs, held, target)
    bare_args, bare = pytree.tree_map_only(Held, lambda leaf: leaf.inner, (args, kwargs))
    if target is not None and target.type == NAME:
        bare["device"] = torch.device("cpu")
    bare.pop("pin_memory", None)
    if packet is aten._to_copy and target is not None and target.type == "cpu":
        return func(*bare_args, **bare)
    if packet is aten.copy_ and not isinstance(args[0], Held):
        func(*bare_args, **bare)
        return args[0]
    found = func(*bare_args, **bare)
    found = pytree.tree_map_only(torch.Tensor, Held, found)
    return return_and_correct_aliasing(func, args, kwargs, found)


def refuse(func: Any, packet: Any, args: Any, leaves: list[Any], held: list[Any], kwargs: dict[str, Any]) -> None:
    """Refuse what a GPU refuses."""
    generator = kwargs.get("generator")
    if generator is not None and packet not in TRANSFERS:
        raise RuntimeError(f"{func}: expected a generator of {NAME}, and found one of the CPU.")
    plain = [leaf for leaf in leaves if not isinstance(leaf, Held) and leaf.ndim > 0]
    if packet in TRANSFERS or not (plain and held):
        return
    if packet in INDEXING and isinstance(args[0], Held) and all(value is not args[-1] for value in plain):
        return  # indices of the CPU are taken
    raise RuntimeError(f"{func}: expected all tensors on one device, and found {NAME} and the CPU.")


def note(func: Any, packet: Any, args: Any, kwargs: Any, held: list[Any], target: torch.device | None) -> None:
    """Count what makes the CPU wait for a GPU."""
    if waits is None:
        return
    what = None
    if packet is aten._local_scalar_dense or packet is aten.is_nonzero:
        what = "value"
    elif packet in SHAPED_BY_VALUES:
        what = packet.__name__
    elif func in (aten.repeat_interleave.Tensor, aten.repeat_interleave.self_Tensor):
        what = "repeat_interleave" if kwargs.get("output_size") is None else None
    elif packet in INDEXING:
        indices = [leaf for leaf in args[1] if isinstance(leaf, torch.Tensor)]
        if any(leaf.dtype in (torch.bool, torch.uint8) for leaf in indices):
            what = "mask as index"
        elif any(not isinstance(leaf, Held) for leaf in indices):
            what = "index of the CPU"
    elif packet in TRANSFERS:
        from_held = isinstance(args[1 if packet is aten.copy_ else 0], Held)
        to_held = isinstance(args[0], Held) if packet is aten.copy_ else (target.type == NAME if target else from_held)
        waiting = not (kwargs.get("non_blocking") or (packet is aten.copy_ and len(args) > 2 and args[2]))
        if from_held and not to_held:
            what = "copy to the CPU" if waiting else None
        elif to_held and not from_held and waiting:
            what = "copy to the device"
    if what:
        waits[f"{place()}: {what}"] += 1


def place() -> str:
    """Return the innermost line of ours that is being run."""
    frame: Any = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    if frame is None:
        return "in autograd"  # whose threads have no line of ours
    return f"{frame.f_code.co_filename[len(OURS) + 1 :]}:{frame.f_lineno}"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what makes the CPU wait."""
    global waits
    before, waits = waits, Counter()
    try:
        yield waits
    finally:
        waits = before


class StandIn(CPUAccelerator):
    """Lightning's accelerator of the device."""

    def setup_device(self, device: torch.device) -> None:
        """Take any."""


def strategy() -> SingleDeviceStrategy:
    """Return a strategy that computes on the device."""
    return SingleDeviceStrategy(device=register(), accelerator=StandIn())


class Count(L.Callback):
    """Counts what makes the CPU wait in training steps, but for the first ones, in which caches are filled."""

    def __init__(self, warm: int = 1) -> None:
        self.warm, self.steps, self.found = warm, 0, Counter[str]()

    def on_train_batch_start(self, *args: Any) -> None:
        global waits
        waits = Counter() if self.steps >= self.warm else None

    def on_train_batch_end(self, *args: Any) -> None:
        global waits
        self.found += waits or Counter()
        self.steps += 1
        waits = None
