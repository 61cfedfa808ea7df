"""Precomputed embeddings, or any vectors of numbers: a `.npy` file and a table beside it, or columns of one file."""

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
from ssl_lightning.data.columns import SUFFIXES, Wanted, read_columns
from ssl_lightning.data.samples import Batch, Samples, Shown, Split, TensorSamples, number_copies
from ssl_lightning.data.schema import Schema, without_gaps
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.engine.csv_files import unescaped
from ssl_lightning.engine.ranges import at_least, between
from ssl_lightning.transforms.vectors import vector_views

TAKEN = {"key", "class"}
LABELS = frozenset({"class", "classes", "label", "labels", "target", "targets", "class_name", "category", "y"})
UNSURE = frozenset({"-1", "nan", "none", "null", "na", "n/a", "<na>"})  # of other programs, where nothing is there
NAMES = frozenset({"id", "name", "path", "file", "filename", "index"})


class NamedRows(NamedTuple):
    """What `Vectors` read.

    Attributes:
        rows: `(M, d)`, mapped from the file, if that is a `.npy` file.
        places: Those of the rows that are samples, `(N,)`: all, but for those that were skipped.
        keys: Of each sample.
        labels: The class's name of each sample, or empty.
        named: Whether keys come from a table; else they are the rows' content.
        columns: Names of the numbers, where the file has some.
    """

    rows: np.ndarray
    places: np.ndarray
    keys: list[str]
    labels: list[str]
    named: bool
    columns: tuple[str, ...] = ()


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

    Labels and keys of a `.npy` file come from a CSV table with a line for each row, in the same order, and the columns
    `key` and `class` (either may be missing; an empty class is unlabelled). Files `.csv` and `.parquet` have these
    columns themselves, and all others are the vector (a column of lists of numbers counts as many). Any other text is
    the name of a class, as of a folder in `ImageFolder`: also `-1`, `nan` and `None`, of which a warning tells. A name
    in two forms of Unicode is one class. Without keys, a row's key is the hash of its content. Without `test_path`,
    `test_size` of the labelled rows are set apart, each by its own key.

    Args:
        path: File `.npy` of numbers, `(N, d)`, or a table `.csv` or `.parquet`.
        table: CSV file with the columns `key` and `class` of a `.npy` file; null for unlabelled rows named by their
            content, or where `path` is a table itself.
        test_path: File of the test part, likewise; null to set some rows of `path` apart.
        test_table: CSV file of the test part.
        test_size: Fraction of the labelled rows for test where there is no `test_path`; 0 for none.
        memory_gib: Keep the rows in memory up to this many GiB a part; beyond, those of a `.npy` file are read when
            asked for.
        leave_out: Columns of a table to pass over.
        skip_corrupt: Leave rows out that hold NaN, infinity or no number, and count them, instead of stopping at the
            first.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If a file is missing or of another kind, or the files do not fit each other.
    """

    feature_dim: int
    columns: dict[str, Any]
    fact_names: ClassVar[tuple[str, ...]] = (*DataModule.fact_names, "feature_dim", "columns")

    def __init__(
        self,
        path: str,
        table: str | None = None,
        test_path: str | None = None,
        test_table: str | None = None,
        test_size: float = 0.2,
        memory_gib: float = 2.0,
        leave_out: Sequence[str] = (),
        skip_corrupt: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        between(0, 1, "[)", test_size=test_size)
        at_least(0, memory_gib=memory_gib)
        if test_table is not None and test_path is None:
            raise ValueError(f"`test_table={test_table}` without `test_path` names no rows; give both, or neither.")
        self.path, self.test_size, self.memory_gib = path, test_size, memory_gib
        self._train = read_rows("path", path, "table", table, leave_out, skip_corrupt)
        self._test = None
        if test_path is not None:
            self._test = read_rows("test_path", test_path, "test_table", test_table, leave_out, skip_corrupt)
        if self._test is not None:  # a content may be in both files, a key names one sample
            self._train, self._test = _told_apart(self._train, "train"), _told_apart(self._test, "test")
        self.feature_dim = int(self._train.rows.shape[1])
        if self._test is not None and self._test.rows.shape[1] != self.feature_dim:
            raise ValueError(
                f"`test_path={test_path}` has rows of {self._test.rows.shape[1]} numbers, `path={path}` of "
                f"{self.feature_dim}; give embeddings of one model."
            )
        if self._test is not None and self._train.columns and self._test.columns not in ((), self._train.columns):
            raise ValueError(
                f"`test_path={test_path}` has other columns than `path={path}`, or in another order; give it the same."
            )
        named = self._train.columns
        self.columns = Schema(named, {}, (), "skip" if skip_corrupt else "refuse", None, None).plain() if named else {}
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
        samples = np.array(sorted(chosen.tolist(), key=lambda row: table.keys[row]), dtype=np.int64)
        numbers = {name: number for number, name in enumerate(self.class_names)} | {"": -1}
        targets = torch.tensor([numbers[table.labels[row]] for row in samples], dtype=torch.int64)
        keys = [table.keys[row] for row in samples]
        order = table.places[samples]
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


def _told_apart(table: NamedRows, part: str) -> NamedRows:
    return table if table.named else table._replace(keys=[f"{part}/{key}" for key in table.keys])


def read_rows(
    name: str,
    path: str,
    table_name: str = "table",
    table: str | None = None,
    leave_out: Sequence[str] = (),
    skip_corrupt: bool = False,
) -> NamedRows:
    """Read a file of vectors: `.npy`, and its table, or `.csv` or `.parquet`.

    Args:
        name: Of the argument, for messages.
        path: The file.
        table_name: Of the other argument.
        table: The CSV file that belongs to a `.npy` file, or null.
        leave_out: Columns of a table to pass over.
        skip_corrupt: Leave rows out that hold NaN, infinity or no number, and count them.

    Raises:
        ValueError: If one is missing or of another kind, or they do not fit each other.
    """
    for argument, value in ((name, path), (table_name, table)):
        if not isinstance(value, str | Path) and not (value is None and argument == table_name):
            raise ValueError(f"`{argument}={value!r:.60}` must be the path of a file.")
    if not Path(path).is_file():
        raise ValueError(
            f"`{name}={path}` is no file ({Path(path).resolve()}); give a .npy, .csv or .parquet file of vectors."
        )
    if Path(path).suffix.lower() not in SUFFIXES:
        if leave_out:
            raise ValueError(
                f"`leave_out={list(leave_out)}` names columns, and `{name}={path}` has none; leave it out."
            )
        return _read_npy(name, path, table_name, table, skip_corrupt)
    if table is not None:
        raise ValueError(
            f"`{table_name}={table}` belongs to a .npy file; `{name}={path}` is a table itself: put the columns `key` "
            "and `class` there."
        )
    return _read_columns(f"`{name}={path}`", path, leave_out, skip_corrupt)


def _read_columns(shown: str, path: str, leave_out: Sequence[str], skip_corrupt: bool) -> NamedRows:
    remedy = (
        "leave the column out by `--data.leave_out`, read it by `--data Table`, which knows categories, mend the cell"
    )
    found = read_columns(path, shown, Wanted((), sorted(TAKEN), leave_out, None, remedy), skip_corrupt)
    folded = {column.casefold() for column in found.names}
    meant = [column for column in found.names if column.casefold() in LABELS - ({"y"} if "x" in folded else set())]
    if meant and "class" not in found.words:
        raise ValueError(
            f"{shown} has the column `{meant[0]}` and none `class`; if it is the class, call it so, else leave it out "
            f"by `--data.leave_out [{meant[0]}]`, or read the file by `--data Table`."
        )
    if "key" not in found.words and (named := [column for column in found.names if column.casefold() in NAMES]):
        rank_zero_warn(
            f"{shown}: the column `{named[0]}` is taken for a number of the vector; if it names the rows, call it "
            "`key`, or leave it out by `--data.leave_out`."
        )
    if not found.names:
        raise ValueError(f"{shown} has no column of numbers but `key` and `class`; a vector has at least one.")
    found = without_gaps(found, (), "skip" if skip_corrupt else "refuse", shown, "skip_corrupt=true")
    rows = found.numbers.astype(np.float32)
    count = len(rows)
    labels = [unicodedata.normalize("NFC", label) for label in found.words.get("class", [""] * count)]
    tell_unsure(shown, labels)
    keys = found.words.get("key")
    if keys is None:
        return NamedRows(rows, np.arange(count), _content_keys(rows, np.arange(count)), labels, False, found.names)
    require_keys(shown, keys)
    return NamedRows(rows, np.arange(count), keys, labels, True, found.names)


def _read_npy(name: str, path: str, table_name: str, table: str | None, skip_corrupt: bool) -> NamedRows:
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
    good = np.ones(len(rows), dtype=bool)
    for start in range(0, len(rows), 65536):
        finite = np.isfinite(np.asarray(rows[start : start + 65536], dtype=np.float32))
        good[start : start + 65536] = finite.all(axis=1)
        if not finite.all() and not skip_corrupt:
            row, column = np.argwhere(~finite)[0].tolist()
            raise ValueError(
                f"`{name}={path}` has NaN or infinity in row {start + row}, column {column} (counted from 0); leave "
                "such rows out by `skip_corrupt=true`."
            )
    places = np.flatnonzero(good)
    if len(places) < len(rows):
        text = (
            f"left out {len(rows) - len(places)} of {len(rows)} rows of `{name}={path}`, with NaN or infinity: first "
        )
        if not len(places):
            raise ValueError(f"{text}row 0: none is left.")
        rank_zero_warn(f"{text}row {int((~good).argmax())}.")
    if table is None:
        return NamedRows(rows, places, _content_keys(rows, places), [""] * len(places), False)
    lines = _read_lines(table_name, table, len(rows))
    if len(lines) != len(rows):
        raise ValueError(
            f"`{table_name}={table}` has {len(lines)} lines and `{name}={path}` {len(rows)} rows; they must be one to "
            "one, in the same order."
        )
    lines = [lines[place] for place in places]
    labels = [unicodedata.normalize("NFC", line.get("class", "").strip()) for line in lines]
    tell_unsure(f"`{table_name}={table}`", labels)
    if "key" not in lines[0]:
        return NamedRows(rows, places, _content_keys(rows, places), labels, False)
    keys = [line["key"] for line in lines]
    require_keys(f"`{table_name}={table}`", keys)
    return NamedRows(rows, places, keys, labels, True)


def require_keys(shown: str, keys: Sequence[str]) -> None:
    """Refuse keys that name no row, or two.

    Args:
        shown: Names the file, for messages.
        keys: Of its rows.

    Raises:
        ValueError: If one is empty, or there twice.
    """
    twice = [key for key, times in Counter(keys).items() if times > 1 or not key]
    if twice:
        raise ValueError(f"{shown}: the key `{twice[0]}` is empty or there twice; keys must be unique.")


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


def tell_unsure(shown: str, labels: Sequence[str]) -> None:
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


def _content_keys(rows: np.ndarray, places: np.ndarray) -> list[str]:
    """Name rows by their content."""
    some = (places[start : start + 65536] for start in range(0, len(places), 65536))
    pieces = (np.asarray(rows[part], dtype=np.float32) for part in some)
    return number_copies(_content(row) for piece in pieces for row in piece)
