"""What turns a batch of a data set into what an encoder takes, of any modality: random views, and the clean input."""

import inspect
import random
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ssl_lightning.engine.naming import class_path, known_class, require_plain
from ssl_lightning.engine.ranges import whole


class Clean(nn.Module):
    """Base of the deterministic transforms of evaluation; remembers how it was built, so that checkpoints keep it.

    A subclass passes its constructor's arguments on to this one and writes `forward(inputs, generator=None)`, from what
    a data set holds to what an encoder takes.

    Args:
        init_args: The subclass's constructor arguments, plain numbers, strings and lists of them.
    """

    def __init__(self, **init_args: Any) -> None:
        super().__init__()
        self.init_args = init_args

    def by_default(self) -> "Clean":
        """Return the transform of the class that nobody chose, for the same data."""
        return type(self)()


class Unchanged(Clean):
    """The clean input of data that an encoder takes as they are."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> Any:
        """Return the inputs."""
        return inputs


class FromData(nn.Module):
    """Stands in random views for the clean transform of the data, which `end_alike` gives it; until then, for none."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["adopted"] = None  # no child: views do not carry it, and other data bring another

    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> Any:
        """Return clean input."""
        return inputs if self.__dict__["adopted"] is None else self.__dict__["adopted"](inputs)


class PerSample(nn.Module):
    """Makes views by a function of one sample, such as a transform of torchvision: slow, but any will do.

    The function is called once for each sample and view, where samples are loaded: in the loader's workers with
    `data.num_workers` above 0. It draws from the global random states of torch, numpy and Python, which are seeded for
    each sample and restored after the batch: the same views for any number of workers. Batched views (`SimCLRViews`)
    are more than ten times as fast.

    Args:
        function: Makes of one sample, such as an image `(C, H, W)`, uint8, what an encoder takes.
        count: Number of views of each sample.

    Raises:
        ValueError: If `count` is below 1.

    Example:
        >>> views = PerSample(lambda image: image.float() / 255, count=2)
        >>> [view.shape for view in views(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.Generator())]
        [torch.Size([5, 1, 8, 8]), torch.Size([5, 1, 8, 8])]
    """

    def __init__(self, function: Callable[[Any], Any], count: int = 2) -> None:
        super().__init__()
        whole(1, count=count)
        self.function, self.count = function, count

    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> list[Any]:
        """Return `count` views of a batch.

        Args:
            inputs: A tensor `(N, ...)`, or a NamedTuple of such tensors.
            generator: Of the CPU; None takes torch's global one.
        """
        total = len(pytree.tree_leaves(inputs)[0])
        return self.make(inputs, torch.randint(2**31 - 1, (total,), generator=generator).tolist())

    def make(self, inputs: Any, seeds: Sequence[int]) -> list[Any]:
        """Return `count` views of a batch.

        Args:
            inputs: A tensor `(N, ...)`, or a NamedTuple of such tensors.
            seeds: Of each sample.
        """
        made: list[list[Any]] = [[] for _ in range(self.count)]
        with isolate_rng(include_cuda=False):
            for place, seed in enumerate(seeds):
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002  # what strangers' functions draw from
                torch.default_generator.manual_seed(seed)
                sample = pytree.tree_map(itemgetter(place), inputs)
                for views in made:
                    views.append(_view_of(self.function(map_tensors(torch.clone, sample)), sample))
        return [_stacked(views) for views in made]


class PerBatch(nn.Module):
    """Makes views by a function of a whole batch, which draws from the global random state of torch.

    The state is seeded for each call by the generator, and restored after it. Many functions of images, as those of
    torchvision, draw once a call: then all samples of a batch get the same crop, and `PerSample` is what you want.

    Args:
        function: Makes of a batch, such as images `(N, C, H, W)`, uint8, what an encoder takes.
        count: Number of views of each sample.

    Raises:
        ValueError: If `count` is below 1.
    """

    def __init__(self, function: Callable[[Any], Any], count: int = 2) -> None:
        super().__init__()
        whole(1, count=count)
        self.function, self.count = function, count

    def forward(self, inputs: Any, generator: torch.Generator | None = None) -> list[Any]:
        """Return `count` views of a batch, a tensor `(N, ...)` or a NamedTuple of such tensors."""
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        with isolate_rng():
            torch.manual_seed(seed)
            return [_view_of(self.function(map_tensors(torch.clone, inputs)), inputs) for _ in range(self.count)]


def _view_of(made: Any, sample: Any) -> Any:
    """Return what a stranger's function made, if it is a view.

    Raises:
        ValueError: If it is not one tensor of floats, or a NamedTuple of tensors.
    """
    made = torch.from_numpy(made) if isinstance(made, np.ndarray) else made
    if isinstance(made, Tensor):
        like = isinstance(sample, Tensor) and not sample.is_floating_point()
        if made.is_floating_point() or not like:
            return made.float() if made.is_floating_point() else made
        raise ValueError(
            f"the function of `views` returned {made.dtype}, and an encoder takes floats; end it by a conversion, such "
            "as `v2.ToDtype(torch.float32, scale=True)`."
        )
    if hasattr(made, "_fields"):
        return made
    raise ValueError(
        f"the function of `views` returned {type(made).__name__}; required is one tensor, or a NamedTuple of tensors: "
        "it is called once for each view."
    )


def _stacked(views: list[Any]) -> Any:
    shapes = {tuple(tuple(leaf.shape) for leaf in pytree.tree_leaves(view)) for view in views}
    if len(shapes) > 1:
        one, other = (" and ".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise ValueError(
            f"the function of `views` returned samples of several shapes, {one} beside {other}; end it by a crop or a "
            "scaling to one size."
        )
    return pytree.tree_map(lambda *rows: torch.stack(rows), *views)


def as_views(views: Any, count: int) -> nn.Module:
    """Return views as our methods call them: `views(inputs, generator)` is a list.

    Args:
        views: Such a module; or any function of one sample, as a transform of torchvision is.
        count: Views that the method looks at.

    Raises:
        ValueError: If it cannot be called.
    """
    if not callable(views) or isinstance(views, type):
        shown = f"{views.__name__}`, a class," if isinstance(views, type) else f"{views!r:.100}`"
        raise ValueError(
            f"`views={shown} cannot be called as it is; give views that are built, or a function of one sample."
        )
    function = views.forward if isinstance(views, nn.Module) else views
    try:
        named: Any = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions tell nothing
        named = {}
    return views if isinstance(views, nn.Module) and "generator" in named else PerSample(views, count)


def make_views(views: Callable[..., Any] | None, inputs: Any, generator: torch.Generator, count: int) -> list[Any]:
    """Make the views of a batch.

    Args:
        views: As `as_views` returns them: a list of views at a call, or one view, and then called `count` times; null
            where nobody gave or suggested any.
        inputs: A tensor `(N, ...)`, or a NamedTuple of such tensors.
        generator: Of the CPU.
        count: Views that are needed.

    Returns:
        At least `count` views.

    Raises:
        ValueError: If there are fewer, or none.
    """
    if views is None:
        raise ValueError(
            "there are no random views: these data suggest none, or there is no trainer with data; give `views`, as "
            "`SimCLRViews()` for images, or any function of one sample."
        )
    made = views(inputs, generator)
    made = list(made) if type(made) is tuple else made
    if not isinstance(made, list):  # one tensor, or a NamedTuple
        return [made, *(views(inputs, generator) for _ in range(count - 1))]
    if len(made) < count:
        raise ValueError(
            f"`views` made {len(made)} of each sample where {count} are looked at; give the views `count={count}`, or "
            "leave them out."
        )
    return made


def clean_of(views: nn.Module | None) -> Clean | None:
    """Return the clean transform that random views carry, which normalises as they do; none where they carry none."""
    found = (module for module in (views.modules() if views is not None else ()) if isinstance(module, Clean))
    return next(found, None)


def end_alike(views: nn.Module | None, clean: nn.Module | None) -> None:
    """Let random views end as a clean transform does: what is trained on is normalised as what is judged.

    Args:
        views: Whose own clean transform, if they carry one, gives way.
        clean: The transform of evaluation.
    """
    for module in views.modules() if views is not None and isinstance(clean, Clean) else ():
        if isinstance(module, FromData):
            module.__dict__["adopted"] = clean
    own = clean_of(views)
    if views is None or own is None or own is clean or not isinstance(clean, Clean):
        return
    if describe_clean(own) not in (describe_clean(clean), describe_clean(own.by_default())):
        rank_zero_warn(
            f"`views` normalise by {own.init_args}, and clean input by {clean.init_args}: that is taken for both."
        )
    for module in views.modules():
        for name, child in module.named_children():
            if child is not clean and isinstance(child, Clean):
                setattr(module, name, clean)


def tell_foreign_views(views: nn.Module | None, clean: nn.Module | None) -> None:
    """Warn where nobody said how to make clean input that is like a stranger's views.

    Args:
        views: Random views.
        clean: That of the data, in default of another.
    """
    own = views is not None and (clean_of(views) or any(isinstance(module, FromData) for module in views.modules()))
    if views is not None and not own and isinstance(clean, Clean) and not isinstance(clean, Unchanged):
        rank_zero_warn(
            "`views` do not say how they normalise, and clean input is made by "
            f"`{type(clean).__name__}({clean.init_args})`; if theirs is another, give `clean`, such as "
            "`CleanView(mean=0.0, std=1.0)` for pixels from 0 to 1."
        )


def describe_clean(clean: nn.Module | None) -> dict[str, Any] | None:
    """Return what `build_clean` needs to make a clean transform again; none of a stranger's, who keeps no arguments."""
    return (
        {"class_path": class_path(type(clean)), "init_args": dict(clean.init_args)}
        if isinstance(clean, Clean)
        else None
    )


def build_clean(description: dict[str, Any], trust: bool = False) -> Clean:
    """Build a clean transform again.

    Args:
        description: As `describe_clean` returned it.
        trust: Import a class that is neither ours nor of a plug-in.

    Raises:
        ValueError: If its class is not known, or does not take such arguments.
    """
    kind = known_class(description.get("class_path"), Clean, trust)
    init_args = require_plain(description.get("init_args", {}), description.get("class_path"))
    try:
        return kind(**init_args)
    except TypeError as error:
        raise ValueError(f"the clean transform `{kind.__name__}` cannot be built from {init_args!s:.200}.") from error


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """Apply a function to each tensor of an input, which is a tensor or a NamedTuple of tensors."""
    return pytree.tree_map(function, inputs)


def join(inputs: Sequence[Any]) -> Any:
    """Join batches of inputs, such as several views, to one: tensors, or NamedTuples of tensors alike.

    Example:
        >>> join([torch.zeros(2, 3), torch.ones(2, 3)]).shape
        torch.Size([4, 3])
    """
    return pytree.tree_map(lambda *rows: torch.cat(rows), *inputs)
