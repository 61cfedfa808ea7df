"""Plain tables of numbers and categories: a `.csv` or `.parquet` file, a row a sample."""

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.columns import Columns, Wanted, read_columns
from ssl_lightning.data.samples import Samples, Shown, Split, TensorSamples, number_copies
from ssl_lightning.data.schema import Missing, Schema, without_gaps
from ssl_lightning.data.splits import chosen_by_share, tell_missing
from ssl_lightning.data.vectors import LABELS, NAMES, require_keys, tell_unsure
from ssl_lightning.engine.ranges import between, one_of
from ssl_lightning.transforms.base import Clean
from ssl_lightning.transforms.vectors import SCARFViews
from ssl_lightning.transforms.vectors.standardise import Standardise, statistics_of

REMEDY = (
    "name a column of words in `label`, `key`, `categories` or `leave_out` (as `--data.categories [city]`), mend the "
    "cell"
)
MANY = 1000  # names in a column of categories, from which on it is asked whether they are any


class Table(DataModule):
    """A plain table, as spreadsheets and databases write it: numbers, categories, or both.

    Every column that is named in none of the options is one of numbers; words there are refused. A sample without
    categories is a vector; with them a `Row` of numbers and of codes, in which 0 is a category that the training part
    does not have. What a model must know of the columns (names of categories, their order, medians), and mean and
    deviation of the clean input, is that of the training part alone, and kept in every checkpoint, so that `predict
    CHECKPOINT new.csv` reads new rows as these.

    Args:
        path: File `.csv` or `.parquet`, whose first line names the columns.
        label: Column of the classes, empty where unlabelled; null for `class`, if there is one.
        key: Column that names the rows; null for `key`, if there is one, else a row's name is the hash of its content.
        categories: Columns to take as categories, also of whole numbers that are codes; or, for each, the names that it
            has, in the order of their codes, where they are not to be those of the training part.
        leave_out: Columns to pass over.
        test_path: File of the test part, with the same columns; null to set some rows of `path` apart.
        test_size: Fraction of the labelled rows for test where there is no `test_path`; 0 for none.
        missing: What becomes of a row with an empty cell: `refuse` it, `skip` it, or `fill` numbers with the median of
            the training part, and take no category for one of its own.
        skip_corrupt: Leave out rows that cannot be read (a word among numbers, infinity, a cell too few or too many)
            and count them, instead of stopping at the first; empty cells are the matter of `missing`.
        kwargs: As for `DataModule`.

    Raises:
        ValueError: If a file or column is missing, or holds what it should not.
    """

    feature_dim: int
    cardinalities: tuple[int, ...]
    columns: dict[str, Any]
    fact_names: ClassVar[tuple[str, ...]] = (*DataModule.fact_names, "feature_dim", "cardinalities", "columns")

    def __init__(
        self,
        path: str,
        label: str | None = None,
        key: str | None = None,
        categories: Sequence[str] | Mapping[str, Sequence[str]] = (),
        leave_out: Sequence[str] = (),
        test_path: str | None = None,
        test_size: float = 0.2,
        missing: Missing = "refuse",
        skip_corrupt: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        between(0, 1, "[)", test_size=test_size)
        one_of(get_args(Missing), missing=missing)
        fixed = dict(categories) if isinstance(categories, Mapping) else {}
        lists = [("categories", categories), ("leave_out", leave_out)]
        lists += [(f"categories.{column}", names) for column, names in fixed.items()]
        for name, some in lists:
            if isinstance(some, str) or not all(isinstance(word, str) for word in some):
                raise ValueError(f"`{name}={some!r:.60}` must be a list of names, such as `[city, colour]`.")
            if name.startswith("categories") and len(set(some)) < len(some):
                raise ValueError(f"`{name}={some!r:.60}` names one twice; a name has one code.")
        self._fixed: dict[str, tuple[str, ...]] = {column: tuple(names) for column, names in fixed.items()}
        self.path, self.label, self.key = path, label, key
        self.categories, self.leave_out = tuple(categories), tuple(leave_out)
        self.test_path, self.test_size, self.missing, self.skip_corrupt = test_path, test_size, missing, skip_corrupt
        self._require_roles_apart()
        self._rows = self._read("path", path)
        self._test_rows = None if test_path is None else self._read("test_path", test_path, self._rows.names)
        self._name_rows()
        labels = [*self._labels(self._rows), *(self._labels(self._test_rows) if self._test_rows is not None else ())]
        self.class_names = tuple(sorted({*labels} - {""}))
        self.num_classes = max(1, len(self.class_names))
        self._parts: tuple[Tensor, Tensor] | None = None
        self._learn()

    def _require_roles_apart(self) -> None:
        roles = [*self.categories, *self.leave_out, *(name for name in (self.label, self.key) if name is not None)]
        twice = [name for name, times in Counter(roles).items() if times > 1]
        if twice:
            raise ValueError(
                f"the column `{twice[0]}` is named in two of `label`, `key`, `categories` and `leave_out`; a column is "
                "one of these."
            )

    def _read(self, argument: str, path: str, numbers: Sequence[str] | None = None) -> Columns:
        """Read a file, and what columns of it are."""
        shown = f"`{argument}={path}`"
        words = [*self.categories, *(name for name in (self.label, self.key) if name is not None)]
        given = {*self.categories, *self.leave_out}
        usual = [
            name for name, option in (("class", self.label), ("key", self.key)) if option is None and name not in given
        ]
        wanted = Wanted(words, usual, self.leave_out, numbers, REMEDY)
        found = read_columns(path, shown, wanted, self.skip_corrupt)
        if argument == "path":
            self.label = self.label or ("class" if "class" in found.words and "class" in usual else None)
            self.key = self.key or ("key" if "key" in found.words and "key" in usual else None)
            self._tell_columns(shown, found)
        found = without_gaps(found, self.categories, self.missing, shown)
        if self.label is not None and self.label in found.words:
            found.words[self.label] = [unicodedata.normalize("NFC", cell) for cell in found.words[self.label]]
            tell_unsure(f"{shown}, column `{self.label}`,", found.words[self.label])
        for name in self.categories:
            found.words[name] = [unicodedata.normalize("NFC", cell) for cell in found.words[name]]
        return found

    def _tell_columns(self, shown: str, found: Columns) -> None:
        """Refuse a table without a column to learn from; warn of columns that are hardly what they are taken for."""
        if not found.names and not self.categories:
            raise ValueError(f"{shown} has no column but those of `label`, `key` and `leave_out`; learn from some.")
        for option, usual, taken in (("label", LABELS, self.label), ("key", NAMES, self.key)):
            meant = [name for name in found.names if name.casefold() in usual]
            if meant and taken is None:
                rank_zero_warn(
                    f"{shown}: the column `{meant[0]}` is taken for numbers to learn from; if it is what its name "
                    f"says, give `--data.{option} {meant[0]}`, or `--data.leave_out [{meant[0]}]`."
                )
        if self.label is not None and len(set(found.words[self.label])) > max(20, len(found.places) // 2):
            rank_zero_warn(
                f"{shown}: the column `{self.label}` has {len(set(found.words[self.label]))} classes in "
                f"{len(found.places)} rows; classes are learnt here, no numbers: is it another column?"
            )

    def _labels(self, rows: Columns) -> list[str]:
        return rows.words.get(self.label or "", [""] * len(rows.places))

    def _name_rows(self) -> None:
        """Give each row its key, and its content a hash."""
        self._keys: dict[bool, list[str]] = {}
        self._contents: dict[str, str] = {}
        for test, rows, argument in ((False, self._rows, "path"), (True, self._test_rows, "test_path")):
            if rows is None:
                continue
            contents = rows.contents(self.categories)
            if self.key is not None:
                keys = rows.words[self.key]
                require_keys(f"`{argument}={self.test_path if test else self.path}`, column `{self.key}`", keys)
            else:  # a content may be in both files, a key names one sample
                part = f"{'test' if test else 'train'}/" if self._test_rows is not None else ""
                keys = [f"{part}{key}" for key in number_copies(contents)]
            self._keys[test] = keys
            self._contents.update(zip(keys, contents, strict=True))

    def _learn(self) -> None:
        """Learn of the training part what a model must know: no row of validation or test has a say."""
        places = self._places_of("train")
        keys = [self._keys[False][place] for place in places]
        training, _ = self.split(TensorSamples(torch.zeros(len(places), 0), self._targets(self._rows, places), keys))
        train = self._rows.keep(places[training.numpy()])
        medians: list[float] = []
        if self.missing == "fill":
            empty = [name for name, gap in zip(train.names, np.isnan(train.numbers).all(axis=0), strict=True) if gap]
            if empty:
                raise ValueError(
                    f"`path={self.path}`: the column `{empty[0]}` has no number in the training part, whose median "
                    f"could fill it; leave it out by `--data.leave_out [{empty[0]}]`."
                )
            medians = np.nanmedian(train.numbers, axis=0).tolist()
        names = {name: self._fixed.get(name) or tuple(sorted(set(train.words[name]))) for name in self.categories}
        for name, some in names.items():
            if name not in self._fixed and len(some) > MANY and len(some) > len(train.places) / 2:
                rank_zero_warn(
                    f"`path={self.path}`: the column `{name}` has {len(some)} categories in {len(train.places)} rows; "
                    "a column of names or texts tells nothing of other rows: leave it out."
                )
        self.schema = Schema(train.names, names, medians, self.missing, self.key, self.label)
        self.columns = self.schema.plain()
        self.feature_dim, self.cardinalities = len(train.names), self.schema.cardinalities
        filled = np.where(np.isnan(train.numbers), np.array(medians), train.numbers) if medians else train.numbers
        self._standard = statistics_of(filled)
        self._tell_coarse(filled)

    def _tell_coarse(self, numbers: np.ndarray) -> None:
        """Warn of columns so far from 0 that float32 cannot tell their values apart."""
        for name, column, mean, std in zip(self.schema.numbers, numbers.T, *self._standard, strict=True):
            if abs(mean) * 2**-24 > 0.02 * std and column.min() < column.max():
                rank_zero_warn(
                    f"`path={self.path}`: the column `{name}` lies near {mean:.6g} with a deviation of "
                    f"{column.std():.3g}, which float32 hardly tells apart; subtract something in the file."
                )

    def _places_of(self, split: Split) -> np.ndarray:
        """Return the rows of one part, in the order of their keys."""
        if split == "test" and self._test_rows is not None:
            chosen, keys = np.arange(len(self._test_rows.places)), self._keys[True]
        else:
            chosen, keys = np.arange(len(self._rows.places)), self._keys[False]
            if self._test_rows is None:
                labelled = torch.tensor([bool(label) for label in self._labels(self._rows)])
                test = chosen_by_share(keys, self.test_size, self.split_seed, "test") & labelled
                chosen = chosen[(test if split == "test" else ~test).numpy()]
        return np.array(sorted(chosen.tolist(), key=keys.__getitem__), dtype=np.int64)

    def _targets(self, rows: Columns, places: np.ndarray) -> Tensor:
        numbers = {name: number for number, name in enumerate(self.class_names)} | {"": -1}
        labels = self._labels(rows)
        return torch.tensor([numbers[labels[place]] for place in places], dtype=torch.int64)

    def load(self, split: Split) -> Samples:
        """Return one part, in the order of its keys."""
        other = split == "test" and self._test_rows is not None
        rows = self._test_rows if other and self._test_rows is not None else self._rows
        places = self._places_of(split)
        targets, keys = self._targets(rows, places), [self._keys[other][place] for place in places]
        if any(self._labels(rows)) and (split == "train" or other or self.test_size > 0):
            names = list(self.class_names)[: self.num_classes]
            tell_missing(targets, names, "test" if split == "test" else "training", "add some, or lower the number")
        shown = f"`{'test_path' if other else 'path'}={self.test_path if other else self.path}` ({split} part)"
        return TensorSamples(self.schema.code(rows.keep(places), shown), targets, keys)

    def split(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Draw the validation part, and `limit`, once: what was learnt of the training part goes by it."""
        if self._parts is None:
            self._parts = super().split(samples)
        return self._parts

    def clean(self) -> Clean:
        """Return what standardises numbers by the training part."""
        return Standardise(*self._standard)

    def views(self, count: int = 2, mild: bool = False, local_count: int = 0) -> nn.Module | None:
        """Return views in which cells are replaced by those of other rows; to a classifier, few."""
        return SCARFViews(count, share=0.2 if mild else 0.6, clean=self.clean())

    def show(self, key: str) -> Shown:
        """Return a row, cell by cell, as the file has it."""
        self.find(key)
        test = key not in self._row_of(False)
        rows = self._test_rows if test and self._test_rows is not None else self._rows
        place = self._row_of(test)[key]
        cells = {
            name: "" if np.isnan(value) else f"{value:.12g}"
            for name, value in zip(rows.names, rows.numbers[place].tolist(), strict=True)
        }
        cells |= {name: rows.words[name][place] for name in self.categories}
        return Shown("row", json.dumps(cells, ensure_ascii=False))

    def _row_of(self, test: bool) -> dict[str, int]:
        found: dict[bool, dict[str, int]] = self.__dict__.setdefault("_where", {})
        if test not in found:
            found[test] = {key: place for place, key in enumerate(self._keys[test])}
        return found[test]

    def fingerprint(self, key: str) -> str | None:
        """Return the hash of a row; null where that is its key already."""
        self.find(key)
        return None if self.key is None else self._contents[key]
