"""Parts of heads that lightly lacks, or whose behaviour we mend."""

from typing import TypeVar

from lightly.models.modules.memory_bank import MemoryBankModule
from torch import nn

Bank = TypeVar("Bank", bound=MemoryBankModule)


def lasting(bank: Bank) -> Bank:
    """Make a memory bank of lightly last: saved in checkpoints, and the same on all ranks.

    lightly keeps it out of the checkpoint, so a resumed run would start from random negatives; and unless each rank
    stores the samples of all, DDP overwrites every bank with the first rank's.

    Args:
        bank: Changed in place.

    Returns:
        The bank.
    """
    bank.gather_distributed = True
    for name in ("bank", "bank_ptr"):
        bank.register_buffer(name, getattr(bank, name), persistent=True)
    return bank


def without_bias(module: nn.Module) -> nn.Module:
    """Remove the bias of every linear layer in a module, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_parameter("bias", None)
    return module
