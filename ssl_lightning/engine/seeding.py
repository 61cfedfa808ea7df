"""Seeds derived from what they are for, so that nothing depends on what ran before."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

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


def seed_draws(device: torch.device, *parts: int | str) -> None:
    """Seed by `derive_seed(*parts)` the global generators that modules on a device draw from, as dropout does.

    `torch.manual_seed` seeds those of every kind of device, and notes for each that is not there where it was called.
    """
    seed = derive_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def base_seed() -> int:
    """Return the seed of this run: that of `lightning.seed_everything`, else of torch's global generator."""
    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed() % 2**32))


@contextmanager
def global_seed_kept() -> Iterator[None]:
    """Leave Lightning's note of the global seed as it was, where seeds are set that nobody chose."""
    names = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
