"""The table of `evaluate`: what is another result, what replaces one, and two processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.experiments.results import COLUMNS, KEY, markdown, read, write


def result(value: float = 0.5, root: str = "/a/images", seed: int = 0, **changes: Any) -> dict[str, str]:
    protocol = changes.pop("protocol", "knn")
    options = changes.pop("options", {"k": 20})
    data = {"class_path": "ImageFolder", "init_args": {"root": root, "image_size": 32}}
    subject = changes.pop("checkpoint", "runs/x/last.ckpt")
    made = dict.fromkeys(COLUMNS, "") | {
        "checkpoint": subject, "data": f"ImageFolder {Path(root).name}", "protocol": protocol,
        "settings": json.dumps({"subject": f"/here/{subject}", "data": data, protocol: options}, sort_keys=True),
        "fraction": "1", "metric": "accuracy", "seed": str(seed), "method": "SimCLR", "backbone": "ConvNet",
        "value": str(value),
    }  # fmt: skip
    return made | changes


def table(results: list[dict[str, str]]) -> list[list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown(results).splitlines()]
    return [lines[0], *lines[2:]]


def test_the_same_result_is_replaced_and_any_other_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "r.csv"
    write(path, [result(0.5)])
    write(path, [result(0.6)])
    assert [row["value"] for row in read(path)] == ["0.6"]
    others = [
        result(0.1, root="/b/images"),  # the same name, another place
        result(0.2, seed=1),
        result(0.3, options={"k": 200}),
        result(0.4, checkpoint="runs/y/last.ckpt"),
        result(0.5, fraction="0.1"),
        result(0.6, protocol="rank", metric="rankme", options={}),
    ]
    for other in others:
        write(path, [other])
    assert [row["value"] for row in read(path)] == ["0.6", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]
    assert len({tuple(row[name] for name in KEY) for row in read(path)}) == 7
    assert path.with_suffix(".md").read_text() == markdown(read(path))


def test_a_table_that_grows_keeps_names_that_a_spreadsheet_would_run(tmp_path: Path) -> None:
    path, names = tmp_path / "r.csv", ["=a/last.ckpt", "'=a/last.ckpt", "-b.ckpt"]
    for seed in range(3):
        for name in names:
            write(path, [result(-0.5, checkpoint=name, seed=seed)])
    assert [row["checkpoint"] for row in read(path)] == names * 3
    assert {row["value"] for row in read(path)} == {"-0.5"}
    lines = path.read_text().splitlines()[1:4]
    assert [line.partition(",")[0] for line in lines] == ["'=a/last.ckpt", "''=a/last.ckpt", "'-b.ckpt"]


def test_data_of_one_name_are_told_apart_by_what_differs() -> None:
    lines = table([result(0.5, root="/a/images"), result(0.7, root="/b/images"), result(0.9, root="/c/other")])
    assert [line[3:] for line in lines[1:]] == [
        ["ImageFolder images (root=/a/images)", "50.0"],
        ["ImageFolder images (root=/b/images)", "70.0"],
        ["ImageFolder other", "90.0"],
    ]


def test_a_protocol_of_other_options_has_a_column_of_its_own() -> None:
    lines = table([result(0.5, options={"k": 20, "t": 1}), result(0.7, options={"k": 200, "t": 1})])
    assert lines[0][4:] == ["kNN (k=20)", "kNN (k=200)"]
    assert lines[1][4:] == ["50.0", "70.0"]


def test_seeds_share_a_cell() -> None:
    lines = table([result(0.5, seed=0), result(0.6, seed=1)])
    assert lines[1][4:] == ["55.0 ± 7.1"]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00rows", b""])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="has other columns than ours; give another file"):
        write(path, [result()])
    assert path.read_bytes() == content


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from test_results import result
from ssl_lightning.experiments.results import write
for number in range(20):
    write(Path(sys.argv[1]), [result(seed=100 * int(sys.argv[2]) + number)])
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    here = str(Path(__file__).parent)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n), here]) for n in range(4)]
    assert [writer.wait(120) for writer in writers] == [0] * 4
    assert sorted(int(row["seed"]) for row in read(path)) == [100 * n + k for n in range(4) for k in range(20)]
    assert not list(tmp_path.glob(".*.part"))
