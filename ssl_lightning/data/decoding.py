"""Image files: making pixels of them as a person sees them."""

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssl_lightning.data.files import printable

# What a file may hold, whatever its name says. Not all that Pillow knows: for some (EPS) it starts other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000", "ICO")
ORIENTATION, PHOTOMETRIC = 274, 262  # tags of EXIF and TIFF
MIRRORED = {2: Transpose.FLIP_LEFT_RIGHT, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE, 7: Transpose.TRANSVERSE}
UPRIGHT = MIRRORED | {3: Transpose.ROTATE_180, 6: Transpose.ROTATE_270, 8: Transpose.ROTATE_90}  # by orientation


def decode(path: Path, channels: int, size: int) -> Tensor:
    """Read one picture as a person sees it, scale its shorter side to `size` and crop the centre.

    It is turned as its EXIF tag says, laid over white where transparent, and the first of several. Gray of more than 8
    bits is scaled to 0..255 from the range of its kind: 16 bits from 0..65535 and 12 bits from 0..4095; 32-bit whole
    numbers from 0..255 or 0..65535 and floats from 0..1, 0..255 or 0..65535, the first that holds all (floats may
    exceed it by a tenth, and are cut; what is no number is black); else, as where some are negative, from the least to
    the greatest. JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where that gives at least 4 times `size` (and
    whole pixels, if they are to be turned): up to 6 levels from the slow way, 0.6 in the mean.

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
    image, sides = _picture(path, size)
    image = _as(image, "L" if channels == 1 else "RGB")
    if image.size != (size, size):
        # As scaling all and cropping then, but only what remains is made: a line of 1 x 5000 px needs no room.
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=_central(sides, size))
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
    image, _ = _picture(path, side)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.info.clear()  # a profile or a transparent colour belongs to the file's own mode
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(image: Image.Image) -> Tensor:
    """Return a picture in memory as a person sees it: upright, opaque, 8 bits, as `decode` does with a file.

    Args:
        image: Of any mode.

    Returns:
        Pixels `(1, H, W)` of gray, else `(3, H, W)`, uint8.
    """
    turn = None if image.format == "TIFF" else _turn(image)  # Pillow turns TIFF itself when it loads them
    image.load()
    seen = _opaque(image, "")
    pixels: Tensor = F.pil_to_tensor(seen if turn is None else seen.transpose(turn))
    return pixels


def fingerprint(path: Path, unreadable: Callable[[Path, Exception], ValueError] | None = None) -> str:
    """Identify a file by its content.

    Args:
        path: Of the file.
        unreadable: Says what is wrong with a file that cannot be read; null to call it an image.

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
        raise (unreadable or _unreadable)(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    if isinstance(error, UnidentifiedImageError):
        reason = "damaged, or none of " + ", ".join(_formats())
    else:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ValueError(
        f"`{printable(str(path))}` is no readable image ({printable(reason)[:200]}); replace or remove it, or skip "
        "such files by `skip_corrupt=true`."
    )


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()  # some are missing from some builds
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _picture(path: Path, least: int) -> tuple[Image.Image, tuple[float, float]]:
    """Read a picture, `L` or `RGB`, upright and opaque; a large JPEG not much larger than the least side needed.

    Returns:
        The picture, and its width and height in pixels: of one that was decoded at a part of its size, the last column
        and row may be there in part.
    """
    try:
        with Image.open(path, formats=_formats()) as file:
            _require_size(*file.size)
            raw = _raw_mode(file)
            turn = None if file.format == "TIFF" else _turn(file)  # Pillow turns TIFF itself when it loads them
            sides = _draft(file, least, whole=turn is not None)
            file.load()
            image = _opaque(file, raw)
    except Exception as error:  # damaged bytes raise nearly everything, of Pillow and of what it calls
        raise _unreadable(path, error) from error
    if turn is not None:
        image = image.transpose(turn)
        return image, image.size
    return image, sides or image.size


def _draft(file: Image.Image, least: int, whole: bool) -> tuple[float, float] | None:
    """Have a JPEG decoded at a part of its size, at least 4 times what is needed; return what that measures."""
    width, height = file.size
    for part in (8, 4, 2):
        if min(width, height) >= part * 4 * least and not (whole and (width % part or height % part)):
            return (width / part, height / part) if file.draft(None, (width // part, height // part)) else None
    return None


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
    return _as(image, "L" if image.mode in ("1", "L") else "RGB")


def _as(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which would copy


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
        levels = _scaled(values, tops, 1.1 if image.mode == "F" else 1.0)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # white is zero
        levels = 255 - levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return Image.fromarray(levels)


def _scaled(values: npt.NDArray[Any], tops: Sequence[int], excess: float) -> npt.NDArray[np.uint8]:
    finite = np.isfinite(values)
    known = values if finite.all() else values[finite]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    fitting = [top for top in tops if low >= 0 and high <= top * excess]
    start, span = (0.0, float(fitting[0])) if fitting else (low, high - low or 1.0)
    levels = values.astype(np.float64)
    levels -= start  # in place all along, for pictures of many millions of pixels
    levels /= span
    levels *= 255
    np.rint(levels.clip(0, 255, out=levels), out=levels)
    return np.nan_to_num(levels, copy=False, nan=0).astype(np.uint8)


def _central(sides: tuple[float, float], size: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the square that is the centre once the shorter side measures `size`."""
    shorter = min(sides)
    spans = []
    for side in sides:
        scaled = size if side == shorter else int(size * side / shorter)
        start = round((scaled - size) / 2)
        spans.append((start * side / scaled, min((start + size) * side / scaled, side)))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom
