"""Texts as people keep them: tables (CSV), JSON lines, plain text; each row with where it stands."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.data.files import find_files
from ssl_lightning.data.listing import Kind, printable
from ssl_lightning.engine.csv_files import SEPARATORS, unescaped

TEXTS = Kind(frozenset({".txt"}), "text", "texts", "texts")
TABLES, LINES, PLAIN = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".txt",)
LABELS = ("class", "label", "category", "target", "class_name")  # what a column of classes may be called
LONGEST = 2**30  # characters of a cell; the library's own end is 131,072


@dataclass(frozen=True)
class Columns:
    """What the columns of a table hold, by their names; of JSON lines, the fields.

    Args:
        text: Column of the texts; of several, they are joined by a space.
        label: Column of the classes; null for one that is called class, label, category, target or class_name, if any.
        key: Column of the samples' names; null for one that is called key, else a text is named by its content.
        names: Of all columns in order, of a CSV file whose first line is no header.
    """

    text: str | list[str] = "text"
    label: str | None = None
    key: str | None = None
    names: list[str] | None = None

    @property
    def texts(self) -> list[str]:
        """Names of the columns of texts."""
        return [self.text] if isinstance(self.text, str) else list(self.text)


class Row(NamedTuple):
    """One text.

    Attributes:
        where: File and line, for messages.
        text: The text.
        label: Class as it is written there; empty where there is none.
        key: Name of the sample; null where it has none.
        path: Of its own file; null where it has none.
        part: train, val or test, where a folder says so.
    """

    where: str
    text: str
    label: str = ""
    key: str | None = None
    path: str | None = None
    part: str | None = None


Reader = Callable[[str, str, Columns], Iterator[Row | str]]  # what a file holds, its name for messages


def read_texts(argument: str, path: str, columns: Columns, skip_corrupt: bool) -> list[Row]:
    """Read all texts of a file or folder.

    Args:
        argument: Name of the argument that gave the path, for messages.
        path: Of a file .csv, .tsv, .jsonl or .txt (a text a line), or a folder of .txt files, perhaps in class folders.
        columns: What its columns hold.
        skip_corrupt: Leave out what cannot be used, and count it in a warning.

    Raises:
        ValueError: If there is no such file, it lacks a column, or a row cannot be used: that says which and why.
    """
    if not isinstance(path, str | Path):
        raise ValueError(f"`{argument}={path!r:.60}` must be the path of a file or folder.")
    file = Path(path)
    shown = f"`{argument}={path}`"
    kinds: dict[tuple[str, ...], Reader] = {TABLES: _table, LINES: _json_lines, PLAIN: _plain_lines}
    read = next((reader for endings, reader in kinds.items() if file.suffix.lower() in endings), None)
    if not file.exists():
        raise ValueError(f"{shown} does not exist ({file.resolve()}); give a .csv, .jsonl or .txt file, or a folder.")
    if not file.is_dir() and read is None:
        raise ValueError(f"{shown} is none of .csv, .tsv, .jsonl and .txt, and no folder; convert it to one.")
    rows: list[Row] = []
    bad: list[str] = []
    for row in _folder(file) if read is None else read(_decoded(file), shown, columns):
        mistake = row if isinstance(row, str) else _mistake(row)
        if not isinstance(row, str) and not mistake:
            rows.append(row)
        elif skip_corrupt:
            bad.append(mistake)
        else:
            raise ValueError(f"{mistake}; mend it, or add `skip_corrupt` (`--data.skip_corrupt true`) to leave it out.")
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        rank_zero_warn(f"skipped {len(bad)} of {len(rows) + len(bad)} texts: {bad[0]}{more}.")
    if not rows:
        raise ValueError(f"{shown} holds no text that can be used; give a file with some.")
    return rows


def _mistake(row: Row) -> str:
    """Say what is wrong with a row; empty if nothing is."""
    for cell in (row.text, row.label, row.key or ""):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            what = "is not UTF-8" if 0xDC80 <= ord(cell[error.start]) <= 0xDCFF else "has half a character"
            return f"{row.where} {what} (character {error.start + 1} of `{printable(cell[:30])}`)"
    if not row.text.strip():
        return f"{row.where} has an empty text"
    return f"{row.where} has an empty key" if row.key is not None and not row.key.strip() else ""


def _decoded(file: Path) -> str:
    """Return what a file holds; bytes that are no UTF-8 become what `_mistake` finds in their row."""
    try:
        return file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise ValueError(f"`{file}` cannot be read ({error}).") from error


def _folder(root: Path) -> Iterator[Row | str]:
    listing = find_files(root, None, TEXTS)
    for note in listing.notes:
        rank_zero_warn(f"`{root}`: {note}")
    for file in listing.files:
        yield Row(f"`{file.path}`", _decoded(file.path), file.class_name or "", file.key, str(file.path), file.part)


def _plain_lines(text: str, shown: str, columns: Columns) -> Iterator[Row | str]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():  # an empty line parts paragraphs
            yield Row(f"{shown}, line {number},", line.strip())


def _json_lines(text: str, shown: str, columns: Columns) -> Iterator[Row | str]:
    label, key = columns.label, columns.key
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{shown}, line {number},"
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"{where} is no JSON ({error})"
            continue
        if not isinstance(told, dict):
            yield f'{where} is {type(told).__name__} and no object, as `{{"text": ...}}`'
            continue
        missing = [
            name for name in (*columns.texts, *([key] if key else [])) if not isinstance(told.get(name), str | int)
        ]
        if missing:
            there = ", ".join(f"`{name!s:.40}`" for name in list(told)[:8]) or "none"
            yield f"{where} has no text in the field `{missing[0]}` (its fields: {there}; `columns` says which)"
            continue
        named = label or next((name for name in LABELS if name in told), None)
        known = told.get(named) if named is not None else None
        if isinstance(known, float | list | dict):
            yield f"{where} has the class {known!s:.40}, which is neither a name nor a whole number"
            continue
        own = told.get(key or "key")
        yield Row(
            where, " ".join(str(told[name]) for name in columns.texts), "" if known is None else str(known).strip(),
            None if own is None else str(own),
        )  # fmt: skip


def _table(text: str, shown: str, columns: Columns) -> Iterator[Row | str]:
    header, separator, first = _header(text, shown, columns)
    places = [_place(header, name) for name in columns.texts]
    label = _place(header, columns.label) if columns.label else _first(header, LABELS)
    key = _place(header, columns.key) if columns.key else _first(header, ("key",))
    needed = len(header)
    for number, cells in _cells(text, separator, shown):
        where = f"{shown}, line {number},"
        if number < first or cells == columns.names or not any(cell.strip() for cell in cells):
            continue
        if len(cells) < needed or any(cell.strip() for cell in cells[needed:]):
            yield (
                f"{where} has {len(cells)} cells under {needed} columns (put what holds `{printable(separator)}` into "
                "quotes)"
            )
            continue
        known = unescaped(cells[label]).strip() if label is not None else ""
        named = unescaped(cells[key]) if key is not None else None
        yield Row(where, " ".join(cells[place] for place in places), known, named)


def _cells(text: str, separator: str, shown: str) -> Iterator[tuple[int, list[str]]]:
    before = csv.field_size_limit(LONGEST)  # of the whole process
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        number = 1
        for cells in reader:
            yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{shown}, line {number}: no CSV ({error}); mend that line.") from error
    finally:
        csv.field_size_limit(before)


def _header(text: str, shown: str, columns: Columns) -> tuple[list[str], str, int]:
    """Find the columns' names, what separates them, and the line that rows begin at."""
    wanted = [*columns.texts, *(name for name in (columns.label, columns.key) if name)]
    headers = {}
    for separator in SEPARATORS:
        for number, cells in _cells(text, separator, shown):
            if any(cell.strip() for cell in cells):
                headers[separator] = number, [cell.strip() for cell in cells]
                break
    if columns.names is not None:
        absent = [name for name in wanted if name not in columns.names]
        if absent:
            raise ValueError(
                f"`columns.names={','.join(columns.names)}` does not name `{absent[0]}`; name all columns of {shown}, "
                "in order."
            )
        fits = [one for one, (_, cells) in headers.items() if len(cells) == len(columns.names)]
        if not fits and headers:
            count = max(len(cells) for _, cells in headers.values())
            raise ValueError(f"{shown} has {count} columns, and `columns.names` names {len(columns.names)}; name each.")
        return list(columns.names), fits[0] if fits else ",", 0
    for separator, (number, cells) in headers.items():
        if all(_place(cells, name, None) is not None for name in wanted):
            return cells, separator, number + 1
    cells = headers[","][1] if headers else []
    absent = [name for name in wanted if _place(cells, name, None) is None]
    there = ", ".join(f"`{printable(name[:40])}`" for name in cells[:8]) or "none"
    raise ValueError(
        f"{shown} has no column `{absent[0] if absent else wanted[0]}`; its columns are {there}: say which hold what "
        "by `--data.columns.text`, or, where the first line is no header, name them all by `--data.columns.names`."
    )


def _place(header: Sequence[str], name: str, default: Any = ...) -> Any:
    if name in header:
        return header.index(name)
    near = [place for place, column in enumerate(header) if column.casefold() == name.casefold()]
    if len(near) == 1 or default is not ...:
        return near[0] if len(near) == 1 else default
    raise ValueError(f"the column `{name}` is not there, or twice.")


def _first(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((place for name in names if (place := _place(header, name, None)) is not None), None)


def number_labels(rows: Sequence[Row], class_names: Sequence[str] | None) -> tuple[tuple[str, ...], list[int]]:
    """Turn classes, written as names or as numbers, into numbers from 0.

    Args:
        rows: Of all parts.
        class_names: Of all classes, in order; null for those that are written, sorted. Numbers count in it: from 0 if
            a 0 is written, from 1 if the last is.

    Returns:
        Names of the classes; the class of each row, -1 where it has none.

    Raises:
        ValueError: If a class is none of them.
    """
    labels = [unicodedata.normalize("NFC", row.label) for row in rows]
    written = {label for label in labels if label}
    if class_names is None:
        plain = all(label.isdecimal() for label in written)
        names = tuple(sorted(written, key=(lambda label: (int(label), label)) if plain else None))
        numbers = {name: number for number, name in enumerate(names)}
    else:
        names = tuple(unicodedata.normalize("NFC", name) for name in class_names)
        numbers = {name: number for number, name in enumerate(names)}
        counted = {label for label in written - numbers.keys() if label.isdecimal()}
        if counted:
            begin = _begin({int(label) for label in counted}, len(names))
            numbers |= {label: int(label) - begin for label in counted if begin <= int(label) < begin + len(names)}
        for row, label in zip(rows, labels, strict=True):
            if label and label not in numbers:
                raise ValueError(
                    f"{row.where} has the class `{printable(label[:60])}`, which is none of `class_names` "
                    f"({', '.join(names[:8])}{' ...' * (len(names) > 8)}); name it there, or mend the row."
                )
    return names, [numbers[label] if label else -1 for label in labels]


def _begin(numbers: set[int], count: int) -> int:
    if 0 in numbers or count in numbers:
        return 0 if 0 in numbers else 1
    raise ValueError(
        f"classes are written as {min(numbers)} to {max(numbers)}, and `class_names` names {count}: it cannot be told "
        "whether they count from 0 or from 1; write names in place of numbers, or leave out `class_names`."
    )


def names_of(class_names: Sequence[str] | str | None) -> list[str] | None:
    """Return the names of classes, given as a list or as a file with one on each line.

    Raises:
        ValueError: If there is no such file, or a name is there twice.
    """
    if class_names is None:
        return None
    names = class_names
    if isinstance(class_names, str):
        try:
            names = [
                line.strip() for line in Path(class_names).read_text(encoding="utf-8-sig").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"`class_names={class_names}` is no text file in UTF-8 ({Path(class_names).resolve()}); give a list, "
                "or a file with a name on each line."
            ) from error
    names = [str(name) for name in names]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`class_names={class_names!s:.80}` must name each class once, and at least one.")
    return names
