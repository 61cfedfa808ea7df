"""The labelling page as its requests see it: who gets in, what is refused, and that no answer is lost or done twice."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from page_run import CLASSES, HOSTILE, ask, names, new_run, page_of, png, url_of, wav

from ssl_lightning.__main__ import main
from ssl_lightning.labelling.page.desk import Desk
from ssl_lightning.labelling.page.guard import LIMIT, address
from ssl_lightning.labelling.page.server import STATIC, listen, make_app
from ssl_lightning.labelling.records import INITIAL, Query
from ssl_lightning.labelling.shown import keep_sight, place_of
from ssl_lightning.labelling.store import LabelStore

TOKEN = "a-secret-of-the-test"
TAB, OTHER = "tab-number-1", "tab-number-2"


class Person:
    """Somebody at a browser: with the secret, from the page itself."""

    def __init__(self, url: str, run: str, name: str = "Ann", tab: str = TAB) -> None:
        self.http = httpx.Client(base_url=url, cookies={"secret": TOKEN}, headers={"Origin": url}, timeout=60)
        self.run, self.name, self.tab = run, name, tab

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.http.post(path, json={"run": self.run, "session": self.tab, "annotator": self.name, **fields})

    def take(self, count: int = 5) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.post("/api/take", count=count).json()["items"]
        return items

    def answer(self, item: dict[str, Any], label: str | None = "cat", **fields: Any) -> Any:
        sent = {"query": item["id"], "key": item["key"], "kind": "class" if label else "skip", "label": label, **fields}
        answer = self.post("/api/answer", answers=[sent])
        assert answer.status_code == 200, answer.text
        return answer.json()


class Site:
    """A run and its page, served in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, new_run(folder)
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        desk = Desk(folder, LabelStore(self.store.url), lease=300)
        self.run = desk.run
        app = make_app(desk, self.store.url, TOKEN, ["127.0.0.1", "localhost"], "secret")
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        self.thread = threading.Thread(target=self.server.run, args=[[listener]], daemon=True)
        self.thread.start()

    def person(self, name: str = "Ann", tab: str = TAB) -> Person:
        return Person(self.url, self.run, name, tab)

    def labels(self) -> dict[str, str | None]:
        return {query.key: query.label for query in self.store.queries() if query.kind}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("ssl_lightning.labelling.page.desk.FRESH", 0)  # the counts of now
    site = Site(tmp_path / "run")
    yield site
    site.server.should_exit = site.server.force_exit = True
    site.thread.join(60)


@pytest.fixture
def ann(site: Site) -> Person:
    ask(site.folder, site.store, names(6))
    return site.person()


# ---- who gets in


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/media/1", "/neighbour/1/0", "/api/state", "/api/history"])
def test_nothing_without_the_secret(site: Site, path: str) -> None:
    ask(site.folder, site.store, names(1))
    for cookies in ({}, {"secret": "wrong"}, {"other": TOKEN}):
        answer = httpx.get(site.url + path, cookies=cookies)
        assert answer.status_code == 401
        assert "use the whole address that `ssl-lightning label`" in answer.text
        assert len(answer.text.strip().splitlines()) == 1
    assert httpx.get(f"{site.url}{path}?token={TOKEN}x").status_code == 401
    assert httpx.post(site.url + "/api/take", json={}, headers={"Origin": site.url}).status_code == 401


def test_the_printed_address_gives_a_strict_cookie_and_leads_to_an_address_without_the_secret(site: Site) -> None:
    with httpx.Client() as browser:
        answer = browser.get(f"{site.url}/?token={TOKEN}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert browser.get(site.url + "/").status_code == 200
    linked = httpx.get(f"{site.url}/?token={TOKEN}", headers={"Sec-Fetch-Site": "cross-site"})
    assert linked.status_code == 200
    assert 'http-equiv="refresh"' in linked.text
    assert "set-cookie" in linked.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "[::2]"]
)
def test_a_name_that_was_made_to_point_here_is_refused(site: Site, host: str) -> None:
    """DNS rebinding: the browser believes it speaks with the stranger's site."""
    answer = httpx.get(site.url + "/api/state", cookies={"secret": TOKEN}, headers={"Host": host})
    assert answer.status_code in (400, 403)
    assert (
        httpx.get(site.url + "/api/state", cookies={"secret": TOKEN}, headers={"Host": "LOCALHOST:99"}).status_code
        == 200
    )


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://127.0.0.1:1", "file://"])
def test_a_post_of_another_origin_is_refused(site: Site, ann: Person, origin: str | None) -> None:
    del ann.http.headers["Origin"]
    if origin is not None:
        ann.http.headers["Origin"] = origin
    answer = ann.post("/api/close", round=0)
    assert answer.status_code == 403
    assert "does not come from the page itself" in answer.json()["error"]
    assert not site.store.rounds()[0].closed


def test_another_site_may_read_and_frame_nothing(site: Site, ann: Person) -> None:
    for path in ("/api/state", "/media/1", "/static/page.js"):
        assert ann.http.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert ann.http.get(path, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert ann.http.options("/api/take").status_code == 405
    for path in ("/", "/api/state", "/media/1", "/nowhere"):
        headers = ann.http.get(path).headers
        policy = headers["content-security-policy"]
        for rule in (
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ):
            assert rule in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    assert ann.http.get("/api/state").headers["cache-control"] == "no-store"


# ---- files


@pytest.mark.parametrize(
    "path",
    ["/media/../../etc/passwd", "/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/media/..%5c..%5cetc", "/static/../page.py",
     "/static/..%2fpage.py", "/static/%2e%2e/page.py", "/media/1%00.png", "/media//etc/passwd", "/static/",
     "/media/999", "/media/99999999999999999999999999", "/neighbour/1/7", "/neighbour/1/-1",
     "/media/1/../../labels.sqlite"],
)  # fmt: skip
def test_no_path_leads_out(site: Site, ann: Person, path: str) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as raw:  # a client would tidy the path
        raw.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: secret={TOKEN}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := raw.recv(65536):
            answer += part
    assert answer.split()[1] == b"404"
    assert b"root:" not in answer


def test_pictures_and_sounds(site: Site) -> None:
    keep_sight(site.folder, "a.wav", "f", "audio", wav(), "two seconds")
    keep_sight(site.folder, "b.png", "f", "image", png(3))
    site.store.add_round(0, "Entropy", 0, [Query("a.wav", fingerprint="f", neighbours=[("b.png", "f", "cat")])], None)
    ann = site.person()
    item = ann.take()[0]
    assert (item["kind"], item["caption"]) == ("audio", "two seconds")
    answer = ann.http.get(item["media"])
    assert answer.headers["content-type"] == "audio/wav"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.content == wav()
    etag = answer.headers["etag"]
    assert ann.http.get(item["media"], headers={"If-None-Match": etag}).status_code == 304
    part = ann.http.get(item["media"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")
    near = ann.http.get(item["neighbours"][0]["media"])
    assert (near.headers["content-type"], near.content) == ("image/png", png(3))
    plain = ann.http.get(f"/media/{item['id']}")
    assert "immutable" not in plain.headers["cache-control"]
    assert ann.http.get(f"/media/{item['id']}?v=of-another-run").status_code == 404


@pytest.mark.parametrize("suffix", [".png", ".json"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    site: Site, ann: Person, suffix: str, tmp_path: Path
) -> None:
    outside = tmp_path / f"outside{suffix}"
    file = place_of(site.folder, "000.png", "f").with_suffix(suffix)
    outside.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(outside)
    item = ann.take(1)[0]
    assert (item["kind"], item["media"]) == ("none", None)
    assert ann.http.get(f"/media/{item['id']}").status_code == 404
    file.unlink()
    file.symlink_to(file)  # in a circle
    assert ann.take(1)[0]["kind"] == "none"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"kind": "image"}', '{"kind": ["a"], "text": null}', '{"kind": "text", "text": 3}']
)
def test_a_damaged_file_is_nothing_to_see(site: Site, ann: Person, content: str) -> None:
    place_of(site.folder, "000.png", "f").with_suffix(".json").write_text(content)
    assert ann.take(1)[0]["kind"] == "none"


def test_texts_and_rows_that_json_cannot_say(site: Site) -> None:
    keep_sight(site.folder, "t", "", "text", "lone \ud800 and \0 end".encode("utf-8", "replace").decode())
    keep_sight(site.folder, "r", "", "row", json.dumps({"x": float("nan"), "y": [1], "<b>": "\ud800", "z": None}))
    site.store.add_round(0, "Entropy", 0, [Query("t", score=float("inf")), Query("r")], None)
    text, row = site.person().take()
    assert text["text"] == "lone ? and \0 end"
    assert text["score"] is None
    assert row["row"] == {"x": "NaN", "y": "[1]", "<b>": "\ud800", "z": "null"}


# ---- what is refused


def _answers(**changes: Any) -> dict[str, Any]:
    return {"answers": [{"query": 1, "key": "000.png", "kind": "class", "label": "cat", **changes}]}


BAD = {
    "unknown query": _answers(query=99),
    "another sample's key": _answers(key="001.png"),
    "query of another type": _answers(query="1"),
    "query is a truth": _answers(query=True),
    "query is a fraction": _answers(query=1.0),
    "huge query": _answers(query=10**30),
    "negative": _answers(query=-1),
    "unknown class": _answers(label="cta"),
    "class of another type": _answers(label=["cat"]),
    "empty class": _answers(label="", new_class=True),
    "NUL in a class": _answers(label="a\0b", new_class=True),
    "line break in a class": _answers(label="a\nb", new_class=True),
    "lone surrogate in a class": _answers(label="\ud800", new_class=True),
    "long class": _answers(label="a" * 1001, new_class=True),
    "no label": _answers(label=None),
    "label with skip": _answers(kind="skip"),
    "kind": _answers(kind="undo"),
    "milliseconds": _answers(milliseconds=-1),
    "huge milliseconds": _answers(milliseconds=2**40),
    "new_class": _answers(new_class="yes"),
    "replaces": _answers(replaces="2"),
    "NUL in a key": _answers(key="a\0"),
    "no answers": {"answers": []},
    "answers of another type": {"answers": {"query": 1}},
    "an answer of another type": {"answers": [7]},
    "two answers to one": {"answers": _answers()["answers"] * 2},
    "too many": {"answers": [{}] * 501},
    "no annotator": {**_answers(), "annotator": ""},
    "spaces as annotator": {**_answers(), "annotator": "  "},
    "NUL in the annotator": {**_answers(), "annotator": "a\0"},
    "lone surrogate as annotator": {**_answers(), "annotator": "\udfff"},
    "annotator of another type": {**_answers(), "annotator": None},
}  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_a_wrong_answer_is_refused_in_one_line_and_changes_nothing(
    site: Site, ann: Person, body: dict[str, Any]
) -> None:
    before = site.store.history(), site.store.class_names()
    content = json.dumps({"run": site.run, "session": TAB, "annotator": "Ann", **body})
    answer = ann.http.post("/api/answer", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    (line,) = answer.json()["error"].splitlines()
    assert "Traceback" not in line
    assert line.endswith((".", "?"))
    assert (site.store.history(), site.store.class_names()) == before


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"run": NaN}', b"[" * 100_000, b"1" * 5000, b'{"run": "\xed\xa0\x80"}'],
    ids=["nothing", "half", "list", "null", "no UTF-8", "NaN", "deep", "long number", "surrogate"],
)
@pytest.mark.parametrize("path", ["take", "answer", "undo", "close", "release"])
def test_a_body_that_is_no_object(ann: Person, path: str, body: bytes) -> None:
    answer = ann.http.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert len(answer.json()["error"].splitlines()) == 1


def test_other_fields_out_of_their_range(site: Site, ann: Person) -> None:
    for count in (0, -1, 201, 10**30, "3", None, True):
        assert ann.post("/api/take", count=count).status_code == 400
    for session in ("", "short", "a" * 65, "spaces are none", "tab\0number", 5, None, "\ud800" * 9):
        content = json.dumps({"run": site.run, "session": session, "count": 3})
        answer = ann.http.post("/api/take", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, session
    for number in (1, -1, 10**30, "0", None):
        assert ann.post("/api/close", round=number).status_code == 400
    for numbers in (["1"], [0], 1, [10**30], [True]):
        assert ann.post("/api/undo", answers=numbers).status_code == 400
    for query in ("before=x", "before=-1", "limit=0", "limit=1e3", "before=" + "9" * 30, "limit="):
        assert ann.http.get(f"/api/history?{query}").status_code == 400
    assert ann.http.get("/api/review?which=all").status_code == 400
    assert ann.http.get("/api/item/99").status_code == 404
    assert ann.http.get("/api/take").status_code == 405
    assert ann.http.post("/api/state", json={}).status_code == 405
    assert ann.http.get("/nowhere").json()["error"]


def test_a_tab_that_shows_another_run_cannot_answer(site: Site, ann: Person) -> None:
    ann.run = "another"
    answer = ann.post("/api/answer", **_answers())
    assert answer.status_code == 409
    assert site.labels() == {}


def test_large_bodies(site: Site, ann: Person) -> None:
    """Whether they say their size or not, and before they are read to their end."""
    kind = {"Content-Type": "application/json"}
    assert ann.http.post("/api/take", content=b" " * (LIMIT + 1), headers=kind).status_code == 413
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2000):
            sent += 65536
            yield b" " * 65536

    with contextlib.suppress(httpx.TransportError):  # the connection was closed while we were still writing
        assert ann.http.post("/api/take", content=endless(), headers=kind).status_code == 413
    assert sent < 100 * 65536
    assert ann.http.post("/api/take", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert len(ann.take()) == 5


def test_a_store_that_cannot_be_written_is_no_refusal_but_a_reason_to_try_again(
    site: Site, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def full(*_: object) -> None:
        try:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        except OperationalError as error:
            raise ValueError("the label store cannot be written: database or disk is full.") from error

    with monkeypatch.context() as patch:
        patch.setattr(LabelStore, "settle", full)
        answer = ann.post("/api/answer", **_answers())
        assert answer.status_code == 503
        assert "disk is full" in answer.json()["error"]
    assert ann.post("/api/answer", **_answers()).json()["saved"]


# ---- labelling


def test_a_batch(site: Site, ann: Person) -> None:
    state = ann.get("/api/state")
    assert [one["name"] for one in state["classes"]] == list(CLASSES)
    assert (state["round"], state["strategy"], state["closed"], state["finished"]) == (0, "Entropy", False, False)
    first, second, third, *_ = ann.take()
    assert (first["key"], first["why"]) == ("000.png", "Entropy chose it in round 0, as number 1: score 0.5")
    saved = ann.answer(first, "dog", milliseconds=1200)["saved"]
    assert saved == [{"query": first["id"], "answer": 1}]
    ann.answer(second, None)
    ann.answer(third, "fish", new_class=True)
    assert site.labels() == {"000.png": "dog", "001.png": None, "002.png": "fish"}
    event = site.store.history()[0]
    assert (event.annotator, event.milliseconds, event.source, event.kind) == ("Ann", 1200, "page", "class")
    state = ann.get("/api/state")
    assert state["counts"] == state["round_counts"] == {"class": 2, "skip": 1, "unsure": 0, "pending": 3}
    assert {one["name"]: one["count"] for one in state["classes"]} == {"cat": 0, "dog": 1, "bird": 0, "fish": 1}


def test_many_at_once_are_all_or_none(site: Site, ann: Person) -> None:
    items = ann.take(6)
    sent = [{"query": item["id"], "key": item["key"], "kind": "class", "label": "cat"} for item in items]
    refused = ann.post("/api/answer", answers=[*sent[:5], {**sent[5], "label": "unknown"}])
    assert refused.status_code == 400
    assert "is no class of this run" in refused.json()["error"]
    assert site.labels() == {}
    assert len(ann.post("/api/answer", answers=sent).json()["saved"]) == 6
    assert set(site.labels().values()) == {"cat"}


def test_a_refused_group_takes_no_other_along_and_leaves_no_class(site: Site, ann: Person) -> None:
    """Answers that are committed together are of different people."""
    from ssl_lightning.labelling.records import Answer, Given

    def given(number: int, key: str, label: str, new: bool = False) -> Given:
        return Given(number, Answer(key, label, "x", new_class=new))

    groups = [
        [given(1, "000.png", "fish", True), given(2, "wrong key", "cat")],
        [given(1, "000.png", "dog")],
        [given(1, "000.png", "cat")],
        [given(3, "002.png", "fish")],
    ]
    refused, taken, late, unknown = site.store.settle(groups)
    assert isinstance(refused, ValueError)
    assert isinstance(unknown, ValueError)
    assert isinstance(taken, list)
    assert isinstance(late, list)
    assert (taken[0].taken, late[0].taken, late[0].label) == (True, False, "dog")
    assert site.labels() == {"000.png": "dog"}
    assert site.store.class_names() == list(CLASSES)


def test_two_people_never_get_the_same_sample_and_a_late_answer_overwrites_nothing(site: Site, ann: Person) -> None:
    ben = site.person("Ben", OTHER)
    mine, his = ann.take(3), ben.take(3)
    assert {item["id"] for item in mine}.isdisjoint(item["id"] for item in his)
    ben.answer(mine[0], "dog")  # as after Ann's lease was over
    found = ann.answer(mine[0], "cat")
    assert found["saved"] == []
    assert (found["conflict"][0]["label"], found["conflict"][0]["annotator"]) == ("dog", "Ben")
    assert site.labels() == {"000.png": "dog"}
    known = found["conflict"][0]["answer"]
    assert ann.answer(mine[0], "cat", replaces=known)["saved"]  # now knowingly
    assert ben.answer(mine[0], "bird", replaces=known)["conflict"][0]["label"] == "cat"
    assert [event.label for event in site.store.history()] == ["dog", "cat"]


def test_an_answer_that_is_sent_again_is_kept_once(site: Site, ann: Person) -> None:
    """As when the connection broke after it was committed."""
    item = ann.take(1)[0]
    first, again = ann.answer(item), ann.answer(item)
    assert first == again
    number = first["saved"][0]["answer"]
    confirmed, twice = ann.answer(item, replaces=number), ann.answer(item, replaces=number)
    assert confirmed == twice
    assert [event.label for event in site.store.history()] == ["cat", "cat"]


def test_undo(site: Site, ann: Person) -> None:
    ben = site.person("Ben", OTHER)
    first, second = ann.take(2)
    number = ann.answer(first, "cat")["saved"][0]["answer"]
    ann.answer(second, "dog")
    ben.answer(ben.take(1)[0], "bird")
    back = ann.post("/api/undo").json()["items"]
    assert [(item["key"], item["answer"]) for item in back] == [("001.png", None)]
    assert second["id"] in [item["id"] for item in ann.take(2)]  # she has it again
    assert [item["key"] for item in ann.post("/api/undo", answers=[number]).json()["items"]] == ["000.png"]
    assert ann.post("/api/undo", answers=[number]).json()["items"] == []  # sent again
    assert ann.post("/api/undo").json()["items"] == []
    assert list(site.labels().values()) == ["bird"]
    changed = ann.answer(first, "cat")["saved"][0]["answer"]
    ann.answer(first, "dog", replaces=changed)
    assert ann.post("/api/undo").json()["items"][0]["answer"] == {"id": changed, "kind": "class", "label": "cat"}


def test_a_tab_that_was_left_gives_its_samples_back_unless_it_returns(
    site: Site, ann: Person, monkeypatch: Any
) -> None:
    monkeypatch.setattr("ssl_lightning.labelling.page.server.RELOAD", 0.2)
    ben, mine = site.person("Ben", OTHER), ann.take(6)
    ann.post("/api/release")
    assert [item["id"] for item in ann.take(6)] == [item["id"] for item in mine]
    time.sleep(0.3)
    assert ben.take(6) == []
    ann.post("/api/release")
    time.sleep(0.3)
    assert [item["id"] for item in ben.take(6)] == [item["id"] for item in mine]


def test_who_has_many_samples_gives_some_to_who_has_none(site: Site, ann: Person) -> None:
    ben = site.person("Ben", OTHER)
    assert len(ann.take(6)) == 6
    assert not ann.get("/api/state")["scarce"]
    assert ben.take(6) == []
    assert ann.get("/api/state")["scarce"]
    assert [item["key"] for item in ann.take(2)] == ["000.png", "001.png"]
    assert [item["key"] for item in ben.take(6)] == ["002.png", "003.png", "004.png", "005.png"]


def test_before_anything_is_asked_and_after_the_end(site: Site) -> None:
    ann = site.person()
    state = ann.get("/api/state")
    assert (state["round"], state["counts"]["pending"], ann.take()) == (None, 0, [])
    ask(site.folder, site.store, names(2))
    items = ann.take()
    assert len(items) == 2
    site.store.finish()
    assert ann.get("/api/state")["finished"]
    assert ann.take() == []
    answer = ann.post("/api/answer", **_answers())
    assert answer.status_code == 400
    assert "is finished" in answer.json()["error"]
    assert ann.post("/api/undo").status_code == 400


def test_go_on_with_what_there_is(site: Site, ann: Person) -> None:
    assert ann.post("/api/close", round=-1).status_code == 400
    assert not site.store.rounds()[0].closed
    assert ann.post("/api/close", round=0).status_code == 200
    assert site.store.rounds()[0].closed
    assert ann.get("/api/state")["closed"]


def test_history_and_corrections(site: Site, ann: Person) -> None:
    items = ann.take(6)
    for item in items:
        ann.answer(item)
    events = ann.get("/api/history?limit=4")["events"]
    assert [event["key"] for event in events] == ["005.png", "004.png", "003.png", "002.png"]
    earlier = ann.get(f"/api/history?limit=4&before={events[-1]['id']}")["events"]
    assert [event["key"] for event in earlier] == ["001.png", "000.png"]
    assert earlier[0]["holds"]
    assert ann.http.get(earlier[0]["media"]).status_code == 200
    item = ann.get(f"/api/item/{earlier[0]['query']}")["item"]
    assert item["answer"] == {"id": earlier[0]["id"], "kind": "class", "label": "cat"}
    ann.answer(item, "bird", replaces=item["answer"]["id"])
    assert site.labels()["001.png"] == "bird"
    lines = [event for event in ann.get("/api/history")["events"] if event["key"] == "001.png"]
    assert [(line["label"], line["holds"]) for line in lines] == [("bird", True), ("cat", False)]


def test_second_look(site: Site) -> None:
    ask(site.folder, site.store, names(4), number=-1)
    ann = site.person()
    for item in ann.take():
        ann.answer(item)
    site.store.begin(0)
    doubts = [
        {"key": key, "fingerprint": "f", "label": "cat", "guess": "dog", "confidence": 0.9}
        for key in ("002.png", "000.png", "gone.png")
    ]
    site.store.add_round(0, "Entropy", 0, [Query("q", fingerprint="f")], None, doubts=doubts)
    found = ann.get("/api/review?which=doubts")["items"]
    assert [(item["key"], item["guess"], item["answer"]["label"]) for item in found] == [
        ("002.png", "dog", "cat"),
        ("000.png", "dog", "cat"),
    ]
    ann.answer(found[0], "cat", replaces=found[0]["answer"]["id"])  # confirmed
    ann.answer(found[1], "dog", replaces=found[1]["answer"]["id"])
    assert ann.get("/api/review?which=doubts")["items"] == []
    item = ann.get("/api/item/4")["item"]
    ann.answer(item, None, kind="unsure", replaces=item["answer"]["id"])
    assert [one["key"] for one in ann.get("/api/review?which=unsure")["items"]] == ["003.png"]


def test_hostile_names_are_data(site: Site) -> None:
    site.store.add_classes([HOSTILE])
    ask(site.folder, site.store, [HOSTILE], guess=HOSTILE)
    ann = site.person(HOSTILE)
    item = ann.take()[0]
    ann.answer(item, HOSTILE)
    answer = ann.http.get("/api/history")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["events"][0]["annotator"] == HOSTILE


def test_people_at_once_lose_nothing_and_do_nothing_twice(site: Site) -> None:
    ask(site.folder, site.store, names(120))

    def work(number: int) -> list[int]:
        person, done = site.person(f"person {number}", f"tab-of-person-{number}"), []
        while items := person.take(4):
            for item in items:
                assert person.answer(item, CLASSES[item["id"] % 3])["conflict"] == []
                done.append(item["id"])
        return done

    with ThreadPoolExecutor(6) as pool:
        done = [number for some in pool.map(work, range(6)) for number in some]
    assert sorted(done) == list(range(1, 121))
    assert len(site.store.history()) == 120
    assert all(query.label == CLASSES[query.id % 3] for query in site.store.queries())


# ---- the command


def test_the_page_needs_no_torch() -> None:
    code = (
        "import sys, ssl_lightning.__main__, ssl_lightning.commands.label, ssl_lightning.labelling.page\n"
        "heavy = ('torch', 'lightning', 'numpy', 'sklearn', 'PIL')\n"
        "print([name for name in sys.modules if name.split('.')[0] in heavy])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_command_tells_its_address_and_ends_with_its_input(tmp_path: Path) -> None:
    new_run(tmp_path)
    told = tmp_path / "page.json"
    with page_of(tmp_path) as url:
        assert told.stat().st_mode & 0o777 == 0o600
        content = json.loads(told.read_text())
        assert content["url"] == url
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(url)
            assert page.status_code == 200
            assert "token" not in str(page.url)
            assert browser.get(str(page.url) + "api/state").json()["round"] is None
            (cookie,) = browser.cookies
            assert str(content["port"]) in cookie
    assert not told.exists()
    assert list(tmp_path.glob(".page*")) == []


def test_for_other_machines_it_answers_to_this_ones_names_only(tmp_path: Path) -> None:
    new_run(tmp_path)
    with page_of(tmp_path, "--host", "0.0.0.0") as url:
        told = json.loads((tmp_path / "page.json").read_text())
        there = f"http://127.0.0.1:{told['port']}/?{url.partition('?')[2]}"
        for host in (socket.gethostname(), "localhost", "127.0.0.1", httpx.URL(url).host):
            assert httpx.get(there, headers={"Host": f"{host}:{told['port']}"}).status_code == 303, host
        assert httpx.get(there, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_the_note(tmp_path: Path, signal_: signal.Signals) -> None:
    new_run(tmp_path)
    command = [sys.executable, "-m", "ssl_lightning", "label", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url_of(tmp_path, process)
    process.send_signal(signal_)
    said = process.communicate(timeout=60)[0].decode()
    assert "Traceback" not in said
    assert said.startswith("Label at http://127.0.0.1:")
    assert not (tmp_path / "page.json").exists()


def test_the_next_free_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 50
    with pytest.raises(
        ValueError, match=r"`host=10\.99\.99\.99`, `port=8765` cannot be served: .*; give an address of this machine"
    ):
        listen("10.99.99.99", 8765)
    with pytest.raises(ValueError, match="`host=no such host`"):
        listen("no such host", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}/none"], "`RUN={run}/none` is no folder; give that of a run"),
        (["{run}"], "`RUN={run}` holds no label store `labels.sqlite`; give the folder of a run"),
        (["{run}", "--store", "sqlite:///{run}/x"], "`store=sqlite:///{run}/x` is no file; give"),
        (["{run}", "--store", "nonsense"], "`store=nonsense`: the label store cannot be opened"),
        (["{run}", "--port", "70000"], "`port=70000` must be from 0 to 65535"),
        (["{run}", "--lease", "1"], "`lease=1` must be from 10 to 86400 seconds"),
        (["{run}", "--lease", "nan"], "`lease=nan` must be from 10"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    given = [argument.format(run=tmp_path) for argument in arguments]
    assert main(["label", *given]) == 2
    error = capsys.readouterr().err
    assert said.format(run=tmp_path) in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_addresses() -> None:
    assert address("::1", 80, "a b") == "http://[::1]:80/?token=a%20b"


# ---- colours

PAIRS = [  # text on what it stands on, 4.5; edges of controls and the bar, 3
    ("ink", "back", 4.5), ("ink", "paper", 4.5), ("ink", "wash", 4.5), ("soft", "back", 4.5), ("soft", "paper", 4.5),
    ("soft", "wash", 4.5), ("on-accent", "accent", 4.5), ("accent", "paper", 4.5), ("accent", "back", 4.5),
    ("on-warn", "warn", 4.5), ("bad", "paper", 4.5), ("paper", "ink", 4.5), ("accent", "wash", 4.5),
    ("edge", "paper", 3), ("edge", "back", 3), ("accent", "line", 3),
]  # fmt: skip


@pytest.mark.parametrize("mode", [r":root \{(.*?)\}", r':root\[data-theme="dark"\] \{(.*?)\}'], ids=["light", "dark"])
def test_contrast(mode: str) -> None:
    """WCAG 2.2, AA: 1.4.3 and 1.4.11."""
    found = re.search(mode, (STATIC / "page.css").read_text(), re.DOTALL)
    assert found
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", found[1]))

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text, ground, least in PAIRS:
        low, high = sorted([luminance(colours[text]), luminance(colours[ground])])
        assert (high + 0.05) / (low + 0.05) >= least, (text, ground)


def test_the_static_files_are_plain() -> None:
    files = {path.name: path.read_text() for path in STATIC.iterdir()}
    assert files
    for name, content in files.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", content), name
        assert "innerHTML" not in content
        assert "eval(" not in content
        if name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", content)


def test_a_folder_that_cannot_be_written_is_shown_all_the_same(tmp_path: Path) -> None:
    """As of a finished run on a read-only file system: it is told, and what was labelled can be looked at."""
    folder = tmp_path / "run"
    folder.mkdir()
    store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
    store.add_round(INITIAL, "initial", 0, [Query("1", "cat")], "me")
    for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
    try:
        command = [sys.executable, "-m", "ssl_lightning", "label", str(folder), "--port", "0", "--attached"]
        pipe = subprocess.PIPE
        page = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        assert page.stdout is not None
        told = [page.stdout.readline(), page.stdout.readline()]
        assert "page.json` cannot be written (Read-only file system): the address is told here alone." in told[0]
        url = told[1].removeprefix("Label at ").strip()
        with httpx.Client(follow_redirects=True) as browser:
            assert browser.get(url).status_code == 200
            history = browser.get(urlsplit(url)._replace(path="/api/history", query="").geturl())
            assert history.json()["events"][0]["label"] == "cat"
        page.communicate("", timeout=60)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
