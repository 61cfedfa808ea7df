"""Self-supervised methods, each a LightningModule in a file of its own."""

from ssl_lightning.methods.base import SSLMethod, Step
from ssl_lightning.methods.simclr import SimCLR

__all__ = ["SSLMethod", "SimCLR", "Step"]
