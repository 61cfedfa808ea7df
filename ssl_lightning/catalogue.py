"""What there is to choose from, and by which names.

The lists are read from the source without importing it: `ssl-lightning list` answers at once.
"""

import argparse
import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent
PLUGINS = "ssl_lightning.plugins"  # entry point group of strangers' classes
BASES = {
    "methods": "SSLMethod",
    "classifiers": "Classifier",
    "strategies": "AcquisitionStrategy",
    "stopping": "StoppingRule",
    "backbones": "Backbone",
    "data": "ImageData",
}


class Entry(NamedTuple):
    """One class that a command line can name.

    Attributes:
        name: Of the class.
        family: Name of its file, as `uncertainty`.
        sentence: The first of its docstring.
        paper: arXiv number or venue in its docstring, or empty.
        kind: The key of `BASES` it belongs to, or empty.
    """

    name: str
    family: str
    sentence: str
    paper: str
    kind: str


@cache
def entries() -> tuple[Entry, ...]:
    """Return all public classes of this package and of installed plug-ins that name a class."""
    parents: dict[str, list[str]] = {}
    found: dict[str, tuple[str, ast.ClassDef]] = {}
    for path in _files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                parents[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
                found[node.name] = (path.stem, node)
    abstract = {*BASES.values(), *(name for name in found if any(name in parents[other] for other in found))}
    abstract.remove("Classifier")  # the one base that is used as it is
    kinds = {base: kind for kind, base in BASES.items()}
    result = []
    for name, (family, node) in found.items():
        kind = next((kinds[up] for up in (name, *_ancestors(name, parents)) if up in kinds), "")
        text = " ".join((ast.get_docstring(node) or "").split())
        result.append(Entry(name, family, _first_sentence(text), _paper(text), "" if name in abstract else kind))
    return tuple(sorted(result, key=lambda entry: (entry.kind, entry.family, entry.name.lower())))


def _files() -> Iterator[Path]:
    yield from sorted(path for path in PACKAGE.rglob("*.py"))
    for plugin in entry_points(group=PLUGINS):
        try:
            spec = importlib.util.find_spec(plugin.module)
        except ImportError:
            continue
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            yield Path(spec.origin)


def _ancestors(name: str, parents: dict[str, list[str]]) -> Iterator[str]:
    for parent in parents.get(name, []):
        yield parent
        yield from _ancestors(parent, parents)


def _first_sentence(text: str) -> str:
    text = re.sub(r":math:`([^`]*)`", r"\1", text)
    return re.split(r"(?<=\.)(?<!al\.)(?<!Eq\.)\s|\s(?=Args:|Reference:)", text, maxsplit=1)[0]


def _paper(text: str) -> str:
    numbers = re.findall(r"arXiv (\d{4}\.\d{4,5})", text.partition("Reference: ")[2] or text)
    if numbers:
        return f"arXiv {numbers[0]}"
    reference = re.search(r"Reference: (.+)", text)
    year = re.search(r"\b(?:19|20)\d\d\b", reference[1] if reference else text)
    author = (
        re.search(r"(?:[A-Z]\. )+([A-Z][\w-]+)", reference[1])
        if reference
        else re.search(r"\((\w+)(?: et al\.)? \d{4}", text)
    )
    return " ".join(match for match in (author[1] if author else "", year[0] if year else "") if match)


def main(arguments: list[str]) -> int:
    """Print a line for each class of a kind: name, family, one sentence, paper.

    Args:
        arguments: The kind; none for all.

    Returns:
        Exit status.

    Raises:
        ValueError: If there is no such kind.
    """
    from ssl_lightning.mistakes import meant  # which asks this module for names

    parser = argparse.ArgumentParser("ssl-lightning list", description="What there is to choose from, a line each.")
    parser.add_argument("kind", nargs="*", help=f"{', '.join(list(BASES)[:-1])} or {list(BASES)[-1]}; none for all")
    kinds = parser.parse_args(arguments).kind or list(BASES)
    for kind in kinds:
        if kind not in BASES:
            raise ValueError(f"there is no kind `{kind}`{meant(kind, BASES)}; there are {', '.join(BASES)}.")
    for kind in kinds:
        if len(kinds) > 1:
            print(f"{kind}:")
        rows = [entry for entry in entries() if entry.kind == kind]
        wide = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(f"{row.name:<{wide}}  {row.family:<16}  {row.sentence}  {row.paper}".rstrip())
    return 0


def class_path(kind: type) -> str:
    """Return the shortest path that a class can be imported by: it outlives a move between files of a package."""
    parts = kind.__module__.split(".")
    modules = [".".join(parts[:end]) for end in range(1, len(parts))]
    public = (name for name in modules if getattr(sys.modules.get(name), kind.__name__, None) is kind)
    return f"{next(public, kind.__module__)}.{kind.__qualname__}"


def import_class(path: str) -> type:
    """Import a class by its path, as `class_path` gives it.

    Raises:
        ImportError: If there is no such module; ValueError if the path names none, AttributeError if it has no such
            class.
    """
    module, _, name = path.rpartition(".")
    kind: type = getattr(importlib.import_module(module), name)
    return kind
