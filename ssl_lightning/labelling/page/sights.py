"""What the labelling page sends of a sample: only what lies in the run's folder `shown/`, and no other file."""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ssl_lightning.labelling.shown import SUFFIXES, place_of, see

TYPES = {".png": "image/png", ".wav": "audio/wav"}


class Seen(NamedTuple):
    """A sample as the page shows it.

    Attributes:
        kind: `image`, `audio`, `text`, `row`, or `none`: where nothing can be shown.
        path: Of the image's or sound's file.
        media: Its address.
        text: The text.
        caption: That belongs to an image or sound.
        row: Of a table, by column.
    """

    kind: str
    path: Path | None = None
    media: str | None = None
    text: str | None = None
    caption: str | None = None
    row: dict[str, str] | None = None

    def shown(self) -> dict[str, Any]:
        """Return what the page is sent."""
        return {name: value for name, value in self._asdict().items() if name != "path"}


def sight_of(folder: Path, key: str, fingerprint: str, url: str) -> Seen:
    """Look at what was kept of a sample.

    Args:
        folder: Of the run.
        key: Of the sample.
        fingerprint: Of its content.
        url: Where the page serves its image or sound.

    Returns:
        The sample; of kind `none` where nothing was kept, or what was kept is damaged or leads elsewhere.
    """
    try:
        if not _within(place_of(folder, key, fingerprint).with_suffix(".json"), folder):
            return Seen("none")
        sight = see(folder, key, fingerprint)
    except (OSError, ValueError, KeyError, TypeError):  # half a file, as of a disk that was full
        return Seen("none")
    if sight is None or (sight.text is not None and not isinstance(sight.text, str)):
        return Seen("none")
    if sight.kind in SUFFIXES:
        if sight.media is None or not _within(sight.media, folder):
            return Seen("none", caption=sight.text)
        return Seen(sight.kind, sight.media, url, caption=sight.text)
    if sight.kind == "row" and (row := _row(sight.text)) is not None:
        return Seen("row", row=row)
    return Seen("text", text=sight.text or "")


def _row(text: str | None) -> dict[str, str] | None:
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _within(path: Path, folder: Path) -> bool:
    """Tell whether a file is there, and in the folder itself: not behind a link that leads out of it."""
    with suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):  # no link, as nearly always
            return True
    real, within = (Path(os.path.realpath(one)) for one in (path, folder / "shown"))
    return real.is_relative_to(within) and real.is_file()
