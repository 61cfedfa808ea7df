"""Anybody's own data set of torch as a data module."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.decoding import fingerprint
from ssl_lightning.data.foreign import Foreign, input_of, item_of, looks, names_of, numbered, places_of, read
from ssl_lightning.data.image_data import image_views, mirrored, png, weak_image_view
from ssl_lightning.data.samples import Batch, Samples, Shown, Split, content_of
from ssl_lightning.data.splits import chosen_by_share
from ssl_lightning.engine.ranges import between
from ssl_lightning.transforms.image import CleanView, StrongView
from ssl_lightning.transforms.vectors import vector_views

WHOS = ("`dataset`", "`test`")


class Wrapped(Dataset[Batch]):
    """Some samples of anybody's data set, fetched one by one.

    Args:
        part: The data set, read.
        places: Which of it, `(N,)`.
        targets: Classes of these, `(N,)`, int64.
    """

    def __init__(self, part: Foreign, places: Tensor, targets: Tensor) -> None:
        self.part, self.places, self.targets = part, places.tolist(), targets
        self.keys: Sequence[str] = [part.keys[place] for place in self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        return Batch(input_of(item_of(self.part.dataset, self.places[index])), self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        rows = [input_of(item_of(self.part.dataset, self.places[index])) for index in indices]
        try:
            stacked = pytree.tree_map(lambda *parts: torch.stack(parts), *rows)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"samples of `{type(self.part.dataset).__name__}` cannot be put into one batch ({str(error)[:150]}); "
                "let it return tensors of one shape, or a NamedTuple of such tensors."
            ) from error
        return Batch(stacked, self.targets[indices], torch.as_tensor(indices))


class FromDataset(DataModule):
    """Any map-style data set of torch as a data module: of (input, label), of (input,), or of inputs alone.

    An input is a tensor, a PIL image, an array, or a NamedTuple of tensors. PIL images are made as a person sees them;
    tensors `(1 or 3, H, W)`, and arrays with channels last, too, are images, and rows of floats `(d,)` are vectors.
    Rows of whole numbers, as of tokens, and all else reach the model as they are, with no views.
    Labels are whole numbers or names of classes, read from `targets` or `labels` where the data set has them, else
    sample by sample, once. A sample's key is the path of its file where the data set lists them (`samples`, as
    torchvision's), its number in torchvision's public sets, else the hash of its content, for which every sample is
    read once.

    Args:
        dataset: The training part, and the test part unless there is another.
        test: The test part; null to set `test_size` apart, each sample by its key.
        class_names: Of the labels; null for those of the data set (`classes`), else the numbers or names that occur.
        keys: Unique names of the samples of `dataset`, which go with a sample whatever comes or goes beside it.
        test_size: Fraction for test where there is no `test`; 0 for none.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If it is no such data set, or numbers and names do not fit it.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = FromDataset(TensorDataset(torch.rand(50, 3), torch.arange(50) % 2))
        >>> data.facts
        {'num_classes': 2, 'class_names': ('0', '1'), 'feature_dim': 3}
    """

    def __init__(
        self,
        dataset: Any,
        test: Any = None,
        class_names: Sequence[str] | None = None,
        keys: Sequence[Any] | None = None,
        test_size: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        between(0, 1, "[)", test_size=test_size)
        self.test_size = test_size
        parts = [read("dataset", dataset, keys is not None)] + ([read("test", test)] if test is not None else [])
        self.class_names = names_of(class_names, parts)
        self.num_classes = max(1, len(self.class_names))
        known = places_of(parts[0].classes, self.class_names)
        self._targets = [numbered(part, self.class_names, known, who) for part, who in zip(parts, WHOS, strict=False)]
        if keys is not None:
            if len(keys) != len(dataset):
                raise ValueError(f"`keys` names {len(keys)} samples of {len(dataset)}; give one for each.")
            parts[0] = parts[0]._replace(keys=[str(key) for key in keys], by_content=False)
        if test is not None:  # one key names one sample, also where the two sets number theirs alike
            parts = [
                part._replace(keys=[f"{start}/{key}" for key in part.keys])
                for part, start in zip(parts, ("train", "test"), strict=True)
            ]
        self._parts = parts
        self._facts: dict[str, Any] = {}
        self._normalised = self._tokens = False
        self._look()
        for name, value in self._facts.items():
            setattr(self, name, value)

    def _look(self) -> None:
        """Read some samples of each part, for what they are."""
        some = {
            f"sample {place} of {who}": input_of(item_of(part.dataset, place))
            for part, who in zip(self._parts, WHOS, strict=False)
            for place in looks(len(part.labels))
        }
        if not some:
            return
        first = next(iter(some.values()))
        self._facts = shape_facts(first)
        for name, sample in some.items():
            _require_like(next(iter(some)), first, name, sample)
        self._normalised = "channels" in self._facts and _beyond_pixels(list(some.values()))
        self._tokens = "feature_dim" in self._facts and not first.is_floating_point()
        for name, sample in some.items():
            if (self._normalised or "feature_dim" in self._facts) and sample.dtype != first.dtype:
                raise ValueError(
                    f"{name} is of {sample.dtype}, and {next(iter(some))} of {first.dtype}; let all be of one type."
                )
        _tell_kind(type(self._parts[0].dataset).__name__, first)

    @property
    def facts(self) -> dict[str, Any]:
        """Classes, and what the first sample's shape tells: image size and channels, or the length of vectors."""
        return {**super().facts, **self._facts}

    def clean(self) -> nn.Module:
        """Return pixels to float for images; what is no pixel, as floats beyond 0 and 1, stays as it is."""
        return CleanView() if "channels" in self._facts and not self._normalised else super().clean()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return the views of images for images, those of vectors for rows of floats, and none for anything else."""
        if "feature_dim" in self._facts:
            return None if self._tokens else vector_views(count, mild)
        if "channels" in self._facts and not self._normalised:
            return image_views(self._facts["channels"], count, mild, local_count)
        return None

    def weak_views(self) -> nn.Module | None:
        """Return a crop of most of an image, else a mild view."""
        if "channels" in self._facts and not self._normalised:
            return weak_image_view(self._facts["channels"])
        return super().weak_views()

    def strong_views(self) -> nn.Module | None:
        """Return RandAugment's view of images, else one of `views`."""
        if "channels" in self._facts and not self._normalised:
            return StrongView(flip=mirrored(self._facts["channels"]))
        return super().strong_views()

    def load(self, split: Split) -> Samples:
        """Return one part, without a sample decoded yet."""
        if len(self._parts) > 1:
            which = 1 if split == "test" else 0
            return Wrapped(self._parts[which], torch.arange(len(self._targets[which])), self._targets[which])
        targets = self._targets[0]
        test = chosen_by_share(self._parts[0].keys, self.test_size, self.split_seed, "test") & (targets >= 0)
        places = (test if split == "test" else ~test).nonzero()[:, 0]
        return Wrapped(self._parts[0], places, targets[places])

    def show(self, key: str) -> Shown:
        """Return an image as PNG, anything else as text."""
        samples, place = self.find(key)
        content = samples.__getitems__([place]).input
        if "channels" not in self._facts:
            return super().show(key)
        pixels = content[0]
        if pixels.is_floating_point():
            low, span = (
                (float(pixels.min()), float(pixels.max() - pixels.min()) or 1.0) if self._normalised else (0.0, 1.0)
            )
            pixels = (((pixels - low) / span).clamp(0, 1) * 255).round().to(torch.uint8)
        return Shown("image", png(pixels))

    def path_of(self, key: str) -> str | None:
        """Return the file of a sample, where the data set lists its files."""
        part, place = self._sample(key)
        return str(part.files[place]) if part.files else None

    def fingerprint(self, key: str) -> str | None:
        """Return what tells a sample's content: of its file, or of its numbers; null where its key does already."""
        part, place = self._sample(key)
        if part.files:
            return fingerprint(part.files[place])
        if part.by_content:
            return None
        found, again = (content_of(input_of(item_of(part.dataset, place))) for _ in range(2))
        return found if found == again else None  # a random transform

    def _sample(self, key: str) -> tuple[Foreign, int]:
        samples, place = self.find(key)
        assert isinstance(samples, Wrapped)
        return samples.part, samples.places[place]


def _beyond_pixels(samples: Sequence[Tensor]) -> bool:
    """Tell whether images are of floats that are no pixels from 0 to 1, and so normalised already."""
    floats = [sample for sample in samples if sample.is_floating_point() and sample.numel()]
    low, high = min([float(s.min()) for s in floats], default=0.0), max([float(s.max()) for s in floats], default=0.0)
    if low >= 0 and 2 < high <= 255:
        rank_zero_warn(
            f"images are floats from {low:g} to {high:g}, and are taken as they are; for pixels of 0 to 255 let the "
            "data set return uint8, or divide by 255."
        )
    return low < -1e-3 or high > 1 + 1e-3


def _require_like(first: str, sample: Any, name: str, other: Any) -> None:
    """Refuse a sample of another kind or shape; what is neither image nor vector may be longer or shorter."""
    forms = [_form(value, bool(shape_facts(sample))) for value in (sample, other)]
    if forms[0] != forms[1]:
        raise ValueError(
            f"{name} is {_shown(other)}, and {first} is {_shown(sample)}; samples must be of one kind and shape, for "
            "training and for test: convert, crop, scale or pad them."
        )


def _form(value: Any, exact: bool) -> Any:
    leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return getattr(value, "_fields", None), [tuple(leaf.shape) if exact else leaf.ndim for leaf in leaves]


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    shapes = [str(tuple(leaf.shape)) for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return f"{type(value).__name__} of shapes {', '.join(shapes)}"


def _tell_kind(name: str, sample: Any) -> None:
    """Warn where tensors are perhaps images, or vectors, and are not taken for them."""
    if not isinstance(sample, Tensor):
        return
    if sample.ndim == 1 and not sample.is_floating_point():
        rank_zero_warn(
            f"samples of `{name}` are rows of {sample.dtype}, and reach the model as they are, as tokens for an "
            "embedding layer, with no views made of them; if they are measurements, return `row.float()`."
        )
    if not shape_facts(sample):
        rank_zero_warn(
            f"samples of `{name}` are tensors of shape {tuple(sample.shape)}, which are neither images, (1 or 3, "
            "height, width), nor vectors, (numbers,): they have no `channels`, `image_size` or `feature_dim`, and no "
            f"views.{_remedy(sample.shape)} For anything else give the model a backbone and `views` that take them."
        )


def _remedy(shape: Sequence[int]) -> str:
    """Say how what is probably an image becomes one."""
    if len(shape) == 2:
        return " Of gray images return `image[None]`."
    if len(shape) != 3 or not {shape[0], shape[2]} & {1, 2, 3, 4}:
        return ""
    last = shape[0] not in (2, 4)
    channels = shape[2] if last else shape[0]
    code = "image.permute(2, 0, 1)" * last or "image"
    code += f"[:{channels - 1}]" if channels in (2, 4) else ""
    kind = {2: " of gray and alpha", 4: " of RGBA"}.get(channels, "") + " with channels last" * last
    return f" Of images{kind} return `{code}`, or a PIL image, which is laid over white where transparent."


def shape_facts(value: Any) -> dict[str, Any]:
    """Tell what a model must know of an input by its shape."""
    if not isinstance(value, Tensor):
        return {}
    if value.ndim == 3 and value.shape[0] in (1, 3):
        return {"channels": int(value.shape[0]), "image_size": int(value.shape[-1])}
    return {"feature_dim": int(value.shape[0])} if value.ndim == 1 else {}
