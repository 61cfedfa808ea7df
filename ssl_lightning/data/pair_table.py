"""Tables of pictures with captions: reading them, and saying what is wrong in which line."""

import csv
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from os.path import normpath
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.data.listing import printable
from ssl_lightning.data.samples import number_copies
from ssl_lightning.engine.csv_files import read_table

IMAGE = ("image", "image_path", "path", "file", "filename", "file_name", "filepath", "file_path")
LABEL = ("class", "class_name", "label", "category", "group", "target")
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
LONGEST = 2**27  # characters of a cell
BETWEEN = "; "  # columns that make a caption together


class PairRow(NamedTuple):
    """A line of a table.

    Attributes:
        where: The file and the line, for messages.
        key: Of the pair.
        image: Path of the picture as the table spells it, `/` between folders: pairs of one picture are on one side.
        path: Of the picture's file.
        caption: The text.
        label: Name of the class, or empty.
    """

    where: str
    key: str
    image: str
    path: Path
    caption: str
    label: str


def read_pairs(argument: str, path: str, root: Path | None, captions: Sequence[str], skip: bool) -> list[PairRow]:
    """Read a table of pictures with captions.

    Args:
        argument: Name of the argument that gave the path, for messages.
        path: CSV file in UTF-8 with the columns `image`, those of the caption, and perhaps `class` and `key`.
        root: Folder that paths of pictures start from; null for that of the table, or its sub-folder `images`.
        captions: Columns that make the caption together.
        skip: Leave lines out that are no pair, and count them in a warning.

    Returns:
        The pairs in the order of the table.

    Raises:
        ValueError: If the table cannot be read, or a line is no pair; names file and line.
    """
    file, shown = Path(path), f"`{argument}={printable(str(path))}`"
    if not file.is_file():
        raise ValueError(f"{shown} is no file ({file.resolve()}); give a CSV table of images and captions.")
    _require_utf8(file, shown)
    columns = {"image": IMAGE, "class": LABEL, "key": ("key",)}
    names = [name.strip().casefold() for name in captions]
    texts = [name if name not in columns else f"column {name}" for name in names]
    columns |= {text: (name,) for text, name in zip(texts, names, strict=True)}
    before = csv.field_size_limit(LONGEST)  # of the whole process
    try:
        lines = read_table(file, shown, columns, ["image", *texts])
    finally:
        csv.field_size_limit(before)
    if root is None:
        root = _root_of(file.parent, [cells["image"] for _, cells in lines])
    rows, bad, problems = [], [], Counter[str]()
    for number, cells in lines:
        where = f"{shown}, line {number}"
        said = [cells[text].strip() for text in texts]
        caption = unicodedata.normalize("NFC", BETWEEN.join(text for text in said if text))
        image = normpath(cells["image"].strip().replace("\\", "/")) if cells["image"].strip() else ""
        problem = _problem(image, root / image, caption)
        if problem and not skip:
            raise ValueError(
                f"{where}: {problem[1]}; mend or remove the line, or skip such ones by `skip_corrupt=true`."
            )
        if problem:
            bad.append(number)
            problems[problem[0]] += 1
            continue
        label = unicodedata.normalize("NFC", cells.get("class", "").strip())
        rows.append(PairRow(where, cells.get("key", ""), image, root / image, caption, label))
    if bad:
        told = ", ".join(f"{count} {what}" for what, count in sorted(problems.items()))
        rank_zero_warn(f"skipped {len(bad)} of {len(lines)} lines of {shown} ({told}), the first is line {bad[0]}.")
    return _named(rows, "key" in (lines[0][1] if lines else {}))


def _problem(image: str, path: Path, caption: str) -> tuple[str, str] | None:
    """Return what a line lacks, in a word for a count and in a sentence."""
    if not image:
        return "without a picture", "it names no picture"
    if not path.is_file():
        return "whose picture is missing", f"the picture of its caption is missing ({printable(str(path))})"
    if not caption:
        return "with an empty caption", f"the caption of `{printable(image)}` is empty"
    return None


def _named(rows: list[PairRow], given: bool) -> list[PairRow]:
    """Give each pair a key: that of the table, else the picture, with a hash of the caption where it has several."""
    if given:
        times = Counter(row.key.strip() for row in rows)
        for row in rows:
            if not row.key.strip() or times[row.key.strip()] > 1:
                raise ValueError(f"{row.where}: the key `{row.key}` is empty or there twice; keys must be unique.")
        return [row._replace(key=row.key.strip()) for row in rows]
    times = Counter(row.image for row in rows)
    keys = [row.image if times[row.image] == 1 else f"{row.image}#{_hash(row.caption)}" for row in rows]
    return [row._replace(key=key) for row, key in zip(rows, number_copies(keys), strict=True)]


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _root_of(folder: Path, images: Sequence[str]) -> Path:
    """Return the folder that pictures lie in: that of the table, unless they are in `images` beside it."""
    inside = folder / "images"
    some = [name.strip() for name in images[:100] if name.strip()]
    found = not any((folder / name).is_file() for name in some) and any((inside / name).is_file() for name in some)
    return inside if found else folder


def _require_utf8(file: Path, shown: str) -> None:
    try:
        data = file.read_bytes()
        data.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error}); give a CSV file in UTF-8.") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{shown}, line {line}: byte {data[error.start]:#04x} is no UTF-8; save the table in UTF-8."
        ) from error


def without_caption(named: Sequence[Path]) -> list[Path]:
    """Return the pictures beside those that lines name, in the same folders, that no line names; hidden ones apart.

    Args:
        named: Files that lines name.

    Returns:
        In alphabetical order.
    """
    known = {path.resolve() for path in named}
    beside = (path for folder in sorted({path.parent for path in named}) for path in sorted(folder.iterdir()))
    return [
        path
        for path in beside
        if path.suffix.lower() in PICTURES and path.name[0] != "." and path.is_file() and path.resolve() not in known
    ]
