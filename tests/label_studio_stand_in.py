"""A stand-in for Label Studio: the parts of its REST interface that are used, shaped as those of version 1.23."""

import json
import re
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJhbGciOi.eyJ0b2tlbl90eXBl.uy1DMvD_O9rPApJ3u"
START = datetime(2026, 11, 28, 20, 27, tzinfo=UTC)


class StandIn:
    """What the server knows, and how it may fail."""

    def __init__(self, port: int = 0) -> None:
        self.projects: dict[int, dict[str, Any]] = {}
        self.all: dict[int, dict[str, Any]] = {}
        self.users = [{"id": 1, "username": "", "email": "ann@example.org"}, {"id": 2, "email": "bob@example.org"}]
        self.calls: list[str] = []
        self.fail: int | str | None = None
        self.access: list[str] = []
        self.annotations = self.ticks = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler_of(self))
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def now(self) -> str:
        self.ticks += 1
        return (START + timedelta(milliseconds=self.ticks)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return list(self.all.values())

    def task(self, key: str) -> dict[str, Any]:
        return next(task for task in self.tasks if task["meta"].get("key") == key)

    def annotate(self, key: str, *choices: str, by: int = 1, skip: bool = False, unsure: bool = False) -> None:
        """As a person does in the browser."""
        self.annotations += 1
        task, when = self.task(key), self.now()
        values = {"class": list(choices), "unsure": ["unsure"] if unsure else []}
        result = [
            {"from_name": name, "to_name": "sample", "type": "choices", "value": {"choices": chosen}}
            for name, chosen in values.items()
            if chosen
        ]
        task["annotations"].append(
            {
                "id": self.annotations, "result": result, "completed_by": by, "was_cancelled": skip,
                "ground_truth": False, "created_at": when, "updated_at": when, "lead_time": 3.25, "task": task["id"],
            }
        )  # fmt: skip
        task["updated_at"] = self.now()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if path == "/api/projects" and method == "GET":
            found = [one for one in self.projects.values() if query["title"].lower() in one["title"].lower()]
            return 200, {"count": len(found), "next": None, "previous": None, "results": found}
        if path == "/api/projects":
            number = len(self.projects) + 1
            self.projects[number] = {"id": number, **body, **parsed(body["label_config"])}
            return 201, self.projects[number]
        if match := re.fullmatch(r"/api/projects/(\d+)(/import)?", path):
            project = self.projects.get(int(match[1]))
            if project is None:
                return 404, refusal(404, "No Project matches the given query.")
            if match[2]:
                return 201, self.add(project, body)
            if method == "PATCH":
                project |= body | parsed(body["label_config"])
            return 200, project
        if path == "/api/tasks":
            return self.list(query)
        if path == "/api/users":
            return 200, self.users
        return 404, refusal(404, "Not found.")

    def add(self, project: dict[str, Any], body: list[dict[str, Any]]) -> dict[str, Any]:
        new = []
        for given in body:
            assert set(given) <= {"data", "meta", "predictions"}
            number, when = max(self.all, default=0) + 1, self.now()
            self.all[number] = {
                "id": number, "annotations": [], "predictions": [], **given, "project": project["id"],
                "created_at": when, "updated_at": when, "is_labeled": False,
                "overlap": project.get("maximum_annotations", 1),
            }  # fmt: skip
            new.append(number)
        return {"task_count": len(new), "annotation_count": 0, "task_ids": new}

    def list(self, query: dict[str, str]) -> tuple[int, Any]:
        wanted, page, size = json.loads(query["query"]), int(query["page"]), int(query["page_size"])
        assert wanted["ordering"] == ["tasks:updated_at"]
        assert query["fields"] == "all"
        tasks = [task for task in self.tasks if task["project"] == int(query["project"])]
        for item in wanted.get("filters", {"items": []})["items"]:
            assert (item["filter"], item["operator"]) == ("filter:tasks:updated_at", "greater_or_equal")
            tasks = [task for task in tasks if task["updated_at"] >= item["value"]]
        tasks.sort(key=lambda task: (task["updated_at"], task["id"]))
        shown = tasks[(page - 1) * size : page * size]
        if not shown and page > 1:
            return 404, refusal(404, "Invalid page.")
        return 200, {"total_annotations": 0, "total_predictions": 0, "total": len(tasks), "tasks": shown}


def parsed(config: str) -> dict[str, Any]:
    tree = ElementTree.fromstring(config)
    shown = {one.get("name"): one for one in tree if one.tag in ("Image", "Audio", "Text")}
    found = {}
    for one in tree:
        if one.tag == "Choices":
            to = shown[one.get("toName")]
            source = {"type": to.tag, "valueType": None, "value": str(to.get("value"))[1:]}
            labels = [choice.get("value") for choice in one]
            found[one.get("name")] = {
                "type": "Choices", "to_name": [to.get("name")], "inputs": [source], "labels": labels,
            }  # fmt: skip
    return {"parsed_label_config": found}


def refusal(status: int, detail: str) -> dict[str, Any]:
    return {"id": "x", "status_code": status, "version": "1.23.2", "detail": detail, "exc_info": None}


def handler_of(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply()

        def do_POST(self) -> None:
            self.reply()

        def do_PATCH(self) -> None:
            self.reply()

        def log_message(self, *_: Any) -> None:
            pass

        def reply(self) -> None:
            address = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            stand_in.calls.append(f"{self.command} {address.path}")
            if isinstance(stand_in.fail, str):
                self.send(302 if stand_in.fail.startswith("http") else 200, stand_in.fail.encode(), stand_in.fail)
                return
            if stand_in.fail:
                self.send(stand_in.fail, json.dumps(refusal(stand_in.fail, "Server is ill.")).encode())
                return
            status, found = self.found(address.path, {k: v[0] for k, v in parse_qs(address.query).items()}, body)
            self.send(status, json.dumps(found).encode())

        def found(self, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
            if path == "/api/token/refresh/":
                if body != {"refresh": PERSONAL}:
                    return 401, refusal(401, "Token is invalid")
                stand_in.access.append(f"access.number.{len(stand_in.access)}")
                return 200, {"access": stand_in.access[-1]}
            allowed = {f"Token {TOKEN}", *(f"Bearer {one}" for one in stand_in.access[-1:])}
            if self.headers.get("Authorization") not in allowed:
                return 401, refusal(401, "Invalid token.")
            return stand_in.answer(self.command, path, query, body)

        def send(self, status: int, content: bytes, location: str | None = None) -> None:
            self.send_response(status)
            if status == 302:
                self.send_header("Location", str(location))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
