from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy

from ssl_lightning.labelling import INITIAL, LabelStore, Query


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

    sqlalchemy.event.listen(store._database.engine, "connect", no_room)
    store._database.engine.dispose()
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
