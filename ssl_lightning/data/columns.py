"""Columns of a file `.csv` or `.parquet`: numbers as one matrix, words as they are, and where each row stands."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.engine.csv_files import NUMBER, SEPARATORS, unescaped

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>", "?"})  # cells of a column of numbers, in any case
INDEX = "__index_level_0__"  # of pandas, in parquet files
BLOCK = 65_536  # lines that are read at once
LARGEST = float(np.finfo(np.float32).max)
SUFFIXES = (".csv", ".parquet")

Block = tuple[list[int], list[list[str]]]  # numbers of lines in the file, the first being 1, and their cells


class Columns(NamedTuple):
    """What a file holds.

    Attributes:
        numbers: `(n, a)`, float64; NaN where nothing is there.
        names: Of the columns of numbers.
        words: The cells of other columns, by name; empty where nothing is there.
        places: Of each row in the file, `(n,)`: for CSV its first line, of which the header is 1; else its number.
        unit: What a place is called, such as `line`.
    """

    numbers: np.ndarray
    names: tuple[str, ...]
    words: dict[str, list[str]]
    places: np.ndarray
    unit: str

    def keep(self, rows: np.ndarray) -> "Columns":
        """Return some of the rows, by a mask or by their numbers."""
        kept = np.arange(len(self.places))[rows]
        words = {name: [cells[row] for row in kept] for name, cells in self.words.items()}
        return self._replace(numbers=self.numbers[kept], words=words, places=self.places[kept])

    def contents(self, words: Sequence[str]) -> list[str]:
        """Hash each row's numbers, and the words of some columns, as the file has them."""
        numbers = np.ascontiguousarray(self.numbers + 0.0, dtype="<f8")  # -0.0 becomes 0.0
        numbers[np.isnan(numbers)] = np.nan  # of one kind
        cells = zip(*(self.words[name] for name in words), strict=True) if words else iter([()] * len(numbers))
        return [
            hashlib.sha256(row.tobytes() + "\0".join(some).encode("utf-8", "surrogatepass")).hexdigest()[:16]
            for row, some in zip(numbers, cells, strict=True)
        ]


class Wanted(NamedTuple):
    """Which columns to read.

    Attributes:
        words: Columns of words, which must be there.
        perhaps: Columns of words that may be missing.
        left_out: Columns to pass over.
        numbers: Columns of numbers, which must be there; null for all that are left.
        remedy: What to do about a column of numbers that holds a word, for the end of the message.
    """

    words: Sequence[str] = ()
    perhaps: Sequence[str] = ()
    left_out: Sequence[str] = ()
    numbers: Sequence[str] | None = None
    remedy: str = "mend the cell"

    def choose(self, shown: str, header: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return the places of the columns of numbers, and of words.

        Args:
            shown: Names the file, for messages.
            header: Names of all columns; empty where a column has none.

        Raises:
            ValueError: If a column is missing, or there twice.
        """
        words = [*self.words, *(name for name in self.perhaps if name in header)]
        required = [*words, *(self.numbers or ()), *(self.left_out if self.numbers is None else ())]
        missing = [name for name in required if name not in header]
        if missing:
            raise ValueError(
                f"{shown} has no column `{missing[0]}`; it has {', '.join(f'`{name}`' for name in header[:12] if name)}"
                f"{' ...' * (len(header) > 12)}, separated by commas, semicolons or tabs."
            )
        rest = [name for name in header if name and name not in {*words, *self.left_out}]
        numbers = rest if self.numbers is None else list(self.numbers)
        twice = [name for name, times in Counter(header).items() if name in {*words, *numbers} and times > 1]
        if twice:
            raise ValueError(f"{shown} has the column `{twice[0]}` twice; a name is that of one column: rename one.")
        return [header.index(name) for name in numbers], [header.index(name) for name in words]


def read_columns(path: str | Path, shown: str, wanted: Wanted, skip_corrupt: bool = False) -> Columns:
    """Read a table.

    CSV files are in UTF-8, with a header; separated by commas, semicolons or tabs; lines end in any way; a byte order
    mark, empty lines and columns without a name are passed over, the last with a warning.

    Args:
        path: Of the file, which ends in `.csv` or `.parquet`.
        shown: Names it, for messages.
        wanted: Which columns.
        skip_corrupt: Leave rows out that cannot be read, and count them in a warning, instead of stopping at the first.

    Raises:
        ValueError: If the file cannot be read, a column is missing or there twice, a cell is no number, or nothing is
            left.
    """
    if not Path(path).is_file():
        raise ValueError(f"{shown} is no file ({Path(path).resolve()}); give a table, {' or '.join(SUFFIXES)}.")
    read = _read_parquet if Path(path).suffix.lower() == ".parquet" else _read_csv
    faults = Faults(shown, skip_corrupt)
    found = read(Path(path), shown, wanted, faults)
    found = found.keep(~np.isin(found.places, list(faults.places))) if faults.places else found
    faults.tell(len(found.places))
    if not len(found.places):
        raise ValueError(f"{shown} holds no row; a table has a line that names the columns, and one for each sample.")
    return found


class Faults:
    """Rows that cannot be read: the first ends the reading, or all are counted.

    Args:
        shown: Names the file.
        skip: Count them.
    """

    def __init__(self, shown: str, skip: bool) -> None:
        self.shown, self.skip = shown, skip
        self.places: dict[int, str] = {}

    def add(self, unit: str, place: int, text: str) -> None:
        """Note a row.

        Raises:
            ValueError: If none is to be skipped.
        """
        message = f"{unit} {place}{text}"
        if not self.skip:
            raise ValueError(f"{self.shown}, {message}, or leave such rows out by `skip_corrupt=true`.")
        self.places.setdefault(place, message.partition(";")[0])

    def tell(self, left: int) -> None:
        """Warn of what was left out.

        Args:
            left: Rows that were not.

        Raises:
            ValueError: If there are none.
        """
        if not self.places:
            return
        some = "; ".join(self.places[place] for place in sorted(self.places)[:3])
        text = f"left out {len(self.places)} of {left + len(self.places)} rows of {self.shown}: {some}"
        if not left:
            raise ValueError(f"{text}: none is left.")
        rank_zero_warn(f"{text}{' ...' * (len(self.places) > 3)}")


def _read_csv(path: Path, shown: str, wanted: Wanted, faults: Faults) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, separator, skipped = _header(file, shown, wanted)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)
            return _by_blocks(_blocks(reader, shown, skipped), header, separator, shown, wanted, faults)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{shown} cannot be read as a table ({error}); give a CSV file in UTF-8, or a .parquet file."
        ) from error


def _by_blocks(
    blocks: Iterator[Block], header: list[str], separator: str, shown: str, wanted: Wanted, faults: Faults
) -> Columns:
    columns, others = wanted.choose(shown, header)
    numbers: list[np.ndarray] = [np.empty((0, len(columns)))]
    words: dict[str, list[str]] = {header[column]: [] for column in others}
    clean = {header[column]: _Unescaped() for column in others}
    places: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for lines, rows in blocks:
        good = [_fits(cells, len(header)) for cells in rows]
        for place, cells, fits in zip(lines, rows, good, strict=True):
            if not fits:
                text = f": {len(cells)} cells under {len(header)} columns; put what holds `{separator}` into quotes, "
                faults.add("line", place, f"{text}leave no cell out")
        mine = np.array(lines, dtype=np.int64)[good]
        cells_of = list(
            zip(*(cells[: len(header)] for cells, fits in zip(rows, good, strict=True) if fits), strict=True)
        )
        if not cells_of:
            continue
        odd: list[tuple[int, int, str]] = []
        block = [_as_numbers(cells_of[column], number, odd) for number, column in enumerate(columns)]
        for row, number, cell in sorted(odd):
            faults.add(
                "line", int(mine[row]), f", column `{header[columns[number]]}`: {_reason(cell)}; {wanted.remedy}"
            )
        for column in others:
            words[header[column]] += map(clean[header[column]].__getitem__, cells_of[column])
        numbers.append(np.column_stack(block) if block else np.empty((len(mine), 0)))
        places.append(mine)
    names = tuple(header[column] for column in columns)
    return Columns(np.concatenate(numbers), names, words, np.concatenate(places), "line")


def _fits(cells: list[str], columns: int) -> bool:
    return len(cells) == columns or (len(cells) > columns and not any(map(str.strip, cells[columns:])))


class _Unescaped(dict[str, str]):
    """Cells as they were meant, each thought of once, and kept once."""

    def __missing__(self, cell: str) -> str:
        self[cell] = found = unescaped(cell.strip())
        return found


def _header(file: Any, shown: str, wanted: Wanted) -> tuple[list[str], str, int]:
    """Find the names of the columns, what separates them, and how many lines come before."""
    first = file.readline()
    told = re.fullmatch(r"sep=(.)(\r\n|\r|\n)", first)
    found: list[list[str]] = []
    for separator in [told[1]] if told else SEPARATORS:
        file.seek(0)
        reader = csv.reader(file, delimiter=separator)
        try:
            rows = (row for row in reader if any(cell.strip() for cell in row))
            header = next(rows, [])
            header = next(rows, []) if told else header
        except csv.Error as error:
            raise ValueError(f"{shown}, line 1: no CSV ({error}); mend the quotes of that line.") from error
        found.append([" ".join(cell.split()) for cell in header])  # on one line, too
    best = max(range(len(found)), key=lambda place: (len(set(wanted.words) & set(found[place])), len(found[place])))
    header, separator = found[best], told[1] if told else SEPARATORS[best]
    if header and all(NUMBER.fullmatch(cell) for cell in header):
        raise ValueError(
            f"{shown} begins with numbers; its first line must name the columns, such as `a,b,class`: add one."
        )
    unnamed = sum(not cell for cell in header)
    if unnamed:
        rank_zero_warn(f"{shown} has {unnamed} columns without a name, as of an index; they are passed over.")
    return header, separator, int(told is not None)


def _blocks(reader: Any, shown: str, skipped: int) -> Iterator[Block]:
    """Yield lines with something in them, but for the header, with the number of the first line of each in the file."""
    header = skipped + 1  # non-empty lines to pass over
    while True:
        before, rows = reader.line_num, list[list[str]]()
        error = ""
        try:
            rows.extend(islice(reader, BLOCK))  # those before a faulty one are kept
        except csv.Error as reason:
            error = str(reason)
        lines = range(before + 1, before + 1 + len(rows))
        if error or reader.line_num != before + len(rows):  # some have line ends in quotes
            ends = before + np.cumsum([0, *(1 + sum(map(_line_ends, cells)) for cells in rows)])
            if error:
                raise ValueError(f"{shown}, line {ends[-1] + 1}: no CSV ({error}); mend the quotes of that line.")
            lines = (ends[:-1] + 1).tolist()
        if not rows:
            return
        some = [(line, cells) for line, cells in zip(lines, rows, strict=True) if cells and (cells[0] or any(cells))]
        passed = min(header, len(some))
        header -= passed
        yield [line for line, _ in some[passed:]], [cells for _, cells in some[passed:]]


def _line_ends(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n") if "\n" in cell or "\r" in cell else 0


def _as_numbers(cells: Sequence[str], column: int, odd: list[tuple[int, int, str]]) -> np.ndarray:
    """Turn cells into numbers; note those that are none: row, column and text."""
    try:
        found = np.array(list(map(float, cells)))  # all are, as a rule
    except ValueError:
        found = None
    if found is not None and (np.abs(found) <= LARGEST).all() and "_" not in "".join(cells):
        return found
    numbers = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        text = cell.strip()
        if text.casefold() in MISSING:
            continue
        if NUMBER.fullmatch(text) and abs(float(text)) <= LARGEST:
            numbers[row] = float(text)
        else:
            odd.append((row, column, text))
    return numbers


def _reason(cell: str) -> str:
    """Say why a cell is no number."""
    cell = " ".join(cell.split())
    if NUMBER.fullmatch(cell):
        return f"`{cell:.40}` is more than a float32 holds"
    if re.fullmatch(r"[+-]?[0-9.]*,[0-9]+", cell):
        return f"`{cell:.40}` is no number: decimals have a point"
    return f"`{cell:.40}` is no number"


def _read_parquet(path: Path, shown: str, wanted: Wanted, faults: Faults) -> Columns:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{shown} needs pyarrow to be read: `pip install 'ssl-lightning[parquet]'`, or give a CSV file."
        ) from error
    try:
        file = parquet.ParquetFile(path)
        header = [name if name != INDEX else "" for name in file.schema_arrow.names]
        columns, others = wanted.choose(shown, header)
        table = parquet.read_table(path, columns=[header[column] for column in dict.fromkeys([*columns, *others])])
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{shown} cannot be read as a parquet file ({' '.join(str(error).split())}).") from error
    odd: list[tuple[int, int, str]] = []
    blocks: list[np.ndarray] = []
    names: list[str] = []
    for number, column in enumerate(columns):
        block = _arrow_numbers(arrow, table.column(header[column]), number, odd)
        blocks.append(block)
        many = block.shape[1] if block.ndim == 2 else 0
        names += [f"{header[column]}[{place}]" for place in range(many)] if many else [header[column]]
    for row, number, cell in sorted(odd):
        faults.add("row", row, f", column `{header[columns[number]]}`: {_reason(cell)}; {wanted.remedy}")
    numbers = np.column_stack(blocks) if blocks else np.empty((table.num_rows, 0))
    words = {header[column]: list(map(_word, table.column(header[column]).to_pylist())) for column in others}
    return Columns(numbers, tuple(names), words, np.arange(table.num_rows), "row")


def _arrow_numbers(arrow: Any, column: Any, place: int, odd: list[tuple[int, int, str]]) -> np.ndarray:
    """Turn a column into numbers `(n,)`, or one of lists into `(n, length)`."""
    is_a: Any = arrow.types
    if is_a.is_list(column.type) or is_a.is_large_list(column.type) or is_a.is_fixed_size_list(column.type):
        rows = column.to_pylist()
        length = Counter(len(row) for row in rows if row is not None).most_common(1)
        width = length[0][0] if length else 0
        found = np.full((len(rows), max(1, width)), np.nan)
        for number, row in enumerate(rows):
            if row is None:
                continue
            if len(row) != width or not all(cell is None or isinstance(cell, int | float) for cell in row):
                odd.append((number, place, f"list of {len(row)}, where others have {width} numbers,"))
            else:
                found[number] = [np.nan if cell is None else cell for cell in row]
    elif is_a.is_floating(column.type) or is_a.is_integer(column.type) or is_a.is_boolean(column.type) or (
        is_a.is_decimal(column.type)
    ):  # fmt: skip
        kind = column.cast(arrow.uint8()) if is_a.is_boolean(column.type) else column
        found = np.array(kind.cast(arrow.float64(), safe=False).to_numpy(), dtype=np.float64)
    else:  # words, or what is neither
        cells = [_word(cell) for cell in column.to_pylist()]
        return _as_numbers(cells, place, odd)
    with np.errstate(invalid="ignore"):
        large = np.abs(found) > LARGEST
    for number in np.flatnonzero(large if large.ndim == 1 else large.any(axis=1)).tolist():
        odd.append((number, place, "inf"))
    return found


def _word(cell: Any) -> str:
    """Return a cell as a word: whole numbers without a point, nothing as nothing.

    Example:
        >>> [_word(cell) for cell in (None, float("nan"), 3, 2.0, 0.5, "red ")]
        ['', '', '3', '2', '0.5', 'red']
    """
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
