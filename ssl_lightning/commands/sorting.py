"""The option `--sort` of `predict`: files, or links to them, in a folder for each class."""

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ssl_lightning.data.listing import composed, printable

UNSURE = "unsure"  # the folder of what is less probable than `min_probability`
LONGEST = 200  # bytes of a name; file systems take 255
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # no file's name on Windows


def require_new(folder: str, source: str | None) -> None:
    """Check that files may be sorted into a folder, before hours of work.

    Args:
        folder: To be made, or empty.
        source: Where the files are; null for those of a data module.

    Raises:
        ValueError: If it is there and not empty, or lies in `source`, whose next reading would find the copies.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"`sort={folder}` is there already and not empty; give a new folder: nothing is overwritten.")
    if source is not None and path.resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(
            f"`sort={folder}` lies in `source={source}`, where copies would be taken for samples; give one elsewhere."
        )


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Return a folder's name for each class, safe on all systems, each another one in small letters, too.

    Args:
        class_names: Any texts.

    Returns:
        The names as they are, where they can be a folder's.

    Example:
        >>> folder_names(["cat", "../x", "a/b", "con", "Cat", "", "unsure"])
        ['cat', '_._x', 'a_b', '_con', 'Cat (2)', '_', 'unsure (2)']
    """
    names: list[str] = []
    taken = {UNSURE}
    for class_name in class_names:
        name = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in class_name)
        name = re.sub(r"^\.|[. ]$", "_", name.strip()) or "_"
        name = _shortened(f"_{name}" if DEVICES.fullmatch(name) else name)
        names.append(_untaken(name, "", taken))
    return names


def _untaken(stem: str, suffix: str, taken: set[str]) -> str:
    """Number a name where another one is the same to some file system, and note it."""
    name, number = stem + suffix, 1
    while composed(name).casefold() in taken:
        number += 1
        name = f"{stem} ({number}){suffix}"
    taken.add(composed(name).casefold())
    return name


def _shortened(name: str) -> str:
    """Cut a name that no file system takes, and keep the end of it, where the suffix is."""
    content = name.encode("utf-8", "surrogateescape")
    if len(content) <= LONGEST:
        return name
    digest = hashlib.sha256(content).hexdigest()[:8]
    return f"{digest}_{content[10 - LONGEST :].decode('utf-8', 'ignore')}"


def file_names(keys: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return a name for each file that no other one in its new folder has: its own, else with its sub-folders'.

    Args:
        keys: Paths of the files, with `/` between folders.
        folders: Into which each goes.

    Example:
        >>> file_names(["old/1.png", "new/1.png", "new/2.png"], ["cat", "cat", "cat"])
        ['old__1.png', 'new__1.png', '2.png']
    """
    plain = [composed(key.rpartition("/")[2]).casefold() for key in keys]
    times = Counter(zip(folders, plain, strict=True))
    taken: dict[str, set[str]] = {folder: set() for folder in folders}
    names = []
    for key, folder, same in zip(keys, folders, plain, strict=True):
        name = key.rpartition("/")[2] if times[folder, same] == 1 else "__".join(key.strip("/").split("/"))
        names.append(_untaken(*os.path.splitext(_shortened(name)), taken[folder]))
    return names


def sort_files(
    folder: str, class_names: Sequence[str], link: bool, paths: Sequence[str], keys: Sequence[str],
    numbers: Sequence[int], sure: Sequence[bool],
) -> list[str]:  # fmt: skip
    """Copy files into a folder for each class, or link to them; nothing is overwritten.

    Args:
        folder: That holds the classes' folders; made.
        class_names: Of all classes.
        link: Make symbolic links.
        paths: Of the files.
        keys: Of the samples; their last parts become the files' names.
        numbers: Of each file's class.
        sure: Whether it goes there, or into the folder `unsure`.

    Returns:
        Lines that say what was done.

    Raises:
        FileExistsError: If somebody else has put a file there meanwhile.
    """
    safe = folder_names(class_names)
    into = [safe[number] if certain else UNSURE for number, certain in zip(numbers, sure, strict=True)]
    for path, name, where in zip(paths, file_names(keys, into), into, strict=True):
        target = Path(folder) / where / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(os.path.abspath(path))
            continue
        with open(path, "rb") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
        shutil.copystat(path, target)
    counts = Counter(into)
    said = ", ".join(f"{printable(name)} {count}" for name, count in sorted(counts.items()))
    changed = [
        f"folder `{name}` is that of the class `{printable(class_name)}`"
        for class_name, name in zip(class_names, safe, strict=True)
        if class_name != name and counts[name]
    ]
    return [f"{'linked' if link else 'copied'} into {folder}: {said}", *changed]
