"""What people see of the samples that were asked for: files in the run's folder, made when they are asked for.

Who shows them, a page or a report, needs neither the data nor torch, and opens no other file.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from ssl_lightning.engine.csv_files import replacing

SUFFIXES = {"image": ".png", "audio": ".wav"}  # of kinds whose content is bytes


class Sight(NamedTuple):
    """What a person sees of a sample.

    Attributes:
        kind: `image`, `audio`, `text`, or `row`: of a table.
        media: File of the image or sound; null for others.
        text: The text, or the row as a JSON object; of an image or sound the caption, if it has one.
    """

    kind: str
    media: Path | None
    text: str | None


def keep_sight(
    folder: Path, key: str, fingerprint: str, kind: str, content: bytes | str, caption: str | None = None
) -> None:
    """Keep what a person sees of a sample.

    Args:
        folder: Of the run.
        key: Of the sample.
        fingerprint: Of its content.
        kind: As `Sight` has it.
        content: Bytes of a PNG or WAV file, or text.
        caption: Text that belongs to an image or sound.
    """
    place = place_of(folder, key, fingerprint)
    if place.with_suffix(".json").exists():
        return
    if isinstance(content, bytes):
        with replacing(place.with_suffix(SUFFIXES[kind]), "wb") as file:
            file.write(content)
    with replacing(place.with_suffix(".json")) as file:
        json.dump({"kind": kind, "text": caption if isinstance(content, bytes) else content}, file)


def see(folder: Path, key: str, fingerprint: str) -> Sight | None:
    """Return what a person sees of a sample; null where nothing was kept."""
    place = place_of(folder, key, fingerprint)
    try:
        found = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    media = place.with_suffix(SUFFIXES[found["kind"]]) if found["kind"] in SUFFIXES else None
    return Sight(found["kind"], media, found["text"])


def place_of(folder: Path, key: str, fingerprint: str) -> Path:
    """Return the path of what is kept of a sample, without an ending."""
    name = hashlib.blake2b(f"{key}\0{fingerprint}".encode(), digest_size=16).hexdigest()
    return folder / "shown" / name
