"""Anybody's own data set of torch as a data module."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.image_data import image_views, png
from ssl_lightning.data.samples import Batch, Samples, Shown, Split, as_targets
from ssl_lightning.data.splits import chosen_by_share
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

    An input is a tensor, a PIL image, an array, or a NamedTuple of tensors. Labels are read from `targets` or `labels`
    where the data set has them, else sample by sample, once. Keys are the paths of the files where the data set lists
    them (`samples`, as torchvision's), else numbers, so it must not change between two calls; or pass `keys`.

    Args:
        dataset: The training part, and the test part unless there is another.
        test: The test part; null to set `test_size` apart, each sample by its key.
        class_names: Of the labels; null for those of the data set (`classes`), else the numbers.
        keys: Unique names of the samples of `dataset`.
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
        keys: Sequence[str] | None = None,
        test_size: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= test_size < 1:
            raise ValueError(f"`test_size={test_size}` must be a fraction from 0 to below 1.")
        for name, given in (("dataset", dataset), ("test", test)):
            if given is not None and not (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
                raise ValueError(
                    f"`{name}={type(given).__name__}` is no map-style data set; it must have `__len__` and "
                    "`__getitem__`, as "
                    "`torch.utils.data.Dataset`."
                )
        self.dataset, self.test, self.test_size = dataset, test, test_size
        self._targets = [targets_of(part) for part in (dataset, test) if part is not None]
        self._keys = [list(keys) if keys is not None else keys_of(dataset, "" if test is None else "train/")]
        if test is not None:
            self._keys.append(keys_of(test, "test/"))
        if len(self._keys[0]) != len(dataset):
            raise ValueError(f"`keys` names {len(self._keys[0])} samples of {len(dataset)}; give one for each.")
        most = int(max([int(part.max()) for part in self._targets if len(part)], default=-1))
        found = class_names if class_names is not None else getattr(dataset, "classes", None)
        self.class_names = tuple(str(name) for name in (found or range(most + 1)))
        self.num_classes = max(1, len(self.class_names))
        self._facts = shape_facts(input_of(dataset[0])) if len(dataset) else {}
        for name, value in self._facts.items():
            setattr(self, name, value)

    @property
    def facts(self) -> dict[str, Any]:
        """Classes, and what the first sample's shape tells: image size and channels, or the length of vectors."""
        return {**super().facts, **self._facts}

    def clean(self) -> nn.Module:
        """Return pixels to float for images; else inputs stay as they are."""
        return CleanView() if "channels" in self._facts else super().clean()

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return the views of images for images, those of vectors for vectors, and none for anything else."""
        if "feature_dim" in self._facts:
            return vector_views(count, mild)
        if "channels" in self._facts:
            return image_views(self._facts["channels"], count, mild, local_count)
        return None

    def load(self, split: Split) -> Samples:
        """Return one part, without a sample decoded yet."""
        if self.test is not None:
            which = 1 if split == "test" else 0
            dataset = self.test if which else self.dataset
            return Wrapped(dataset, torch.arange(len(dataset)), self._targets[which], self._keys[which])
        targets, keys = self._targets[0], self._keys[0]
        test = chosen_by_share(keys, self.test_size, self.split_seed, "test") & (targets >= 0)
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
            pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        return Shown("image", png(pixels))


def input_of(item: Any) -> Any:
    """Return the input of what a data set returns, as tensors."""
    value = item[0] if isinstance(item, tuple | list) and not hasattr(item, "_fields") else item
    if isinstance(value, Image.Image):
        return pil_to_tensor(value if value.mode in ("L", "RGB") else value.convert("RGB"))
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value


def label_of(item: Any) -> int:
    """Return the label of what a data set returns, -1 where there is none."""
    if isinstance(item, tuple | list) and not hasattr(item, "_fields") and len(item) > 1 and item[1] is not None:
        return int(item[1])
    return -1


def targets_of(dataset: Any) -> Tensor:
    """Return the labels of a data set, by its own list of them, else sample by sample."""
    for name in ("targets", "labels"):
        listed = getattr(dataset, name, None)
        if listed is not None and not callable(listed) and len(listed) == len(dataset):
            return as_targets(listed)
    tensors = getattr(dataset, "tensors", None)  # TensorDataset
    if isinstance(tensors, tuple):
        return as_targets(tensors[1]) if len(tensors) > 1 else torch.full((len(dataset),), -1)
    return torch.tensor([label_of(dataset[place]) for place in range(len(dataset))], dtype=torch.int64)


def keys_of(dataset: Any, start: str) -> list[str]:
    """Return names of the samples: paths where the data set lists its files below a root, else numbers."""
    files = [row[0] if isinstance(row, tuple) else row for row in getattr(dataset, "samples", None) or []]
    root = getattr(dataset, "root", None)
    if len(files) == len(dataset) and root is not None and all(isinstance(file, str | Path) for file in files):
        names = [
            Path(file).relative_to(root).as_posix() if Path(file).is_relative_to(root) else str(file) for file in files
        ]
        if len(set(names)) == len(names):
            return [start + name for name in names]
    return [f"{start}{place}" for place in range(len(dataset))]


def shape_facts(value: Any) -> dict[str, Any]:
    """Tell what a model must know of an input by its shape."""
    if not isinstance(value, Tensor):
        return {}
    if value.ndim == 3 and value.shape[0] in (1, 3):
        return {"channels": int(value.shape[0]), "image_size": int(value.shape[-1])}
    return {"feature_dim": int(value.shape[0])} if value.ndim == 1 else {}
