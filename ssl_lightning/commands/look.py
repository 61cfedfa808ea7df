"""What lies in a folder or file that `start` is given: the kind of data, and the options to read it by."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssl_lightning.commands.start_plan import LARGE, LARGE_GPU, SMALL, SMALLEST, spec
from ssl_lightning.data.audio import SOUNDS
from ssl_lightning.data.columns import MISSING
from ssl_lightning.data.files import PICTURES, find_files
from ssl_lightning.data.label_table import TABLE
from ssl_lightning.data.listing import Kind
from ssl_lightning.data.text_files import LABELS, LINES, PLAIN, TEXTS
from ssl_lightning.engine.csv_files import NUMBER, SEPARATORS

KINDS: dict[str, Kind] = {"images": PICTURES, "sound": SOUNDS, "text": TEXTS}
TABLES = (".csv", ".tsv", ".parquet")
LOOKS = 64  # pictures that are opened, spread over the folder
ROWS = 500  # of a table that are looked at
LONG = 20  # characters on average: from here on a column of different words is one of texts
FEW = 50  # names at most of a column of categories


class Found(NamedTuple):
    """What lies there.

    Attributes:
        kind: Of the data: images, sound, text or rows.
        data: The data module and its options, as a config names them.
        note: What was decided by looking, in words.
    """

    kind: str
    data: dict[str, Any]
    note: str


def look(source: str, gpu: bool = False) -> Found:
    """Tell what lies in a folder or file.

    Args:
        source: The folder or file.
        gpu: Whether larger pictures can be afforded.

    Raises:
        ValueError: If there is nothing, or nothing that is known.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"`folder={source}` does not exist ({path.resolve()}); give a folder of files, or a table.")
    if path.is_file():
        return _file(source, path)
    counts = Counter(
        file.suffix.lower()
        for file in path.rglob("*")
        if not file.name.startswith(".") and file.name.casefold() != TABLE and file.is_file()
    )
    kinds = Counter({name: sum(counts[suffix] for suffix in kind.suffixes) for name, kind in KINDS.items()})
    name, count = kinds.most_common(1)[0]
    tables = [
        file for file in sorted(path.iterdir()) if file.suffix.lower() in TABLES and file.name.casefold() != TABLE
    ]
    if not count and len(tables) == 1:
        return _file(str(tables[0]), tables[0])
    if not count:
        met = f" ({', '.join(suffix or 'no suffix' for suffix, _ in counts.most_common(5))})" if counts else ""
        several = f" but the tables {', '.join(table.name for table in tables[:5])}: give one of them" if tables else ""
        known = ", ".join(sorted({suffix for kind in KINDS.values() for suffix in kind.suffixes} | {*TABLES, *LINES}))
        what = f"holds nothing that is known{met}" if counts else "is empty"
        raise ValueError(f"`folder={source}` {what}{several}; give one with files of {known}.")
    match name:
        case "images":
            return _images(source, path, gpu)
        case "sound":
            return Found(name, spec("AudioFolder", root=source, skip_corrupt=True), "16,000 samples a second")
        case _:
            return Found(name, spec("Texts", path=source, skip_corrupt=True, max_length=64), "a tokenizer of their own")


def _images(source: str, path: Path, gpu: bool) -> Found:
    files = find_files(path, None, PICTURES).files
    some = [files[place].path for place in np.linspace(0, len(files) - 1, min(LOOKS, len(files))).astype(int)]
    sides, gray = [], True
    for file in some:
        try:
            with Image.open(file) as picture:
                sides.append(min(picture.size))
                gray = gray and _is_gray(picture)
        except (OSError, ValueError, Image.DecompressionBombError):  # counted where all are decoded
            continue
    side = float(np.median(sides)) if sides else SMALL
    size = image_size(side, gpu)
    options = {"root": source, "image_size": size, "channels": 1 if gray and sides else 3, "skip_corrupt": True}
    note = f"{'gray' if options['channels'] == 1 else 'colour'}, {side:.0f} px in the middle, taken at {size} px"
    return Found("images", spec("ImageFolder", **options), note)


def _is_gray(picture: Image.Image) -> bool:
    if picture.mode in ("1", "L", "LA", "I", "I;16", "F"):
        return True
    picture.draft("RGB", (64, 64))
    rows = np.asarray(picture.convert("RGB").resize((min(64, picture.width), min(64, picture.height)))).astype(int)
    return bool((rows.max(axis=2) - rows.min(axis=2)).max() <= 8)


def image_size(side: float, gpu: bool = False) -> int:
    """Return the side at which pictures are taken, by the usual shorter side of the files.

    Example:
        >>> [image_size(side) for side in (5, 8, 28, 32, 40, 640)]
        [8, 8, 28, 32, 32, 64]
    """
    if side < 1.5 * SMALL:
        return max(SMALLEST, min(SMALL, 4 * round(side / 4)))
    return min(LARGE_GPU if gpu else LARGE, 8 * round(side / 8))


def _file(source: str, path: Path) -> Found:
    suffix = path.suffix.lower()
    if suffix in (*LINES, *PLAIN):
        return Found("text", spec("Texts", path=source, skip_corrupt=True, max_length=64), "a text a line")
    if suffix not in TABLES:
        raise ValueError(
            f"`folder={source}` is a file of a kind that is not known; give a folder, or a file of "
            f"{', '.join((*TABLES, *LINES, *PLAIN))}."
        )
    header, rows = _cells(source, path)
    columns = {name: [row[place] for row in rows if place < len(row)] for place, name in enumerate(header)}
    label = next((name for name in header if name.casefold() in LABELS), None)
    others = {name: cells for name, cells in columns.items() if name not in (label, "key")}
    words = [name for name, cells in others.items() if not all(_is_number(cell) for cell in cells)]
    long = [name for name in words if np.mean([len(cell) for cell in others[name]]) >= LONG]
    texts = [name for name in long if len(set(others[name])) > len(rows) / 2]
    if texts and suffix != ".parquet":
        text = texts[0] if len(texts) == 1 else texts
        data = spec("Texts", path=source, skip_corrupt=True, max_length=64, columns={"text": text, "label": label})
        return Found("text", data, f"texts of {_named(texts)}, classes of {_named([label] if label else [])}")
    few = [name for name in words if len(set(others[name])) <= min(FEW, max(2, len(rows) // 2))]
    out = [name for name in words if name not in few]
    data = spec(
        "Table", path=source, label=label, categories=few, leave_out=out, missing="fill", skip_corrupt=True
    )  # fmt: skip
    note = f"categories {_named(few)}, left out {_named(out)}, classes of {_named([label] if label else [])}"
    return Found("rows", data, note)


def _cells(source: str, path: Path) -> tuple[list[str], list[list[str]]]:
    """Read the names of a table's columns, and its first rows."""
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(path).slice(0, ROWS)
            names = [str(name) for name in table.column_names]
            cells = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
            return names, [list(row) for row in zip(*cells, strict=True)]
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            separator = "\t" if path.suffix.lower() == ".tsv" else max(SEPARATORS, key=first.count)
            file.seek(0)
            rows = [row for row, _ in zip(csv.reader(file, delimiter=separator), range(ROWS + 1), strict=False) if row]
    except (OSError, UnicodeDecodeError, csv.Error, ImportError) as error:
        raise ValueError(f"`folder={source}` cannot be read as a table ({error}); give a CSV file in UTF-8.") from error
    if len(rows) < 2:
        raise ValueError(f"`folder={source}` holds {len(rows)} lines; a table has names of columns, and rows.")
    return rows[0], rows[1:]


def _is_number(cell: str) -> bool:
    return NUMBER.fullmatch(cell.strip()) is not None or cell.strip().casefold() in MISSING


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:5]) + " ..." * (len(names) > 5) if names else "none"
