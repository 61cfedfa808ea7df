"""Files that are replaced as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.engine.csv_files import replacing, write_csv


def test_columns_in_order_and_what_is_null_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    write_csv(path, ["b", "a"], [{"a": 1, "b": "x, y"}, {"a": None}])
    assert path.read_bytes() == b'b,a\r\n"x, y",1\r\n,\r\n'
    assert [file.name for file in path.parent.iterdir()] == ["a.csv"]


def test_what_fails_leaves_the_old_file_and_no_scraps(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="not in fieldnames"):
        write_csv(path, ["a"], [{"a": 1}, {"z": 1}])
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        _stop(file)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def _stop(file: Any) -> None:
    file.write("half")
    raise KeyboardInterrupt


WRITER = """
import sys
from pathlib import Path
from ssl_lightning.engine.csv_files import write_csv
for _ in range(40):
    write_csv(Path(sys.argv[1]), ["a"], [{"a": sys.argv[2]}] * 2000)
"""


def test_a_reader_never_sees_half_a_file_of_two_writers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ["a"], [{"a": "1"}] * 2000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "12"]
    while any(writer.poll() is None for writer in writers):
        lines = path.read_text().split()
        assert len(lines) == 2001
        assert len(set(lines[1:])) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
