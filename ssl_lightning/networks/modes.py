"""Ways to run a network: out of autocast, with its batch-norm statistics kept, in another memory format."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context without autocast: exponentials, logarithms and statistics of a batch want float32."""
    return torch.autocast(tensor.device.type, enabled=False)


@contextmanager
def statistics_kept(*modules: nn.Module) -> Iterator[None]:
    """Normalise by the batch, and leave the running statistics of batch norm as they are."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def channels_last(tensor: Tensor) -> Tensor:
    """Return images in channels-last memory format, anything else as it is."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
