import base64
import io
import os
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from label_studio_stand_in import PERSONAL, TOKEN, StandIn
from PIL import Image

from ssl_lightning.active import PoolDataModule
from ssl_lightning.data import Digits
from ssl_lightning.data.samples import Shown
from ssl_lightning.labelling import INITIAL, Answer, LabelStore, LabelStudio, Oracle, Query
from ssl_lightning.labelling.audit import agreement
from ssl_lightning.labelling.label_studio import AGAIN, SIZE
from ssl_lightning.labelling.label_studio_server import ServerError

REAL = os.environ.get("SSL_LIGHTNING_LABEL_STUDIO")  # address of a real server, with its token in LABEL_STUDIO_TOKEN


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits(val_size=0)
    data.setup("fit")
    return data


class Told(Digits):
    """Digits of which somebody tells in words, whose contents can change."""

    kind: ClassVar[Any] = "text"
    version = ""

    def show(self, key: str) -> Shown:
        return Shown(self.kind, b"a sound" if self.kind == "audio" else f"the words of {key}")

    def fingerprint(self, key: str) -> str:
        self.find(key)
        return self.version


@pytest.fixture
def told() -> Told:
    data = Told(val_size=0)
    data.setup("fit")
    return data


def oracle_of(server: StandIn, **options: Any) -> LabelStudio:
    return LabelStudio("digits", server.url, interval=1e-9, **options)


def queries_of(data: Any, count: int = 4) -> list[Query]:
    keys = data.train_samples.keys[:count]
    return [Query(key, round=2, score=0.5, guess="3", confidence=0.7) for key in keys]


def test_a_query_becomes_a_task_and_an_annotation_an_answer(server: StandIn, digits: Digits) -> None:
    oracle, queries = oracle_of(server), queries_of(digits)
    assert oracle.answer([query.key for query in queries], digits) == [None] * 4
    assert not server.calls  # what is not noted yet is not sent
    assert oracle.collect(queries, digits) == []
    assert [task["meta"] for task in server.tasks] == [
        {"key": query.key, "fingerprint": "", "round": 2, "score": 0.5} for query in queries
    ]
    assert server.projects[1]["parsed_label_config"]["class"]["labels"] == [str(k) for k in range(10)]
    kind, _, content = server.tasks[1]["data"]["image"].partition(";base64,")
    assert kind == "data:image/png"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert np.array_equal(shown, digits.train_samples.inputs[1, 0].numpy())  # type: ignore[union-attr]
    (guess,) = server.tasks[0]["predictions"]
    assert guess["result"][0]["value"] == {"choices": ["3"]}
    assert guess["score"] == 0.7
    server.annotate(queries[2].key, "8", by=2)
    (answer,) = oracle.collect(queries, digits)
    assert answer == Answer(
        queries[2].key, "8", "bob@example.org", "class", "", 3250, "label-studio",
        answered_at=datetime.fromisoformat(server.tasks[2]["annotations"][0]["updated_at"][:-1]),
    )  # fmt: skip
    assert len(server.tasks) == 4


def test_what_no_class_was_chosen_for(server: StandIn, digits: Digits) -> None:
    oracle, queries = oracle_of(server), queries_of(digits, 5)
    oracle.collect(queries, digits)
    server.annotate(queries[0].key, skip=True)
    server.annotate(queries[1].key, unsure=True)
    server.annotate(queries[2].key, "1", unsure=True)
    server.annotate(queries[3].key)
    server.annotate(queries[4].key, "1", skip=True)
    found = oracle.collect(queries, digits)
    assert [(answer.kind, answer.label) for answer in found] == [
        ("skip", None), ("unsure", None), ("unsure", None), ("unsure", None), ("skip", None),
    ]  # fmt: skip


def test_whoever_annotates_twice_means_the_later(server: StandIn, digits: Digits) -> None:
    oracle, queries = oracle_of(server), queries_of(digits, 1)
    oracle.collect(queries, digits)
    server.annotate(queries[0].key, "1")
    server.annotate(queries[0].key, "7")
    assert [answer.label for answer in oracle.collect(queries, digits)] == ["7"]


def test_a_run_that_was_killed_sends_nothing_twice(server: StandIn, digits: Digits) -> None:
    queries = queries_of(digits, 6)
    oracle_of(server).collect(queries[:4], digits)
    server.annotate(queries[0].key, "5")
    again = oracle_of(server)
    assert [answer.label for answer in again.collect(queries, digits)] == ["5"]
    assert [task["meta"]["key"] for task in server.tasks] == [query.key for query in queries]
    again.collect(queries, digits)
    assert len(server.tasks) == 6


def test_an_import_whose_answer_was_lost_is_not_repeated(
    server: StandIn, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle, queries = oracle_of(server), queries_of(digits)
    call = oracle.server.call

    def lose(method: str, path: str, *body: Any, **query: Any) -> Any:
        found = call(method, path, *body, **query)
        if path.endswith("/import"):
            raise ServerError("timed out")
        return found

    monkeypatch.setattr(oracle.server, "call", lose)
    with pytest.warns(UserWarning, match="timed out"):
        assert oracle.collect(queries, digits) == []
    assert len(server.tasks) == 4
    assert oracle.collect(queries, digits) == []
    assert len(server.tasks) == 4


def test_a_task_that_somebody_removed_is_sent_again(server: StandIn, digits: Digits) -> None:
    oracle, queries = oracle_of(server), queries_of(digits)
    oracle.collect(queries, digits)
    del server.all[2]
    oracle.collect(queries, digits)
    assert len(server.tasks) == 3
    oracle._full -= AGAIN + 1
    oracle.collect(queries, digits)
    assert sorted(task["meta"]["key"] for task in server.tasks) == sorted(query.key for query in queries)


@pytest.mark.parametrize("same_time", [False, True])
def test_more_tasks_than_a_page(server: StandIn, digits: Digits, same_time: bool) -> None:
    oracle, queries = oracle_of(server), queries_of(digits, 3 * SIZE)
    oracle.collect(queries, digits)
    for task in server.tasks if same_time else []:
        task["updated_at"] = server.tasks[0]["updated_at"]
    for query in queries:
        server.annotate(query.key, "4")
    for task in server.tasks if same_time else []:
        task["updated_at"] = server.tasks[0]["updated_at"]
    assert len(oracle_of(server).collect(queries, digits)) == 3 * SIZE
    assert len(server.tasks) == 3 * SIZE
    server.calls.clear()
    if not same_time:
        oracle.collect(queries, digits)
        server.calls.clear()
        oracle.collect(queries, digits)
        assert server.calls == ["GET /api/tasks"]  # what is new, and no more


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (["1", "1", "2"], [("class", "2"), ("class", "1"), ("class", "1")]),
        (["1", "2", "2"], [("class", "1"), ("class", "2"), ("class", "2")]),
        (["1", None, None], [("class", "1"), ("skip", None), ("skip", None)]),
        (["1", "2", "3"], [("class", "2"), ("class", "3"), ("class", "1"), ("unsure", None)]),
    ],
)
def test_several_people(server: StandIn, digits: Digits, choices: Any, expected: Any) -> None:
    oracle, queries = oracle_of(server, overlap=3), queries_of(digits, 1)
    store = LabelStore()
    store.add_round(INITIAL, "initial", 0, queries, None)
    store.add_classes(digits.class_names)
    for person, choice in enumerate(choices):
        assert oracle.collect(queries, digits) == []
        server.annotate(queries[0].key, *([choice] if choice else []), by=person + 1, skip=choice is None)
    found = oracle.collect(queries, digits)
    assert [(answer.kind, answer.label) for answer in found] == expected
    assert {answer.annotator for answer in found[:3]} == {"ann@example.org", "bob@example.org", "user 3"}
    store.record(found)
    holds = store.queries()[0]
    assert (holds.kind, holds.label) == expected[-1]
    labels = sum(kind == "class" for kind, _ in expected)
    assert len(agreement(store.history())) == labels * (labels - 1) / 2  # what each said is there


def test_the_run_waits_while_the_server_is_away(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", TOKEN)
    server, queries = StandIn(), queries_of(digits)
    oracle = oracle_of(server)
    oracle.collect(queries, digits)
    server.annotate(queries[0].key, "5")
    server.close()
    with pytest.warns(UserWarning, match=r"cannot be reached \(.*refused\); start it.* The run goes on") as said:
        assert [oracle.collect(queries, digits) for _ in range(3)] == [[]] * 3
    assert len(said) == 1
    back = StandIn(server.port)
    back.projects, back.all = server.projects, server.all
    try:
        assert [answer.label for answer in oracle.collect(queries, digits)] == ["5"]
        for fail, message in ((500, "HTTP 500.: Server is ill"), (401, "refuses the access token"), ("<html>", "mend")):
            back.fail = fail
            with pytest.warns(UserWarning, match=message):
                assert oracle.collect(queries, digits) == []
        back.fail = None
        assert [answer.label for answer in oracle.collect(queries, digits)] == ["5"]
    finally:
        back.close()


def test_it_looks_at_intervals(server: StandIn, digits: Digits) -> None:
    oracle, queries = LabelStudio("digits", server.url, interval=60), queries_of(digits)
    for _ in range(3):
        oracle.collect(queries, digits)
    assert server.calls.count("GET /api/tasks") == 1


def test_the_project_is_shown_where_it_is(server: StandIn, digits: Digits, tmp_path: Any) -> None:
    oracle = oracle_of(server)
    oracle.open(tmp_path, "sqlite://")
    assert oracle.address == f"{server.url}/projects/"
    server.projects[1] = {"id": 1, "title": "Digits of mine", "label_config": "", "parsed_label_config": {}}
    oracle.collect(queries_of(digits), digits)
    oracle.open(tmp_path, "sqlite://")
    assert oracle.address == f"{server.url}/projects/2"
    second = LabelStudio(2, server.url)
    second.open(tmp_path, "sqlite://")
    assert second.address == f"{server.url}/projects/2"
    with pytest.raises(ValueError, match=r"refuses GET /api/projects/9 \(HTTP 404\): No Project matches"):
        LabelStudio(9, server.url).open(tmp_path, "sqlite://")


def test_a_token_that_is_refused(server: StandIn, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", "wrongwrong")
    with pytest.raises(ValueError, match=r"refuses the access token of `LABEL_STUDIO_TOKEN` \(HTTP 401\)") as error:
        oracle_of(server).open(tmp_path, "")
    assert "wrongwrong" not in str(error.value)
    path = tmp_path / "token"
    path.write_text("a.b.c\n")
    with pytest.raises(ValueError, match=f"refuses the access token of `token_file={path}`"):
        oracle_of(server, token_file=str(path)).open(tmp_path, "")
    path.write_text("two words")
    with pytest.raises(ValueError, match="holds no access token of Label Studio; copy yours") as error:
        oracle_of(server, token_file=str(path)).open(tmp_path, "")
    assert "two words" not in str(error.value)
    monkeypatch.delenv("LABEL_STUDIO_TOKEN")
    with pytest.raises(ValueError, match="the environment variable `LABEL_STUDIO_TOKEN` holds no access token"):
        oracle_of(server).open(tmp_path, "")
    with pytest.raises(ValueError, match="cannot be read: FileNotFoundError"):
        oracle_of(server, token_file="/nowhere").open(tmp_path, "")


def test_a_personal_token_is_renewed(server: StandIn, digits: Digits, tmp_path: Any) -> None:
    path = tmp_path / "token"
    path.write_text(PERSONAL + "\n")
    oracle, queries = oracle_of(server, token_file=str(path)), queries_of(digits)
    oracle.collect(queries, digits)
    assert len(server.access) == 1
    server.access.append("of somebody else")  # ours has expired
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        oracle.collect(queries, digits)
    assert len(server.access) == 3


def test_the_token_is_sent_nowhere_else(server: StandIn, tmp_path: Any) -> None:
    other = StandIn()
    try:
        server.fail = f"{other.url}/api/projects"
        with pytest.raises(ValueError, match=f"`url={server.url}` leads on to `{other.url}/api/projects`; give that"):
            oracle_of(server).open(tmp_path, "")
        assert other.calls == []
    finally:
        other.close()


def test_the_token_is_in_no_config(server: StandIn) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--oracle", type=Oracle)
    config = parser.parse_args(["--oracle=LabelStudio", "--oracle.project=3", f"--oracle.url={server.url}"])
    oracle = parser.instantiate(config).oracle
    assert oracle.project == 3
    assert TOKEN not in parser.dump(config) + repr(vars(oracle)) + repr(vars(oracle.server))


def test_a_class_that_the_run_does_not_have_waits(server: StandIn, told: Told) -> None:
    oracle, queries = oracle_of(server), queries_of(told)
    oracle.collect(queries, told)
    for query in queries[:2]:
        server.annotate(query.key, "owl")
    server.annotate(queries[2].key, "1")
    with pytest.warns(UserWarning, match="people chose `owl` in Label Studio, which is no class of this run") as said:
        assert [[answer.label for answer in oracle.collect(queries, told)] for _ in range(2)] == [["1"]] * 2
    assert len(said) == 1
    told.add_classes(["owl"])
    assert [answer.label for answer in oracle.collect(queries, told)] == ["owl", "owl", "1"]


def test_classes_that_come_later_can_be_chosen(server: StandIn, told: Told) -> None:
    oracle, queries = oracle_of(server), queries_of(told)
    oracle.collect(queries[:2], told)
    told.add_classes(["so <b>\"called\"</b> & 'co'"])
    oracle.collect(queries, told)
    labels = server.projects[1]["parsed_label_config"]["class"]["labels"]
    assert labels == [*(str(k) for k in range(10)), "so <b>\"called\"</b> & 'co'"]


@pytest.mark.parametrize(("kind", "field"), [("text", "text"), ("audio", "audio")])
def test_text_and_sound(server: StandIn, told: Told, kind: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "kind", kind)
    queries = queries_of(told, 1)
    oracle_of(server).collect(queries, told)
    content = server.tasks[0]["data"][field]
    config = server.projects[1]["label_config"]
    assert ('decoder="none"' in config) == (kind == "audio")  # without it, Label Studio plays no data URI
    assert content == ("data:audio/wav;base64,YSBzb3VuZA==" if kind == "audio" else f"the words of {queries[0].key}")


def test_a_project_of_somebody_else(server: StandIn, digits: Digits, told: Told) -> None:
    config = """<View><Image name="picture" value="$photo"/>
        <Choices name="kind" toName="picture"><Choice value="3"/><Choice value="4"/></Choices></View>"""
    parsed = {
        "kind": {
            "type": "Choices", "to_name": ["picture"], "inputs": [{"type": "Image", "value": "photo"}],
            "labels": ["3", "4"],
        }
    }  # fmt: skip
    server.projects[1] = {"id": 1, "title": "digits", "label_config": config, "parsed_label_config": parsed}
    oracle, queries = oracle_of(server), queries_of(digits, 1)
    with pytest.warns(UserWarning, match=r"project 1 .* has no choice for 0, 1, 2, 5, 6, 7, 8, 9; add it"):
        oracle.collect(queries, digits)
    assert server.projects[1]["label_config"] == config
    assert set(server.tasks[0]["data"]) == {"photo", "key"}
    assert server.tasks[0]["predictions"][0]["result"][0]["from_name"] == "kind"
    with pytest.warns(UserWarning, match="project 1 .* shows Image, and the data are Text; give another `project`"):
        oracle_of(server).collect(queries_of(told), told)
    server.projects[1]["parsed_label_config"] = {"box": {**parsed["kind"], "type": "RectangleLabels"}}
    with pytest.warns(UserWarning, match="project 1 of Label Studio has no `Choices` in its labelling interface"):
        oracle_of(server).collect(queries, digits)


def test_what_is_not_there_any_more_is_not_sent(server: StandIn, told: Told) -> None:
    oracle, queries = oracle_of(server), queries_of(told, 2)
    told.version = "another"
    assert oracle.collect(queries, told) == []
    assert server.projects == {}
    gone = Query("no such key", fingerprint="another")
    there = queries[0]._replace(fingerprint="another")
    with pytest.warns(UserWarning, match="`no such key` cannot be shown in Label Studio: "):
        oracle.collect([gone, there, *queries], told)
    assert [task["meta"]["fingerprint"] for task in server.tasks] == ["another"]
    oracle.collect([gone, there, *queries], told)
    assert len(server.tasks) == 1


def test_numbers_that_json_has_not(server: StandIn, digits: Digits) -> None:
    oracle_of(server).collect([query._replace(score=float("inf")) for query in queries_of(digits, 1)], digits)
    assert server.tasks[0]["meta"]["score"] is None


def test_a_pool_that_is_labelled_there(server: StandIn) -> None:
    """Through the store, as the round loop does it."""
    data = Digits(val_size=0)
    data.setup("fit")
    truth = dict(zip(data.train_samples.keys, data.train_samples.targets.tolist(), strict=True))  # type: ignore[union-attr]
    data.train_samples.targets[:] = -1  # type: ignore[union-attr]
    oracle = oracle_of(server)
    pool = PoolDataModule(data, initial=12, oracle=oracle, seed=0)
    pool.setup("fit")
    for _ in range(2):
        pending = [query for query in pool.store.queries() if query.kind is None]
        for answer in oracle.collect(pending, data):
            pool.store.record([answer])
        for task in server.tasks:
            if not task["annotations"]:
                server.annotate(task["meta"]["key"], str(truth[task["meta"]["key"]]))
    pool.synchronise()
    labelled = pool.labelled.tolist()
    assert len(labelled) == 12
    assert [int(pool.samples.targets[place]) for place in labelled] == [truth[pool.keys[place]] for place in labelled]
    assert {event.annotator for event in pool.store.history()} == {"ann@example.org"}
    assert {event.milliseconds for event in pool.store.history()} == {3250}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"project": "ab"}, "`project=ab` is no title that Label Studio takes: give 3 to 50 characters"),
        ({"project": 0}, "`project=0` must be at least 1"),
        ({"url": "localhost:8080"}, "`url=localhost:8080` is no address of a Label Studio server"),
        ({"url": "http://me:secret@host"}, r"`url=http://...@host` is no address .* without a name or password"),
        ({"overlap": 0}, "`overlap=0` must be at least 1"),
        ({"interval": 0}, "`interval=0` must be above 0"),
        ({"token_file": ""}, "`token_file=''` must be text, and not empty"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        LabelStudio(**{"project": "digits", **options})
    assert "secret" not in str(error.value)


@pytest.mark.skipif(REAL is None, reason="set SSL_LIGHTNING_LABEL_STUDIO to the address of a server to try")
def test_a_real_server(digits: Digits, tmp_path: Any) -> None:
    """Makes a project there, and leaves it: remove it by hand, or throw the server away."""
    title = f"try {os.getpid()}"
    oracle, queries = LabelStudio(title, str(REAL), interval=1e-9), queries_of(digits, SIZE + 5)
    oracle.open(tmp_path, "")
    assert oracle.address == f"{REAL}/projects/"
    assert oracle.collect(queries, digits) == []
    assert oracle.collect(queries, digits) == []
    assert oracle._found is not None
    oracle.open(tmp_path, "")
    assert oracle.address == f"{REAL}/projects/{oracle._found.id}"

    def annotate(key: str, result: list[Any], **more: Any) -> None:
        (number,) = oracle._tasks[key, ""]
        oracle.server.call("POST", f"/api/tasks/{number}/annotations", {"result": result, "lead_time": 2.5, **more})

    def choice(name: str, value: str) -> dict[str, Any]:
        return {"from_name": name, "to_name": "sample", "type": "choices", "value": {"choices": [value]}}

    annotate(queries[0].key, [choice("class", "8")])
    annotate(queries[1].key, [], was_cancelled=True)
    annotate(queries[2].key, [choice("unsure", "unsure")])
    annotate(queries[SIZE + 2].key, [choice("class", "4")])
    for one in (oracle, LabelStudio(title, str(REAL))):
        found = one.collect(queries, digits)
        assert [(answer.key, answer.kind, answer.label) for answer in found] == [
            (queries[0].key, "class", "8"), (queries[1].key, "skip", None), (queries[2].key, "unsure", None),
            (queries[SIZE + 2].key, "class", "4"),
        ]  # fmt: skip
        assert {answer.milliseconds for answer in found} == {2500}
        assert all("@" in answer.annotator for answer in found)
        assert one.server.tasks(oracle._found.id, None, 1, 1)["total"] == SIZE + 5
    data = Digits(val_size=0)
    data.setup("fit")
    data.add_classes(["so <b>\"called\"</b> & 'co'"])
    oracle.collect([*queries, *queries_of(digits, SIZE + 6)], data)
    project = oracle.server.call("GET", f"/api/projects/{oracle._found.id}")
    labels = project["parsed_label_config"]["class"]["labels"]
    assert labels[-1] == "so <b>\"called\"</b> & 'co'"
    assert len(labels) == 11
