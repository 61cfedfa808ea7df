"""Run the notebooks of docs/notebooks from top to bottom, in place, and refuse what must not be published.

Command: `.venv/bin/python scripts/notebooks.py [NAME...]` (after scripts/install.sh dev; needs data/fsdd, data/agnews
and data/emoji; some minutes each). What a cell prints is kept, and the run fails if a cell does, or if an output names
a path of this machine.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"


def run(path: Path) -> None:
    """Run a notebook and write it back without what differs from machine to machine.

    Raises:
        ValueError: If an output names a path of this machine.
    """
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in book.cells:
        cell.metadata.clear()
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    text = nbformat.writes(book)
    for place in (str(ROOT.resolve()), str(Path.home()), "/tmp/"):
        if len(place) > 1 and place in text:
            raise ValueError(f"{path.name}: an output names {place}; silence what prints it.")
    path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run those that are named, else all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            run(path)
            print(f"ran {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
