"""One pass of a module over data outside Lightning's loops: on its device, leaving no trace, over all processes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from ssl_lightning.data.base import Batch

Rows = dict[str, Tensor]
KEEP = 16_384  # rows that are kept without asking whether they are needed


def first_process() -> bool:
    """Tell whether this is the process that writes and speaks, with or without a trainer."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def evaluating(trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
    """Put a module on the trainer's device in evaluation and inference mode, and leave it as it was.

    After fit, Lightning has moved the module to the CPU; weights, batch-norm statistics, modes and the device are
    the same afterwards.

    Args:
        trainer: That fits or fitted the module.
        module: To be used.
    """
    modes = [(child, child.training) for child in module.modules()]
    device = module.device
    try:
        module.to(trainer.strategy.root_device)
        module.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            yield
    finally:
        for child, training in modes:
            child.training = training
        module.to(device)


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers.

    In a distributed fit each process updates batch-norm statistics by its own batches, and the last update is never
    shared: without this, each would judge its part of the pool by another model.

    Args:
        module: On the device of the process group.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def sweep(
    trainer: L.Trainer,
    module: L.LightningModule,
    batches: Iterable[Batch],
    function: Callable[[Batch], Rows],
    reduce: Callable[[Rows], Rows] | None = None,
) -> Rows:
    """Apply a function to every batch of this process's share and join the rows.

    Args:
        trainer: That fits or fitted the module.
        module: Its transfer hooks make the evaluation transform.
        batches: From a loader.
        function: Batch on the device -> named tensors, one row a sample.
        reduce: Of the rows so far, those to keep; called now and then, so that memory holds about twice what it keeps.

    Returns:
        Named tensors on the CPU, with `index`, `(share, ...)`.
    """
    parts: list[Rows] = []
    kept = held = 0  # rows: after the last reduction, now
    with evaluating(trainer, module):
        for batch in batches:
            on_device = trainer.strategy.batch_to_device(batch, trainer.strategy.root_device)
            rows = function(on_device)
            parts.append({"index": batch.index, **{key: value.cpu() for key, value in rows.items()}})
            held += len(batch.index)
            if reduce is not None and held >= max(KEEP, 2 * kept):
                parts = [reduce(joined(parts))]
                kept = held = len(parts[0]["index"])
    return joined(parts)


def joined(parts: list[Rows]) -> Rows:
    """Join rows that were kept batch by batch; without any, an empty `index`, so that `gather` can still take part."""
    if not parts:
        return {"index": torch.empty(0, dtype=torch.int64)}
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def gather(rows: Rows) -> Rows:
    """Join the rows of all processes, ordered by `index`, the same in each.

    Args:
        rows: Of this process, with `index`; other keys may be missing where it has no row.

    Returns:
        The rows of all.
    """
    everyone: list[Rows] = [rows]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        everyone = [{} for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(everyone, rows)
        everyone = [part for part in everyone if len(part["index"])] or everyone[:1]
    together = joined(everyone)
    order = together["index"].argsort(stable=True)
    if torch.equal(order, torch.arange(len(order))):
        return together
    return {key: value[order] for key, value in together.items()}
