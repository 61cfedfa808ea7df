"""The label store on a real PostgreSQL server, where one is named: see docs/people.md for how to start one.

SSL_LIGHTNING_POSTGRES=postgresql+psycopg://labels@127.0.0.1/labels pytest tests/labelling/test_postgres.py
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy

from ssl_lightning.labelling import INITIAL, Answer, LabelStore, Query
from ssl_lightning.labelling.tables import METADATA

URL = os.environ.get("SSL_LIGHTNING_POSTGRES", "")
pytestmark = pytest.mark.skipif(not URL, reason="SSL_LIGHTNING_POSTGRES names no server")


@pytest.fixture
def url() -> Iterator[str]:
    engine = sqlalchemy.create_engine(URL)
    METADATA.drop_all(engine)
    yield URL
    METADATA.drop_all(engine)
    engine.dispose()


def test_round_trip_corrections_and_undo(url: str) -> None:
    store = LabelStore(url)
    queries = [Query("a.png", score=0.5, guess="cat", confidence=0.25, neighbours=(("b", "", "dog"),)), Query("b.png")]
    store.add_classes(["cat", "dog"])
    store.add_round(INITIAL, "initial", 1, queries, None, state={"place": 3}, settings={"strategy": "Entropy"})
    upto = store.begin(0)
    store.answer("a.png", "cat", "anna")
    store.answer("a.png", "dog", "anna")
    other = LabelStore(url)
    assert [(q.key, q.label, q.guess, q.neighbours) for q in other.queries()] == [
        ("a.png", "dog", "cat", (("b", "", "dog"),)),
        ("b.png", None, None, ()),
    ]
    assert other.undo("anna") == "a.png"
    assert [q.label for q in store.queries()] == ["cat", None]
    assert [q.label for q in store.queries(upto)] == [None, None]
    assert [event.kind for event in store.history()] == ["class", "class", "undo"]
    assert store.settings() == {"strategy": "Entropy"}
    assert store.rounds()[INITIAL].state == {"place": 3}
    with pytest.raises(ValueError, match=r"(?s)cannot be written: .*unique.*somebody else has asked"):
        store.add_round(0, "Entropy", 0, [Query("c.png"), Query("a.png")], None)
    assert len(store.queries()) == 2


def test_many_people_get_different_samples_and_lose_nothing(url: str) -> None:
    LabelStore(url).add_classes(["cat"])
    LabelStore(url).add_round(INITIAL, "initial", 1, [Query(f"{n}.png") for n in range(200)], None)
    barrier = Barrier(8)

    def work(number: int) -> list[str]:
        store, done = LabelStore(url), list[str]()
        barrier.wait()
        while found := store.claim(f"person {number}", 3):
            store.record([Answer(query.key, "cat", f"person {number}") for query in found])
            done += [query.key for query in found]
        return done

    with ThreadPoolExecutor(8) as pool:
        done = [key for part in pool.map(work, range(8)) for key in part]
    assert sorted(done) == sorted(f"{n}.png" for n in range(200))
    ids = [event.id for event in LabelStore(url).history()]
    assert len(ids) == 200


def test_eight_open_an_empty_database_at_once(url: str) -> None:
    barrier = Barrier(8)

    def look(_: int) -> int:
        barrier.wait()
        return len(LabelStore(url).queries())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, range(8))) == [0] * 8
