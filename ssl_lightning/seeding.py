"""Seeds derived from what they are for, so that nothing depends on what ran before."""

import hashlib
import os

import lightning as L
import torch


def derive_seed(*parts: int | str) -> int:
    """Hash a base seed and the purpose of a random draw into an independent seed.

    A draw seeded by `derive_seed(seed, "views", step, rank)` is the same whether the run was resumed, whatever was
    drawn before it, and on every machine.

    Args:
        parts: The base seed followed by what tells this draw from others.

    Returns:
        An integer in [0, 2**32), as `lightning.seed_everything` and numpy accept.

    Example:
        >>> derive_seed(0, "round", 1) == derive_seed(0, "round", 1) != derive_seed(0, "round", 2)
        True
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


def derive_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def base_seed() -> int:
    """Return the seed of this run: that of `lightning.seed_everything`, else of torch's global generator."""
    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed() % 2**32))


def count_epoch(trainer: L.Trainer) -> None:
    """Count the running epoch as begun, where Lightning did not.

    Resumed from a checkpoint of an epoch's last batch, it skips the count of the next epoch; a checkpoint saved in that
    epoch then looks like one of its end, and resuming from it would train too many steps.

    Args:
        trainer: In a training step.
    """
    progress = trainer.fit_loop.epoch_progress
    for name in ("ready", "started"):
        missing = progress.current.processed + 1 - getattr(progress.current, name)  # type: ignore[attr-defined]
        if missing > 0:
            for counts in (progress.current, progress.total):
                setattr(counts, name, getattr(counts, name) + missing)


def position(module: L.LightningModule) -> tuple[int, int, int]:
    """Return where in a fit a module is: epoch, batch and rank, the same whether the run was resumed or not."""
    return module.current_epoch, module.trainer.fit_loop.epoch_loop.batch_progress.current.ready, module.global_rank
