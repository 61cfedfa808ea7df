"""What somebody's data set of torch holds: inputs, labels, names of classes, files, and a key for each sample."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from ssl_lightning.data.decoding import pixels_of
from ssl_lightning.data.listing import composed
from ssl_lightning.data.samples import as_targets, content_of, number_copies, require_dense

LOOKS = 16  # samples by which lists of a data set are compared with what it returns


class Foreign(NamedTuple):
    """A data set, read as far as needed.

    Attributes:
        dataset: Map-style.
        labels: As it gives them, one a sample; -1 where it gives none.
        classes: Its own names of the numbers, if it has any.
        files: Of the samples, if it lists them.
        keys: Unique names: paths below its root, numbers in public sets, else the content's hash.
        by_content: Whether keys are contents.
    """

    dataset: Any
    labels: list[Any]
    classes: list[str] | None
    files: list[Path]
    keys: list[str]
    by_content: bool


def read(name: str, dataset: Any, named: bool = False) -> Foreign:
    """Read a data set: its lists where it has them, else every sample, once.

    Args:
        name: Of the argument that gave it.
        dataset: Map-style.
        named: Somebody else gives the keys: not every sample is read for them.

    Raises:
        ValueError: If it is none, or its samples are nothing that can be learnt from.
    """
    _require_map_style(name, dataset)
    labels, files = _listed_labels(dataset), files_of(dataset)
    keys = [str(place) for place in range(len(dataset))] if named else _paths(dataset, files) or _numbers(dataset)
    contents = []
    if labels is None or not keys:
        found = []
        for place in range(len(dataset)):
            item = item_of(dataset, place)
            found.append(label_of(item))
            if not keys and not named:
                contents.append(content_of(input_of(item)))
        labels = found if labels is None else labels
    by_content = not keys and not named
    if by_content and not _repeats(dataset, contents):
        rank_zero_warn(
            f"samples of `{type(dataset).__name__}` differ from one reading to the next (a random transform?), so they "
            "have no content to go by: their keys are their numbers, and labels go astray when samples come or go. "
            "Pass `keys`, and random transforms as `views` of the model."
        )
        return Foreign(dataset, labels, classes_of(dataset), files, [str(n) for n in range(len(dataset))], False)
    return Foreign(dataset, labels, classes_of(dataset), files, keys or number_copies(contents), by_content)


def _require_map_style(name: str, dataset: Any) -> None:
    built = not isinstance(dataset, type | str | IterableDataset)
    if not built or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        shown = dataset.__name__ if isinstance(dataset, type) else type(dataset).__name__
        raise ValueError(
            f"`{name}={shown}` is no map-style data set that is built; it must have `__len__` and `__getitem__`, as "
            "`torch.utils.data.Dataset`."
        )
    try:
        len(dataset)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"`{name}={type(dataset).__name__}` tells no length ({error}); let `__len__` return the number of samples."
        ) from error


def item_of(dataset: Any, place: int) -> Any:
    """Return what a data set returns at a place below its length.

    Raises:
        ValueError: If there is nothing.
    """
    try:
        return dataset[place]
    except (IndexError, KeyError) as error:
        name = type(dataset).__name__
        raise ValueError(
            f"`len({name})` is {len(dataset)}, and `{name}[{place}]` raises {type(error).__name__} ({error!s:.100}); "
            "let `__len__` return the number of samples, and `__getitem__` one for each number from 0 below it."
        ) from error


def looks(count: int) -> list[int]:
    """Return some places spread over a data set of so many samples."""
    return torch.linspace(0, count - 1, min(count, LOOKS)).long().tolist()


def input_of(item: Any) -> Any:
    """Return the input of what a data set returns, as tensors; floats are of 32 bits.

    Raises:
        ValueError: If it is no tensor, picture or array, nor a NamedTuple of tensors, or a tensor is sparse.
    """
    value = item[0] if isinstance(item, tuple | list) and len(item) and not hasattr(item, "_fields") else item
    if isinstance(value, Image.Image):
        return pixels_of(value)
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("="), copy=False))
        if value.ndim == 3 and value.shape[2] in (1, 3) and value.shape[0] not in (1, 3):
            value = value.permute(2, 0, 1)  # an array of an image has its channels last
    if isinstance(value, Tensor) or hasattr(value, "_fields"):
        require_dense(value, "a sample of the data set")
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if hasattr(value, "_fields"):
        return value
    raise ValueError(
        f"a sample of the data set is {type(value).__name__}; let it return (input, label), (input,) or input, where "
        "an input is a tensor, a PIL image, an array, or a NamedTuple of tensors."
    )


def label_of(item: Any) -> Any:
    """Return the label of what a data set returns, -1 where there is none."""
    if isinstance(item, tuple | list) and not hasattr(item, "_fields") and len(item) > 1:
        return _plain(item[1])
    return -1


def _plain(label: Any) -> Any:
    """Return a label as a number of Python or a word, where it is one; -1 where it is none at all."""
    value = label.tolist() if isinstance(label, Tensor | np.ndarray | np.generic) else label
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, str):
        value = composed(value)  # one name in two forms of Unicode is one class
    return -1 if value is None or value == "" else value


def _listed_labels(dataset: Any) -> list[Any] | None:
    """Return the labels that a data set lists, if they are those that it returns."""
    lists = [getattr(dataset, name, None) for name in ("targets", "labels")]
    if isinstance(dataset, TensorDataset):
        lists.append(dataset.tensors[1] if len(dataset.tensors) > 1 else [-1] * len(dataset))
    for listed in lists:
        if listed is None or not hasattr(listed, "__len__") or callable(listed) or len(listed) != len(dataset):
            continue
        labels = [_plain(label) for label in listed]
        returned = [(labels[place], label_of(item_of(dataset, place))) for place in looks(len(dataset))]
        if all(label in (one, -1) for one, label in returned) and labels:
            return labels
    return None


def classes_of(dataset: Any) -> list[str] | None:
    """Return a data set's names of its classes, looked for in what it is a part of or is made of, too."""
    found = getattr(dataset, "classes", None)
    if found is not None and not callable(found):
        return [composed(str(name)) for name in found]
    if isinstance(dataset, Subset):
        return classes_of(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        inner = [classes_of(part) for part in dataset.datasets]
        return inner[0] if all(names == inner[0] for names in inner) else None
    return None


def files_of(dataset: Any) -> list[Path]:
    """Return the file of each sample, where a data set lists them, as torchvision's folders do; else nothing."""
    if isinstance(dataset, Subset):
        whole = files_of(dataset.dataset)
        return [whole[place] for place in dataset.indices] if whole else []
    listed = [row[0] if isinstance(row, tuple) else row for row in getattr(dataset, "samples", None) or []]
    if not listed or len(listed) != len(dataset) or not all(isinstance(file, str | Path) for file in listed):
        return []
    some = [Path(listed[place]) for place in looks(len(listed))]
    return [Path(file) for file in listed] if all(file.is_file() for file in some) else []


def _paths(dataset: Any, files: Sequence[Path]) -> list[str]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    root = getattr(dataset, "root", None)
    names = [
        file.relative_to(root).as_posix() if root is not None and file.is_relative_to(root) else str(file)
        for file in files
    ]
    return names if len(set(names)) == len(names) else []


def _numbers(dataset: Any) -> list[str]:
    public = type(dataset).__module__.startswith("torchvision.datasets")
    return [str(place) for place in range(len(dataset))] if public else []


def _repeats(dataset: Any, contents: Sequence[str]) -> bool:
    """Tell whether samples are the same at each reading: several looks at each, for what is seldom drawn."""
    return all(
        content_of(input_of(item_of(dataset, place))) == contents[place]
        for place in looks(len(contents))
        for _ in range(4)
    )


def names_of(given: Any, parts: Iterable[Foreign]) -> tuple[str, ...]:
    """Return the names of the classes: those given, those of the data sets, else what their labels are.

    Raises:
        ValueError: If they are no list of names.
    """
    if isinstance(given, str) or not (given is None or isinstance(given, Sequence)):
        raise ValueError(f"`class_names={given!s:.60}` must be a list of names, one for each class.")
    parts = list(parts)
    found = given if given is not None else next((part.classes for part in parts if part.classes is not None), None)
    if found is not None:
        return tuple(composed(str(name)) for name in found)
    labels = [label for part in parts for label in part.labels]
    words = {label for label in labels if isinstance(label, str)}
    if words:
        return tuple(sorted(words))
    highest = max(as_targets(_numbers_of(labels)).tolist(), default=-1)
    return tuple(str(number) for number in range(highest + 1))


def _numbers_of(labels: Sequence[Any]) -> Tensor:
    for place, label in enumerate(labels):
        if not isinstance(label, int | float) or not math.isfinite(label):
            raise ValueError(
                f"the label of sample {place} is `{label!s:.60}`; required is the number of a class from 0, -1 or none "
                "where unknown, or the name of a class."
            )
    return torch.tensor([float(label) for label in labels], dtype=torch.float64)


def places_of(own: Sequence[str] | None, class_names: Sequence[str]) -> dict[str, int]:
    """Match a data set's own names of its classes with those of all.

    Args:
        own: In the order of its numbers; null where it has none.
        class_names: Of all classes.

    Returns:
        The number of each own name: by name where all of them are known, by place where none is and there are as many,
        which is a renaming.

    Raises:
        ValueError: If some are known and some are not, or there are more or fewer.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    if own is None or set(own) <= numbers.keys():
        return numbers if own is None else {name: numbers[name] for name in own}
    if len(own) == len(class_names) and not set(own) & numbers.keys():
        return {name: number for number, name in enumerate(own)}
    raise ValueError(
        f"the data set has the classes {', '.join(own)[:200]}, and `class_names` are {', '.join(class_names)[:200]}; "
        "give all its names among them, or as many new ones."
    )


def numbered(part: Foreign, class_names: Sequence[str], known: dict[str, int], who: str) -> Tensor:
    """Return a data set's labels as numbers of the classes, `(N,)`, int64; -1 where unknown.

    Args:
        part: The data set.
        class_names: Of all classes, in their order.
        known: Numbers of the training part's own names, in the order of its own numbers.
        who: Names the part, for messages.

    Raises:
        ValueError: If a label is none, or of a class that is not known.
    """
    numbers = known | {name: number for number, name in enumerate(class_names)}
    labels = part.labels
    if any(isinstance(label, str) for label in labels):
        names = [str(label) if isinstance(label, str) else None for label in labels]
        for place, label in enumerate(labels):
            if names[place] is None and label != -1 and not (isinstance(label, float) and math.isnan(label)):
                raise ValueError(f"the label of sample {place} of {who} is `{label!s:.60}`, where others are names.")
        _require_known({name for name in names if name is not None}, numbers, class_names, who)
        return torch.tensor([-1 if name is None else numbers[name] for name in names], dtype=torch.int64)
    targets = as_targets(_numbers_of(labels))
    own = list(known) if part.classes is None else part.classes
    _require_known(set(own), numbers, class_names, who)
    if (highest := max(targets.tolist(), default=-1)) >= len(own):
        raise ValueError(f"a label of {who} is {highest}, and there are {len(own)} classes; mend the labels.")
    if (least := min(targets.tolist(), default=-1)) < -1:
        raise ValueError(f"a label of {who} is {least}; required is the number of a class from 0, or -1 where unknown.")
    return torch.tensor([*(numbers[name] for name in own), -1], dtype=torch.int64)[targets]


def _require_known(names: set[str], numbers: dict[str, int], class_names: Sequence[str], who: str) -> None:
    if unknown := sorted(names - numbers.keys()):
        raise ValueError(
            f"{who} has the classes {', '.join(unknown[:5])}, which are not among {', '.join(class_names)[:200]}."
        )
