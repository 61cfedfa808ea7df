"""What several tests share and no fixture is."""

import os
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("SSL_LIGHTNING_DATA", ROOT / "data"))


def equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Tell whether two modules have bit-equal parameters and buffers."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
