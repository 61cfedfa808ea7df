"""Tables as CSV files: safe in a spreadsheet, read as people write them; files that are replaced as a whole."""

import csv
import fcntl
import io
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what a spreadsheet would run, or what we wrote so that it does not
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|nan)")
SEPARATORS = (",", ";", "\t")

Line = tuple[int, dict[str, str]]  # its number in the file, the first being 1, and its cells by column


def escaped(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula; numbers stay as they are.

    Example:
        >>> [escaped(text) for text in ("=1+1", "'=1+1", "-0.5", "'tis", "a=b")]
        ["'=1+1", "''=1+1", '-0.5', "'tis", 'a=b']
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def unescaped(text: str) -> str:
    """Take away the apostrophe that `escaped` put there.

    Example:
        >>> [unescaped(escaped(text)) for text in ("=1+1", "'=1+1", "-0.5", "'tis", "a=b")]
        ['=1+1', "'=1+1", '-0.5', "'tis", 'a=b']
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def write_csv(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file in place of the one that is there, if any; two processes may do so at once.

    Args:
        path: Of the file; its folder is made.
        columns: In their order.
        lines: By column; what is missing or null is left empty, and texts are `escaped`.

    Raises:
        ValueError: If a line has a column that is not named.
    """
    with replacing(path) as file:
        write_lines(file, columns, lines)


def write_lines(file: IO[str], columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a table as CSV into a file that was opened with `newline=""`; else as `write_csv`."""
    writer = csv.DictWriter(file, columns, restval="")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: escaped(cell) if isinstance(cell, str) else cell for name, cell in line.items()})


def read_table(path: Path, shown: str, columns: Mapping[str, Sequence[str]], required: Sequence[str]) -> list[Line]:
    """Read a table that a person or another program made, as a CSV file in UTF-8.

    Columns are separated by commas, semicolons or tabs, and go by their names, in any case of letters. Lines end in any
    way. A byte order mark, empty lines, columns that nobody asks for, and Excel's `sep=;` are passed over. Cells are
    `unescaped`.

    Args:
        path: Of the file.
        shown: Names it, for messages.
        columns: What each column may be called; the first of these that is there is taken.
        required: Those that must be there.

    Returns:
        The lines that hold something.

    Raises:
        ValueError: If the file cannot be read, lacks a column, or a line has too few cells or too many.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown} cannot be read as a table ({error}); give a CSV file in UTF-8.") from error
    separators: Sequence[str] = SEPARATORS
    skipped = 0
    if told := re.match(r"sep=(.)(\r\n|\r|\n)", text):
        separators, skipped, text = [told[1]], 1, text[told.end() :]
    header, separator = _header(text, separators, columns, required, shown)
    places = {name: header.index(found[0]) for name, some in columns.items() if (found := _called(some, header))}
    lines = []
    for number, cells in _filled(text, separator, shown, skipped):
        if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
            raise ValueError(
                f"{shown}, line {number}: {len(cells)} cells under {len(header)} columns; put what holds "
                f"`{separator}` into quotes, and leave no cell out."
            )
        lines.append((number, {name: unescaped(cells[place]) for name, place in places.items()}))
    return lines[1:]


def _called(names: Sequence[str], header: Sequence[str]) -> list[str]:
    return [name for name in names if name in header]


def _header(
    text: str, separators: Sequence[str], columns: Mapping[str, Sequence[str]], required: Sequence[str], shown: str
) -> tuple[list[str], str]:
    """Find the names of the columns, in small letters, and what separates them."""
    headers = []
    for separator in separators:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            cells = next((row for row in reader if any(cell.strip() for cell in row)), [])
        except csv.Error:
            cells = []
        headers.append([cell.strip().casefold() for cell in cells])
        if all(_called(columns[name], headers[-1]) for name in required):
            break
    else:
        others = {name: [other for other in columns[name] if other != name] for name in required}
        wanted = " and ".join(
            f"`{name}`" + f" (or {', '.join(others[name])})" * bool(others[name]) for name in required
        )
        raise ValueError(
            f"{shown} has the columns {', '.join(f'`{name}`' for name in headers[0][:8]) or 'none'}; required are "
            f"{wanted}, named so in the first line."
        )
    taken = [found[0] for names in columns.values() if (found := _called(names, headers[-1]))]
    if twice := [name for name in taken if headers[-1].count(name) > 1]:
        raise ValueError(f"{shown} has the column `{twice[0]}` twice; leave one.")
    return headers[-1], separator


def _filled(text: str, separator: str, shown: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines with something in them, the header first, each with the number of its first line in the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{shown}, line {number}: no CSV ({error}); mend the quotes of that line.") from error
        if any(cell.strip() for cell in cells):
            yield number, cells


@contextmanager
def replacing(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when it is complete; what was there stays if writing fails.

    A link stays one, and what it points to is replaced. What is no file, as a pipe or a device, is written into.

    Args:
        path: Of the file; its folder is made.
        mode: Text in UTF-8, or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a file's name may be no UTF-8, and must not be what a whole table fails for
    text: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"} if mode == "w" else {}
    if path.exists() and not path.is_file():
        with path.open(mode, **text) as file:
            yield file
        return
    path = path.resolve()
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # of no other process, on no other machine
    try:
        with scratch.open(mode, **text) as file:
            yield file
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(scratch):
            error.filename = str(path)  # the one that the user knows
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process is between reading a file and replacing it.

    Args:
        path: Of the file; the lock is an empty file beside it, and dies with the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
