"""Anybody's own data set of torch as a data module."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.decoding import fingerprint, pixels_of
from ssl_lightning.data.image_data import image_views, png
from ssl_lightning.data.samples import Batch, Samples, Shown, Split, as_targets, content_of, number_copies
from ssl_lightning.data.splits import chosen_by_share, side_of
from ssl_lightning.engine.ranges import between
from ssl_lightning.transforms.image import CleanView
from ssl_lightning.transforms.vectors import vector_views


class Wrapped(Dataset[Batch]):
    """Some samples of anybody's data set, fetched one by one.

    Args:
        dataset: Of (input, label) or (input,) or input.
        places: Which of it, `(N,)`.
        targets: `(N,)`, int64.
        keys: Of the samples.
    """

    def __init__(self, dataset: Any, places: Tensor, targets: Tensor, keys: Sequence[str]) -> None:
        self.dataset, self.places, self.targets, self.keys = dataset, places.tolist(), targets, keys

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        return Batch(input_of(self.dataset[self.places[index]]), self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        rows = [input_of(self.dataset[self.places[index]]) for index in indices]
        try:
            stacked = pytree.tree_map(lambda *parts: torch.stack(parts), *rows)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"samples of `{type(self.dataset).__name__}` cannot be put into one batch ({str(error)[:150]}); let it "
                "return tensors of one shape, or a NamedTuple of such tensors."
            ) from error
        return Batch(stacked, self.targets[indices], torch.as_tensor(indices))


class FromDataset(DataModule):
    """Any map-style data set of torch as a data module: of (input, label), of (input,), or of inputs alone.

    An input is a tensor, a PIL image, an array, or a NamedTuple of tensors; images are made as a person sees them.
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

    fixed: ClassVar[bool] = False

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
        _require_map_style("dataset", dataset)
        if test is not None:
            _require_map_style("test", test)
        self.dataset, self.test, self.test_size = dataset, test, test_size
        parts = [part for part in (dataset, test) if part is not None]
        labels = [labels_of(part) for part in parts]
        self.class_names = names_of(class_names, dataset, [label for part in labels for label in part])
        self.num_classes = max(1, len(self.class_names))
        own = [getattr(part, "classes", None) for part in parts]
        self._targets = [numbered(labels[place], own[place], self.class_names, own[0]) for place in range(len(parts))]
        self._keys = [keys_of(dataset, "" if test is None else "train/")]
        self._is_named = keys is not None or bool(files_of(dataset))
        if keys is not None:
            self._keys[0] = [str(key) for key in keys]
        if test is not None:
            self._keys.append(keys_of(test, "test/"))
        if len(self._keys[0]) != len(dataset):
            raise ValueError(f"`keys` names {len(self._keys[0])} samples of {len(dataset)}; give one for each.")
        first = [input_of(dataset[place]) for place in range(min(8, len(dataset)))]
        self._facts = shape_facts(first[0]) if first else {}
        self._normalised = any(_beyond_pixels(sample) for sample in first) and "channels" in self._facts
        for name, value in self._facts.items():
            setattr(self, name, value)

    @property
    def facts(self) -> dict[str, Any]:
        """Classes, and what the first sample's shape tells: image size and channels, or the length of vectors."""
        return {**super().facts, **self._facts}

    def clean(self) -> nn.Module:
        """Return pixels to float for images; what is no pixel, as floats beyond 0 and 1, stays as it is."""
        return CleanView() if "channels" in self._facts and not self._normalised else super().clean()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return the views of images for images, those of vectors for vectors, and none for anything else."""
        if "feature_dim" in self._facts:
            return vector_views(count, mild)
        if "channels" in self._facts and not self._normalised:
            return image_views(self._facts["channels"], count, mild, local_count)
        return None

    def load(self, split: Split) -> Samples:
        """Return one part, without a sample decoded yet."""
        if self.test is not None:
            which = 1 if split == "test" else 0
            dataset = self.test if which else self.dataset
            return Wrapped(dataset, torch.arange(len(dataset)), self._targets[which], self._keys[which])
        targets, keys = self._targets[0], self._keys[0]
        test = chosen_by_share([side_of(key) for key in keys], self.test_size, self.split_seed, "test") & (targets >= 0)
        places = (test if split == "test" else ~test).nonzero()[:, 0]
        return Wrapped(self.dataset, places, targets[places], [keys[place] for place in places.tolist()])

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
        samples, place = self.find(key)
        assert isinstance(samples, Wrapped)
        files = files_of(samples.dataset)
        return str(files[samples.places[place]]) if files else None

    def fingerprint(self, key: str) -> str | None:
        """Return what tells a sample's content: of its file, or of its numbers; null where its key does already."""
        path = self.path_of(key)
        if path is not None:
            return fingerprint(Path(path))
        samples, place = self.find(key)
        assert isinstance(samples, Wrapped)
        if not self._is_named:
            return None
        found, again = (content_of(input_of(samples.dataset[samples.places[place]])) for _ in range(2))
        return found if found == again else None  # a random transform


def _require_map_style(name: str, given: Any) -> None:
    if isinstance(given, type | str) or not (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
        shown = given.__name__ if isinstance(given, type) else type(given).__name__
        raise ValueError(
            f"`{name}={shown}` is no map-style data set that is built; it must have `__len__` and `__getitem__`, as "
            "`torch.utils.data.Dataset`."
        )


def input_of(item: Any) -> Any:
    """Return the input of what a data set returns, as tensors.

    Raises:
        ValueError: If it is no tensor, picture or array, nor a NamedTuple of tensors.
    """
    value = item[0] if isinstance(item, tuple | list) and not hasattr(item, "_fields") else item
    if isinstance(value, Image.Image):
        return pixels_of(value)
    if isinstance(value, np.ndarray):
        found = torch.from_numpy(np.ascontiguousarray(value))
        if found.dtype == torch.uint8 and found.ndim == 3 and found.shape[2] in (1, 3) and found.shape[0] not in (1, 3):
            return found.permute(2, 0, 1)  # an array of an image has its channels last
        return found.float() if found.is_floating_point() else found
    if isinstance(value, Tensor) or hasattr(value, "_fields"):
        return value
    raise ValueError(
        f"a sample of the data set is {type(value).__name__}; let it return (input, label), (input,) or input, where "
        "an input is a tensor, a PIL image, an array, or a NamedTuple of tensors."
    )


def label_of(item: Any) -> Any:
    """Return the label of what a data set returns, -1 where there is none."""
    if isinstance(item, tuple | list) and not hasattr(item, "_fields") and len(item) > 1 and item[1] is not None:
        return item[1]
    return -1


def labels_of(dataset: Any) -> list[Any]:
    """Return the labels of a data set as they are, by its own list of them, else sample by sample."""
    for name in ("targets", "labels"):
        listed = getattr(dataset, name, None)
        if listed is not None and not callable(listed) and len(listed) == len(dataset):
            return list(listed.tolist() if isinstance(listed, Tensor | np.ndarray) else listed)
    tensors = getattr(dataset, "tensors", None)  # TensorDataset
    if isinstance(tensors, tuple):
        return tensors[1].tolist() if len(tensors) > 1 else [-1] * len(dataset)
    return [label_of(dataset[place]) for place in range(len(dataset))]


def names_of(given: Sequence[str] | None, dataset: Any, labels: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the classes: those given, those of the data set, else what its labels are.

    Raises:
        ValueError: If they are no list of names.
    """
    found = given if given is not None else getattr(dataset, "classes", None)
    if found is not None:
        if isinstance(found, str) or not isinstance(found, Sequence):
            raise ValueError(f"`class_names={found!s:.60}` must be a list of names, one for each class.")
        return tuple(str(name) for name in found)
    words = {label for label in labels if isinstance(label, str)}
    if words:
        return tuple(sorted(words - {""}))
    return tuple(
        str(number) for number in range(max([int(n) for n in as_targets(plain_labels(labels))], default=-1) + 1)
    )


def plain_labels(labels: Sequence[Any]) -> Tensor:
    """Return labels that are numbers as one tensor, `(N,)`, float64.

    Raises:
        ValueError: If one is no number; names it and its place.
    """
    rows = []
    for place, label in enumerate(labels):
        value = label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label
        while isinstance(value, list | tuple) and len(value) == 1:
            (value,) = value
        value = -1 if value is None else value
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"the label of sample {place} is `{label!s:.60}`; required is the number of a class from 0, -1 or none "
                "where unknown, or the name of a class."
            )
        rows.append(value)
    return torch.tensor(rows, dtype=torch.float64)


def numbered(
    labels: Sequence[Any], own: Sequence[Any] | None, class_names: Sequence[str], reference: Sequence[Any] | None
) -> Tensor:
    """Return labels as numbers of the classes, `(N,)`, int64.

    Args:
        labels: Of a part, as `labels_of` returns them.
        own: The part's own names of its numbers, if it has any: they are compared by name.
        class_names: Of all classes, in their order.
        reference: The training part's own names, which `class_names` may replace one by one.

    Raises:
        ValueError: If a label is none, or of a class that is not among the names.
    """
    numbers = {name: number for number, name in enumerate(class_names)} | {"": -1}
    if any(isinstance(label, str) for label in labels):
        if unknown := sorted({str(label) for label in labels} - numbers.keys()):
            raise ValueError(
                f"the labels {', '.join(unknown[:5])} are no class; the classes are {', '.join(class_names)[:200]}."
            )
        return torch.tensor([numbers[str(label)] for label in labels], dtype=torch.int64)
    targets = as_targets(plain_labels(labels))
    theirs = [str(name) for name in own] if own is not None else list(class_names)
    if theirs == list(class_names) or (reference is not None and theirs == [str(name) for name in reference]):
        return targets
    if unknown := [name for name in theirs if name not in numbers]:
        raise ValueError(
            f"`test` has the classes {', '.join(unknown[:5])}, which are not those of `dataset`: "
            f"{', '.join(class_names)[:200]}."
        )
    if (highest := max(targets.tolist(), default=-1)) >= len(theirs):
        raise ValueError(f"a label is {highest}, and there are {len(theirs)} `classes`; mend the labels.")
    of_mine = torch.tensor([*(numbers[name] for name in theirs), -1], dtype=torch.int64)
    return of_mine[targets]


def files_of(dataset: Any) -> list[Path]:
    """Return the file of each sample, where a data set lists them, as torchvision's folders do; else nothing."""
    files = [row[0] if isinstance(row, tuple) else row for row in getattr(dataset, "samples", None) or []]
    if len(files) != len(dataset) or not all(isinstance(file, str | Path) for file in files):
        return []
    return [Path(file) for file in files]


def keys_of(dataset: Any, start: str) -> list[str]:
    """Return names of the samples: paths below a root, numbers in public sets, else hashes of what the samples are."""
    files, root = files_of(dataset), getattr(dataset, "root", None)
    if files and root is not None:
        names = [file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file) for file in files]
        if len(set(names)) == len(names):
            return [start + name for name in names]
    if type(dataset).__module__.startswith("torchvision.datasets"):
        return [f"{start}{place}" for place in range(len(dataset))]
    keys = number_copies(content_of(input_of(dataset[place])) for place in range(len(dataset)))
    if keys and content_of(input_of(dataset[0])) != keys[0]:
        rank_zero_warn(
            f"samples of `{type(dataset).__name__}` differ from one reading to the next (a random transform?), so they "
            "have no content to go by: their keys are their numbers, and labels go astray when samples come or go. "
            "Pass `keys`, and random transforms as `views` of the model."
        )
        return [f"{start}{place}" for place in range(len(dataset))]
    return [f"{start}{key}" for key in keys]


def _beyond_pixels(sample: Any) -> bool:
    """Tell whether an image is of floats that are no pixels from 0 to 1: normalised already."""
    if not isinstance(sample, Tensor) or not sample.is_floating_point() or not sample.numel():
        return False
    return float(sample.min()) < -1e-3 or float(sample.max()) > 1 + 1e-3


def shape_facts(value: Any) -> dict[str, Any]:
    """Tell what a model must know of an input by its shape."""
    if not isinstance(value, Tensor):
        return {}
    if value.ndim == 3 and value.shape[0] in (1, 3):
        return {"channels": int(value.shape[0]), "image_size": int(value.shape[-1])}
    return {"feature_dim": int(value.shape[0])} if value.ndim == 1 else {}
