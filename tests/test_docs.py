"""The pages: their Python runs, their links and commands are true, every class has its place in them."""

import ast
import importlib
import re
import shlex
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, begin, run_file

from ssl_lightning.commands.catalogue import Entry, entries
from ssl_lightning.commands.glance import glance
from ssl_lightning.commands.list import main as list_main

DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.rglob("*.md"))]
ALGORITHMS = {"methods", "strategies", "classifiers"}
NAMED = [entry for entry in entries() if entry.kind]


@pytest.fixture(autouse=True)
def scripts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def script(name: str) -> Any:
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its code, in which brackets are no links."""
    return re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    bare = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", bare, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@cache
def docstrings() -> dict[str, str]:
    found = {}
    for path in (ROOT / "ssl_lightning").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = ast.get_docstring(node) or ""
    return found


@pytest.mark.parametrize(
    "page", ["README.md", "docs/backbones.md", "docs/add-a-method.md", "docs/add-a-strategy.md", "docs/oracles.md"]
)
def test_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """From top to bottom, in an empty folder, in a process of its own."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    path, log = tmp_path / "page.py", tmp_path / "log"
    path.write_text("\n".join(blocks))
    process = begin(partial(run_file, path), tmp_path, log)
    process.join(250)
    assert process.exitcode == 0, log.read_text()[-3000:]


def test_links_and_pictures_lead_somewhere() -> None:
    wrong, seen = [], 0
    for page in PAGES:
        for link, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)", prose(page)):
            seen += 1
            target = (page.parent / link) if link else page
            if not target.exists():
                wrong.append(f"{page.name}: {link}")
            elif anchor and target.suffix == ".md" and anchor[1:] not in anchors(target):
                wrong.append(f"{page.name}: {link}{anchor}")
    assert seen > 500
    assert not wrong


def test_every_page_has_one_place_in_the_navigation() -> None:
    def places(item: Any) -> list[str]:
        if isinstance(item, str):
            return [item]
        return [place for part in (item.values() if isinstance(item, dict) else item) for place in places(part)]

    found = places(script("site_pages").navigation())
    assert len(found) == len(set(found))
    written = {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in PAGES if path.is_relative_to(DOCS)}
    written |= {f"notebooks/{path.stem}.md" for path in (DOCS / "notebooks").glob("*.ipynb")}
    missing = sorted(written - {"index.md"} - set(found))
    assert not missing, f"give each a line in docs/index.md, or in the index.md of its folder: {missing}"


def test_tables_are_as_the_script_writes_them() -> None:
    tables = script("docs_tables")
    old = [page.name for page in PAGES if tables.renewed(page) != text_of(page)]
    assert not old, f"run `python scripts/docs_tables.py`: {old}"
    assert all(page.exists() for page in (DOCS / "methods" / "index.md", DOCS / "strategies" / "index.md"))
    for kind in ("methods", "strategies"):
        rows = re.findall(r"^\| \[\w+\].*", tables.index(kind), flags=re.MULTILINE)
        assert len(rows) == sum(entry.kind == kind for entry in NAMED)
        assert not [row for row in rows if re.search(r"\|\s*\|", row)], "a cell that is written by hand is empty"
    assert {entry.name for entry in NAMED} <= set(re.findall(r"`(\w+)`", tables.inside()))


@pytest.mark.parametrize("entry", NAMED, ids=lambda entry: entry.name)
def test_every_class_is_documented(entry: Entry, api: set[str]) -> None:
    """A docstring, a config, a page, a line of `list`, a place in the API reference."""
    docstring = docstrings()[entry.name]
    assert entry.sentence
    assert entry.name in api
    page = script_page(entry)
    if entry.kind in ("methods", "strategies"):
        assert page.exists(), f"{entry.name} has no page {page}"
        assert entry.name in text_of(page)
        assert re.search(r"^\$\$|\$\$ ", text_of(page), flags=re.MULTILINE), "a formula"
        assert re.search(r"^ssl-lightning |^python ", text_of(page), flags=re.MULTILINE), "a command"
        assert "](../images/" in text_of(page), "a picture"
        assert re.search(rf"\b(class_path: |strategy: |model: |^model: ){entry.name}\b", configs()), "a config"
    else:
        guides = [page for page in PAGES if page.name not in ("catalogue.md", "CHANGELOG.md", "README.md")]
        assert any(re.search(rf"\b{entry.name}\b", text_of(page)) for page in guides), "no guide names it"
    if entry.kind in ALGORITHMS and entry.name != "Classifier":
        assert re.search(r"^Reference:\n +\S", docstring, flags=re.MULTILINE)
        assert re.search(r"^Example:\n +>>> ", docstring, flags=re.MULTILINE)
        assert entry.paper


def script_page(entry: Entry) -> Path:
    return DOCS / entry.kind / f"{entry.name.lower() if entry.kind == 'strategies' else entry.module}.md"


@cache
def configs() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "configs").rglob("*.yaml")))


@pytest.fixture(scope="module")
def api() -> set[str]:
    """What the API reference documents, by name."""
    sys.path.insert(0, str(ROOT / "scripts"))
    pages = script("site_pages").api_pages()
    sys.path.remove(str(ROOT / "scripts"))
    return {name for _, text in pages.values() for name in re.findall(r"^::: \S+\.(\w+)$", text, flags=re.MULTILINE)}


def test_what_packages_offer_is_in_the_api_reference(api: set[str]) -> None:
    parts = ("methods", "active", "data", "backbones", "supervised", "evaluation", "labelling", "transforms.image")
    for part in parts:
        module = importlib.import_module(f"ssl_lightning.{part}")
        offered = {name for name in module.__all__ if isinstance(getattr(module, name), type)}
        assert len(offered) > 3
        assert offered <= api, part


def test_commands_of_the_pages_are_let_through() -> None:
    """As far as can be seen without torch: options, classes, arguments and configs exist."""
    wrong, seen = [], 0
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", text_of(page), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.strip().startswith("ssl-lightning ") or "..." in line:
                    continue
                given = [part for part in shlex.split(line, comments=True)[1:] if part != "&"]
                if any(re.match(r"my_|MINE|runs/.*\.yaml$", part) for part in given):  # what only the reader has
                    continue
                seen += 1
                try:
                    glance(given)
                except (ValueError, OSError) as error:
                    wrong.append(f"{page.relative_to(ROOT)}: {line.strip()}: {error}")
    assert seen > 150
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", sorted((DOCS / "course").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_the_course_is_whole(page: Path) -> None:
    """A formula, the class, a command, a picture."""
    text = text_of(page)
    if page.name == "index.md":
        numbers = re.findall(r"^- \[(\d+)\. ", text, flags=re.MULTILINE)
        assert numbers == [str(number) for number in range(1, len(list(page.parent.glob("*.md"))))]
        return
    assert re.search(r"^\$\$ .+ \$\$$", text, flags=re.MULTILINE)
    assert "In this package: [`" in text
    assert re.search(r"```bash\nssl-lightning ", text)
    assert re.search(r"^!\[.+\]\(\.\./images/.+\.png\)$", text, flags=re.MULTILINE)


def test_list_prints_no_latex(capsys: pytest.CaptureFixture[str]) -> None:
    list_main(["methods", "strategies", "classifiers", "stopping", "backbones", "data"])
    out = capsys.readouterr().out
    assert "-Σ_c p_c log p_c" in out
    assert not re.search(r"[\\{}$`]?\\[a-zA-Z]+|:math:|\{|\}|\$", out)


def test_nothing_is_pending() -> None:
    for page in PAGES:
        assert "RESULT-PENDING" not in text_of(page), page.name
