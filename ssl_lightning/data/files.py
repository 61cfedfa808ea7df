"""Image files: finding them in a person's folder, and making pixels of them as a person sees them."""

import functools
import hashlib
import io
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor
from torchvision.transforms.v2 import functional as F

Part = Literal["train", "val", "test"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
PARTS: dict[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
UNLABELLED = frozenset({"unlabelled", "unlabeled"})
PASSED_OVER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

# What a file may hold, whatever its name says. Not all that Pillow knows: for some (EPS) it starts other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000", "ICO")
ORIENTATION, PHOTOMETRIC = 274, 262  # tags of EXIF and TIFF
MIRRORED = {2: Transpose.FLIP_LEFT_RIGHT, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE, 7: Transpose.TRANSVERSE}
UPRIGHT = MIRRORED | {3: Transpose.ROTATE_180, 6: Transpose.ROTATE_270, 8: Transpose.ROTATE_90}  # by orientation


class FoundFile(NamedTuple):
    """A picture's file.

    Attributes:
        key: Its path relative to the root, with `/` between folders, as the file system spells it.
        path: Of the file.
        class_name: Name of its class folder; null where unlabelled.
        part: Whether it lies in a folder for training, validation or test; null where there are no such folders.
    """

    key: str
    path: Path
    class_name: str | None
    part: Part | None


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        files: The pictures, sorted by key.
        class_names: All classes of all parts, sorted.
        notes: A sentence for each thing set aside or worth saying.
        parts: The parts that hold pictures; empty where there are no folders for parts.
    """

    files: list[FoundFile]
    class_names: tuple[str, ...]
    notes: list[str]
    parts: frozenset[Part]


_Remarks = defaultdict[str, list[str]]  # keys (or suffixes) by what is remarkable of them; `said`: whole sentences


class _Item(NamedTuple):
    key: str
    path: str
    linked: bool


class _Group(NamedTuple):
    """The pictures and folders that lie directly in a part, or in a root without parts."""

    part: Part | None
    pictures: list[_Item]
    folders: list[_Item]


def find_images(root: Path) -> Listing:
    """Find the pictures under a folder, with their classes and parts as its sub-folders tell them.

    Folders `train`, `val` (or `valid`, `validation`) and `test` directly under the root, in any case of letters, are
    parts; the folders in a part, or in a root without parts, are classes, and what lies in them at any depth belongs to
    them. Pictures beside class folders, or in a folder `unlabelled` (`unlabeled`) beside them, are unlabelled. Where
    `val` or `test` has no `train` at its side, the rest is the training part. Links are followed, each folder read once
    a class. Class names are in Unicode's composed form (NFC), so that no two look the same; keys stay as they are.

    Args:
        root: The folder.

    Returns:
        The pictures, and notes on all else: nothing is left out unsaid.

    Raises:
        ValueError: If `root` is no folder, or holds no picture.
    """
    shown = f"`root={_printable(str(root))}`"
    if not root.is_dir():
        where = _printable(str(root.absolute()))
        raise ValueError(f"{shown} is no folder ({where}); give the folder that holds the images.")
    remarks: _Remarks = defaultdict(list)
    groups = _groups(root, remarks)
    files = sorted(file for group in groups for file in _members(group, root, remarks))
    class_names = tuple(sorted({file.class_name for file in files if file.class_name is not None}))
    parts = frozenset(file.part for file in files if file.part is not None)
    empty = sorted({group.part for group in groups if group.part is not None} - parts)
    remarks["said"] += [f"the part `{part}` holds no picture" for part in empty]
    notes = remarks["said"] + _on_classes(files, class_names, parts) + _on_others(remarks, class_names)
    if not files:
        met = f" Found: {'; '.join(notes)}." if notes else ""
        raise ValueError(
            f"{shown} holds no picture ({', '.join(sorted(SUFFIXES))}); give the folder that holds the images, or "
            f"convert them.{met}"
        )
    return Listing(files, class_names, notes, parts)


def _groups(root: Path, remarks: _Remarks) -> list[_Group]:
    pictures, folders = _scan(_Item("", str(root), False), remarks)
    roles = {folder: PARTS.get(_name(folder.key).casefold()) for folder in folders}
    rest = [folder for folder, role in roles.items() if role is None]
    groups = [_Group(role, *_scan(folder, remarks)) for folder, role in roles.items() if role]
    named = _named(folder.key for folder, role in roles.items() if role)
    if not groups:
        return [_Group(None, pictures, rest)]
    if not any(group.part == "train" for group in groups):
        remarks["said"].append(f"no folder `train`: what lies beside {named} is the training part")
        return [*groups, _Group("train", pictures, rest)]
    aside = [folder for folder in rest if not _is_unlabelled(folder)]
    count = len(pictures) + sum(len(_pictures_under(folder, root, defaultdict(list))) for folder in aside)
    if count:
        places = f" ({_named(folder.key for folder in aside)})" if aside else ""
        remarks["said"].append(
            f"{_pictures(count)} beside {named}{places} set aside: `train`, `val` and `test` are taken for parts; "
            "rename them where they are classes"
        )
    return [*groups, _Group("train", [], [folder for folder in rest if _is_unlabelled(folder)])]


def _members(group: _Group, root: Path, remarks: _Remarks) -> list[FoundFile]:
    files = [FoundFile(item.key, Path(item.path), None, group.part) for item in group.pictures]
    for folder in group.folders:
        found = _pictures_under(folder, root, remarks)
        name = None if _is_unlabelled(folder) else _class_name(folder.key)
        files += [FoundFile(item.key, Path(item.path), name, group.part) for item in found]
        if not found:
            remarks["empty"].append(folder.key)
        elif name is None:
            remarks["said"].append(f"{_pictures(len(found))} in {_named([folder.key])}: unlabelled")
    if group.pictures and any(file.class_name is not None for file in files):
        where = group.pictures[0].key.rpartition("/")[0]
        beside = f"beside the class folders{f' of {_named([where])}' * bool(where)}"
        remarks["said"].append(f"{_pictures(len(group.pictures))} {beside}: unlabelled")
    return files


def _pictures_under(folder: _Item, root: Path, remarks: _Remarks) -> list[_Item]:
    seen = {os.path.realpath(root), os.path.realpath(os.path.dirname(folder.path))}
    found = list[_Item]()
    real, links = [folder], list[_Item]()
    while real or links:  # links last, so that what they lead to keeps its own place if it has one here
        item = real.pop() if real else links.pop()
        true = os.path.realpath(item.path)
        if true in seen:
            remarks["linked folders that lead to one already read, passed over"].append(item.key)
            continue
        seen.add(true)
        pictures, folders = _scan(item, remarks)
        found += pictures
        for inner in folders:
            (links if inner.linked else real).append(inner)
    return found


def _scan(folder: _Item, remarks: _Remarks) -> tuple[list[_Item], list[_Item]]:
    pictures, folders = list[_Item](), list[_Item]()
    prefix = folder.key + "/" if folder.key else ""
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                name, suffix = entry.name, os.path.splitext(entry.name)[1].lower()
                kind = _kind(entry)
                if name.startswith(".") or name.casefold() in PASSED_OVER:
                    remarks["hidden"].append(prefix + name)
                elif kind == "file" and suffix in SUFFIXES:
                    pictures.append(_Item(prefix + name, entry.path, False))
                elif kind == "folder":
                    folders.append(_Item(prefix + name, entry.path, entry.is_symlink()))
                elif kind == "broken":
                    remarks["broken links"].append(prefix + name)
                else:
                    remarks["suffixes"].append(suffix or "no suffix")
    except OSError as error:
        remarks["folders that cannot be read"].append(f"{folder.key or '.'} ({error.strerror})")
    return pictures, sorted(folders)


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "broken", "other"]:
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
        entry.stat()
    except OSError:  # its end is missing, or it leads to itself
        return "broken"
    return "other"


def _on_classes(files: Sequence[FoundFile], class_names: Sequence[str], parts: frozenset[Part]) -> list[str]:
    if files and not class_names:
        return [f"no class folder: all {len(files)} pictures are unlabelled"]
    notes = []
    if len(class_names) == 1:
        notes.append(f"a single class folder, {_named(class_names)}: the labels of its pictures tell nothing")
    trained = {file.class_name for file in files if file.part in (None, "train")}
    lacking = [name for name in class_names if name not in trained]
    if lacking and "train" in parts:
        notes.append(f"classes without a picture in the training part: {_named(lacking)}")
    return notes


def _on_others(remarks: _Remarks, class_names: Sequence[str]) -> list[str]:
    notes = []
    for key in remarks.pop("empty", []):
        notes.append(f"folder {_named([key])} holds no picture" + ": no class" * (_class_name(key) not in class_names))
    if hidden := remarks.pop("hidden", []):
        notes.append(f"{len(hidden)} hidden {'file or folder' if len(hidden) == 1 else 'files or folders'}")
    if suffixes := remarks.pop("suffixes", []):
        common = [_printable(suffix) for suffix, _ in Counter(sorted(suffixes)).most_common()]
        what = "file of another kind" if len(suffixes) == 1 else "files of other kinds"
        notes.append(f"{len(suffixes)} {what} ({', '.join(common[:5])}{' ...' * (len(common) > 5)})")
    return notes + [f"{what}: {_named(names)}" for what, names in sorted(remarks.items()) if what != "said"]


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _class_name(key: str) -> str:
    return unicodedata.normalize("NFC", _name(key)).encode("utf-8", "backslashreplace").decode()


def _is_unlabelled(folder: _Item) -> bool:
    return _name(folder.key).casefold() in UNLABELLED


def _pictures(count: int) -> str:
    return f"{count} {'picture' if count == 1 else 'pictures'}"


def _named(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(f"`{_printable(name)}`" for name in names[:5]) + " ..." * (len(names) > 5)


def _printable(text: str) -> str:
    """Escape what would break a line or a terminal: control characters, and bytes that are no UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def decode(path: Path, channels: int, size: int) -> Tensor:
    """Read one picture as a person sees it, scale its shorter side to `size` and crop the centre.

    It is turned as its EXIF tag says, laid over white where transparent, and the first of several. Gray of more than 8
    bits is scaled to 0..255 from the range of its kind: 16 bits from 0..65535 and 12 bits from 0..4095; 32-bit whole
    numbers from 0..255 or 0..65535 and floats from 0..1, 0..255 or 0..65535, the first that holds all (floats may
    exceed
    it by a tenth, and are cut); else, as where some are negative, from the least to the greatest. JPEG files are decoded
    at 1/2, 1/4 or 1/8 of their size where that gives whole pixels and at least 4 times `size`: up to 3 levels from the
    slow way, 0.6 in the mean.

    Args:
        path: Of the file.
        channels: 1 for gray, 3 for colour.
        size: Side of the result in pixels.

    Returns:
        Pixels `(channels, size, size)`, uint8.

    Raises:
        ValueError: If the file is no readable image, or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million
            unless changed); the message names it.
    """
    image = _picture(path, size).convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        # As scaling all and cropping then, but only what remains is made: a line of 1 x 5000 px needs no room.
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=_central(image.size, size))
    pixels: Tensor = F.pil_to_tensor(image)
    return pixels


def thumbnail(path: Path, side: int = 256) -> bytes:
    """Read one picture as a person sees it, in its own proportions and colours.

    Args:
        path: Of the file.
        side: Longest side of the result in pixels; smaller pictures stay as they are.

    Returns:
        The bytes of a PNG file, 8 bits gray or RGB, made of the same pixels as `decode` uses.

    Raises:
        ValueError: As `decode`.
    """
    image = _picture(path, side)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()  # a profile or a transparent colour belongs to the file's own mode
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def fingerprint(path: Path) -> str:
    """Identify a file by its content.

    Args:
        path: Of the file.

    Returns:
        Its size in bytes, and the first 16 hexadecimal digits of its SHA-256, as `1234-0123456789abcdef`.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return f"{file.tell()}-{digest[:16]}"
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    if isinstance(error, UnidentifiedImageError):
        reason = "damaged, or none of " + ", ".join(_formats())
    else:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ValueError(
        f"`{_printable(str(path))}` is no readable image ({_printable(reason)[:200]}); replace or remove it, or skip "
        "such files by `skip_corrupt=true`."
    )


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()  # some are missing from some builds
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _picture(path: Path, least: int) -> Image.Image:
    """Read a picture, `L` or `RGB`, upright and opaque; a large JPEG not much larger than the least side needed."""
    try:
        with Image.open(path, formats=_formats()) as file:
            _require_size(*file.size)
            raw = _raw_mode(file)
            turn = None if file.format == "TIFF" else _turn(file)  # Pillow turns TIFF itself when it loads them
            for part in (8, 4, 2):
                if min(file.size) >= part * 4 * least and file.width % part == 0 and file.height % part == 0:
                    file.draft(None, (file.width // part, file.height // part))
                    break
            file.load()
            image = _opaque(file, raw)
    except Exception as error:  # damaged bytes raise nearly everything, of Pillow and of what it calls
        raise _unreadable(path, error) from error
    return image if turn is None else image.transpose(turn)


def _require_size(width: int, height: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if min(width, height) < 1:
        raise ValueError(f"{width} x {height} pixels")
    if limit is not None and width * height > limit:  # where Pillow warns only
        raise ValueError(f"its {width} x {height} pixels exceed the {limit} of PIL.Image.MAX_IMAGE_PIXELS")


def _raw_mode(file: Any) -> str:
    """Return how pixels are stored, in Pillow's word, where it tells."""
    stored = file.tile[0][3] if getattr(file, "tile", None) else ""
    return str(stored[0] if isinstance(stored, tuple) and stored else stored)


def _turn(file: Image.Image) -> Transpose | None:
    try:
        return UPRIGHT.get(file.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged remarks do not make a picture unreadable
        return None


def _opaque(image: Image.Image, raw: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _narrowed(image, raw)
    if image.has_transparency_data:
        _mend_transparent_colour(image, raw)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode == "L" else image.convert("RGB")


def _mend_transparent_colour(image: Image.Image, raw: str) -> None:
    """Bring it to 8 bits, as Pillow has brought the pixels."""
    colour = image.info.get("transparency")
    bits = {"L;2": 2, "L;4": 4}.get(raw)
    if bits and isinstance(colour, int) and colour < 2**bits:
        image.info["transparency"] = colour * 255 // (2**bits - 1)
    if raw == "RGB;16B" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _narrowed(image: Image.Image, raw: str) -> Image.Image:
    """Scale gray of more than 8 bits to 8."""
    values = np.asarray(image)
    if values.dtype.kind == "u":
        top = 4095 if raw == "I;12" else 65535
        levels = np.rint(np.arange(65536).clip(max=top) * (255 / top)).astype(np.uint8)[values]
    else:
        values = values.view(np.uint32) if raw == "I;32N" else values  # which Pillow takes for signed
        sixteen = image.mode == "I" and (image.format == "PPM" or raw.startswith("I;16"))
        tops = (65535,) if sixteen else (255, 65535) if image.mode == "I" else (1, 255, 65535)
        levels = np.rint(_scaled(values.astype(np.float64), tops, 1.1 if image.mode == "F" else 1.0)).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # white is zero
        levels = 255 - levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return Image.fromarray(levels)


def _scaled(values: npt.NDArray[np.float64], tops: Sequence[int], excess: float) -> npt.NDArray[np.float64]:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    for top in tops:
        if low >= 0 and high <= top * excess:
            return np.clip(values * (255 / top), 0, 255)
    return (values - low) / (high - low) * 255 if high > low else np.zeros_like(values)


def _central(sides: tuple[int, int], size: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the square that is the centre once the shorter side measures `size`."""
    shorter = min(sides)
    spans = []
    for side in sides:
        scaled = size if side == shorter else int(size * side / shorter)
        start = round((scaled - size) / 2)
        spans.append((start * side / scaled, min((start + size) * side / scaled, side)))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom
