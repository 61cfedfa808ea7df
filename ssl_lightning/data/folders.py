"""What data of a person's own folder have in common, whatever kind of files is in it."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.files import find_files, find_table
from ssl_lightning.data.listing import FoundFile, Kind, printable
from ssl_lightning.data.samples import Samples, Split
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.engine.processes import first_process
from ssl_lightning.engine.ranges import at_least, between

CLASSES_SHOWN = 12  # in the line that says what was found


class FolderData(DataModule):
    """Base of the data modules of a person's own folder: `root/CLASS/file`, or `root/file` without labels, or either under parts.

    A subclass says which `kind` of files it takes, and writes `open_files` and `check_file`.

    Args:
        root: The folder.
        test_size: Fraction of the labelled files for test where there is no `test` folder; 0 for none.
        skip_corrupt: Leave unreadable files out and count them, instead of stopping at the first.
        memory_gib: Keep decoded files in memory up to this many GiB a part.
        labels: CSV file with the columns `path` (below `root`) and `class`; null for a `labels.csv` in `root`, if any.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If the folder is missing or empty, or the table does not fit.
    """  # noqa: E501

    kind: ClassVar[Kind]

    def __init__(
        self,
        root: str,
        test_size: float = 0.2,
        skip_corrupt: bool = False,
        memory_gib: float = 2.0,
        labels: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        between(0, 1, "[)", test_size=test_size)
        at_least(0, memory_gib=memory_gib)
        self.root = Path(root)
        if not self.root.is_dir():
            raise ValueError(
                f"`root={root}` is no folder ({self.root.resolve()}); give the folder that holds the "
                f"{self.kind.content}."
            )
        self.test_size, self.skip_corrupt, self.memory_gib = test_size, skip_corrupt, memory_gib
        if labels is not None and not Path(labels).is_file():
            raise ValueError(
                f"`labels={labels}` is no file ({Path(labels).resolve()}); give a CSV table, or leave it out."
            )
        self.labels = find_table(self.root) if labels is None else Path(labels)
        self.found = find_files(self.root, self.labels, self.kind)
        self.class_names = self.found.class_names
        self.num_classes = max(1, len(self.class_names))
        self._paths = {file.key: file.path for file in self.found.files}
        self._told = False

    @abstractmethod
    def open_files(self, paths: Sequence[Path], targets: Tensor, keys: Sequence[str]) -> Samples:
        """Decode files, or open them to be decoded when asked for.

        Args:
            paths: Of the files.
            targets: Classes `(N,)`; -1 where unlabelled.
            keys: Of the samples.
        """

    @abstractmethod
    def check_file(self, path: Path) -> None:
        """Read a file.

        Raises:
            ValueError: If it cannot be used; the message names it.
        """

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
                f"`root={self.root}` holds {len(files)} {self.kind.content} to train on; required are at least 2. Add "
                "some, or lower `test_size`."
            )
        return self.open_files(paths, targets, keys)

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
            remedy = f"give such classes more {self.kind.content}, another `split_seed`, or folders `train` and `test`"
            tell_missing(targets.long(), names, part, remedy)

    def summary(self) -> str:
        """Return one line on what was found: how many files of which class, and how many of none."""
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
                self.check_file(file.path)
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
            rank_zero_warn(
                f"skipped {len(bad)} unreadable of {len(files)} {self.kind.content}: {names}{' ...' * (len(bad) > 5)}"
            )
        if files and len(bad) == len(files):
            raise ValueError(f"no {self.kind.content.removesuffix('s')} under `root={self.root}` is readable.")
        unreadable = {file.key for file, _ in bad}
        return [file for file in files if file.key not in unreadable]

    def path_of(self, key: str) -> str | None:
        """Return the file of a sample."""
        return str(self._file(key))

    def _file(self, key: str) -> Path:
        if key not in self._paths:
            raise ValueError(
                f"`key={key}` is no {self.kind.content.removesuffix('s')} below `root={self.root}`; keys are paths "
                "below it."
            )
        return self._paths[key]
