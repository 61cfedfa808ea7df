"""Samples: what a data set holds, by the batch, each with a key."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from ssl_lightning.data.splits import COPY
from ssl_lightning.engine.seeding import derive_seed
from ssl_lightning.transforms.base import PerSample

Split = Literal["train", "test"]


class Batch(NamedTuple):
    """What every step receives.

    Attributes:
        input: As the data set holds it, with one row a sample: a tensor `(N, ...)`, or a NamedTuple of such tensors.
        target: Classes `(N,)`, int64; -1 where unlabelled.
        index: Positions in the training (or test) part `(N,)`, int64: valid in this process and call only. What
            outlives it, in files and stores, speaks of keys.
        views: Random views, where they were made by the sample while loading; null where they are made by the batch.
        part: Names the part of one data module that `index` is of, in this process; null where nobody says.
    """

    input: Any
    target: Tensor
    index: Tensor  # type: ignore[assignment]  # the word of the contract, over tuple's method
    views: list[Any] | None = None
    part: str | None = None


class Shown(NamedTuple):
    """What a person sees of a sample.

    Attributes:
        kind: `image`: content is the bytes of a PNG file; `text`: a string; `audio`: the bytes of a WAV file; `row`: a
            JSON object, the cells of a table's row by their columns.
        content: That.
        caption: Text that belongs to an image or sound; null where there is none.
    """

    kind: Literal["image", "text", "audio", "row"]
    content: bytes | str
    caption: str | None = None


class Part(NamedTuple):
    """Some samples to predict.

    Attributes:
        name: Of the part of a data set; empty where there are none.
        samples: To be predicted.
        paths: Of their files; empty strings where they are no files.
        labels: Names of their classes; empty strings where unknown.
        clean: Makes clean input of them, where the checkpoint does not say how.
    """

    name: str
    samples: "Samples"
    paths: Sequence[str]
    labels: Sequence[str]
    clean: nn.Module


class Samples(Protocol):
    """A data set that returns a whole batch by one call of `__getitems__`, with all its keys and targets at hand.

    Attributes:
        keys: The name of each sample: unique, and the same whenever the sample is there.
        targets: Classes, -1 where unlabelled, `(N,)`, int64.
    """

    keys: Sequence[str]
    targets: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def __getitems__(self, indices: list[int]) -> Batch: ...


class TensorSamples(Dataset[Batch]):
    """Samples in memory.

    Args:
        inputs: A tensor `(N, ...)`, or a NamedTuple of such tensors.
        targets: Classes `(N,)`; -1 where unknown.
        keys: Of the samples, unique; null to name each by its content.

    Raises:
        ValueError: If the lengths differ, a key is there twice, inputs are sparse, or targets are of a kind that is no
            class.
    """

    def __init__(self, inputs: Any, targets: Tensor, keys: Sequence[str] | None = None) -> None:
        require_dense(inputs, "`inputs`")
        self.inputs, self.targets = inputs, as_targets(targets)
        self.unnamed = keys is None
        self.keys: Sequence[str] = range(len(self.targets)) if keys is None else keys  # type: ignore[assignment]
        lengths = {len(rows) for rows in pytree.tree_leaves(inputs)} | {len(self.targets), len(self.keys)}
        if len(lengths) > 1:
            raise ValueError(f"inputs, targets and keys must have one length; got {sorted(lengths)}.")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return Batch(pytree.tree_map(lambda rows: rows[index], self.inputs), self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.int64)
        if isinstance(self.inputs, Tensor):
            return Batch(self.inputs[index], self.targets[index], index)
        return Batch(pytree.tree_map(lambda rows: rows[index], self.inputs), self.targets[index], index)

    def move(self, device: Any) -> None:
        """Keep the inputs on a device."""
        self.inputs = pytree.tree_map(lambda rows: rows.to(device), self.inputs)


class Viewed(Dataset[Batch]):
    """Samples with random views by a function of one sample, made where they are loaded: in the loader's workers.

    Attributes:
        same_places: Its positions are those of the samples within.

    Args:
        samples: The data set.
        views: Makes them.
        seed: Each draw of a sample has views that are a function of this and of the draw's number.
    """

    same_places: ClassVar[bool] = True

    def __init__(self, samples: Any, views: PerSample, seed: int) -> None:
        self.samples, self.views, self.seed = samples, views, seed
        self.keys, self.targets = samples.keys, samples.targets

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, drawn: tuple[int, int]) -> Batch:
        return self.__getitems__([drawn])

    def __getitems__(self, drawn: list[tuple[int, int]]) -> Batch:
        batch: Batch = self.samples.__getitems__([place for place, _ in drawn])
        seeds = [derive_seed(self.seed, "views", number) for _, number in drawn]
        return batch._replace(views=self.views.make(batch.input, seeds))


def learnt_from(loader: Any) -> tuple[Any, Tensor]:
    """Return the samples of a training loader as they are without views, and which of them are drawn with their labels.

    Args:
        loader: Of a fit.

    Returns:
        The data set, and positions in it `(N,)`.

    Raises:
        ValueError: If it is a stranger's loader, whose samples do not tell their labels.
    """
    samples: Any = getattr(loader, "dataset", None)
    samples = samples.samples if isinstance(samples, Viewed) else samples
    if not isinstance(getattr(samples, "targets", None), Tensor):
        raise ValueError(
            "the labels of the training samples are wanted before the first step, and the training loader does not "
            "tell them: use a data module of `ssl_lightning.data`, as `FromDataset(dataset)`, or set "
            "`recipe=Recipe(probe=False, class_balance=0)`."
        )
    return samples, getattr(loader.sampler, "indices", torch.arange(len(samples)))


def as_targets(targets: Any) -> Tensor:
    """Return classes as int64 `(N,)`, from any whole numbers.

    Raises:
        ValueError: If they are no whole numbers, or more than one a sample.

    Example:
        >>> as_targets(torch.tensor([0.0, 2.0, -1.0]))
        tensor([ 0,  2, -1])
    """
    found = torch.as_tensor(targets)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise ValueError(
            f"targets of shape {tuple(found.shape)} are not supported: one class a sample is, `(N,)`, from 0, or -1 "
            "where unknown; of one-hot rows take `argmax(dim=1)`, several classes of a sample cannot be learnt here."
        )
    whole = found.long()
    if found.is_complex() or not torch.equal(whole.to(found.dtype), found):
        raise ValueError(
            f"targets of type {found.dtype} must be whole numbers, the classes from 0, or -1 where unknown; continuous "
            "targets are not supported."
        )
    return whole


def require_dense(sample: Any, shown: str) -> None:
    """Refuse tensors that cannot be put into batches.

    Args:
        sample: A tensor, or a NamedTuple of tensors.
        shown: Names it, for messages.

    Raises:
        ValueError: If one is sparse or nested.
    """
    for leaf in pytree.tree_leaves(sample):
        if isinstance(leaf, Tensor) and (leaf.layout is not torch.strided or leaf.is_nested):
            kind = "a nested tensor" if leaf.is_nested else f"a sparse tensor ({str(leaf.layout).rpartition('.')[2]})"
            remedy = "pad to one length" if leaf.is_nested else "return `tensor.to_dense()`"
            raise ValueError(f"{shown} is {kind}; required is a dense one, of which batches are made: {remedy}.")


def content_of(sample: Any) -> str:
    """Return a hash of one sample's input, a tensor or a NamedTuple of tensors.

    Example:
        >>> content_of(torch.zeros(2)) == content_of(torch.zeros(2)) != content_of(torch.ones(2))
        True
    """
    digest = hashlib.sha256()
    for leaf in pytree.tree_leaves(sample):
        rows = torch.as_tensor(leaf).detach().cpu().contiguous()
        digest.update(f"{rows.dtype}{tuple(rows.shape)}".encode())
        digest.update(rows.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def content_keys(inputs: Any) -> list[str]:
    """Name samples by their content, of inputs with one row a sample."""
    count = len(pytree.tree_leaves(inputs)[0])
    return number_copies(content_of(pytree.tree_map(itemgetter(place), inputs)) for place in range(count))


def content_names(samples: Any, fingerprint: Callable[[str], str | None], read_as: str) -> NDArray[np.uint64]:
    """Return 128 bits that tell each sample's input from any other.

    They are of what is in memory, else of the file, else of what is read, sample by sample.

    Args:
        samples: A data set of ours.
        fingerprint: Of a key, as of a data module.
        read_as: Tells how files are read from other ways, such as at another size.

    Returns:
        `(N, 2)`.
    """
    if isinstance(samples, TensorSamples) and isinstance(samples.inputs, Tensor):
        rows = samples.inputs.detach().cpu().contiguous()
        salt = f"{rows.dtype}{tuple(rows.shape[1:])}"
        bits = (row.numpy().tobytes() for row in rows.reshape(len(rows), -1).view(torch.uint8))
    else:
        keys, salt = samples.keys, read_as
        files = bool(len(keys)) and fingerprint(keys[0]) is not None
        found = (fingerprint(key) if files else content_of(samples[place].input) for place, key in enumerate(keys))
        bits = (str(one).encode() for one in found)
    secret = hashlib.sha256(salt.encode()).digest()
    digests = b"".join(hashlib.blake2b(one, digest_size=16, key=secret).digest() for one in bits)
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


def number_copies(contents: Iterable[str]) -> list[str]:
    """Return keys that are contents; exact copies, which nothing tells apart, are numbered.

    Example:
        >>> number_copies(["a", "b", "a"])
        ['a', 'b', 'a~copy2']
    """
    times: Counter[str] = Counter()
    keys = []
    for content in contents:
        times[content] += 1
        keys.append(content if times[content] == 1 else f"{content}{COPY}{times[content]}")
    return keys


def keep(batch: Any, part: str | None = None) -> Any:
    """Collate a batch that `__getitems__` already put together, and say of which part it is."""
    return batch._replace(part=part) if part and isinstance(batch, Batch) else batch
