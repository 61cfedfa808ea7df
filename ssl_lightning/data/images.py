"""Anybody's own folder of images, labelled by its sub-folders, in part, or not at all."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from ssl_lightning.data.decoding import decode, fingerprint, thumbnail
from ssl_lightning.data.files import find_images, find_table
from ssl_lightning.data.image_data import ImageData
from ssl_lightning.data.listing import FoundFile, printable
from ssl_lightning.data.samples import Batch, Samples, Shown, Split, TensorSamples
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.engine.processes import first_process
from ssl_lightning.engine.ranges import at_least, between, one_of, whole

CLASSES_SHOWN = 12  # in the line that says what was found


class LazyImages(Dataset[Batch]):
    """Images decoded when asked for, where they are too many to keep; use `num_workers`.

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
        images = torch.stack([decode(self.paths[index], self.channels, self.size) for index in indices])
        return Batch(images, self.targets[indices], torch.as_tensor(indices))


class ImageFolder(ImageData):
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
        super().__init__(**kwargs)
        whole(8, 1024, image_size=image_size)
        one_of((1, 3), channels=channels)
        between(0, 1, "[)", test_size=test_size)
        at_least(0, memory_gib=memory_gib)
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(
                f"`root={root}` is no folder ({self.root.resolve()}); give the folder that holds the images."
            )
        self.image_size, self.channels = image_size, channels
        self.test_size, self.skip_corrupt, self.memory_gib = test_size, skip_corrupt, memory_gib
        if labels is not None and not Path(labels).is_file():
            raise ValueError(
                f"`labels={labels}` is no file ({Path(labels).resolve()}); give a CSV table, or leave it out."
            )
        self.labels = find_table(self.root) if labels is None else Path(labels)
        self.found = find_images(self.root, self.labels)
        self.class_names = self.found.class_names
        self.num_classes = max(1, len(self.class_names))
        self._paths = {file.key: file.path for file in self.found.files}
        self._told = False

    def load(self, split: Split) -> Samples:
        """Decode or open one part."""
        chosen = [file for file in self.found.files if (self._part_of(file) == "test") == (split == "test")]
        files = self._readable(chosen) if self.skip_corrupt else chosen
        self._tell(f"{len(chosen) - len(files)} unreadable of the {split} part" if self.skip_corrupt else "")
        numbers = {name: number for number, name in enumerate(self.class_names)}
        targets = torch.tensor(
            [-1 if file.class_name is None else numbers[file.class_name] for file in files], dtype=torch.int64
        )
        keys, paths = [file.key for file in files], [file.path for file in files]
        if split == "train" and len(files) < 2:
            raise ValueError(
                f"`root={self.root}` holds {len(files)} images to train on; required are at least 2. Add some, or "
                "lower `test_size`."
            )
        lazy = LazyImages(paths, targets, keys, self.channels, self.image_size)
        if not files or len(files) * self.channels * self.image_size**2 > self.memory_gib * 2**30:
            return lazy
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda path: decode(path, self.channels, self.image_size), paths))
        return TensorSamples(torch.stack(images), targets, keys)

    def _part_of(self, file: FoundFile) -> str:
        return file.part or self._drawn_parts.get(file.key, "train")

    @property
    def _drawn_parts(self) -> dict[str, str]:
        """The test samples where no folder says which."""
        if not hasattr(self, "_drawn"):
            loose = [file.key for file in self.found.files if file.class_name is not None]
            drawn: list[bool] = []
            if "test" not in self.found.parts and self.test_size > 0:
                drawn = chosen_by_share(loose, self.test_size, self.split_seed, "test").tolist()
            self._drawn = {key: "test" for key, test in zip(loose, drawn, strict=bool(drawn)) if test}
        return self._drawn

    def split(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Draw the validation part, or take the folder that holds it."""
        parts = {file.key: file.part for file in self.found.files}
        val = torch.tensor([parts[key] == "val" for key in samples.keys])
        if not val.any():
            return super().split(samples)
        return (~val).nonzero()[:, 0], val.nonzero()[:, 0]

    def _tell(self, unreadable: str) -> None:
        """Say what was found, and what was set aside, once."""
        if self._told:
            return
        self._told = True
        if first_process():
            print(self.summary() + f", {unreadable}" * bool(unreadable), flush=True)
        for note in self.found.notes:
            rank_zero_warn(f"`{self.root}`: {note}")
        if not self.found.class_names:
            return
        names = self.found.class_names  # not those that were added since
        numbers = {name: number for number, name in enumerate(names)}
        for part in ("training", "test") if "test" in self.found.parts or self.test_size > 0 else ("training",):
            files = [file for file in self.found.files if (self._part_of(file) == "test") == (part == "test")]
            targets = torch.tensor([numbers[file.class_name] for file in files if file.class_name is not None])
            remedy = "give such classes more images, another `split_seed`, or folders `train` and `test`"
            tell_missing(targets.long(), names, part, remedy)

    def summary(self) -> str:
        """Return one line on what was found: how many pictures of which class, and how many of none."""
        counts = Counter(file.class_name for file in self.found.files if file.class_name is not None)
        classes = ", ".join(f"{printable(name)} {count}" for name, count in sorted(counts.items())[:CLASSES_SHOWN])
        more = f", {len(counts) - CLASSES_SHOWN} more classes" if len(counts) > CLASSES_SHOWN else ""
        table = f", {self.found.from_table} of them by {printable(str(self.labels))}" if self.labels is not None else ""
        return (
            f"{printable(str(self.root))}: {counts.total()} labelled{f' ({classes}{more})' * bool(counts)}{table}, "
            f"{len(self.found.files) - counts.total()} unlabelled, {self.found.set_aside} set aside"
        )

    def _readable(self, files: list[FoundFile]) -> list[FoundFile]:
        def reason(file: FoundFile) -> str:
            try:
                decode(file.path, self.channels, self.image_size)
            except ValueError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(reason, files))
        bad = [(file, text) for file, text in zip(files, reasons, strict=True) if text]
        for _, text in bad:
            rank_zero_info(text)
        if bad:
            names = ", ".join(str(file.path) for file, _ in bad[:5])
            rank_zero_warn(f"skipped {len(bad)} unreadable of {len(files)} images: {names}{' ...' * (len(bad) > 5)}")
        if files and len(bad) == len(files):
            raise ValueError(f"no image under `root={self.root}` is readable.")
        unreadable = {file.key for file, _ in bad}
        return [file for file in files if file.key not in unreadable]

    def show(self, key: str) -> Shown:
        """Return the picture as the file has it, upright, at most 256 px wide and high, as PNG."""
        return Shown("image", thumbnail(self._file(key)))

    def path_of(self, key: str) -> str | None:
        """Return the file of a sample."""
        return str(self._file(key))

    def fingerprint(self, key: str) -> str | None:
        """Return size and hash of a sample's file."""
        return fingerprint(self._file(key))

    def _file(self, key: str) -> Path:
        if key not in self._paths:
            raise ValueError(f"`key={key}` is no image below `root={self.root}`; keys are paths below it.")
        return self._paths[key]
