"""Precomputed embeddings, or any vectors of numbers: a `.npy` file, and a table that names and labels its rows."""

import csv
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Batch, Samples, Shown, Split, TensorSamples, number_copies
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.engine.csv_files import unescaped
from ssl_lightning.engine.ranges import at_least, between
from ssl_lightning.transforms.vectors import vector_views

TAKEN = {"key", "class"}
LABELS = frozenset({"class", "classes", "label", "labels", "target", "targets", "class_name", "category", "y"})
UNSURE = frozenset({"-1", "nan", "none", "null", "na", "n/a", "<na>"})  # of other programs, where nothing is there
NAMES = frozenset({"id", "name", "path", "file", "filename", "index"})


class Table(NamedTuple):
    """What `Vectors` read.

    Attributes:
        rows: `(N, d)`, mapped from the file.
        keys: Of each row.
        labels: The class's name of each row, or empty.
        named: Whether keys come from the table; else they are the rows' content.
    """

    rows: np.ndarray
    keys: list[str]
    labels: list[str]
    named: bool


class MappedVectors(Dataset[Batch]):
    """Rows of a memory-mapped file, read when asked for.

    Args:
        rows: `(M, d)`, of which the samples are some.
        order: Row of each sample, `(N,)`.
        targets: `(N,)`, int64.
        keys: Of the samples.
    """

    def __init__(self, rows: np.ndarray, order: np.ndarray, targets: Tensor, keys: Sequence[str]) -> None:
        self.rows, self.order, self.targets, self.keys = rows, order, targets, keys

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Batch:
        found = self.__getitems__([index])
        return Batch(found.input[0], found.target[0], found.index[0])

    def __getitems__(self, indices: list[int]) -> Batch:
        rows = torch.from_numpy(np.asarray(self.rows[self.order[indices]], dtype=np.float32))
        return Batch(rows, self.targets[indices], torch.as_tensor(indices))


class Vectors(DataModule):
    """Precomputed embeddings of any model, or other vectors: one row a sample, float32.

    Labels and keys come from a CSV table with a line for each row, in the same order, and the columns `key` and `class`
    (either may be missing; an empty class is unlabelled). Any other text is the name of a class, as of a folder in
    `ImageFolder`: also `-1`, `nan` and `None`, of which a warning tells. A name in two forms of Unicode is one class.
    Without keys, a row's key is the hash of its content. Without `test_path`, `test_size` of the labelled rows are set
    apart, each by its own key.

    Args:
        path: File `.npy` of numbers, `(N, d)`.
        table: CSV file with the columns `key` and `class`; null for unlabelled rows named by their content.
        test_path: File of the test part, likewise; null to set some rows of `path` apart.
        test_table: CSV file of the test part.
        test_size: Fraction of the labelled rows for test where there is no `test_path`; 0 for none.
        memory_gib: Keep the rows in memory up to this many GiB a part; beyond, they are read when asked for.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If a file is missing or of another kind, or the files do not fit each other.
    """

    feature_dim: int
    fact_names: ClassVar[tuple[str, ...]] = (*DataModule.fact_names, "feature_dim")

    def __init__(
        self,
        path: str,
        table: str | None = None,
        test_path: str | None = None,
        test_table: str | None = None,
        test_size: float = 0.2,
        memory_gib: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        between(0, 1, "[)", test_size=test_size)
        at_least(0, memory_gib=memory_gib)
        if test_table is not None and test_path is None:
            raise ValueError(f"`test_table={test_table}` without `test_path` names no rows; give both, or neither.")
        self.path, self.test_size, self.memory_gib = path, test_size, memory_gib
        self._train = read_table("path", path, "table", table)
        self._test = None if test_path is None else read_table("test_path", test_path, "test_table", test_table)
        if self._test is not None:  # a content may be in both files, a key names one sample
            self._train, self._test = _told_apart(self._train, "train"), _told_apart(self._test, "test")
        self.feature_dim = int(self._train.rows.shape[1])
        if self._test is not None and self._test.rows.shape[1] != self.feature_dim:
            raise ValueError(
                f"`test_path={test_path}` has rows of {self._test.rows.shape[1]} numbers, `path={path}` of "
                f"{self.feature_dim}; give embeddings of one model."
            )
        names = {*self._train.labels, *(self._test.labels if self._test is not None else ())} - {""}
        self.class_names = tuple(sorted(names))
        self.num_classes = max(1, len(self.class_names))

    def load(self, split: Split) -> Samples:
        """Return one part, in the order of its keys."""
        table = self._test if split == "test" and self._test is not None else self._train
        chosen = np.arange(len(table.keys))
        if self._test is None:
            labelled = [bool(label) for label in table.labels]
            test = chosen_by_share(table.keys, self.test_size, self.split_seed, "test") & torch.tensor(labelled)
            chosen = chosen[(test if split == "test" else ~test).numpy()]
        order = np.array(sorted(chosen.tolist(), key=lambda row: table.keys[row]), dtype=np.int64)
        numbers = {name: number for number, name in enumerate(self.class_names)} | {"": -1}
        targets = torch.tensor([numbers[table.labels[row]] for row in order], dtype=torch.int64)
        keys = [table.keys[row] for row in order]
        if any(table.labels) and (split == "train" or self._test is not None or self.test_size > 0):
            tell_missing(
                targets, self.class_names, "test" if split == "test" else "training", "add some, or lower the number"
            )
        if table.rows.nbytes > self.memory_gib * 2**30:
            return MappedVectors(table.rows, order, targets, keys)
        return TensorSamples(torch.from_numpy(np.asarray(table.rows[order], dtype=np.float32)), targets, keys)

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return views by leaving numbers out and adding noise."""
        return vector_views(count, mild)

    def show(self, key: str) -> Shown:
        """Return the key and the first numbers of a row."""
        samples, place = self.find(key)
        row = samples.__getitems__([place]).input[0].tolist()
        numbers = ", ".join(f"{value:.3g}" for value in row[:8]) + (", ..." if len(row) > 8 else "")
        return Shown("text", f"{key}: ({numbers})")

    def fingerprint(self, key: str) -> str | None:
        """Return the hash of a row; null where that is its key already."""
        samples, place = self.find(key)
        if not self._train.named:
            return None
        return _content(samples.__getitems__([place]).input[0].numpy())


def _told_apart(table: Table, part: str) -> Table:
    return table if table.named else table._replace(keys=[f"{part}/{key}" for key in table.keys])


def read_table(name: str, path: str, table_name: str, table: str | None) -> Table:
    """Read a `.npy` file and its table.

    Args:
        name: Of the argument, for messages.
        path: The `.npy` file.
        table_name: Of the other argument.
        table: The CSV file, or null.

    Raises:
        ValueError: If one is missing or of another kind, or they do not fit each other.
    """
    for argument, value in ((name, path), (table_name, table)):
        if not isinstance(value, str | Path) and not (value is None and argument == table_name):
            raise ValueError(f"`{argument}={value!r:.60}` must be the path of a file.")
    if not Path(path).is_file():
        raise ValueError(f"`{name}={path}` is no file ({Path(path).resolve()}); give a .npy file of vectors.")
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"`{name}={path}` is no .npy file of numbers ({error}); save an array by `numpy.save`."
        ) from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.size:
        raise ValueError(
            f"`{name}={path}` holds {getattr(rows, 'dtype', type(rows).__name__)} of shape "
            f"{getattr(rows, 'shape', '?')}; "
            "required are numbers (N, d), a row a sample."
        )
    for start in range(0, len(rows), 65536):
        finite = np.isfinite(np.asarray(rows[start : start + 65536], dtype=np.float32)).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"`{name}={path}` has NaN or infinity in row {start + int((~finite).argmax())}; leave such rows out."
            )
    if table is None:
        return Table(rows, _content_keys(rows), [""] * len(rows), False)
    lines = _read_lines(table_name, table, len(rows))
    if len(lines) != len(rows):
        raise ValueError(
            f"`{table_name}={table}` has {len(lines)} lines and `{name}={path}` {len(rows)} rows; they must be one to "
            "one, in the same order."
        )
    labels = [unicodedata.normalize("NFC", line.get("class", "").strip()) for line in lines]
    _tell_unsure(f"`{table_name}={table}`", labels)
    if "key" not in lines[0]:
        return Table(rows, _content_keys(rows), labels, False)
    keys = [line["key"] for line in lines]
    twice = [key for key, times in Counter(keys).items() if times > 1 or not key]
    if twice:
        raise ValueError(f"`{table_name}={table}`: the key `{twice[0]}` is empty or there twice; keys must be unique.")
    return Table(rows, keys, labels, True)


def _read_lines(name: str, path: str, count: int) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"`{name}={path}` cannot be read as a CSV file ({error}); give one in UTF-8.") from error
    columns = rows[0] if rows else []
    _require_columns(f"`{name}={path}`", columns)
    lines: list[dict[str, str]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not row and (len(columns) > 1 or len(lines) == count):
            continue  # of a single column, an empty line is an empty cell, but not after the last
        cells = row or [""]
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise ValueError(
                f"`{name}={path}`, line {number}: {len(cells)} cells under {len(columns)} columns; put what holds a "
                "comma into quotes, and leave no cell out."
            )
        lines.append(dict(zip(columns, map(unescaped, cells), strict=False)))
    return lines


def _require_columns(shown: str, columns: Sequence[str]) -> None:
    """Refuse a header whose columns might be meant for keys or classes, and are not called so."""
    counts = Counter(column.strip().casefold() for column in columns)
    meant = [column for column in columns if column not in TAKEN and column.strip().casefold() in TAKEN]
    labels = [column for column in columns if column.strip().casefold() in LABELS]
    if not TAKEN & set(columns) or any(counts[name] > 1 for name in TAKEN) or meant or len(labels) > 1 or (
        labels and "class" not in columns
    ):  # fmt: skip
        separated = ", and columns are separated by commas" if any(mark in "".join(columns) for mark in ";\t|") else ""
        raise ValueError(
            f"{shown} has the columns {', '.join(columns) or 'none'}; required is `key` or `class`, or both, spelt so "
            f"and once{separated}."
        )
    named = [column for column in columns if column.strip().casefold() in NAMES]
    if "key" not in columns and named:
        rank_zero_warn(f"{shown} has no column `key`: rows are named by their content, and not by `{named[0]}`.")


def _tell_unsure(shown: str, labels: Sequence[str]) -> None:
    """Say which names of classes may have been meant for none."""
    counts = Counter(label for label in labels if label.casefold() in UNSURE)
    if counts:
        names = ", ".join(f"`{name}` ({count} rows)" for name, count in sorted(counts.items()))
        rank_zero_warn(
            f"{shown} has the class {names}, a name as any other; if it says that a row is unlabelled, leave the cell "
            "empty."
        )


def _content(row: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(row, dtype="<f4").tobytes()).hexdigest()[:16]


def _content_keys(rows: np.ndarray) -> list[str]:
    """Name rows by their content."""
    pieces = (np.asarray(rows[start : start + 65536], dtype=np.float32) for start in range(0, len(rows), 65536))
    return number_copies(_content(row) for piece in pieces for row in piece)
