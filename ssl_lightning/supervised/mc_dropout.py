"""MC dropout: draws of a model, one for each of several dropout masks."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.engine.ranges import whole
from ssl_lightning.engine.seeding import derive_generator, derive_seed
from ssl_lightning.transforms.base import map_tensors

ALPHA = 1.7580993408473766  # where SELU ends to the left, without its sign


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


def mask_shape(layer: nn.Module, shape: torch.Size) -> tuple[int, ...]:
    """Return the shape of what a dropout layer draws for a sample, to be broadcast over the others.

    Args:
        layer: `Dropout` and `AlphaDropout` draw for each value, the others for each channel.
        shape: Of what the layer is given, `(N, ...)`; those of one sample without N, where torch takes them, are `(C,
            L)` for `Dropout1d` and `(C, D, H, W)` for `Dropout3d`.

    Example:
        >>> mask_shape(nn.Dropout2d(), torch.Size([5, 3, 8, 8])), mask_shape(nn.Dropout(), torch.Size([5, 3, 8, 8]))
        ((3, 1, 1), (3, 8, 8))
    """
    single = (isinstance(layer, nn.Dropout1d) and len(shape) == 2) or (
        isinstance(layer, nn.Dropout3d) and len(shape) == 4
    )
    sample = shape if single else shape[1:]
    if isinstance(layer, nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.FeatureAlphaDropout):
        return (*sample[:1], *[1] * (len(sample) - 1))
    return tuple(sample)


def dropped(layer: Any, values: Tensor, generator: torch.Generator) -> Tensor:
    r"""Drop by one mask, the same for every sample.

    What is kept is divided by :math:`1 - p`. Alpha dropout, which keeps mean 0 and variance 1, instead replaces what
    is dropped by :math:`\alpha'` and returns :math:`a (x d + \alpha' (1 - d)) + b`, with d 1 where kept.

    Args:
        layer: Any dropout layer of torch, or of a class below.
        values: `(N, ...)`.
        generator: Of the mask.

    Returns:
        The same shape.

    Reference:
        G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, Self-Normalizing Neural Networks, NeurIPS 2017, arXiv
        1706.02515, section "New Dropout Technique".
    """
    kept = (torch.rand(mask_shape(layer, values.shape), generator=generator) >= layer.p).to(values)
    if layer.p == 1:
        return torch.zeros_like(values)
    if isinstance(layer, nn.AlphaDropout | nn.FeatureAlphaDropout):
        a = ((1 - layer.p) * (1 + layer.p * ALPHA**2)) ** -0.5
        moved: Tensor = values * (a * kept) + a * ALPHA * (layer.p - (1 - kept))
        return moved
    scale: Tensor = kept / (1 - layer.p)
    return values * scale


@contextmanager
def fixed_masks(module: nn.Module, seed: int) -> Iterator[None]:
    """Let a module in evaluation mode drop by one draw, the same for every sample, batch and process.

    Only what dropout layers return is masked: batch norm and everything else stay in evaluation mode, and the global
    random state is untouched. A layer that is used several times in a forward has a mask of its own each time. Dropout
    by `torch.nn.functional` is out of reach.

    Args:
        module: In evaluation mode, with dropout layers.
        seed: Of the masks; each derives from it, the layer's place, the number of its use and its shape.
    """
    handles = []
    uses: Counter[int] = Counter()

    def drop(place: int, layer: Any) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            number = uses[place]
            uses[place] += 1
            generator = derive_generator(seed, "mask", place, *([number] if number else []))
            masked = dropped(layer, output, generator)
            return output.copy_(masked) if layer.inplace else masked

        return hook

    try:
        # each forward of the whole begins anew; where parts of it are called, the context is one forward
        handles.append(module.register_forward_pre_hook(lambda _, __: uses.clear()))
        for place, layer in enumerate(dropout_layers(module)):
            if layer.p > 0:
                handles.append(layer.register_forward_hook(drop(place, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def mc_dropout(
    module: nn.Module, inputs: Any, members: int, seed: int, function: Callable[[Any], Tensor] | None = None
) -> Tensor:
    """Run a module once for each of several dropout masks.

    Args:
        module: In evaluation mode, with dropout layers.
        inputs: Of N samples.
        members: Number of masks.
        seed: Of the masks.
        function: What of the module to run; null for all of it.

    Returns:
        `(members, N, ...)`.

    Raises:
        ValueError: If no dropout layer has a positive probability, or `members` is below 1.
    """
    whole(1, members=members)
    require_dropout(module)
    overwrites = any(layer.inplace for layer in dropout_layers(module))
    outputs = []
    for member in range(members):
        with fixed_masks(module, derive_seed(seed, "member", member)):
            own = map_tensors(torch.clone, inputs) if overwrites else inputs
            outputs.append((function or module)(own))
    return torch.stack(outputs)
