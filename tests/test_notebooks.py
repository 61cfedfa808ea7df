"""The notebooks of docs/notebooks: their code runs, made short, and what they show is whole and names no machine."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from support import DATA, ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
QUICK = {"quick_start", "subclass_strategy", "lecture"}
NEEDS = {"sound": "fsdd", "text": "agnews", "pairs": "emoji"}
SHORT = {
    r"max_(epochs|steps)=\d+": r"max_\1=1", r"steps_per_epoch=\d+": "steps_per_epoch=1", r"rounds=\d+": "rounds=1",
    r"L\.Trainer\(": "L.Trainer(limit_train_batches=2, ",
    r"max_length=64, \*\*": "max_length=64, limit=300, **", r"SpokenDigits\(": "SpokenDigits(limit=300, ",
    r"image_size=32, caption": "image_size=32, limit=300, caption",
    r'"(TypiClust|Margin)": \w+\(query_size=\d+\),?': "",
    r"seeds=\(0, 1, 2\)": "seeds=(0,)", r'"--(rounds|steps_per_epoch)", "\d+"': r'"--\1", "1"',
    r"range\(2\)": "range(1)", r"count=400": "count=40",
}  # fmt: skip


def cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_of_every_modality_and_of_every_thing_to_do() -> None:
    things = {"quick_start", "subclass_method", "subclass_strategy", "label_folder", "compare_strategies", "lecture"}
    assert {path.stem for path in NOTEBOOKS} == {"sound", "text", "tables", "pairs", *things}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_were_run_whole_and_name_no_machine(path: Path) -> None:
    numbers = [cell["execution_count"] for cell in cells(path)]
    assert numbers == list(range(1, len(numbers) + 1))
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if {"image/png", "text/html"} & set(output.get("data", {}))], "a picture"
    shown = json.dumps([output.get("text", output.get("data", {}).get("text/plain")) for output in outputs])
    assert not re.search(r"/(home|root|tmp|work|Users)/|\.venv", shown)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem in QUICK else pytest.mark.long, id=path.stem) for path in NOTEBOOKS],
)
def test_the_code_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = NEEDS.get(path.stem)
    if needed is not None and not (DATA / needed).is_dir():
        pytest.skip(f"no {needed} in {DATA}; set SSL_LIGHTNING_DATA to a folder that holds it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_LIGHTNING_DATA", str(DATA.resolve()))
    mpl.use("agg")
    (tmp_path / "pyproject.toml").touch()  # what the first cell takes for the clone
    scope: dict[str, Any] = {}
    try:
        for cell in cells(path):
            code = "".join(cell["source"])
            for long, short in SHORT.items():
                code = re.sub(long, short, code)
            exec(compile(code, f"{path.name}", "exec"), scope)
    finally:
        plt.close("all")
        scope.get("logging", __import__("logging")).disable(0)
