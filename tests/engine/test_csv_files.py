"""Files that are replaced as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
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


def test_what_is_no_file_is_written_into_and_a_link_stays(tmp_path: Path) -> None:
    pipe, null, link, real = (tmp_path / name for name in ("pipe", "null", "link", "real"))
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_csv(pipe, ["a"], [{"a": 1}])
    reader.join()
    assert got == [b"a\r\n1\r\n"]
    assert pipe.is_fifo()
    null.symlink_to("/dev/null")
    real.write_text("old")
    link.symlink_to(real)
    for path in (null, link):
        with replacing(path, "wb") as file:
            file.write(b"\x00new")
    assert null.is_symlink()
    assert null.is_char_device()
    assert link.is_symlink()
    assert real.read_bytes() == b"\x00new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "null", "pipe", "real"]


def test_what_the_system_refuses_is_told_of_the_file_that_was_named() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_csv(Path("/proc/a.csv"), ["a"], [])
    assert caught.value.filename == "/proc/a.csv"


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
