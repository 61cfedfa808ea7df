"""The pages' Python runs from top to bottom, in an empty folder, in a process of its own."""

import re
from functools import partial
from pathlib import Path

import pytest
from support import ROOT, begin, run_file


@pytest.mark.parametrize(
    "page", ["README.md", "docs/backbones.md", "docs/add-a-method.md", "docs/add-a-strategy.md", "docs/oracles.md"]
)
def test_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    path, log = tmp_path / "page.py", tmp_path / "log"
    path.write_text("\n".join(blocks))
    process = begin(partial(run_file, path), tmp_path, log)
    process.join(250)
    assert process.exitcode == 0, log.read_text()[-3000:]


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_nothing_is_pending() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        assert "RESULT-PENDING" not in page.read_text(), page.name
