"""Write the tables of what there is: README.md, docs/catalogue.md, docs/methods/index.md, docs/strategies/index.md.

Command: `.venv/bin/python scripts/docs_tables.py`; with `--check` nothing is written, and what would change is named.
All comes from the classes, as `ssl-lightning list` reads them: name, family, data, sentence, paper. In the two indices
the columns that compare (what it needs, what it asks for) are written by hand, in the table itself, and kept.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from ssl_lightning.commands.catalogue import Entry, entries
from ssl_lightning.engine.modalities import MODALITIES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
KINDS = {
    "methods": "Self-supervised methods",
    "strategies": "Acquisition strategies",
    "stopping": "When to stop",
    "classifiers": "Classifiers",
    "backbones": "Backbones",
    "data": "Data",
}
FAMILIES = {
    "metric": "Metric learning",
    "tables": "Rows of tables",
    "masked": "Masked images and spectrograms",
    "by_labels": "The default",
    "classical": "Classical",
    "batches": "Whole batches",
    "typicality": "Cold start",
    "vaal": "Adversarial",
    "any": "Any kind",
}
BLOCK = re.compile(r"(<!-- table: (\w+)[^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


def of_kind(kind: str, order: list[str]) -> list[Entry]:
    """Return the classes of a kind, those of an order first."""
    found = [entry for entry in entries() if entry.kind == kind]
    return sorted(found, key=lambda entry: order.index(entry.name) if entry.name in order else len(order))


def names_in(page: Path) -> list[str]:
    """Return the classes that the table of an index names, in its order."""
    return re.findall(r"^\| \[(\w+)\]", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def page_of(entry: Entry) -> Path | None:
    """Return the page that a class has to itself, if it has one."""
    candidates = [DOCS / "strategies" / f"{entry.name.lower()}.md", DOCS / "methods" / f"{entry.module}.md"]
    return next((path for path in candidates if entry.kind in path.parts and path.exists()), None)


def title(family: str) -> str:
    """Return the name of a family in a sentence's beginning."""
    return FAMILIES.get(family, family[:1].upper() + family[1:])


def inside() -> str:
    """Return the README's table: the classes of each kind by family, or by the data they are for."""
    lines = ["| | | |", "|---|---|---|"]
    for kind, heading in KINDS.items():
        groups: dict[str, list[str]] = {}
        for entry in of_kind(kind, names_in(DOCS / kind / "index.md") if (DOCS / kind).is_dir() else []):
            by = entry.family if kind in ("methods", "strategies") else entry.modality
            groups.setdefault(by, []).append(f"`{entry.name}`")
        known = ["", *MODALITIES, "any"]
        if kind in ("backbones", "data"):
            groups = dict(sorted(groups.items(), key=lambda item: known.index(item[0]) if item[0] in known else 99))
        for number, (group, names) in enumerate(groups.items()):
            lines.append(f"| {heading if number == 0 else ''} | {title(group) if group else ''} | {', '.join(names)} |")
    return "\n".join(lines)


def catalogue() -> str:
    """Return a table for each kind, with sentences and papers."""
    parts = []
    for kind, heading in KINDS.items():
        data = kind in ("methods", "backbones", "data")
        lines = [
            f"## {heading}",
            "",
            f"| | {'Data | ' if data else ''}| Paper |",
            f"|---|{'---|' if data else ''}---|---|",
        ]
        for entry in of_kind(kind, names_in(DOCS / kind / "index.md") if (DOCS / kind).is_dir() else []):
            page = page_of(entry)
            name = f"[{entry.name}]({page.relative_to(DOCS).as_posix()})" if page else f"`{entry.name}`"
            cells = [name, *([entry.modality] if data else []), entry.sentence.replace("|", "\\|"), entry.paper]
            lines.append(f"| {' | '.join(cells)} |".replace("  |", " |"))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def index(kind: str) -> str:
    """Return the table of an index: name and family of each class, and the cells that were written by hand."""
    page = DOCS / kind / "index.md"
    rows = [
        line for line in page.read_text(encoding="utf-8").splitlines() if re.match(r"\| (\[\w+\]|\w+ \| Family)", line)
    ]
    head, *old = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    kept = {re.findall(r"\w+", cells[0])[0]: cells[2:] for cells in old}
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for entry in of_kind(kind, list(kept)):
        own = page_of(entry)
        link = f"[{entry.name}]({own.name})" if own else entry.name
        cells = [link, entry.family.replace("by_labels", "default"), *kept.get(entry.name, [""] * (len(head) - 2))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {
    "inside": inside,
    "catalogue": catalogue,
    "methods": lambda: index("methods"),
    "strategies": lambda: index("strategies"),
}


def renewed(page: Path) -> str:
    """Return a page with its tables as they should be."""
    text = page.read_text(encoding="utf-8")
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def main() -> None:
    """Write all tables, or say which are not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    check = parser.parse_args().check
    changed = []
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        text = renewed(page)
        if text != page.read_text(encoding="utf-8"):
            changed.append(os.path.relpath(page, ROOT))
            if not check:
                page.write_text(text, encoding="utf-8")
    if changed:
        print("tables written anew" if not check else "tables to write anew by scripts/docs_tables.py", *changed)
    sys.exit(bool(check and changed))


if __name__ == "__main__":
    main()
