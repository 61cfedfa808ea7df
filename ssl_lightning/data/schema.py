"""What a model must know of the columns of a table, so that new rows are coded as those that it was trained on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ssl_lightning.data.columns import Columns
from ssl_lightning.transforms.vectors.row import Row

Missing = Literal["refuse", "skip", "fill"]


class Schema(NamedTuple):
    """The columns of a table, and what was learnt of its training part.

    Attributes:
        numbers: Columns of numbers, in order.
        categories: Names of each column of categories, whose codes are 1, 2, ...; 0 is any other.
        fills: For each column of numbers, what stands where nothing is there; empty unless `missing` is `fill`.
        missing: What becomes of rows with empty cells.
        key: Column that names the rows; null where their content does.
        label: Column of their classes; null where they have none.
    """

    numbers: Sequence[str]
    categories: Mapping[str, Sequence[str]]
    fills: Sequence[float]
    missing: Missing
    key: str | None
    label: str | None

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Codes of each column of categories, the unknown one among them."""
        return tuple(len(names) + 1 for names in self.categories.values())

    def plain(self) -> dict[str, Any]:
        """Return it as plain lists and strings, as checkpoints keep them."""
        categories = {name: list(names) for name, names in self.categories.items()}
        lists = {"numbers": list(self.numbers), "categories": categories, "fills": list(self.fills)}
        return {**self._asdict(), **lists}

    def same_columns(self, other: "Schema") -> str:
        """Say how the columns of another table differ; nothing where a model of one can take the other's rows."""
        if list(self.numbers) != list(other.numbers):
            return f"columns of numbers {_listed(self.numbers)}, and these data {_listed(other.numbers)}"
        if list(self.categories) != list(other.categories):
            return f"columns of categories {_listed(list(self.categories))}, and these data {_listed(list(other.categories))}"  # noqa: E501
        for name, mine in self.categories.items():
            if list(mine) != list(other.categories[name]):
                return f"the categories {_listed(mine)} of `{name}`, and these data {_listed(other.categories[name])}"
        return ""

    def code(self, columns: Columns, shown: str) -> Row | Tensor:
        """Turn rows without empty cells, or with `missing: fill`, into input.

        Args:
            columns: Read by the names of this.
            shown: Names the file, for the warning that counts categories which the training part does not have.

        Returns:
            A `Row`, or, where there are no categories, the numbers `(n, a)`, float32.
        """
        numbers = columns.numbers
        if self.fills:
            numbers = np.where(np.isnan(numbers), np.array(self.fills), numbers)
        rows = torch.from_numpy(numbers.astype(np.float32))
        if not self.categories:
            return rows
        codes = np.zeros((len(rows), len(self.categories)), dtype=np.int64)
        unseen: list[str] = []
        for place, (name, names) in enumerate(self.categories.items()):
            code = {word: number for number, word in enumerate(names, start=1)}
            codes[:, place] = [code.get(word, 0) for word in columns.words[name]]
            new = Counter(word for word in columns.words[name] if word not in code)
            if new:
                some = ", ".join(f"`{word}`" for word, _ in new.most_common(3))
                unseen.append(f"{new.total()} rows of `{name}` ({some}{' ...' * (len(new) > 3)})")
        if unseen:
            rank_zero_warn(
                f"{shown} has categories that the training part does not have, and that all count as unknown: "
                f"{', '.join(unseen)}."
            )
        return Row(rows, torch.from_numpy(codes))


def schema_of(facts: dict[str, Any]) -> Schema | None:
    """Return the columns that facts tell; null where they tell none.

    Raises:
        ValueError: If they are no columns of a table, as in a damaged file.
    """
    told = facts.get("columns")
    if not told:
        return None
    try:
        schema = Schema(**told)
        lists = [schema.numbers, schema.fills, *dict(schema.categories).values()]
        known = schema.missing in get_args(Missing)
        if not known or not all(isinstance(some, list | tuple) for some in lists):
            raise TypeError(f"missing={schema.missing!r:.20}")
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"`columns={told!r:.100}` is no description of a table's columns ({error}).") from error
    return schema


def without_gaps(
    columns: Columns, categories: Sequence[str], missing: Missing, shown: str, skip: str = "missing=skip"
) -> Columns:
    """Refuse rows with empty cells, or leave them out.

    Args:
        columns: Of a table.
        categories: Columns of words where nothing may be missing, either.
        missing: What to do; with `fill` nothing.
        shown: Names the file.
        skip: What skips such rows, for messages.

    Raises:
        ValueError: If there are some and they are refused, or nothing is left.
    """
    if missing == "fill":
        return columns
    gaps = np.isnan(columns.numbers)
    rows = gaps.any(axis=1)
    for name in categories:
        rows |= np.array([not cell for cell in columns.words[name]], dtype=bool)
    count = int(rows.sum())
    if not count:
        return columns
    first = int(rows.argmax())
    empty = [name for name, gap in zip(columns.names, gaps[first], strict=True) if gap]
    empty += [name for name in categories if not columns.words[name][first]]
    where = f"{columns.unit} {columns.places[first]}, column `{empty[0]}`"
    if missing == "refuse":
        fill = "fill such cells by `missing=fill`, " if "missing" in skip else ""
        raise ValueError(
            f"{shown}, {where}: nothing is there (in {count} of {len(rows)} rows); {fill}leave such rows out by "
            f"`{skip}`, or mend them."
        )
    if count == len(rows):
        raise ValueError(f"{shown}: all {count} rows have empty cells, first {where}: none is left.")
    rank_zero_warn(f"left out {count} of {len(rows)} rows of {shown} with empty cells: first {where}.")
    return columns.keep(~rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:8]) + " ..." * (len(names) > 8) if len(names) else "none"
