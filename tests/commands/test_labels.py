"""Labels out of a store and into one: exact round trips, one bad line changes nothing, and no torch."""

from __future__ import annotations

import argparse
import csv
import ctypes
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from support import ROOT

from ssl_lightning.commands import labels
from ssl_lightning.labelling import INITIAL, Answer, LabelStore, Query

Command = Callable[..., tuple[int, str]]
NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
KEYS = [
    "a.png", " b.png ", "c, d.png", 'e"f".png', "'g.png", "=1+1.png", "'=h.png", "''@i.png", "\tj.png", "-5", "2\nl",
    "cr\rlf\r\n.png", f"{NFC}.png", f"{NFD}.png", "蝶/k;l.png", "back\\slash.png", "#m.png", " ", "sep=", "\ufeffn.png",
]  # fmt: skip
CLASSES = ["cat", "great tit", "=cmd", "-x", "@home", "'quoted", "'-y", 'a "b", c;d', NFC, NFD, "-1"]


def new_store(folder: Path) -> LabelStore:
    return LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, `run`, with names of all kinds, corrections, an undoing, and a pending query."""
    store = new_store(tmp_path / "run")
    store.add_classes(CLASSES)
    store.add_round(INITIAL, "initial", 0, [Query(key) for key in KEYS], None)
    store.add_round(0, "Entropy", 0, [Query(f"{number}.png") for number in range(4)], None)
    when = [datetime(2026, 1, 2, 3, 4, 5, number) for number in range(100)]
    given = [
        Answer(
            key, CLASSES[place % len(CLASSES)], "=me" if place % 2 else "", answered_at=when[place], milliseconds=place
        )
        for place, key in enumerate(KEYS)
    ]
    store.record(given)
    store.record([Answer("a.png", "-x", "you, too", answered_at=when[50])])
    store.record([Answer("0.png", None, "me", "skip", answered_at=when[51])])
    store.record([Answer("1.png", None, "me", "unsure", answered_at=when[52])])
    store.record([Answer("2.png", "cat", "her", answered_at=when[53])])
    assert store.undo("her") == "2.png"
    store.record([Answer("a.png", "cat", "me", answered_at=when[54])], audit=True)
    return tmp_path / "run"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def holds(store: LabelStore) -> list[tuple[object, ...]]:
    return [
        (event.key, event.label, event.annotator, event.answered_at, event.kind)
        for event in store.history()
        if event.holds
    ]


def test_export_writes_what_holds(run: Path, command: Command) -> None:
    status, out = command("labels", "export", run)
    assert status == 0
    found = rows(out)
    assert list(found[0]) == ["path", "class", "annotator", "time", "kind"]
    by_path = {row["path"]: row for row in found}
    assert len(found) == len(by_path) == len(KEYS) + 2
    assert by_path["a.png"] == {
        "path": "a.png", "class": "'-x", "kind": "class", "annotator": "you, too",
        "time": "2026-01-02T03:04:05.000050Z",
    }  # fmt: skip
    assert (by_path["0.png"]["class"], by_path["0.png"]["kind"]) == ("", "skip")
    assert by_path["1.png"]["kind"] == "unsure"
    assert by_path["'=1+1.png"]["annotator"] == "'=me"
    for row in found:
        for cell in row.values():
            assert cell[:1] not in set("=+@\t\r")
            assert not cell.startswith("-") or cell in ("-5", "-1")


def test_round_trip_is_exact(run: Path, command: Command, tmp_path: Path) -> None:
    before = holds(LabelStore(f"sqlite:///{run / 'labels.sqlite'}"))
    assert command("labels", "export", run, "--output", "o.csv") == (0, f"wrote {len(before)} rows to o.csv\n")
    other = new_store(tmp_path / "other")
    status, out = command("labels", "import", "other", "o.csv")
    assert status == 0, out
    assert f"answers added: {len(before)}, {len(before)} of them to samples that were never asked for" in out
    assert before == holds(other)
    assert {query.round for query in other.queries()} == {INITIAL}
    assert {event.source for event in other.history()} == {"import"}
    assert command("labels", "export", "other", "--output", "p.csv")[0] == 0
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()
    lines = len(other.history())
    for _ in range(2):
        status, out = command("labels", "import", "other", "o.csv")
        assert "answers added: 0, 0 of them" in out
        assert f"there already: {len(before)}" in out
    assert len(other.history()) == lines


def test_standard_output_is_the_file(run: Path, command: Command, tmp_path: Path) -> None:
    assert command("labels", "export", run, "--output", "o.csv")[0] == 0
    line = [sys.executable, "-m", "ssl_lightning", "labels", "export", str(run)]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, env=plain, check=True)
    assert done.stdout == (tmp_path / "o.csv").read_bytes()


def test_history_tells_every_line(run: Path, command: Command) -> None:
    status, out = command("labels", "history", run)
    assert status == 0
    found = rows(out)
    assert list(found[0]) == [
        "id", "path", "round", "kind", "class", "annotator", "time", "milliseconds", "source", "holds",
    ]  # fmt: skip
    assert [int(row["id"]) for row in found] == sorted(int(row["id"]) for row in found)
    assert len(found) == len(KEYS) + 6
    of_a = [row for row in found if row["path"] == "a.png"]
    assert [(row["kind"], row["class"], row["holds"]) for row in of_a] == [
        ("class", "cat", "false"), ("class", "'-x", "true"), ("audit", "cat", "false"),
    ]  # fmt: skip
    assert of_a[0]["milliseconds"] == "0"
    assert of_a[1]["milliseconds"] == ""
    assert [(row["kind"], row["holds"], row["round"]) for row in found if row["path"] == "2.png"] == [
        ("class", "false", "0"), ("undo", "false", "0"),
    ]  # fmt: skip
    assert {row["path"] for row in found if row["holds"] == "true"} == {
        row["path"] for row in rows(command("labels", "export", run)[1])
    }


def test_import_answers_what_was_asked_and_joins_what_was_not(run: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffFile;Label\r\n3.png;cat\r\nnew.png;great tit\r\n2.png;\r\na.png;-x\r\n\r\n")
    status, out = command("labels", "import", run, "t.csv")
    assert status == 0, out
    assert (
        "answers added: 2, 1 of them to samples that were never asked for, which join the initial ones; there " in out
    )
    assert "there already: 1; rows without a class: 1\n" in out
    store = new_store(run)
    asked = {query.key: query for query in store.queries()}
    assert (asked["3.png"].label, asked["3.png"].round) == ("cat", 0)
    assert (asked["new.png"].label, asked["new.png"].round) == ("great tit", INITIAL)
    assert asked["2.png"].kind is None
    assert {(event.annotator, event.source) for event in store.history()[-2:]} == {("import", "import")}
    status, out = command("labels", "import", run, "t.csv", "--annotator", "Ann")  # what she says is her own
    assert "answers added: 3, 0 of them" in out
    assert {(event.annotator, event.source) for event in store.history()[-3:]} == {("Ann", "import")}
    assert "answers added: 0, 0 of them" in command("labels", "import", run, "t.csv", "--annotator", "Ann")[1]


def test_an_older_table_does_not_undo_a_correction(run: Path, command: Command, tmp_path: Path) -> None:
    """Its answer is in the history, though it holds no more; the same answer of another time or person is a new one."""
    first = "path,class,annotator,time\na.png,cat,,2026-01-02T03:04:05.000000Z\n"
    (tmp_path / "t.csv").write_text(first)
    assert "answers added: 0" in command("labels", "import", run, "t.csv")[1]
    for change in (("Z", "+01:00"), ("cat,", "cat,you"), ("000000Z", "000001Z")):
        before = len(new_store(run).history())
        (tmp_path / "t.csv").write_text(first.replace(*change))
        assert "answers added: 1" in command("labels", "import", run, "t.csv")[1]
        assert len(new_store(run).history()) == before + 1


def test_times_are_told_in_utc(tmp_path: Path, command: Command) -> None:
    store = new_store(tmp_path / "r")
    told = {
        "2026-01-02T03:04:05.000006Z": datetime(2026, 1, 2, 3, 4, 5, 6),
        "2026-01-02T03:04:05+02:00": datetime(2026, 1, 2, 1, 4, 5),
        "2026-01-02 03:04": datetime(2026, 1, 2, 3, 4),
        "2026-01-02": datetime(2026, 1, 2),
        "0999-12-31T23:59:59.999999Z": datetime(999, 12, 31, 23, 59, 59, 999999),
    }
    text = "path,class,time\n" + "".join(f"{place},x,{time}\n" for place, time in enumerate(told))
    (tmp_path / "t.csv").write_text(text)
    assert command("labels", "import", "r", "t.csv")[0] == 0
    assert [event.answered_at for event in store.history()] == list(told.values())
    times = [row["time"] for row in rows(command("labels", "export", "r")[1])]
    assert times[0] == "2026-01-02T03:04:05.000006Z"
    assert times[-1] == "0999-12-31T23:59:59.999999Z"


def test_new_classes_are_taken_when_asked_or_first(run: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('path,class\n3.png,cat\nx.png,dog\ny.png,"great tits"\n')
    before = new_store(run).history()
    status, out = command("labels", "import", run, "t.csv")
    assert status == 2
    assert "`table=t.csv`, line 3: `class=dog` is no class of this run" in out
    assert "Mend it, or add `--new_classes`. Nothing was changed." in out
    assert new_store(run).history() == before
    (tmp_path / "u.csv").write_text("path,class\ny.png,great tits\n")
    assert "(did you mean `great tit`?)" in command("labels", "import", run, "u.csv")[1]
    assert command("labels", "import", run, "t.csv", "--new_classes")[0] == 0
    assert new_store(run).class_names()[-2:] == ["dog", "great tits"]
    new_store(tmp_path / "empty")
    assert command("labels", "import", "empty", "t.csv")[0] == 0
    assert new_store(tmp_path / "empty").class_names() == ["cat", "dog", "great tits"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",cat,,,", "it has no path; give the sample's, or remove the line"),
        ("x.png,,,,class", "`kind=class` and `class=` do not go together"),
        ("x.png,cat,,,skip", "`kind=skip` and `class=cat` do not go together; give a class for `class`"),
        ("x.png,cat,,,perhaps", "`kind=perhaps` and `class=cat` do not go together"),
        ("x.png, cat,,,", "`label=' cat'` cannot be the name of a class: it must be 1 to 1000 printable characters"),
        ('x.png,"two\nlines",,,', "cannot be the name of a class"),
        (
            "x.png,cat,,yesterday,",
            "`time=yesterday` is no time by ISO 8601, as 2026-01-31T12:00:00Z; mend it, or leave",
        ),
        ("x.png,cat,,0001-01-01T00:00:00+10:00,", "`time=0001-01-01T00:00:00+10:00` is no time"),
        ("x.png,cat", "2 cells under 5 columns"),
        ("x.png,cat,,,,,more", "7 cells under 5 columns"),
        ("good.png,great tit,,,", "`path=good.png` is said to be `great tit`, and `cat` in line 2; leave one of them"),
        ("good.png,,,,skip", "`path=good.png` is said to be `skip`, and `cat` in line 2"),
        ("x" * 5000 + ",cat,,,", "its path has more than 4096 characters"),
        (f"x.png,cat,{'n' * 300},,", "its annotator has more than 255 characters"),
        ('x.png,"cat,,,', "no CSV (unexpected end of data)"),
    ],
)
def test_one_bad_line_is_named_and_nothing_changed(
    line: str, message: str, run: Path, command: Command, tmp_path: Path
) -> None:
    before = new_store(run).history(), new_store(run).queries()
    (tmp_path / "t.csv").write_text(f"path,class,annotator,time,kind\ngood.png,cat,,,\n{line}\nlast.png,cat,,,\n")
    status, out = command("labels", "import", run, "t.csv")
    assert status == 2
    assert "error: `table=t.csv`, line 3: " in out
    assert message in out
    assert len(out.splitlines()) == 1
    assert (new_store(run).history(), new_store(run).queries()) == before


def test_a_finished_run_takes_none(run: Path, command: Command, tmp_path: Path) -> None:
    new_store(run).finish()
    (tmp_path / "t.csv").write_text("path,class\n3.png,cat\n")
    status, out = command("labels", "import", run, "t.csv")
    assert status == 2
    assert "is finished, and its labels are those its model was trained on" in out
    assert command("labels", "export", run)[0] == 0


def test_a_sample_that_has_changed_is_told_by_its_last_content(tmp_path: Path, command: Command) -> None:
    store = new_store(tmp_path / "r")
    store.add_round(0, "A", 0, [Query("a", "old", fingerprint="1"), Query("b", "kept", fingerprint="1")], "me")
    store.add_round(1, "A", 0, [Query("a", fingerprint="2")], None)
    status, out = command("labels", "export", "r")
    assert status == 0
    assert "left out 1 answers to contents that their files no longer have" in out
    assert [line.split(",")[0] for line in out.splitlines()[:2]] == ["path", "b"]
    store.answer("a", "old", "me")
    assert [row["path"] for row in rows(command("labels", "export", "r")[1]) if row["kind"]] == ["b", "a"]


@pytest.mark.parametrize("action", [["export"], ["history"], ["import", "t.csv"]], ids=lambda action: str(action[0]))
def test_no_store_is_made_where_there_is_none(action: list[str], tmp_path: Path, command: Command) -> None:
    (tmp_path / "t.csv").write_text("path,class\na,b\n")
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        status, out = command("labels", action[0], folder, *action[1:])
        assert status == 2
        assert f"`run={folder}` holds no labels.sqlite (" in out
        assert "give the folder of a run of `ssl-lightning active`, and `--store URL` where the run had one" in out
    status, out = command("labels", action[0], "empty", *action[1:], "--store", "sqlite:///no/where.sqlite")
    assert status == 2
    assert "`store=sqlite:///no/where.sqlite`: there is no file no/where.sqlite" in out
    status, out = command("labels", action[0], "empty", *action[1:], "--store", "nonsense")
    assert status == 2
    assert "`store=nonsense` is no URL" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "t.csv"]
    assert not list((tmp_path / "empty").iterdir())


def test_a_store_of_its_own_address(run: Path, command: Command, tmp_path: Path) -> None:
    (run / "labels.sqlite").rename(tmp_path / "mine.db")
    status, out = command("labels", "export", run, "--store", f"sqlite:///{tmp_path / 'mine.db'}")
    assert status == 0
    assert len(rows(out)) == len(KEYS) + 2


def test_the_output_is_a_table(run: Path, command: Command) -> None:
    before = (run / "labels.sqlite").read_bytes()
    status, out = command("labels", "export", run, "--output", run / "labels.sqlite")
    assert status == 2
    assert "must end in .csv, for it becomes a table" in out
    assert (run / "labels.sqlite").read_bytes() == before


def test_what_is_exported_labels_a_folder_of_images(command: Command, tmp_path: Path) -> None:
    from PIL import Image

    from ssl_lightning.data import ImageFolder

    store = new_store(tmp_path / "r")
    told = {"=1.png": "-x", "sub/a.png": "=y", "'-b.png": "-x", "c.png": None}
    for key, label in told.items():
        (tmp_path / "pictures" / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "pictures" / key)
        store.record([Answer(key, label, "me", "class" if label else "skip", new_class=True)], asks=True)
    assert command("labels", "export", "r", "--output", "pictures/labels.csv")[0] == 0
    found = ImageFolder(str(tmp_path / "pictures")).found
    assert {file.key: file.class_name for file in found.files} == told


def obey_permissions() -> None:
    """Let root obey them, too, as everybody does: without the right to override them, from the next program on."""
    if os.geteuid() == 0:
        drop, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
        ctypes.CDLL(None).prctl(drop, override, 0, 0, 0)


def test_a_run_that_cannot_be_written_is_read(run: Path, command: Command, tmp_path: Path) -> None:
    expected = {action: command("labels", action, run)[1] for action in ("export", "history")}
    (tmp_path / "t.csv").write_text("path,class\n3.png,cat\n")
    (run / "labels.sqlite").chmod(0o444)
    run.chmod(0o555)

    def alone(*line: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([sys.executable, *line], capture_output=True, preexec_fn=obey_permissions, cwd=ROOT)

    try:
        if b"PermissionError" not in alone("-c", f"open({str(run / 'x')!r}, 'w')").stderr:
            pytest.skip("permissions bind nobody here")
        for action, text in expected.items():
            done = alone("-m", "ssl_lightning", "labels", action, str(run))
            assert done.returncode == 0, done.stderr
            assert done.stdout.decode() == text
        done = alone("-m", "ssl_lightning", "labels", "import", str(run), str(tmp_path / "t.csv"))
        assert done.returncode == 2
        assert b"cannot be written: attempt to write a readonly database" in done.stderr
        assert [path.name for path in run.iterdir()] == ["labels.sqlite"]
    finally:
        run.chmod(0o755)


def test_torch_is_not_imported(run: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,class\n3.png,cat\n")
    code = (
        "import json, sys\nfrom ssl_lightning.__main__ import main\n"
        f"status = [main(['labels', *line]) for line in (['export', {str(run)!r}], ['history', {str(run)!r}],"
        f" ['import', {str(run)!r}, {str(tmp_path / 't.csv')!r}])]\n"
        "print(json.dumps([status, [name for name in ('torch', 'lightning', 'pandas') if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 0, 0], []]


def test_each_line_of_help_makes_sense_alone() -> None:
    """Those of each action, too; the lead word is no fragment."""
    (actions,) = [found for found in labels.parser()._actions if isinstance(found, argparse._SubParsersAction)]
    assert set(actions.choices) >= {"export", "import", "history"}
    for parser in actions.choices.values():
        helps = [action.help or "" for action in parser._actions]
        assert len(helps) > 2
        assert all(text.split()[:1] not in ([], ["of"], ["that"], ["for"], ["as"]) for text in helps)


@pytest.mark.parametrize("arguments", [[], ["exports", "run"], ["export"], ["export", "run", "--out", "x.csv"]])
def test_mistakes_in_the_options(arguments: list[str], command: Command) -> None:
    status, out = command("labels", *arguments)
    assert status == 2
    assert "Traceback" not in out


def test_second_opinions_go_out_and_come_back(tmp_path: Path, command: Command) -> None:
    """They change no label, and say how far two people agree."""
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")
    store.add_classes(["cat", "dog"])
    store.add_round(-1, "initial", 0, [Query(f"{n}.png") for n in range(8)], None)
    for n in range(8):
        store.answer(f"{n}.png", ("cat", "dog")[n % 2], "anna")
    table = tmp_path / "again.csv"
    status, out = command("labels", "audit", tmp_path, "--share", "1", "--annotator", "bob", "--export", table)
    assert (status, "wrote 8 samples" in out) == (0, True)
    text = table.read_text()
    assert "cat" not in text  # or it would be no second opinion
    assert "dog" not in text
    rows = [line.split(",") for line in text.splitlines()]
    for row in rows[1:]:
        row[1] = "dog" if row[0] == "0.png" else ("cat", "dog")[int(row[0][0]) % 2]
    table.write_text("\n".join(map(",".join, rows)))
    before = store.queries()
    status, out = command("labels", "audit", tmp_path, "--annotator", "bob", "--import", table)
    assert (status, "8 second opinions were added" in out) == (0, True)
    assert store.queries() == before
    status, out = command("labels", "audit", tmp_path)
    assert "anna" in out
    assert "bob" in out
    assert "0.75" in out  # kappa by hand: 7 of 8 agree, 1/2 by chance
    assert command("labels", "audit", tmp_path, "--import", table)[0] == 2  # who?


def test_paths_that_are_no_files_of_the_runs_folder_are_refused(run: Path, command: Command, tmp_path: Path) -> None:
    """Unless the samples were asked for: those are the run's, whatever became of their files."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "there.png").touch()
    told = {"data": {"class_path": "ssl_lightning.data.ImageFolder", "init_args": {"root": str(tmp_path / "pictures")}}}
    (run / "config.yaml").write_text(json.dumps(told))
    before = len(new_store(run).history())
    (tmp_path / "t.csv").write_text("path,class\nthere.png,cat\npictures/there.png,cat\nnosuch.png,cat\n3.png,cat\n")
    status, out = command("labels", "import", run, "t.csv")
    assert status == 2
    assert "`path=pictures/there.png` and 1 others are no file of" in out
    assert len(new_store(run).history()) == before
    (tmp_path / "t.csv").write_text("path,class\nthere.png,cat\n3.png,cat\n")
    status, out = command("labels", "import", run, "t.csv")
    assert status == 0, out
    assert "answers added: 2" in out
