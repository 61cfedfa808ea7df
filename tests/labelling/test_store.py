import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy

from ssl_lightning.labelling import INITIAL, Answer, LabelStore, Query


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    store = LabelStore(f"sqlite:///{tmp_path / 'deep' / 'labels.sqlite'}")
    store.add_round(INITIAL, "initial", 5, [Query("7", "3"), Query("2", "1")], "me")
    return store


def test_round_trip_keeps_order_and_scores(store: LabelStore) -> None:
    store.add_round(0, "Entropy", 9, [Query("5", "0", 0.7), Query("1", None, 0.5)], "me")
    initial = [Query("7", "3", None, -1, 0), Query("2", "1", None, -1, 1)]
    expected = [query[:6] for query in (*initial, Query("5", "0", 0.7, 0, 0), Query("1", None, 0.5, 0, 1))]
    for one in (store, LabelStore(store.url)):
        assert [query[:6] for query in one.queries()] == expected
        assert [query.kind for query in one.queries()] == ["class", "class", "class", None]


def test_a_sample_is_asked_once_and_a_refused_round_leaves_nothing(store: LabelStore) -> None:
    before = store.queries()
    with pytest.raises(ValueError, match=r"cannot be written: .*UNIQUE.*What was committed before is safe"):
        store.add_round(0, "Entropy", 0, [Query("100", "1"), Query("7", "3")], "me")
    assert store.queries() == before
    assert list(store.rounds()) == [INITIAL]


def test_a_second_run_in_the_same_folder_is_told_of_the_first(store: LabelStore) -> None:
    """As soon as both ask: whether they choose the same samples or others."""
    store.add_round(0, "Entropy", 0, [Query("5", "1")], "me")
    before = store.queries()
    for key in ("5", "6"):
        with pytest.raises(ValueError, match=r"somebody else has asked meanwhile, as a second run .* Let one of them"):
            store.add_round(0, "Entropy", 0, [Query(key, "1")], "me")
    with pytest.raises(ValueError, match="somebody else has asked meanwhile"):
        store.add_round(1, "Entropy", 0, [Query("5", "1")], "me")
    assert store.queries() == before


def test_settings_are_noted_with_the_query_or_not_at_all(store: LabelStore) -> None:
    with pytest.raises(ValueError, match="UNIQUE"):
        store.add_round(0, "Entropy", 0, [Query("7", "3")], "me", settings={"strategy": "Entropy"})
    assert store.settings() == {}
    store.add_round(0, "Entropy", 0, [Query("8", "3")], "me", settings={"strategy": "Entropy"})
    assert store.settings() == {"strategy": "Entropy"}


def test_a_name_that_is_not_utf_8(store: LabelStore) -> None:
    with pytest.raises(ValueError, match=r"`key='\\udcff00.png'` is not UTF-8, .*; rename the file or class"):
        store.add_round(0, "Entropy", 0, [Query("\udcff00.png", "3")], "me")
    with pytest.raises(ValueError, match=r"`label='\\udcff'` is not UTF-8"):
        store.answer("7", "\udcff", "me")
    assert list(store.rounds()) == [INITIAL]


def test_full_disk_loses_nothing(store: LabelStore) -> None:
    """SQLite says "database or disk is full" when it may not grow."""
    before = store.queries()

    def no_room(connection: object, _: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # type: ignore[attr-defined]

    sqlalchemy.event.listen(store.database.engine, "connect", no_room)
    store.database.engine.dispose()
    many = [Query(str(index), "1") for index in range(1000, 9000)]
    with pytest.raises(ValueError, match=r"cannot be written: database or disk is full.*give the same command again"):
        store.add_round(0, "Entropy", 0, many, "me")
    assert LabelStore(store.url).queries() == before


def test_metrics_of_a_round_that_asked_and_of_one_that_did_not(store: LabelStore) -> None:
    store.add_round(0, "Entropy", 0, [Query("5", "0")], "me", {"place": 3})
    store.add_metrics(0, {"accuracy": 0.5})
    store.add_metrics(1, {"accuracy": 0.6})
    assert {number: tuple(record)[:3] for number, record in store.rounds().items()} == {
        -1: ("initial", None, None),
        0: ("Entropy", {"accuracy": 0.5}, {"place": 3}),
        1: ("", {"accuracy": 0.6}, None),
    }
    store.add_round(1, "Entropy", 0, [Query("6", "0")], "me")  # the run was prolonged
    assert tuple(store.rounds()[1])[:3] == ("Entropy", {"accuracy": 0.6}, None)


def test_answers(store: LabelStore) -> None:
    store.add_round(0, "Entropy", 0, [Query("5", None)], None)
    store.answer("5", "3", "me")
    assert store.queries()[-1].label == "3"
    with pytest.raises(ValueError, match="`key=99` was never asked for"):
        store.answer("99", "1", "me")


def test_settings_must_not_change(store: LabelStore) -> None:
    store.require_settings({"strategy": "BALD"})  # nothing is settled before a model is trained
    store.pin({"strategy": "Entropy", "query_size": 10, "model": {"class_path": "A", "init_args": {"width": 3}}})
    store.require_settings({"strategy": "Entropy", "query_size": 10})
    with pytest.raises(ValueError, match=r"`model.init_args.width=4` differs from .*=3` of the run"):
        store.require_settings({"model": {"class_path": "A", "init_args": {"width": 4}}})
    with pytest.raises(
        ValueError, match=r"`strategy=BALD` differs from `strategy=Entropy` of the run .* another `folder`"
    ):
        store.require_settings({"strategy": "BALD", "query_size": 10})


@pytest.mark.parametrize(
    "url",
    ["nonsense", "sqlite:////proc/nowhere/labels.sqlite", "nodialect://host/base"],
    ids=["no URL", "no rights", "no driver"],
)
def test_unusable_url_is_named(url: str) -> None:
    with pytest.raises(
        ValueError, match=f"`store={url}`: the label store cannot be opened: .*; give the URL"
    ) as refused:
        LabelStore(url)
    assert "What was committed" not in str(refused.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "labels.sqlite").write_text("this is text, and long enough to be taken for a header of a database file")
    with pytest.raises(ValueError, match="cannot be opened: file is not a database"):
        LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")


def test_many_open_a_new_store_at_once(tmp_path: Path) -> None:
    """As a run and the page that shows it: none may trip over the tables that another one has just made."""
    barrier = Barrier(8)

    def look(url: str) -> list[Query]:
        barrier.wait()
        return LabelStore(url).queries()

    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            assert list(pool.map(look, [f"sqlite:///{tmp_path / f'{number}.sqlite'}"] * 8)) == [[]] * 8


HALF = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")  # pages are written before the commit
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE queries SET key = key || 'x', fingerprint = hex(randomblob(60))")
connection.execute("UPDATE answers SET label = 'wrong' || hex(randomblob(200))")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("tear", [0, 100, 4096 + 700], ids=["whole", "torn last page", "two pages"])
def test_a_process_killed_in_the_middle_of_writing_changes_nothing(tmp_path: Path, tear: int) -> None:
    """The file holds half of its work, and its last page only in part; the journal undoes all of it."""
    path = tmp_path / "labels.sqlite"
    store = LabelStore(f"sqlite:///{path}")
    store.add_round(INITIAL, "initial", 0, [Query(f"{n}.png", "cat") for n in range(400)], "me")
    before, size = store.history(), path.stat().st_size
    store.database.engine.dispose()
    subprocess.run([sys.executable, "-c", HALF, str(path)])
    assert path.with_name("labels.sqlite-journal").stat().st_size > 0
    assert b"wrong" in path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(max(size, path.stat().st_size) - tear)
    barrier = Barrier(4)

    def look(_: int) -> object:
        barrier.wait()
        return LabelStore(store.url).history()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, range(4))) == [before] * 4
    assert path.stat().st_size == size


def test_a_disturbed_begin_is_tried_again(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()
    real = sqlalchemy.engine.Connection.exec_driver_sql

    def disturbed(self: object, statement: str, *rest: object) -> object:
        tried.append(statement)
        if len(tried) in (1, 2):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_READ"
            raise sqlalchemy.exc.OperationalError(statement, None, error)
        return real(self, statement, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlalchemy.engine.Connection, "exec_driver_sql", disturbed)
    store.answer("7", "1", "me")
    assert tried[:3] == ["BEGIN IMMEDIATE"] * 3
    monkeypatch.undo()
    assert store.queries()[0].label == "1"


def test_a_store_of_a_newer_version_is_left_alone(store: LabelStore) -> None:
    path = Path(store.url.removeprefix("sqlite:///"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE marks SET value = '3' WHERE name = 'version'")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"is of version 3, made by a newer ssl-lightning; this one reads up to 2"):
        LabelStore(store.url)
    assert path.read_bytes() == before


def test_a_store_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """As yesterday's code made it, its two runs at once, and nothing is lost."""
    path = tmp_path / "labels.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE settings (key VARCHAR(64) NOT NULL, value JSON NOT NULL, PRIMARY KEY (key));
            CREATE TABLE rounds (number INTEGER NOT NULL, strategy VARCHAR(255) NOT NULL, seed INTEGER NOT NULL,
                asked_at DATETIME NOT NULL, metrics JSON, state JSON, PRIMARY KEY (number));
            CREATE TABLE labels (id INTEGER NOT NULL, key VARCHAR(4096) NOT NULL, fingerprint VARCHAR(128) NOT NULL,
                round INTEGER NOT NULL, position INTEGER NOT NULL, label VARCHAR(1024), score FLOAT,
                annotator VARCHAR(255), answered_at DATETIME, PRIMARY KEY (id), UNIQUE (key, fingerprint),
                FOREIGN KEY(round) REFERENCES rounds (number));
            INSERT INTO settings VALUES ('strategy', '"Entropy"');
            INSERT INTO rounds VALUES (-1, 'initial', 5, '2026-01-02 03:04:05.000006', NULL, NULL);
            INSERT INTO rounds VALUES (0, 'Entropy', 6, '2026-01-02 03:04:05.000006', '{"round": 0}', '{"a": 1}');
            INSERT INTO labels VALUES (1, 'b.png', 'f', -1, 0, 'dog', NULL, 'me', '2026-01-02 03:04:06.000007');
            INSERT INTO labels VALUES (2, 'a.png', '', -1, 1, 'cat', NULL, 'me', '2026-01-02 03:04:06.000008');
            INSERT INTO labels VALUES (3, 'c.png', '', 0, 0, NULL, 0.5, NULL, NULL);
        """)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: LabelStore(f"sqlite:///{path}"), range(4)))
    for store in stores:
        assert [query[:6] for query in store.queries()] == [
            ("b.png", "dog", None, -1, 0, "f"), ("a.png", "cat", None, -1, 1, ""), ("c.png", None, 0.5, 0, 0, ""),
        ]  # fmt: skip
        assert store.class_names() == ["dog", "cat"]
        assert store.settings() == {"strategy": "Entropy"}
        assert tuple(store.rounds()[0])[:3] == ("Entropy", {"round": 0}, {"a": 1})
        assert str(store.history()[0].answered_at) == "2026-01-02 03:04:06.000007"
    stores[0].answer("c.png", "cat", "you")
    assert stores[1].counts()["class"] == 3


def test_history_undo_and_what_held_then(store: LabelStore) -> None:
    """Every answer is kept; an undone one gives way to the one before it; what held at any time can be told."""
    store.add_round(0, "Entropy", 0, [Query("5"), Query("6")], None)
    upto = [store.begin(0)]
    steps = [
        lambda: store.answer("5", "3", "anna"), lambda: store.answer("5", "1", "bert"),
        lambda: store.record([Answer("6", None, "anna", "skip")]), lambda: store.undo("bert"),
        lambda: store.undo("anna"), lambda: store.undo("anna"), lambda: store.undo("anna"),
    ]  # fmt: skip
    held = []
    for step in steps:
        step()
        upto.append(max(event.id for event in store.history()))
        held.append([(query.label, query.kind) for query in store.queries() if query.round == 0])
    nothing = (None, None)
    assert held == [
        [("3", "class"), nothing], [("1", "class"), nothing], [("1", "class"), (None, "skip")],
        [("3", "class"), (None, "skip")], [("3", "class"), nothing], [nothing, nothing], [nothing, nothing],
    ]  # fmt: skip
    for number, then in zip(upto[1:], held, strict=True):
        assert [(query.label, query.kind) for query in store.queries(number) if query.round == 0] == then
    kinds = [event.kind for event in store.history()]
    assert kinds == ["class"] * 4 + ["skip", "undo", "undo", "undo"]  # the last had nothing to undo
    assert store.undo("nobody") is None


def test_second_opinions_change_nothing(store: LabelStore) -> None:
    before = store.queries()
    store.record([Answer("7", "1", "bert")], audit=True)
    assert store.queries() == before == store.queries(store.begin(0))
    assert store.history()[-1].kind == "audit"


def test_bad_answers_change_nothing(store: LabelStore) -> None:
    before = store.history(), store.class_names()
    bad = {
        "`label=33` of `key=7` is no class of this run": Answer("7", "33", "me"),
        "`key=99` was never asked for": Answer("99", "3", "me"),
        "has `kind=skip` and `label=3`": Answer("7", "3", "me", "skip"),
        "has `kind=class` and `label=None`": Answer("7", None, "me"),
        "has `kind=perhaps`": Answer("7", None, "me", "perhaps"),  # type: ignore[arg-type]
        "cannot be the name of a class": Answer("7", " cat\n", "me", new_class=True),
        "is not UTF-8": Answer("7", "3", "\udcff"),
    }
    for message, answer in bad.items():
        with pytest.raises(ValueError, match=message):
            store.record([Answer("2", "3", "me"), answer])
    assert (store.history(), store.class_names()) == before


def test_leases(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets what another one holds, until it is over, or the clock goes back."""
    store.add_round(0, "Entropy", 0, [Query(f"{n}.png") for n in range(6)], None)
    now = 1000.0
    monkeypatch.setattr("ssl_lightning.labelling.store.time.time", lambda: now)

    def keys(holder: str, count: int) -> list[str]:
        return [query.key for query in store.claim(holder, count, 60)]

    assert keys("anna", 2) == ["0.png", "1.png"]
    assert keys("bert", 3) == ["2.png", "3.png", "4.png"]
    assert keys("anna", 2) == ["0.png", "1.png"]  # loaded anew
    store.answer("0.png", "3", "anna")
    assert keys("anna", 3) == ["1.png", "5.png"]
    assert keys("carl", 2) == []
    now = 1061.0
    assert keys("carl", 2) == ["1.png", "2.png"]
    now = -300_000.0  # a clock that was set right
    assert keys("dora", 1) == ["1.png"]
    store.release("dora")
    assert keys("emil", 1) == ["1.png"]


def test_leases_of_many_at_once(store: LabelStore) -> None:
    store.add_round(0, "Entropy", 0, [Query(f"{n}.png") for n in range(60)], None)

    def take(number: int) -> list[int]:
        return [query.id for query in LabelStore(store.url).claim(str(number), 10)]

    with ThreadPoolExecutor(8) as pool:
        found = [number for part in pool.map(take, range(8)) for number in part]
    assert len(found) == len(set(found)) == 60


def test_no_message_tells_a_password() -> None:
    with pytest.raises(ValueError, match="cannot be opened") as refused:
        LabelStore("postgresql+psycopg://me:s3cret@127.0.0.1:9/labels")
    assert "s3cret" not in str(refused.value)
    assert "me:***@127.0.0.1" in str(refused.value)
