"""What there is to choose from, and by which names.

The lists are read from the source without importing it: `ssl-lightning list` answers at once.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

from ssl_lightning.engine.modalities import modality_of
from ssl_lightning.engine.naming import PLUGINS

PACKAGE = Path(__file__).parent.parent
BASES = {
    "methods": "SSLMethod",
    "classifiers": "Classifier",
    "strategies": "AcquisitionStrategy",
    "stopping": "StoppingRule",
    "backbones": "Backbone",
    "data": "DataModule",
}


class Entry(NamedTuple):
    """One class that a command line can name.

    Attributes:
        name: Of the class.
        family: Name of its file, as `uncertainty`.
        sentence: The first of its docstring.
        paper: arXiv number or venue in its docstring, or empty.
        kind: The key of `BASES` it belongs to, or empty.
        modality: What data a method learns from, an encoder takes, a data module holds, as `MODALITIES` calls them;
            `any` where that is open, empty for other kinds.
    """

    name: str
    family: str
    sentence: str
    paper: str
    kind: str
    modality: str


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
        line = [node, *(found[up][1] for up in _ancestors(name, parents) if up in found)]
        kind = "" if name in abstract else kind
        result.append(Entry(name, family, _first_sentence(text), _paper(text), kind, _modality(kind, line)))
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


def _modality(kind: str, line: list[ast.ClassDef]) -> str:
    """Return what data a class is about, by what it and the classes above it declare."""
    if kind in ("methods", "backbones"):
        return " or ".join(next(filter(None, (_declared(node, "takes") for node in line)), ["any"]))
    if kind == "data":
        return modality_of(fact for node in line for fact in _declared(node, "fact_names")) or "any"
    return ""


def _declared(node: ast.ClassDef, name: str) -> list[str]:
    """Return the strings of a class's attribute."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == name:
            leaves = (leaf for leaf in ast.walk(item.value or item) if isinstance(leaf, ast.Constant))
            return [leaf.value for leaf in leaves if isinstance(leaf.value, str)]
    return []


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
