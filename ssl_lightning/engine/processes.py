"""Several processes of one run: who speaks, and how rows and buffers become the same in all."""

from collections.abc import Callable
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

Read = TypeVar("Read")
Rows = dict[str, Tensor]  # named tensors, one row a sample; `index` tells which


def first_process() -> bool:
    """Tell whether this is the process that writes and speaks, with or without a trainer."""
    return getattr(rank_zero_only, "rank", 0) == 0


def connected() -> bool:
    """Tell whether the processes of a run can speak to each other."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def connect(trainer: L.Trainer) -> bool:
    """Connect the processes of a trainer before it fits, and tell whether there are several."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher) and not connected():
        launcher.launch(trainer.strategy.setup_environment)
    return connected()


def shared(read: Callable[[], Read]) -> Read:
    """Let the first process read and tell the others; while they are not connected, each reads for itself."""
    if not connected():
        return read()
    told = [read() if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(told, 0)
    return told[0]  # type: ignore[return-value]


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient; alone, the tensor."""
    if not connected():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers.

    In a distributed fit each process updates batch-norm statistics by its own batches, and the last update is never
    shared: without this, each would judge its part of the pool by another model.

    Args:
        module: On the device of the process group.
    """
    if connected():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def joined(parts: list[Rows]) -> Rows:
    """Join rows that were kept batch by batch; without any, an empty `index`, so that `gather` can still take part."""
    if not parts:
        return {"index": torch.empty(0, dtype=torch.int64)}
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def gather(rows: Rows) -> Rows:
    """Join the rows of all processes, ordered by `index`, each index once, the same in each process.

    Args:
        rows: Of this process, with `index`; other keys may be missing where it has no row.

    Returns:
        The rows of all, on the CPU where they were there.
    """
    together = _gathered(rows) if connected() else rows
    order = together["index"].argsort(stable=True)
    index = together["index"][order]
    if len(index) > 1 and bool((index[1:] == index[:-1]).any()):  # each process had the few samples that there are
        order = order[torch.cat([index.new_ones(1, dtype=torch.bool), index[1:] != index[:-1]])]
    if torch.equal(order, torch.arange(len(together["index"]), device=order.device)):
        return together
    return {key: value[order] for key, value in together.items()}


def _gathered(rows: Rows) -> Rows:
    """Gather every named tensor of all processes; only counts and shapes travel as objects."""
    world = torch.distributed.get_world_size()
    told: list[Any] = [None] * world
    form = {key: (value.dtype, tuple(value.shape[1:])) for key, value in rows.items()}
    torch.distributed.all_gather_object(told, (len(rows["index"]), form if len(rows["index"]) else {}))
    counts = [count for count, _ in told]
    forms = next((found for _, found in told if found), {"index": (torch.int64, ())})
    device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
    joint: Rows = {}
    for key, (kind, shape) in forms.items():
        # gathered as bytes of equal length, so that any type travels; what is padded is cut off again
        mine = torch.zeros(max(counts), *shape, dtype=kind)
        if len(rows["index"]):
            mine[: len(rows[key])] = rows[key]
        flat = mine.contiguous().view(-1).view(torch.uint8).to(device)
        parts = [torch.empty_like(flat) for _ in range(world)]
        torch.distributed.all_gather(parts, flat)
        found = [
            part.cpu().view(kind).view(max(counts), *shape)[:count] for part, count in zip(parts, counts, strict=True)
        ]
        joint[key] = torch.cat(found)
    return joint
