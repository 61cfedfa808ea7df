"""Files of one kind, as pictures or sounds: finding them in a person's folder, with their classes and parts."""

import os
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from ssl_lightning.data.label_table import TABLE, label_by
from ssl_lightning.data.listing import FoundFile, Kind, Listing, Part, composed, listed
from ssl_lightning.data.listing import printable as printable

PICTURES = Kind(
    frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}),
    "picture", "pictures", "images",
)  # fmt: skip
PARTS: dict[str, Part] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
UNLABELLED = frozenset({"unlabelled", "unlabeled"})
PASSED_OVER = frozenset({  # what systems leave behind: macOS, Windows, Synology, ext4
    "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir", "#recycle",
    "lost+found",
})  # fmt: skip


class _Remarks(defaultdict[str, list[str]]):
    """Keys (or suffixes) by what is remarkable of them; `said`: whole sentences.

    Args:
        kind: Of the files that are looked for.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__(list)
        self.kind = kind


class _Item(NamedTuple):
    key: str
    path: str
    linked: bool


class _Group(NamedTuple):
    """The files and folders that lie directly in a part, or in a root without parts."""

    part: Part | None
    files: list[_Item]
    folders: list[_Item]


def find_images(root: Path, table: Path | None = None) -> Listing:
    """Find the pictures under a folder, as `find_files` does."""
    return find_files(root, table, PICTURES)


def find_files(root: Path, table: Path | None, kind: Kind) -> Listing:
    """Find the files of a kind under a folder, with their classes and parts as its sub-folders and a table tell them.

    Folders `train` (or `training`), `val` (`valid`, `validation`) and `test` (`testing`) directly under the root, in
    any case of letters, are parts; the folders in a part, or in a root without parts, are classes, and what lies in
    them at any depth belongs to them. Files beside class folders, or in a folder `unlabelled` (`unlabeled`) beside
    them, are unlabelled, unless the table knows them. Where `val` or `test` has no `train` at its side, the rest is the
    training part. Links are followed, each folder read once a class. Class names are in Unicode's composed form (NFC),
    so that no two look the same; keys stay as they are.

    Args:
        root: The folder.
        table: CSV file with the columns `path` and `class`, as `label_by` reads it; null for none.
        kind: Of the files.

    Returns:
        The files, and notes on all else: nothing is left out unsaid.

    Raises:
        ValueError: If `root` is no folder, or holds none, or the table does not fit it.
    """
    shown = f"`root={printable(str(root))}`"
    if not root.is_dir():
        where = printable(str(root.absolute()))
        raise ValueError(f"{shown} is no folder ({where}); give the folder that holds the {kind.content}.")
    remarks = _Remarks(kind)
    groups = _groups(root, remarks, table)
    files = [file for group in groups for file in _members(group, root, remarks)]
    files.sort(key=itemgetter(0))
    known = sum(file.class_name is not None for file in files)
    folders = True
    if table is not None and files:
        files, folders, said = label_by(table, files, root, kind)
        remarks["said"] += said
    remarks["said"] += _on_unlabelled(groups, files, folders, kind)
    if remarks.pop("links", []):
        remarks["said"] += _on_links(files, kind)
    aside = len(remarks.pop("aside", []))
    class_names = tuple(sorted({file.class_name for file in files if file.class_name is not None}))
    parts = frozenset(file.part for file in files if file.part is not None)
    empty = sorted({group.part for group in groups if group.part is not None} - parts)
    remarks["said"] += [f"the part `{part}` holds no {kind.one}" for part in empty]
    notes = remarks["said"] + _on_classes(files, class_names, parts, table, kind) + _on_others(remarks, class_names)
    if not files:
        met = f" Found: {'; '.join(notes)}." if notes else ""
        raise ValueError(
            f"{shown} holds no {kind.one} ({', '.join(sorted(kind.suffixes))}); give the folder that holds the "
            f"{kind.content}, or convert them.{met}"
        )
    by_table = sum(file.class_name is not None for file in files) - (known if folders else 0)
    return Listing(files, class_names, notes, parts, aside, by_table)


def find_table(root: Path) -> Path | None:
    """Return the table `labels.csv` that lies in a folder, in any case of letters, or null."""
    found = sorted(name for name in os.listdir(root) if name.casefold() == TABLE and (root / name).is_file())
    return root / found[-1] if found else None  # small letters come last


def _groups(root: Path, remarks: _Remarks, table: Path | None) -> list[_Group]:
    beside = table is not None and os.path.realpath(table.parent) == os.path.realpath(root)
    own = {TABLE, table.name.casefold()} if beside and table is not None else {TABLE}
    loose, folders = _scan(_Item("", str(root), False), remarks, own)
    roles = {folder: PARTS.get(_name(folder.key).casefold()) for folder in folders}
    rest = [folder for folder, role in roles.items() if role is None]
    groups = [_Group(role, *_scan(folder, remarks)) for folder, role in roles.items() if role]
    named = listed(folder.key for folder, role in roles.items() if role)
    if not groups:
        return [_Group(None, loose, rest)]
    if not any(group.part == "train" for group in groups):
        remarks["said"].append(f"no folder `train`: what lies beside {named} is the training part")
        return [*groups, _Group("train", loose, rest)]
    aside = [folder for folder in rest if not _is_unlabelled(folder)]
    lost = loose + [item for folder in aside for item in _files_under(folder, root, _Remarks(remarks.kind))]
    if lost:
        remarks["aside"] += [item.key for item in lost]
        places = f" ({listed(folder.key for folder in aside)})" if aside else ""
        remarks["said"].append(
            f"{remarks.kind.counted(len(lost))} beside {named}{places} set aside: `train`, `val` and `test` are taken "
            "for parts; rename them where they are classes"
        )
    return [*groups, _Group("train", [], [folder for folder in rest if _is_unlabelled(folder)])]


def _members(group: _Group, root: Path, remarks: _Remarks) -> list[FoundFile]:
    files = [FoundFile(item.key, Path(item.path), None, group.part) for item in group.files]
    for folder in group.folders:
        found = _files_under(folder, root, remarks)
        name = None if _is_unlabelled(folder) else _class_name(folder.key)
        files += [FoundFile(item.key, Path(item.path), name, group.part) for item in found]
        if not found:
            remarks["empty"].append(folder.key)
    return files


def _on_unlabelled(groups: Sequence[_Group], files: Sequence[FoundFile], folders: bool, kind: Kind) -> list[str]:
    """Tell of unlabelled files that lie beside class folders, or in a folder that says so."""
    notes = []
    classes = {file.key: file.class_name for file in files}
    for group in groups:
        named = dict.fromkeys((item.key + "/" for item in group.folders if _is_unlabelled(item)), 0)
        for folder in named:
            named[folder] = sum(key.startswith(folder) and name is None for key, name in classes.items())
        notes += [
            f"{kind.counted(count)} in {listed([folder[:-1]])}: unlabelled" for folder, count in named.items() if count
        ]
        loose = [item.key for item in group.files if classes[item.key] is None]
        names = {_class_name(item.key) for item in group.folders if not _is_unlabelled(item)}
        if loose and folders and any(file.part == group.part and file.class_name in names for file in files):
            where = loose[0].rpartition("/")[0]
            beside = f"beside the class folders{f' of {listed([where])}' * bool(where)}"
            notes.append(f"{kind.counted(len(loose))} {beside}: unlabelled")
    return notes


def _files_under(folder: _Item, root: Path, remarks: _Remarks) -> list[_Item]:
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
        files, folders = _scan(item, remarks)
        found += files
        parts = [inner.key for inner in folders if _name(inner.key).casefold() in PARTS]
        remarks["folders within a class, which are no parts"] += parts
        for inner in folders:
            (links if inner.linked else real).append(inner)
    return found


def _scan(folder: _Item, remarks: _Remarks, own: Container[str] = ()) -> tuple[list[_Item], list[_Item]]:
    files, folders = list[_Item](), list[_Item]()
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
                elif kind == "file" and suffix in remarks.kind.suffixes:
                    files.append(_Item(prefix + name, entry.path, entry.is_symlink()))
                elif kind == "folder":
                    folders.append(_Item(prefix + name, entry.path, entry.is_symlink()))
                elif kind == "broken":
                    remarks["broken links"].append(prefix + name)
                elif name.casefold() not in own:
                    remarks["suffixes"].append(suffix or "no suffix")
    except OSError as error:
        remarks["folders that cannot be read"].append(f"{folder.key or '.'} ({error.strerror})")
    return files, sorted(folders)


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


def _on_classes(
    files: Sequence[FoundFile],
    class_names: Sequence[str],
    parts: frozenset[Part],
    table: Path | None,
    kind: Kind,
) -> list[str]:
    if files and not class_names:
        none = "no class folder" if table is None else f"no class folder, and no class in {listed([table.name])}"
        return [f"{none}: all {len(files)} {kind.many} are unlabelled"]
    notes = []
    if len(class_names) == 1:
        what = "class folder" if table is None else "class"
        notes.append(f"a single {what}, {listed(class_names)}: the labels of its {kind.many} tell nothing")
    trained = {file.class_name for file in files if file.part in (None, "train")}
    lacking = [name for name in class_names if name not in trained]
    if lacking and "train" in parts:
        notes.append(f"classes without a {kind.one} in the training part: {listed(lacking)}")
    return notes


def _on_links(files: Sequence[FoundFile], kind: Kind) -> list[str]:
    """Tell of files that links put into two classes or parts."""
    places: defaultdict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        places[os.path.realpath(file.path)].append(file)
    torn = [same for same in places.values() if len({(file.class_name, file.part) for file in same}) > 1]
    if not torn:
        return []
    one, other = torn[0][0].key, torn[0][-1].key
    return [
        f"{kind.counted(len(torn))} stand in two classes or parts by links, such as {listed([one, other])}: remove the "
        "links"
    ]


def _on_others(remarks: _Remarks, class_names: Sequence[str]) -> list[str]:
    notes = []
    for key in remarks.pop("empty", []):
        notes.append(
            f"folder {listed([key])} holds no {remarks.kind.one}" + ": no class" * (_class_name(key) not in class_names)
        )
    if hidden := remarks.pop("hidden", []):
        notes.append(f"{len(hidden)} hidden {'file or folder' if len(hidden) == 1 else 'files or folders'}")
    if suffixes := remarks.pop("suffixes", []):
        common = [printable(suffix) for suffix, _ in Counter(sorted(suffixes)).most_common()]
        what = "file of another kind" if len(suffixes) == 1 else "files of other kinds"
        notes.append(f"{len(suffixes)} {what} ({', '.join(common[:5])}{' ...' * (len(common) > 5)})")
    return notes + [f"{what}: {listed(names)}" for what, names in sorted(remarks.items()) if names and what != "said"]


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _class_name(key: str) -> str:
    return composed(_name(key)).encode("utf-8", "backslashreplace").decode()


def _is_unlabelled(folder: _Item) -> bool:
    return _name(folder.key).casefold() in UNLABELLED
