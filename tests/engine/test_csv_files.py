"""Tables that spreadsheets and people touch, and files that are replaced as a whole."""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.engine.csv_files import escaped, read_table, replacing, unescaped, write_csv


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


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "=", "-", "--5", "-5 m"]
)
def test_what_a_spreadsheet_would_run_is_text(text: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["a", "b"], [{"a": text, "b": f"'{text}"}])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == [f"'{text}", f"''{text}"]


def test_numbers_are_numbers_whether_they_come_as_text_or_not(tmp_path: Path) -> None:
    values = [-0.5, -3, "-0.5", "-1e-05", "+3", "-inf", "-nan", "-.5", "-12."]
    write_csv(tmp_path / "a.csv", ["a"], [{"a": value} for value in values])
    assert (tmp_path / "a.csv").read_text().split() == ["a", *map(str, values)]


def test_every_text_comes_back(tmp_path: Path) -> None:
    """All texts of up to five of the characters that matter, and each another one in the file."""
    some = ["".join(text) for count in range(6) for text in itertools.product("'=-\t5a", repeat=count)]
    assert [unescaped(escaped(text)) for text in some] == some
    assert len({escaped(text) for text in some}) == len(some)
    write_csv(tmp_path / "a.csv", ["name", "more"], [{"name": text, "more": "x"} for text in some])
    read = read_table(tmp_path / "a.csv", "`a`", {"name": ["name"]}, ["name"])
    assert [cells["name"] for _, cells in read] == some
    assert [number for number, _ in read] == [*range(2, len(some) + 2)]


def test_an_apostrophe_that_guards_nothing_is_a_letter() -> None:
    assert [unescaped(text) for text in ("'tis", "'", "''", "' =", "'5")] == ["'tis", "'", "''", "' =", "'5"]


def test_names_that_are_no_utf_8_do_not_cost_the_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["a"], [{"a": os.fsdecode(b"x\xff.png")}, {"a": "y"}])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").split() == ["a", "x\\udcff.png", "y"]


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffsep=;\n\nB; A \n"two\nlines";1\n;\n\n2;"\r\n"\n', newline="")
    columns = {"a": ["a"], "b": ["c", "b"], "d": ["d"]}
    assert read_table(tmp_path / "a.csv", "`a`", columns, ["a", "b"]) == [
        (4, {"a": "1", "b": "two\nlines"}),
        (8, {"a": "\r\n", "b": "2"}),
    ]
