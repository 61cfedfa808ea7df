"""The base of all encoders, what makes any network one, and how a checkpoint builds its encoder again."""

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from ssl_lightning.engine.naming import arguments, class_path, known_class, require_plain

IMAGE_SIZES = (32, 28, 64, 224, 96, 8, 16, 48, 128, 256, 299)  # pixels tried, in this order


class Backbone(nn.Module):
    """Base of all encoders; remembers how it was built, so that a checkpoint can be opened without its config.

    A subclass passes its constructor's arguments on to this one and sets `feature_dim`.

    Args:
        init_args: The subclass's constructor arguments, plain numbers and strings.
    """

    takes: ClassVar[tuple[str, ...]] = ()  # what data, as `MODALITIES` calls them; empty for any
    channels_last: bool = False  # it is faster by images in this memory format, as convolutional networks are
    feature_dim: int

    def __init__(self, **init_args: Any) -> None:
        super().__init__()
        self.init_args = init_args

    def trunk(self, inputs: Any) -> Any:
        """Compute what comes before the first dropout: once for all dropout masks."""
        return inputs

    def rest(self, hidden: Any) -> Tensor:
        """Go on from `trunk` to embeddings `(N, feature_dim)`."""
        return self(hidden)  # type: ignore[no-any-return]

    def fresh(self) -> "Backbone":
        """Return an encoder of the same architecture with weights of its own first draw."""
        return type(self)(**self.init_args)

    def with_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images and keep where things are: what the last pooling over all places is given.

        Args:
            images: `(N, channels, H, W)`.

        Returns:
            Embeddings `(N, feature_dim)`; the feature map `(N, D, h, w)`.

        Raises:
            ValueError: If the network has no such pooling.
        """
        pools = [layer for layer in self.modules() if isinstance(layer, nn.AdaptiveAvgPool2d)]
        kept: list[Tensor] = []
        if pools:
            with pools[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])):
                embedding = self(images)
        if not kept or kept[-1].ndim != 4:
            raise ValueError(
                f"`{type(self).__name__}` has no feature map to decode places from; take `ConvNet`, `ResNet`, or a "
                "convolutional network of `Torchvision` or `Timm`."
            )
        return embedding, kept[-1]


class AnyModule(Backbone):
    """Any network as an encoder; the size of its embedding is found by one sample.

    The network returns `(N, d)`, or a feature map `(N, d, h, w)`, which is averaged over its places; of several outputs
    the first counts. Its weights stay where they are: `encoder.module` is the network that was given.

    Args:
        module: The network, which takes a batch of clean input.
        example: A batch of one sample to try the network with; null to guess it from the network's first layer, which
            suffices where the size of the embedding does not depend on that of the sample.

    Raises:
        ValueError: If the network cannot take the sample, or does not return one vector for it.

    Example:
        >>> encoder = AnyModule(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        >>> encoder.feature_dim, encoder(torch.zeros(2, 1, 8, 8)).shape
        (10, torch.Size([2, 10]))
    """

    def __init__(self, module: nn.Module, example: Any = None) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ValueError(f"`module={module!r:.80}` must be a network, an `nn.Module`, already built.")
        self.module = module
        self.feature_dim, self.example = self._tried(example)

    def forward(self, inputs: Any) -> Tensor:
        """Encode a batch to embeddings `(N, feature_dim)`."""
        output = first_vector(self.module(inputs))
        if output.ndim != 2 or output.shape[1] != self.feature_dim:
            name = type(self.module).__name__
            raise ValueError(
                f"`backbone`: `{name}` returned {tuple(output.shape)} for input {_shape(inputs)}, and not "
                f"{self.feature_dim} numbers a sample, as it says or returned for the sample it was tried with; give "
                f"`AnyModule({name}(...), example=SAMPLE)` with a batch of one of your samples."
            )
        return output

    def fresh(self) -> "AnyModule":
        """Return a copy whose layers begin anew (`reset_parameters`).

        Raises:
            ValueError: If some weights cannot be drawn anew, and would be the same in every copy.
        """
        again = copy.deepcopy(self)
        for layer in again.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
        mine = dict(self.named_parameters())
        for name, weight in again.named_parameters():  # constants, as those of norms, begin alike
            if weight.numel() > 1 and bool((weight != weight.flatten()[0]).any()) and torch.equal(weight, mine[name]):
                raise ValueError(
                    f"`backbone`: `{type(self.module).__name__}` cannot draw its weights "
                    f"`{name.removeprefix('module.')}` anew, so that the members of an ensemble would be alike; give "
                    "the layer they belong to a `reset_parameters`."
                )
        return again

    def _tried(self, example: Any) -> tuple[int, Any]:
        """Return the size of the embedding, and the sample that it was found by, if it does not say it itself."""
        told = getattr(self.module, "feature_dim", None)
        if isinstance(told, int) and example is None:
            return told, None
        name = type(self.module).__name__
        remedy = f"`AnyModule({name}(...), example=SAMPLE)` with a batch of one of your samples"
        if example is None and any(is_lazy(leaf) for leaf in self.module.parameters()):
            raise ValueError(
                f"`backbone`: `{name}` has lazy layers, which take the size of what they see; give {remedy}."
            )
        reasons: list[str] = []
        found: list[tuple[int, Any]] = []
        for sample in _examples(self.module) if example is None else [example]:
            try:
                output = _dry_run(self.module, sample)
            except Exception as error:  # a stranger's network may raise anything
                reasons.append(f"{_shape(sample)}: {type(error).__name__}: {' '.join(str(error).split())[:150]}")
                continue
            first = _first(output)
            if isinstance(first, Tensor) and first.ndim in (2, 4) and len(first) == 1 and first.shape[1]:
                found.append((first.shape[1], sample))
                if found[0][0] != first.shape[1]:
                    raise ValueError(
                        f"`backbone`: the embedding of `{name}` is as long as its input is large ({found[0][0]} "
                        f"numbers for {_shape(found[0][1])}, {first.shape[1]} for {_shape(sample)}); give {remedy}."
                    )
                if len(found) == 2 or isinstance(_first_layer(self.module), nn.Linear):
                    break
                continue
            what = _shape(first) if isinstance(first, Tensor) else f"a {type(first).__name__}"
            reasons.append(f"{_shape(sample)}: it returned {what}")
        if found:
            return found[0]
        tried = f" It was tried with {reasons[0]}." if reasons else ""
        raise ValueError(
            f"`backbone`: `{name}` must return one vector a sample, `(N, d)`, or a map, `(N, d, h, w)`; d was not "
            f"found.{tried} Give {remedy}, or a network without what comes after its embedding."
        )


def as_backbone(module: Any) -> Backbone:
    """Return a network as an encoder: a `Backbone` as it is, any other within an `AnyModule`.

    Args:
        module: Any network.

    Raises:
        ValueError: If it is none, or returns no vector a sample.
    """
    if isinstance(module, Backbone):
        if not isinstance(getattr(module, "feature_dim", None), int):
            raise ValueError(
                f"`backbone`: `{type(module).__name__}` does not say the size of its embedding; set `self.feature_dim` "
                "in its constructor."
            )
        return module
    if not isinstance(module, nn.Module):
        kind = f"the class `{module.__name__}`" if isinstance(module, type) else f"`{module!r:.80}`"
        raise ValueError(f"`backbone` must be a network that is built, an `nn.Module` such as `ConvNet()`, not {kind}.")
    return AnyModule(module)


def first_vector(output: Any) -> Tensor:
    """Return one vector a sample of what a network returned: of several outputs the first, of a map the mean."""
    found: Tensor = _first(output)
    return found.mean(dim=(2, 3)) if found.ndim == 4 else found


def _first(output: Any) -> Any:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output


def _shape(sample: Any) -> str:
    return ", ".join(f"{tuple(leaf.shape)}" for leaf in pytree.tree_leaves(sample) if isinstance(leaf, Tensor))


def _dry_run(module: nn.Module, sample: Any) -> Any:
    """Apply a network to a sample, leaving no trace: modes, statistics and random states are as before."""
    modes = [(child, child.training) for child in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    first = next(module.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            module.eval()
            return module(pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, sample))
        finally:
            for child, training in modes:
                child.training = training
            for buffer, value in buffers:
                buffer.copy_(value)


def _first_layer(module: nn.Module) -> nn.Module | None:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.EmbeddingBag, nn.Linear, nn.RNNBase)
    return next((layer for layer in module.modules() if isinstance(layer, kinds)), None)


def _examples(module: nn.Module) -> Iterator[Tensor]:
    """Yield samples that a network might take, by its first layer that has weights: of two sizes, if it takes such."""
    layer = _first_layer(module)
    if isinstance(layer, nn.Conv2d):
        # most take any size, or one of the usual ones; last, all others
        sizes = dict.fromkeys([*IMAGE_SIZES, *range(4, 129)])
        yield from (torch.zeros(1, layer.in_channels, side, side) for side in sizes)
    elif isinstance(layer, nn.Conv1d):
        yield from (torch.zeros(1, layer.in_channels, length) for length in (1024, 128, 16_000))
    elif isinstance(layer, nn.Conv3d):
        yield from (torch.zeros(1, layer.in_channels, side, side, side) for side in (16, 32, 64))
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        yield from (torch.zeros(1, length, dtype=torch.int64) for length in (16, 64, 128))
    elif isinstance(layer, nn.RNNBase):
        yield from (torch.zeros(1, length, layer.input_size) for length in (16, 24))
    elif isinstance(layer, nn.Linear):
        yield torch.zeros(1, layer.in_features)
        # behind a flattening: images of one or three channels
        for channels in (1, 3):
            side = round((layer.in_features / channels) ** 0.5)
            if channels * side * side == layer.in_features:
                yield torch.zeros(1, channels, side, side)
    else:
        yield from (torch.zeros(1, channels, side, side) for side in IMAGE_SIZES for channels in (3, 1))


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return what `build` needs to make the same architecture again: class path and constructor arguments."""
    if isinstance(backbone, AnyModule):  # nobody knows how it was built
        return {"class_path": class_path(type(backbone.module)), "init_args": {}, "any_module": True}
    return {"class_path": class_path(type(backbone)), "init_args": dict(backbone.init_args)}


def build(description: dict[str, Any], trust: bool = False, facts: dict[str, Any] | None = None) -> Backbone:
    """Build the architecture that `describe` described, with fresh weights, and download none.

    Args:
        description: As `describe` returns it; from a file, it is data, and names nothing that is called unless it is a
            known encoder.
        trust: Import a class that is neither ours nor of a plug-in, and build any network that is named.
        facts: Of the data; any other network than ours, of which nobody knows how it was built, gets those that its
            constructor has arguments for.

    Returns:
        The backbone.

    Raises:
        ValueError: If its class is not known or cannot be imported, or does not take such arguments.
    """
    path = description.get("class_path")
    init_args = require_plain(description.get("init_args"), path)
    init_args = {**init_args, "pretrained": False} if "pretrained" in init_args else init_args
    stranger = bool(description.get("any_module"))
    if stranger and not trust:
        raise ValueError(
            f"the backbone `{path!s:.100}` is a network of your own, which a file does not get built by itself: pass "
            "it (`backbone=...` in Python, `--model.backbone CLASS` in `fit` and `active`), or, if you trust the file, "
            "add `--trust` (to `evaluate`, `export`, `predict`, `sample`)."
        )
    kind: type[nn.Module] = known_class(path, nn.Module if stranger else Backbone, trust)
    if stranger:
        init_args = {name: (facts or {})[name] for name in arguments(kind) if name in (facts or {})}
    try:
        found = as_backbone(kind(**init_args))
    except TypeError as error:
        raise ValueError(f"the backbone `{path}` cannot be built again ({error}); pass it yourself.") from error
    found.init_args = init_args
    return found


def plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of a network with spectral norm into those of one without, which does the same in evaluation.

    Args:
        weights: A state dict, with the keys of `torch.nn.utils.parametrizations.spectral_norm` or without.

    Returns:
        A state dict without them.
    """
    mark = ".parametrizations.weight."
    found = {key: value for key, value in weights.items() if mark not in key}
    for key, value in weights.items():
        if key.endswith(mark + "original"):
            layer = key.removesuffix(mark + "original")
            left, right = (weights[f"{layer}{mark}0.{side}"] for side in ("_u", "_v"))
            found[f"{layer}.weight"] = value / torch.vdot(left, value.flatten(1) @ right)
    return found


def convolves(network: nn.Module) -> bool:
    """Tell whether a network has two-dimensional convolutions that overlap, as those that cut patches do not.

    Example:
        >>> convolves(nn.Conv2d(3, 8, 3)), convolves(nn.Conv2d(3, 8, 16, stride=16))
        (True, False)
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    return any(max(layer.kernel_size) > max(layer.stride) for layer in layers)


def with_channels(first: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return a fresh convolution like the first, for another number of input channels."""
    return nn.Conv2d(
        channels, first.out_channels, first.kernel_size, first.stride, first.padding, first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )  # fmt: skip
