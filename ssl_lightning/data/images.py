"""Anybody's own folder of images, labelled by its sub-folders, in part, or not at all."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.data.decoding import decode, fingerprint, thumbnail
from ssl_lightning.data.files import PICTURES
from ssl_lightning.data.folders import FolderData
from ssl_lightning.data.image_data import ImageData
from ssl_lightning.data.listing import Kind
from ssl_lightning.data.samples import Batch, Samples, Shown, TensorSamples
from ssl_lightning.engine.ranges import one_of, whole


class LazyImages(Dataset[Batch]):
    """Images decoded when asked for, where they are too many to keep.

    A batch is decoded by as many threads as torch uses: all cores in the process that trains, one in a loader's worker.

    Args:
        paths: Files.
        targets: `(N,)`, int64.
        keys: Of the samples.
        channels: 1 or 3.
        size: Side in pixels.
    """

    def __init__(self, paths: Sequence[Path], targets: Tensor, keys: Sequence[str], channels: int, size: int) -> None:
        self.paths, self.targets, self.keys, self.channels, self.size = paths, targets, keys, channels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        return Batch(decode(self.paths[index], self.channels, self.size), self.targets[index], torch.tensor(index))

    def __getitems__(self, indices: list[int]) -> Batch:
        images = decode_all([self.paths[index] for index in indices], self.channels, self.size, torch.get_num_threads())
        return Batch(images, self.targets[indices], torch.as_tensor(indices))


def decode_all(paths: Sequence[Path], channels: int, size: int, threads: int | None = None) -> Tensor:
    """Decode several pictures, as `decode` does one.

    Args:
        paths: Of the files, at least one.
        channels: 1 for gray, 3 for colour.
        size: Side of the results in pixels.
        threads: That decode; null for what Python takes, some more than cores, which suits slow disks.

    Returns:
        Pixels `(N, channels, size, size)`, uint8.
    """
    if threads == 1:
        return torch.stack([decode(path, channels, size) for path in paths])
    with ThreadPoolExecutor(threads) as pool:
        return torch.stack(list(pool.map(lambda path: decode(path, channels, size), paths)))


class ImageFolder(FolderData, ImageData):
    """Your own folder of images: `root/CLASS/image.jpg`, or `root/image.jpg` without labels, or either under `train`, `val` and `test`.

    Pictures beside class folders, and those in a folder `unlabelled`, are samples without a label, unless a table says
    their class: then folders may be no classes at all (`label_by` in data/label_table.py tells when). Without a `test`
    folder, `test_size` of the labelled images are set apart, each by its own path: it never changes sides when others
    come or go. Images are scaled to one size and kept in memory as far as `memory_gib` goes, else decoded when needed.
    Keys are the paths below `root`.

    Args:
        root: The folder.
        image_size: Side of the images in pixels after scaling and centre crop.
        channels: 3 for colour, 1 for gray.
        test_size: Fraction of the labelled images for test where there is no `test` folder; 0 for none.
        skip_corrupt: Leave unreadable files out and count them, instead of stopping at the first.
        memory_gib: Keep decoded images in memory up to this many GiB a part.
        labels: CSV file with the columns `path` (below `root`) and `class`; null for a `labels.csv` in `root`, if any.
        kwargs: As for `ImageData`.

    Raises:
        ValueError: If the folder is missing or empty, a file is unreadable, or the table does not fit.
    """  # noqa: E501

    kind: ClassVar[Kind] = PICTURES

    def __init__(
        self,
        root: str,
        image_size: int = 32,
        channels: Literal[1, 3] = 3,
        test_size: float = 0.2,
        skip_corrupt: bool = False,
        memory_gib: float = 2.0,
        labels: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root=root, test_size=test_size, skip_corrupt=skip_corrupt, memory_gib=memory_gib, labels=labels, **kwargs
        )
        whole(8, 1024, image_size=image_size)
        one_of((1, 3), channels=channels)
        self.image_size, self.channels = image_size, channels

    def open_files(self, paths: Sequence[Path], targets: Tensor, keys: Sequence[str]) -> Samples:
        """Decode pictures as far as memory goes."""
        lazy = LazyImages(paths, targets, keys, self.channels, self.image_size)
        if not paths or len(paths) * self.channels * self.image_size**2 > self.memory_gib * 2**30:
            return lazy
        return TensorSamples(decode_all(paths, self.channels, self.image_size), targets, keys)

    def check_file(self, path: Path) -> None:
        """Decode a picture."""
        decode(path, self.channels, self.image_size)

    def show(self, key: str) -> Shown:
        """Return the picture as the file has it, upright, at most 256 px wide and high, as PNG."""
        return Shown("image", thumbnail(self._file(key)))

    def fingerprint(self, key: str) -> str | None:
        """Return size and hash of a sample's file."""
        return fingerprint(self._file(key))
