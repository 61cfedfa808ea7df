"""A table that says the classes of a folder's files, as `labels.csv`."""

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ssl_lightning.data.listing import FoundFile, Kind, composed, listed, printable
from ssl_lightning.engine.csv_files import read_table

TABLE = "labels.csv"
COLUMNS = {
    "path": ("key", "path", "file", "filename", "file_name", "filepath", "file_path", "image"),
    "class": ("class", "class_name", "label", "category", "target"),
}


def label_by(
    table: Path, files: Sequence[FoundFile], root: Path, kind: Kind
) -> tuple[list[FoundFile], bool, list[str]]:
    """Label a folder's files by a table with a line for each, or for some.

    A class folder's word holds against the table's. Folders are no classes where the table says classes of files in
    them, and none of its classes has the name of a folder: such folders are of a camera, a year, or just `images`.

    Args:
        table: CSV file with the columns `path`, below `root` or absolute, and `class`, empty where unlabelled.
        files: Those that were found, with the classes of their folders.
        root: The folder.
        kind: Of the files.

    Returns:
        The files with their classes, whether folders are classes, and notes on what is worth saying.

    Raises:
        ValueError: If the table cannot be read, says two classes of one file, or knows none of them.
    """
    classes, missing = _read(table, _Keys((file.key for file in files), root), kind)
    notes = []
    if missing:
        rows = "1 row names" if len(missing) == 1 else f"{len(missing)} rows name"
        shown = ", ".join(f"`{printable(path)}`" for path in missing[:5]) + " ..." * (len(missing) > 5)
        notes.append(f"{rows} no {kind.one} that is there, in `{printable(table.name)}`: {shown}")
    inside = [file for file in files if file.class_name is not None]
    names = {file.class_name for file in inside if file.class_name is not None}
    told = {name.casefold() for name in classes.values()}
    folders = not any(file.key in classes for file in inside) or any(name.casefold() in told for name in names)
    if not folders:
        notes.append(
            f"folders ({listed(names)}) are no classes: `{printable(table.name)}` says others of the {kind.many} in "
            "them"
        )
        return [file._replace(class_name=classes.get(file.key)) for file in files], folders, notes
    against = [file for file in inside if classes.get(file.key, file.class_name) != file.class_name]
    if against:
        first = against[0]
        notes.append(
            f"{kind.counted(len(against))} in class folders of another class than in `{printable(table.name)}`, such "
            f"as {listed([first.key])} (`{printable(classes[first.key])}` there): the folders' classes are taken; move "
            "the files, or mend the table"
        )
    return [file._replace(class_name=file.class_name or classes.get(file.key)) for file in files], folders, notes


def _read(table: Path, keys: "_Keys", kind: Kind) -> tuple[dict[str, str], list[str]]:
    """Return the classes by key, and the paths that are of no file."""
    shown = f"`labels={printable(str(table))}`"
    classes: dict[str, str] = {}
    lines: dict[str, int] = {}
    missing: list[str] = []
    rows = read_table(table, shown, COLUMNS, list(COLUMNS))
    for number, cells in rows:
        name = composed(cells["class"].strip())
        if not cells["path"].strip() or not name.isprintable():
            what = "its class is no printable text" if cells["path"].strip() else "it has a class and no path"
            raise ValueError(f"{shown}, line {number}: {what}; mend or remove the line.")
        key = keys.find(cells["path"])
        if key is None:
            missing.append(cells["path"])
            continue
        if name and classes.get(key, name) != name:
            raise ValueError(
                f"{shown}, line {number}: `{printable(key)}` is of class `{name}`, and in line {lines[key]} of class "
                f"`{classes[key]}`; leave one of them."
            )
        if name:
            classes[key], lines[key] = name, number
    if rows and len(missing) == len(rows):
        raise ValueError(
            f"{shown} names no {kind.one} below `root={printable(str(keys.root))}`: its first path is "
            f"`{printable(missing[0])}`, that of a {kind.one} `{printable(min(keys.all, default=''))}`; give paths "
            "below `root`."
        )
    return classes, missing


class _Keys:
    """Finds the key that a path in a table means.

    Args:
        keys: Of the files.
        root: The folder they are below.
    """

    def __init__(self, keys: Iterable[str], root: Path) -> None:
        self.all, self.root = set(keys), root
        self._roots = [f"{os.path.abspath(root)}/", f"{os.path.realpath(root)}/"]
        self._composed: dict[str, str | None] = {}
        for key in self.all:
            form = composed(key)
            self._composed[form] = None if form in self._composed else key  # two that look the same are told by no one

    def find(self, path: str) -> str | None:
        """Return the key, or null: as spelt, else with slashes for backslashes, without `./`, outer spaces, root."""
        if path in self.all:
            return path
        spelt = list(dict.fromkeys(self._spellings(path)))
        found = next((one for one in spelt if one in self.all), None)
        return found or next((key for one in spelt if (key := self._composed.get(composed(one)))), None)

    def _spellings(self, path: str) -> Iterator[str]:
        for one in (path, path.replace("\\", "/")):
            for other in (one, one.strip()):
                yield other
                normal = posixpath.normpath(other)
                yield normal
                yield from (normal.removeprefix(root) for root in self._roots)
