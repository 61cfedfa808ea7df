"""Lay out the pages of the documentation site for Zensical, in build/site or the folder that is given.

scripts/docs.sh calls it.

Pages of docs/ are taken as they are. To these come: CONTRIBUTING.md and CHANGELOG.md, notebooks with what they printed,
and the API reference, a page for each folder of the package, which names every public class and function. The
navigation is that of docs/index.md: its headings, and its links in their order. So a new page is one line there.
"""

import ast
import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+\.(?:md|ipynb))(#[^)\s]*)?\)")
ANY_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def navigation() -> list[dict[str, Any]]:
    """Return a section for each heading of docs/index.md, with titles and pages; each page once, where it is first.

    Under a folder's `index.md` are the pages of that folder to which it links and docs/index.md does not.
    """
    index = DOCS / "index.md"
    sections: list[dict[str, Any]] = []
    placed = {index}
    for line in index.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections.append({line[3:].strip(): []})
        for title, path in links(index, line):
            if path not in placed:
                placed.add(path)
                sections[-1][next(iter(sections[-1]))].append({title: entry(path)})
    return sections


def entry(path: Path) -> Any:
    """Return the place of a page in the site; of a folder's index a list, with the pages below it."""
    place = str(site_place(path))
    if path.name != "index.md":
        return place
    elsewhere = {other for _, other in links(DOCS / "index.md")}
    below: dict[Path, str] = {}
    for title, other in links(path):
        if other.parent == path.parent and other not in elsewhere:
            below.setdefault(other, title)
    return [place, *({title: str(site_place(other))} for other, title in below.items())]


def links(page: Path, text: str | None = None) -> list[tuple[str, Path]]:
    """Return titles and files of the links of a page, or of a part of it, to other pages."""
    text = page.read_text(encoding="utf-8") if text is None else text
    return [(title.strip("`"), (page.parent / target).resolve()) for title, target, _ in LINK.findall(text)]


def site_place(path: Path) -> Path:
    """Return where a file of the repository is in the site."""
    if not path.is_relative_to(DOCS):
        return Path(path.name.lower())
    return path.relative_to(DOCS).with_suffix(".md")


def public(module: Path) -> list[str]:
    """Return the public classes and functions that a module defines, in its order."""
    body = ast.parse(module.read_text(encoding="utf-8")).body
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


def api_pages() -> dict[str, tuple[str, str]]:
    """Return the API reference: for each folder of the package its title and its page."""
    pages = {}
    package = ROOT / "ssl_lightning"
    folders = sorted({path.parent for path in package.rglob("*.py")})
    for folder in folders:
        dotted = ".".join(folder.relative_to(ROOT).parts)
        about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        lines = [f"# {dotted}", "", about, ""]
        for module in sorted(folder.glob("*.py")):
            names = public(module)
            if not names or module.stem == "__main__":
                continue
            path = dotted if module.stem == "__init__" else f"{dotted}.{module.stem}"
            for name in names:
                lines += [f"::: {path}.{name}", ""]
        if any(line.startswith(":::") for line in lines):
            pages[dotted] = (about.partition("\n")[0], "\n".join(lines))
    return pages


def write_api(folder: Path) -> list[dict[str, Any]]:
    """Write the API reference into a folder, and return its part of the navigation."""
    pages = api_pages()
    rows = [f"| [`{dotted}`]({dotted}.md) | {about} |" for dotted, (about, _) in pages.items()]
    text = "# API reference\n\nEvery public class and function, from its docstring.\n\n| | |\n|---|---|\n"
    write(folder / "index.md", text + "\n".join(rows) + "\n")
    for dotted, (_, page) in pages.items():
        write(folder / f"{dotted}.md", page)
    below = [{dotted.removeprefix("ssl_lightning."): f"api/{dotted}.md"} for dotted in pages]
    return [{"API reference": ["api/index.md", *below]}]


def notebook(path: Path, place: Path) -> str:
    """Return a notebook as Markdown; its pictures are written beside the page."""
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for place_in, output in enumerate(cell.get("outputs", [])):
            parts.append(shown(output, place.with_name(f"{path.stem}-{number}-{place_in}.png")))
    return "\n\n".join(part for part in parts if part) + "\n"


def shown(output: dict[str, Any], picture: Path) -> str:
    """Return one output of a cell as Markdown: the picture, the HTML, else the text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return f"![What the cell draws]({picture.name})"
    if "text/html" in data:
        html = "".join(data["text/html"])  # on one line, as Markdown wants it; lines of what is written as it is stay
        html = html.replace("\n", "&#10;") if "<pre" in html else " ".join(html.split())
        return f'<div class="shown">{html}</div>'
    text = "".join(output.get("text", data.get("text/plain", []))).rstrip()
    return f"```text\n{text}\n```" if text else ""


def write(path: Path, text: str) -> None:
    """Write a page, in a folder that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def relocated(text: str, page: Path) -> str:
    """Let links lead to where pages are in the site; of links to what is not in it only the text is left."""

    def moved(found: re.Match[str]) -> str:
        path = (page.parent / found[2]).resolve()
        if path.suffix not in (".md", ".ipynb"):
            return found[0] if path.is_relative_to(DOCS) else found[1]
        target = site_place(DOCS / "index.md" if path == ROOT / "README.md" else path)
        here = site_place(page).parent
        up = "../" * len(here.parts)
        anchor = "" if path == ROOT / "README.md" else found[3] or ""
        return f"[{found[1]}]({up}{target.as_posix()}{anchor})"

    return ANY_LINK.sub(moved, text)


def lay_out(folder: Path) -> None:
    """Write pages, pictures and the config with its navigation into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    for path in sorted(DOCS.rglob("*")):
        place = pages / path.relative_to(DOCS)
        if path.suffix == ".md":
            write(place, relocated(path.read_text(encoding="utf-8"), path))
        elif path.suffix == ".ipynb":
            write(place.with_suffix(".md"), relocated(notebook(path, place), path))
        elif path.is_file() and path.suffix != ".toml":
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        write(pages / name.lower(), relocated((ROOT / name).read_text(encoding="utf-8"), ROOT / name))
    nav = [{"Home": "index.md"}, *navigation(), *write_api(pages / "api")]
    config = (DOCS / "zensical.toml").read_text(encoding="utf-8")
    config = config.replace("nav = []", f"nav = {toml(nav)}", 1).replace('"../.."', toml(str(ROOT)), 1)
    write(folder / "zensical.toml", config)


def toml(value: Any) -> str:
    """Write lists, tables and text as TOML in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site")
