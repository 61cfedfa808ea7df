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

from ssl_lightning.commands.formulas import without_latex
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


_KIND_OF = {base: kind for kind, base in BASES.items()}
_CLASS = re.compile(r"^class ([A-Za-z]\w*)(?:\(([^)]*)\))?:", re.MULTILINE)  # a tenth of the time of parsing all


class Entry(NamedTuple):
    """One class that a command line can name.

    Attributes:
        name: Of the class.
        family: What it declares as its `family`, as `contrastive`; else the name of its file, as `uncertainty`.
        sentence: The first of its docstring.
        paper: arXiv number or venue in its docstring, or empty.
        kind: The key of `BASES` it belongs to, or empty.
        modality: What data a method learns from, an encoder takes, a data module holds, as `MODALITIES` calls them;
            `any` where that is open, empty for other kinds.
        module: Name of its file.
    """

    name: str
    family: str
    sentence: str
    paper: str
    kind: str
    modality: str
    module: str


@cache
def entries() -> tuple[Entry, ...]:
    """Return all public classes of this package and of installed plug-ins that name a class.

    Those of no kind have nothing but their names.
    """
    files, parents = {}, {}
    for path in _files():
        for name, bases in _CLASS.findall(path.read_text(encoding="utf-8")):
            files[name] = path
            parents[name] = [base for base in map(str.strip, bases.split(",")) if base.isidentifier()]
    inherited = {base for bases in parents.values() for base in bases}
    abstract = {*BASES.values(), *(inherited & parents.keys())} - {"Classifier"}  # the one base used as it is
    result = []
    for name, path in files.items():
        line = [name, *_ancestors(name, parents)]
        kind = "" if name in abstract else next((_KIND_OF[up] for up in line if up in _KIND_OF), "")
        if not kind:
            result.append(Entry(name, path.stem, "", "", "", "", path.stem))
            continue
        nodes = [_node(files[up], up) for up in line if up in files]
        text = " ".join((ast.get_docstring(nodes[0]) or "").split())
        family = next((said for node in nodes for said in _declared(node, "family") if said), path.stem)
        told = (_first_sentence(text), _paper(text), kind, _modality(kind, nodes), path.stem)
        result.append(Entry(name, family, *told))
    return tuple(sorted(result, key=lambda entry: (entry.kind, entry.family, entry.name.lower())))


def arguments_of(name: str) -> list[str]:
    """Return the names of the constructor arguments of a class of this package, as `naming.arguments` does.

    Args:
        name: Of the class; of an unknown one there are none.
    """
    found: list[str] = []
    for path in (path for path in _files() if path.is_relative_to(PACKAGE)):
        for known, bases in _CLASS.findall(path.read_text(encoding="utf-8")):
            if known != name:
                continue
            init = next((item for item in _node(path, name).body if _is_init(item)), None)
            if isinstance(init, ast.FunctionDef):
                found = [one.arg for one in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)][1:]
                if init.args.kwarg is None:
                    return found
            for base in map(str.strip, bases.split(",")):
                found += arguments_of(base) if base.isidentifier() else []
            return found
    return found


def _is_init(item: ast.stmt) -> bool:
    return isinstance(item, ast.FunctionDef) and item.name == "__init__"


def _node(path: Path, name: str) -> ast.ClassDef:
    return next(node for node in _tree(path).body if isinstance(node, ast.ClassDef) and node.name == name)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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
    return without_latex(re.split(r"(?<=\.)(?<!al\.)(?<!Eq\.)\s|\s(?=Args:|Reference:)", text, maxsplit=1)[0])


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
