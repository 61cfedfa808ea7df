"""MC dropout: draws of a model, one for each of several dropout masks."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ssl_lightning.engine.devices import onto
from ssl_lightning.engine.ranges import whole
from ssl_lightning.engine.seeding import derive_generator, derive_seed
from ssl_lightning.transforms.base import map_tensors

ALPHA = 1.7580993408473766  # where SELU ends to the left, without its sign
LAWS: dict[Any, Any] = {
    functional.dropout: nn.Dropout, functional.dropout1d: nn.Dropout1d, functional.dropout2d: nn.Dropout2d,
    functional.dropout3d: nn.Dropout3d, functional.alpha_dropout: nn.AlphaDropout,
    functional.feature_alpha_dropout: nn.FeatureAlphaDropout,
}  # fmt: skip


NATIVE = frozenset({torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout})


class AttentionDropout(NamedTuple):
    """The dropout of an attention layer, which is no layer of its own."""

    layer: nn.MultiheadAttention
    p: float
    inplace: bool = False


def dropout_layers(module: nn.Module) -> list[Any]:
    """Return all dropout layers of a module, in order, and then what its attention layers have in their place."""
    layers = list(module.modules())
    found: list[Any] = [layer for layer in layers if isinstance(layer, nn.modules.dropout._DropoutNd)]
    return found + [
        AttentionDropout(layer, layer.dropout) for layer in layers if isinstance(layer, nn.MultiheadAttention)
    ]


def require_dropout(module: nn.Module) -> None:
    """Check that a module has dropout to draw from, and none that cannot be drawn from.

    Args:
        module: To be drawn from.

    Raises:
        ValueError: If no dropout layer has a positive probability, or one has a law of its own, or is part of a
            recurrent layer.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(
                f"`{name or type(layer).__name__}` is scripted: nobody sees what it drops; give it as it was."
            )
        if isinstance(layer, nn.RNNBase) and layer.dropout > 0 and layer.num_layers > 1:
            raise ValueError(
                f"`{name or type(layer).__name__}` drops between its layers, where no mask can be held fixed; give "
                f"`dropout=0` to that {type(layer).__name__}, or stack layers of one with `nn.Dropout` between them."
            )
        own = isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
        if own and type(layer).forward.__module__ != nn.modules.dropout.__name__:
            raise ValueError(
                f"`{name or type(layer).__name__}` is a {type(layer).__name__}, whose `forward` is its own: what it "
                "draws is not known; use a dropout layer of torch."
            )
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
    kept = onto(
        torch.rand(mask_shape(layer, values.shape), generator=generator) >= layer.p, values.device, values.dtype
    )
    if layer.p == 1:
        return torch.zeros_like(values)
    if isinstance(layer, nn.AlphaDropout | nn.FeatureAlphaDropout):
        a = ((1 - layer.p) * (1 + layer.p * ALPHA**2)) ** -0.5
        moved: Tensor = values * (a * kept) + a * ALPHA * (layer.p - (1 - kept))
        return moved
    scale: Tensor = kept / (1 - layer.p)
    return values * scale


class _Masks(TorchFunctionMode):
    """Lets everything that drops in training drop by fixed masks: layers, attention, `torch.nn.functional`."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.uses: Counter[Any] = Counter()
        self.running: Any = None  # the dropout layer whose forward runs, and its place
        self.reached: set[int] = set()
        # where a sample is no row: in torch's transformers, unless `batch_first`
        kinds = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
        turned = (layer for layer in module.modules() if isinstance(layer, kinds) and not layer.self_attn.batch_first)
        self.columns = {id(child) for layer in turned for child in layer.children()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draw, if the function drops in training."""
        kwargs = kwargs or {}
        if func in LAWS:
            given = _named(func, args, kwargs)
            return self._drop(LAWS[func], given["input"], given["p"], given["inplace"])
        if func in NATIVE:
            raise ValueError(
                f"`torch.{func.__name__}` cannot be held fixed; use `torch.nn.functional.{func.__name__}`."
            )
        if func is functional.multi_head_attention_forward:
            given = _named(func, args, kwargs)
            return self._attend(func, given) if given["dropout_p"] > 0 else func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention and kwargs.get("dropout_p", (*args, 0, 0, 0, 0, 0)[4]) > 0:
            raise ValueError(
                "`scaled_dot_product_attention` with `dropout_p` draws other masks at each call; use "
                "`nn.MultiheadAttention`, or `nn.Dropout` on the weights of the attention."
            )
        return func(*args, **kwargs)

    def _drop(self, kind: Any, values: Tensor, p: float, inplace: bool = False) -> Tensor:
        place, layer = self.running or ("functional", None)
        if p == 0:
            return values
        number = self.uses[place]
        self.uses[place] += 1
        generator = derive_generator(self.seed, "mask", place, *([number] if number else []))
        turn = id(layer) in self.columns and values.dim() == 3
        masked = dropped(kind(p), values.transpose(0, 1) if turn else values, generator)
        masked = masked.transpose(0, 1) if turn else masked
        return values.copy_(masked) if inplace else masked

    def _attend(self, func: Any, given: dict[str, Any]) -> Any:
        """Let attention run as in training, its weights dropped by one mask of `(heads, queries, keys)`."""

        def drop(weights: Tensor, p: float) -> Tensor:  # (N * heads, queries, keys)
            each = weights.reshape(-1, given["num_heads"], *weights.shape[1:])
            return self._drop(nn.Dropout, each, p).flatten(0, 1)

        with mock.patch.object(functional, "dropout", drop):
            output, weights = func(**{**given, "training": True, "need_weights": True})
        return output, weights if given["need_weights"] else None

    def enter(self, place: int, layer: Any) -> None:
        """Note that a dropout layer's forward begins."""
        self.running = (place, layer)
        self.reached.add(place)

    def leave(self) -> None:
        """Note that it ended."""
        self.running = None


class _Listening(TorchFunctionMode):
    """Notes whether anything would drop in training."""

    drops = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note it, and call the function."""
        kwargs = kwargs or {}
        self.drops |= func in NATIVE
        if func in LAWS or func is functional.multi_head_attention_forward:
            given = _named(func, args, kwargs)
            self.drops |= given["p" if func in LAWS else "dropout_p"] > 0
        return func(*args, **kwargs)


def listen(function: Callable[[Any], Tensor], inputs: Any) -> tuple[Tensor, bool]:
    """Run a part of a module, and tell whether it drops in training, also where that is by `torch.nn.functional`.

    Args:
        function: In evaluation mode.
        inputs: What to give it.

    Returns:
        What it returned, and whether it drops.
    """
    with _Listening() as heard:
        return function(inputs), heard.drops


_signature = functools.cache(inspect.signature)


def _named(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    given = _signature(func).bind(*args, **kwargs)
    given.apply_defaults()
    return given.arguments


@contextmanager
def fixed_masks(module: nn.Module, seed: int) -> Iterator[set[int]]:
    """Let a module in evaluation mode drop by one draw, the same for every sample, batch and process.

    Only what drops in training does: dropout layers, `nn.MultiheadAttention`, of which each head has a mask for all
    pairs of a query and a key, and dropout by `torch.nn.functional` with a probability above 0. Batch norm and
    everything else stay in evaluation mode, and the global random state is untouched. A layer that is used several
    times in a forward has a mask of its own each time.

    Args:
        module: In evaluation mode, with dropout layers.
        seed: Of the masks; each derives from it, the layer's place, the number of its use and its shape; by
            `torch.nn.functional` or in attention, from the number of the call.

    Yields:
        The places of the dropout layers that were used so far.
    """
    handles = []
    masks = _Masks(module, seed)
    try:
        # each forward of the whole begins anew; where parts of it are called, the context is one forward
        handles.append(module.register_forward_pre_hook(lambda _, __: masks.uses.clear()))
        for place, layer in enumerate(dropout_layers(module)):
            if isinstance(layer, nn.Module):
                handles.append(layer.register_forward_pre_hook(lambda own, _, place=place: masks.enter(place, own)))
                handles.append(layer.register_forward_hook(lambda _, __, ___: masks.leave(), always_call=True))
        with masks:
            yield masks.reached
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
        ValueError: If there is no dropout to draw from, or some that cannot be drawn from, or `members` is below 1.
    """
    whole(1, members=members)
    require_dropout(module)
    overwrites = any(layer.inplace for layer in dropout_layers(module))
    outputs = []
    for member in range(members):
        with fixed_masks(module, derive_seed(seed, "member", member)) as reached:
            own = map_tensors(torch.clone, inputs) if overwrites else inputs
            outputs.append((function or module)(own))
        if member == 0:
            _tell_unused(module, reached)
            _require_rows_apart(module, inputs, outputs[0], derive_seed(seed, "member", 0), function)
    return torch.stack(outputs)


def _require_rows_apart(
    module: nn.Module, inputs: Any, together: Tensor, seed: int, function: Callable[[Any], Tensor] | None
) -> None:
    """Refuse a module that drops where samples are not the first dimension: each would have masks of its own.

    Raises:
        ValueError: If a sample alone gives something else than among the others, by the same masks.
    """
    if len(together) < 2:
        return
    with fixed_masks(module, seed):
        alone = (function or module)(map_tensors(lambda rows: rows[-1:].clone(), inputs))
    if (alone[0] - together[-1]).abs().amax() > 0.05 * together.abs().amax():  # far more than bf16 rounds
        raise ValueError(
            "MC dropout cannot draw one mask for all samples: a dropout layer acts where samples are not the first "
            "dimension, as in a network with `batch_first=False`; let it drop on tensors `(N, ...)`."
        )


def _tell_unused(module: nn.Module, reached: set[int]) -> None:
    """Warn of dropout layers that a forward in evaluation mode leaves out, as fused attention does."""
    layers = dropout_layers(module)
    unused = [layer for place, layer in enumerate(layers) if layer.p > 0 and place not in reached]
    for name, layer in module.named_modules():
        if any(layer is one for one in unused):
            rank_zero_warn(
                f"the dropout layer `{name}` is not used by a forward in evaluation mode: nothing is drawn from it. "
                "Where attention only reads its `p`, turn off the fused attention."
            )
