"""Names: of classes, to be written down and found again, and what was meant by a misspelt one."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any, TypeVar

Kind = TypeVar("Kind")
PLUGINS = "ssl_lightning.plugins"  # entry point group of strangers' classes


def class_path(kind: type) -> str:
    """Return the shortest path that a class can be imported by: it outlives a move between files of a package."""
    parts = kind.__module__.split(".")
    first = 2 if parts[0] == "ssl_lightning" else 1  # the short names of our package are for people
    modules = [".".join(parts[:end]) for end in range(first, len(parts))]
    public = (name for name in modules if getattr(sys.modules.get(name), kind.__name__, None) is kind)
    return f"{next(public, kind.__module__)}.{kind.__qualname__}"


def import_class(path: str) -> type:
    """Import a class by its path, as `class_path` gives it, where a person named it.

    Raises:
        ImportError: If there is no such module; ValueError if the path names none, AttributeError if it has no such
            class.
    """
    module, _, name = path.rpartition(".")
    kind: type = getattr(importlib.import_module(module), name)
    return kind


def known_class(path: object, base: type[Kind], trust: bool = False) -> type[Kind]:
    """Import a class that a file names, if it is one of ours or of an installed plug-in, and of the right base.

    What a file says is data: nothing is imported before its package is known, and nothing is called at all.

    Args:
        path: As `class_path` gives it; whatever the file holds.
        base: That the class must derive from.
        trust: Import anybody's.

    Returns:
        The class.

    Raises:
        ValueError: If it is anybody else's, no class, of another base, or cannot be imported.
    """
    name = base.__name__
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise ValueError(f"`{path!s:.100}` is no path of a class; a {name} was expected.")
    argument = "clean" if name == "Clean" else "backbone"
    packages = {"ssl_lightning", *(plugin.module.partition(".")[0] for plugin in entry_points(group=PLUGINS))}
    if path.partition(".")[0] not in packages and not trust:
        raise ValueError(
            f"the file names the class `{path}`, which is neither ours nor of an installed plug-in, and so is not "
            f"imported; pass it yourself (`{argument}=...` in Python, `--model.{argument} CLASS` in `fit` and "
            "`active`), or, if you trust the file, add `--trust` (to `evaluate`, `export`, `predict`, `sample`)."
        )
    try:
        kind = import_class(path)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the {name} `{path}` cannot be imported ({error}); pass it yourself, or put its class in a module that "
            "can be imported."
        ) from error
    if not isinstance(kind, type) or not issubclass(kind, base):
        raise ValueError(f"`{path}` is no {name}, and is not used.")
    return kind


def require_plain(arguments: object, path: object) -> dict[str, Any]:
    """Return the arguments that a file tells of a class, if they are names and plain values.

    Args:
        arguments: Whatever the file holds.
        path: Of the class, for messages.

    Raises:
        ValueError: If they are anything else.
    """
    if not isinstance(arguments, dict):
        raise ValueError(f"the description of `{path!s:.100}` has no arguments; pass it yourself.")
    for name, value in arguments.items():
        if not isinstance(name, str) or not name.isidentifier() or not _is_plain(value):
            raise ValueError(
                f"the description of `{path!s:.100}` has the argument `{name!s:.60}={value!s:.60}`, which is no name "
                "with a number, a string, or a list of them; it is not used."
            )
    return dict(arguments)


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return value is None or type(value) in (bool, int, float, str)


def meant(word: str, candidates: Iterable[str]) -> str:
    """Return `, did you mean ...?` if some candidate is near, else nothing."""
    near = difflib.get_close_matches(word, sorted(set(candidates)), n=2, cutoff=0.6)
    if not near:
        lower = {candidate.lower(): candidate for candidate in candidates}
        near = [lower[match] for match in difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)]
    return f" (did you mean {' or '.join(f'`{match}`' for match in near)}?)" if near else ""


def arguments(kind: type) -> Iterator[str]:
    """Yield the names of a class's constructor arguments, those it passes on by `**kwargs` to its bases included.

    Args:
        kind: Any class.
    """
    for owner in kind.__mro__:
        if "__init__" in vars(owner):
            signature = inspect.signature(owner.__init__).parameters.values()  # type: ignore[misc]
            yield from (
                p.name for p in signature if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            )
            if not any(p.kind is p.VAR_KEYWORD for p in signature):
                return
