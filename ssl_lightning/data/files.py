"""Image files: finding them in a person's folder, with their classes and parts."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

Part = Literal["train", "val", "test"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
UNLABELLED = frozenset({"unlabelled", "unlabeled"})
PASSED_OVER = frozenset({  # what systems leave behind: macOS, Windows, Synology, ext4
    "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir", "#recycle",
    "lost+found",
})  # fmt: skip


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

    Folders `train` (or `training`), `val` (`valid`, `validation`) and `test` (`testing`) directly under the root, in
    any case of letters, are parts; the folders in a part, or in a root without parts, are classes, and what lies in
    them at any depth belongs to them. Pictures beside class folders, or in a folder `unlabelled` (`unlabeled`) beside
    them, are unlabelled. Where `val` or `test` has no `train` at its side, the rest is the training part. Links are
    followed, each folder read once a class. Class names are in Unicode's composed form (NFC), so that no two look the
    same; keys stay as they are.

    Args:
        root: The folder.

    Returns:
        The pictures, and notes on all else: nothing is left out unsaid.

    Raises:
        ValueError: If `root` is no folder, or holds no picture.
    """
    shown = f"`root={printable(str(root))}`"
    if not root.is_dir():
        where = printable(str(root.absolute()))
        raise ValueError(f"{shown} is no folder ({where}); give the folder that holds the images.")
    remarks: _Remarks = defaultdict(list)
    groups = _groups(root, remarks)
    files = [file for group in groups for file in _members(group, root, remarks)]
    files.sort(key=itemgetter(0))
    if remarks.pop("links", []):
        remarks["said"] += _on_links(files)
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
        parts = [inner.key for inner in folders if _name(inner.key).casefold() in PARTS]
        remarks["folders within a class, which are no parts"] += parts
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
                if entry.is_symlink():
                    remarks["links"].append(prefix + name)
                if name.startswith(".") or name.casefold() in PASSED_OVER:
                    remarks["hidden"].append(prefix + name)
                elif kind == "file" and suffix in SUFFIXES:
                    pictures.append(_Item(prefix + name, entry.path, entry.is_symlink()))
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


def _on_links(files: Sequence[FoundFile]) -> list[str]:
    """Tell of pictures that links put into two classes or parts."""
    places: defaultdict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        places[os.path.realpath(file.path)].append(file)
    torn = [same for same in places.values() if len({(file.class_name, file.part) for file in same}) > 1]
    if not torn:
        return []
    one, other = torn[0][0].key, torn[0][-1].key
    return [
        f"{_pictures(len(torn))} stand in two classes or parts by links, such as {_named([one, other])}: remove the "
        "links"
    ]


def _on_others(remarks: _Remarks, class_names: Sequence[str]) -> list[str]:
    notes = []
    for key in remarks.pop("empty", []):
        notes.append(f"folder {_named([key])} holds no picture" + ": no class" * (_class_name(key) not in class_names))
    if hidden := remarks.pop("hidden", []):
        notes.append(f"{len(hidden)} hidden {'file or folder' if len(hidden) == 1 else 'files or folders'}")
    if suffixes := remarks.pop("suffixes", []):
        common = [printable(suffix) for suffix, _ in Counter(sorted(suffixes)).most_common()]
        what = "file of another kind" if len(suffixes) == 1 else "files of other kinds"
        notes.append(f"{len(suffixes)} {what} ({', '.join(common[:5])}{' ...' * (len(common) > 5)})")
    return notes + [f"{what}: {_named(names)}" for what, names in sorted(remarks.items()) if names and what != "said"]


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
    return ", ".join(f"`{printable(name)}`" for name in names[:5]) + " ..." * (len(names) > 5)


def printable(text: str) -> str:
    """Escape what would break a line or a terminal: control characters, and bytes that are no UTF-8."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
