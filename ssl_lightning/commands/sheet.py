"""Small pictures of samples on one sheet, and what is read of those that are none."""

import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from ssl_lightning.data.base import DataModule

CELL = 48  # px: side of a picture at most
COLUMNS = 40
TEXT = 160  # letters that are kept of a text
BYTES = 1_500_000  # of the sheet; a larger one is compressed more


class Sheet(NamedTuple):
    """What people see of some samples, in their order.

    Attributes:
        content: A PNG or JPEG file; empty where nothing is a picture.
        cell: Side of a picture in px.
        columns: Pictures a row.
        texts: Of each sample; empty where a picture is all.
    """

    content: bytes
    cell: int
    columns: int
    texts: list[str]


def draw_sheet(data: DataModule, keys: Sequence[str]) -> Sheet:
    """Put what people see of samples on a sheet; what cannot be read stays empty.

    Args:
        data: That show them.
        keys: Of the samples.
    """
    pictures: list[Image.Image | None] = []
    texts = []
    for key in keys:
        picture, text = _see(data, key)
        pictures.append(picture)
        texts.append(text)
    sides = [max(picture.size) for picture in pictures if picture is not None]
    if not sides:
        return Sheet(b"", 0, 0, texts)
    cell, columns = min(CELL, max(sides)), min(COLUMNS, len(keys))
    gray = all(picture is None or picture.mode == "L" for picture in pictures)
    sheet = Image.new("L" if gray else "RGB", (columns * cell, -(-len(keys) // columns) * cell), "white")
    for place, picture in enumerate(pictures):
        if picture is not None:
            left, top = (cell - picture.width) // 2, (cell - picture.height) // 2
            sheet.paste(picture, (place % columns * cell + left, place // columns * cell + top))
    return Sheet(_packed(sheet), cell, columns, texts)


def _see(data: DataModule, key: str) -> tuple[Image.Image | None, str]:
    try:
        shown = data.show(key)
        if shown.kind != "image" or not isinstance(shown.content, bytes):
            text = shown.content if isinstance(shown.content, str) else shown.caption or ""
            if shown.kind == "row":
                text = ", ".join(f"{column} {cell}" for column, cell in json.loads(text).items())
            return None, text[:TEXT]
        with Image.open(io.BytesIO(shown.content)) as opened:
            picture = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    except (OSError, ValueError, UnidentifiedImageError):
        return None, ""
    picture.thumbnail((CELL, CELL))
    return picture, (shown.caption or "")[:TEXT]


def _packed(sheet: Image.Image) -> bytes:
    files = []
    for kind, quality in (("PNG", 0), ("JPEG", 80), ("JPEG", 50), ("JPEG", 20)):
        buffer = io.BytesIO()
        sheet.save(buffer, kind, optimize=True, **({"quality": quality} if quality else {}))
        files.append(buffer.getvalue())
        if len(files) > 1 and min(map(len, files)) <= BYTES:
            break
    return min(files, key=len)
