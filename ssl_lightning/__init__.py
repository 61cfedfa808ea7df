"""From unlabelled data to a good model with few labels: self-supervised and active learning on PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_lightning.commands.start import start as start

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return `start` when it is first asked for: importing the package alone imports no torch."""
    if name == "start":
        from ssl_lightning.commands.start import start

        return start
    raise AttributeError(f"module `ssl_lightning` has no attribute `{name}`")
