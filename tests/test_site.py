"""The documentation site: built without a warning, no dead link, nothing from elsewhere, right in a browser."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock
from support import ROOT

pytest.importorskip("zensical", reason="needs the extra `docs`")
pytest.importorskip("playwright")
sys.path.append(str(ROOT / "scripts"))
import site_diagrams
import site_look
import site_pages

FLOWS = [
    (page.stem, found)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for found in re.findall(r"```mermaid\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
]


class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script", "link", "iframe", "source"):
            self.loads += [given[key] for key in ("src", "href") if key in given and given.get("rel") != "canonical"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it once, whichever of the processes that test comes first."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = tmp_path_factory.mktemp("site") if alone else tmp_path_factory.getbasetemp().parent / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "html").is_dir():
            build(folder)
    return folder / "html"


def build(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    site_pages.lay_out(folder)
    command = [sys.executable, "-m", "zensical", "build", "-f", str(folder / "zensical.toml"), "--clean", "--strict"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "No issues found" in said
    assert not re.search("griffe:|warning", said, flags=re.IGNORECASE), said


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_no_link_is_dead_and_nothing_comes_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 120
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # made for the root of a server
            continue
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme:
                wrong += [f"{path.name} loads {link}"] * (link in page.loads and parts.scheme != "data")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file()
            if there and parts.fragment and target in pages:
                there = parts.fragment in pages[target].ids
            wrong += [f"{path.name}: {link}"] * (not there)
    assert not wrong, "\n".join(wrong[:20])


def test_no_formula_holds_latex(site: Path) -> None:
    formulas = [
        found
        for path in site.rglob("*.html")
        for found in re.findall("<math.*?</math>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    ]
    assert len(formulas) > 300
    assert not [found for found in formulas if "\\" in found]


def test_the_reference_is_rendered(pages: dict[Path, Page], site: Path) -> None:
    ids = {name for path, page in pages.items() if path.parent.name == "api" for name in page.ids}
    named = {
        name
        for _, text in site_pages.api_pages().values()
        for name in re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    }
    assert len(named) > 300
    assert named <= ids
    page = (site / "api" / "ssl_lightning.methods.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "ICML 2020, arXiv 2002.05709" in page


@pytest.mark.parametrize(("name", "text"), FLOWS, ids=[name for name, _ in FLOWS])
def test_boxes_of_a_flowchart_do_not_overlap(name: str, text: str) -> None:
    nodes, edges = site_diagrams.parse(text)
    site_diagrams.place(nodes, edges, site_diagrams.arrange(nodes, edges))
    boxes = [node for node in nodes.values() if node.lines]
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = abs(one.x - other.x) >= (one.width + other.width) / 2
            assert apart or abs(one.y - other.y) >= (one.height + other.height) / 2, (one.text, other.text)
    assert site_diagrams.draw(text).count('class="head"') == len(edges)


def test_a_flowchart_is_read() -> None:
    nodes, edges = site_diagrams.parse('flowchart LR\n a["one, two"] --> b[(store)] -. late .-> c\n c <-- "x" --> a')
    assert {name: (node.text, node.shape) for name, node in nodes.items()} == {
        "a": ("one, two", "box"), "b": ("store", "store"), "c": ("c", "box"),
    }  # fmt: skip
    assert [(edge.source, edge.target, edge.text, edge.dotted, edge.both) for edge in edges] == [
        ("a", "b", "", False, False), ("b", "c", "late", True, False), ("c", "a", "x", False, True),
    ]  # fmt: skip
    for wrong in ("sequenceDiagram\n a", "flowchart LR\n a ==> b", "flowchart LR\n (a) --> b"):
        with pytest.raises(ValueError, match=r"begins with|expected"):
            site_diagrams.parse(wrong)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium")
def test_some_pages_are_right_in_a_browser(site: Path) -> None:
    """All of them: `bash scripts/docs.sh look`."""
    sync = pytest.importorskip("playwright.sync_api")
    names = ["index.html", "methods/dino.html", "course/contrastive.html", "api/ssl_lightning.functional.html"]
    with sync.sync_playwright() as playwright:
        browser = site_look.launch(playwright)
        for width, height in site_look.SIZES.values():
            for name in names:
                page = browser.new_page(viewport={"width": width, "height": height})
                assert site_look.look(page, site / name) == [], (name, width)
                page.close()
        seen = False
        for _ in range(6):  # the search of Zensical does not always come up where pages are opened from files
            page = browser.new_page()
            page.goto((site / "index.html").as_uri())
            page.keyboard.press("/")
            box = page.get_by_label("Search", exact=True).and_(page.locator("input:visible")).first
            box.wait_for()
            box.press_sequentially("farthest", delay=30)  # a person types key by key
            with contextlib.suppress(sync.TimeoutError):
                page.get_by_role("option").filter(has_text="FarthestFirst").first.wait_for(timeout=8_000)
                seen = True
                break
            page.close()
        assert seen
        browser.close()
