"""MC dropout: draws of a model, one for each of several dropout masks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.engine.seeding import derive_generator, derive_seed


def dropout_layers(module: nn.Module) -> list[Any]:
    """Return all dropout layers of a module, in order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]


def require_dropout(module: nn.Module) -> None:
    """Check that a module has dropout to draw from.

    Args:
        module: To be drawn from.

    Raises:
        ValueError: If no dropout layer has a positive probability.
    """
    if not any(layer.p > 0 for layer in dropout_layers(module)):
        raise ValueError(
            "the model has no dropout to draw from; give `dropout` to the classifier (`--model.dropout 0.5`) or its "
            "backbone."
        )


@contextmanager
def fixed_masks(module: nn.Module, seed: int) -> Iterator[None]:
    """Let a module in evaluation mode drop by one mask, the same for every sample, batch and process.

    Only what dropout layers return is masked: batch norm and everything else stay in evaluation mode, and the global
    random state is untouched. Dropout by `torch.nn.functional` is out of reach.

    Args:
        module: In evaluation mode, with dropout layers.
        seed: Of the mask; each layer's derives from it, the layer's place and its shape.
    """
    handles = []

    def mask(place: int, layer: Any) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            # Dropout2d and the like drop whole channels
            shape = output.shape[1:] if type(layer) is nn.Dropout else (output.shape[1], *[1] * (output.ndim - 2))
            kept = torch.rand(shape, generator=derive_generator(seed, "mask", place)) >= layer.p
            masked: Tensor = output * (kept.to(output) / (1 - layer.p))
            return masked

        return hook

    try:
        for place, layer in enumerate(dropout_layers(module)):
            if layer.p > 0:
                handles.append(layer.register_forward_hook(mask(place, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def mc_dropout(
    module: nn.Module, inputs: Tensor, members: int, seed: int, function: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Run a module once for each of several dropout masks.

    Args:
        module: In evaluation mode, with dropout layers.
        inputs: `(N, ...)`.
        members: Number of masks.
        seed: Of the masks.
        function: What of the module to run; null for all of it.

    Returns:
        `(members, N, ...)`.

    Raises:
        ValueError: If no dropout layer has a positive probability.
    """
    require_dropout(module)
    outputs = []
    for member in range(members):
        with fixed_masks(module, derive_seed(seed, "member", member)):
            outputs.append((function or module)(inputs))
    return torch.stack(outputs)
