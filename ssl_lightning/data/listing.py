"""What was found in a folder of files of one kind, and how it is told."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

Part = Literal["train", "val", "test"]


class Kind(NamedTuple):
    """What files are looked for.

    Attributes:
        suffixes: By which they are known, in small letters.
        one: What one of them is called.
        many: What several are called.
        content: What is in them, as `images`.
    """

    suffixes: frozenset[str]
    one: str
    many: str
    content: str

    def counted(self, count: int) -> str:
        """Count files of the kind in words."""
        return f"{count} {self.one if count == 1 else self.many}"


class FoundFile(NamedTuple):
    """One file that was found.

    Attributes:
        key: Its path relative to the root, with `/` between folders, as the file system spells it.
        path: Of the file.
        class_name: Name of its class; null where unlabelled.
        part: Whether it lies in a folder for training, validation or test; null where there are no such folders.
    """

    key: str
    path: Path
    class_name: str | None
    part: Part | None


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        files: Of the kind that was looked for, sorted by key.
        class_names: All classes of all parts, sorted.
        notes: A sentence for each thing set aside or worth saying.
        parts: The parts that hold such files; empty where there are no folders for parts.
        set_aside: Number of files beside the folders for parts, which are not used.
        from_table: Number of files whose class a table says, and no folder.
    """

    files: list[FoundFile]
    class_names: tuple[str, ...]
    notes: list[str]
    parts: frozenset[Part]
    set_aside: int = 0
    from_table: int = 0


def composed(text: str) -> str:
    """Return Unicode's composed form, so that no two texts look the same."""
    return unicodedata.normalize("NFC", text)


def listed(names: Iterable[str]) -> str:
    """Name the first five, in alphabetical order."""
    names = sorted(names)
    return ", ".join(f"`{printable(name)}`" for name in names[:5]) + " ..." * (len(names) > 5)


def printable(text: str) -> str:
    """Escape what would break a line or a terminal: control characters, and bytes that are no UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
