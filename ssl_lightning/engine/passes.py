"""One pass of a module over data outside Lightning's loops: on its device, leaving no trace, over all processes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from torch.nn.parallel import DistributedDataParallel

from ssl_lightning.engine.processes import Rows, joined, share_buffers

KEEP = 16_384  # rows that are kept without asking whether they are needed


@contextmanager
def in_evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and all its parts back into the mode that each was in."""
    modes = [(child, child.training) for child in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for child, training in modes:
            child.training = training


@contextmanager
def evaluating(trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
    """Put a module on the trainer's device in evaluation and inference mode, and leave it as it was.

    After fit, Lightning has moved the module to the CPU; weights, batch-norm statistics, modes and the device are
    the same afterwards.

    Args:
        trainer: That fits or fitted the module.
        module: To be used.
    """
    device = module.device
    try:
        module.to(trainer.strategy.root_device)
        with in_evaluation(module), torch.inference_mode(), trainer.precision_plugin.forward_context():
            yield
    finally:
        module.to(device)


def passing(module: Any, loader: Any) -> AbstractContextManager[None]:
    """Tell a module that remembers what it encodes that a pass over a loader begins, and ends.

    Args:
        module: Any; one that remembers has a method of this name.
        loader: Of a data module of ours.
    """
    begin = getattr(module, "passing", None)
    found: AbstractContextManager[None] = nullcontext() if begin is None else begin(loader)
    return found


def sweep(
    trainer: L.Trainer,
    module: L.LightningModule,
    batches: Iterable[Any],
    function: Callable[[Any], Rows],
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


def make_fabric(accelerator: str, precision: Any) -> L.Fabric:
    """Return what knows the device and the precision.

    Raises:
        ValueError: If they cannot be had here.
    """
    try:
        return L.Fabric(accelerator=accelerator, devices=1, precision=precision)
    except Exception as error:  # Lightning raises many kinds for what is missing or misspelt
        raise ValueError(
            f"`accelerator={accelerator}` with `precision={precision}` cannot be had here: {error} Leave both out for "
            "what there is."
        ) from error


def hold_buffers(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Give every process the first one's buffers, and let validation within a fit go on without sharing them.

    `DistributedDataParallel` shares them at each step, of validation too, and waits for a process that has fewer steps.

    Args:
        trainer: That fits the module.
        module: With batch-norm statistics, perhaps.
    """
    wrapped = trainer.strategy.model
    if isinstance(wrapped, DistributedDataParallel):
        share_buffers(module)
        wrapped.require_forward_param_sync = False


def release_buffers(trainer: L.Trainer) -> None:
    """Share buffers at each step again."""
    wrapped = trainer.strategy.model
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_forward_param_sync = True


def require_precision(trainer: L.Trainer) -> None:
    """Refuse weights that are no float32: views, clean input and losses are.

    Raises:
        ValueError: If the trainer would convert them.
    """
    if str(trainer.precision) not in ("32-true", "16-mixed", "bf16-mixed"):
        raise ValueError(
            f"`precision={trainer.precision}` is not supported: input and losses are float32; give 32-true, bf16-mixed "
            "or 16-mixed."
        )
