"""Measure the labelling page: people who label at once over HTTP, and whether any answer is lost or done twice.

    python scripts/bench_page.py                     # 10,000 pending queries, 20 people without a pause, 15 s
    python scripts/bench_page.py --pause 0.3         # who look for 0.3 s at each sample

The page runs as its own process by its own command; the people are one process more, without an HTTP library, so that
they cost little.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from ssl_lightning.labelling.records import Query
from ssl_lightning.labelling.shown import keep_sight
from ssl_lightning.labelling.store import LabelStore

CLASSES = [f"class {number}" for number in range(10)]


class Person:
    """Takes samples and answers them one by one, as the page's script does."""

    def __init__(self, number: int, url: str, cookie: str, run: str) -> None:
        self.number, self.url, self.cookie, self.run = number, urlsplit(url), cookie, run
        self.answered: dict[int, str] = {}
        self.took: dict[str, list[float]] = {"answer": [], "take": [], "state": []}
        self.conflicts = 0

    async def call(self, method: str, path: str, **fields: object) -> dict:
        """Send a request, note how long it took, and return the answer."""
        body = json.dumps({"run": self.run, "session": f"tab-of-person-{self.number}", **fields}).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nCookie: {self.cookie}\r\n"
        if method == "POST":
            head += f"Origin: http://{self.url.netloc}\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(body)}\r\n"
        began = time.perf_counter()
        self.writer.write(head.encode() + b"\r\n" + (body if method == "POST" else b""))
        answer = await self.reader.readuntil(b"\r\n\r\n")
        (size,) = (int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        content = json.loads(await self.reader.readexactly(size))
        self.took.setdefault(path.rpartition("/")[2], []).append(time.perf_counter() - began)
        assert answer.startswith(b"HTTP/1.1 200"), (answer, content)
        return content

    async def work(self, until: float, pause: float) -> None:
        """Label until a time, looking at each sample for some seconds."""
        self.reader, self.writer = await asyncio.open_connection(self.url.hostname, self.url.port, limit=2**24)
        await asyncio.sleep(self.number * 0.01)
        items: list[dict] = []
        polled = time.monotonic()
        while time.monotonic() < until:
            if len(items) < 8:
                have = {item["id"] for item in items}
                found = (await self.call("POST", "/api/take", count=16))["items"]
                items += [item for item in found if item["id"] not in have]
            if not items:
                break
            if time.monotonic() - polled > 2.5:
                await self.call("GET", "/api/state")
                polled = time.monotonic()
            await asyncio.sleep(pause)
            item = items.pop(0)
            label = CLASSES[(item["id"] + self.number) % 10]
            sent = {"query": item["id"], "key": item["key"], "kind": "class", "label": label, "milliseconds": 5}
            told = await self.call("POST", "/api/answer", annotator=f"person {self.number}", answers=[sent])
            self.conflicts += len(told["conflict"])
            if told["saved"]:
                self.answered[item["id"]] = label
        self.writer.close()


def make_run(folder: Path, count: int) -> LabelStore:
    """Make a run that has asked for so many samples."""
    store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
    store.add_classes(CLASSES)
    near = [(f"{place}.png", "f", CLASSES[place]) for place in range(3)]
    asked = [
        Query(f"{place}.png", score=0.5, fingerprint="f", guess=CLASSES[0], confidence=0.4, neighbours=near)
        for place in range(count)
    ]
    for query in asked:
        keep_sight(folder, query.key, "f", "image", b"as good as a picture")
    store.add_round(0, "Entropy", 0, asked, None)
    return store


async def everybody(url: str, people: int, seconds: float, pause: float) -> list[Person]:
    """Let people label for some time."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
    )
    (line,) = [line for line in (await reader.read()).decode().split("\r\n") if line.lower().startswith("set-cookie:")]
    cookie = line[11:].split(";")[0].strip()
    scout = Person(0, url, cookie, "")
    scout.reader, scout.writer = await asyncio.open_connection(parts.hostname, parts.port)
    run = (await scout.call("GET", "/api/state"))["run"]
    some = [Person(number, url, cookie, run) for number in range(people)]
    until = time.monotonic() + seconds
    await asyncio.gather(*(person.work(until, pause) for person in some))
    return some


def main() -> None:
    """Run it and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--pause", type=float, default=0.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_run(folder, args.queries)
        began = time.perf_counter()
        command = [sys.executable, "-m", "ssl_lightning", "label", name, "--port", "0", "--attached"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while not (folder / "page.json").exists():
            assert process.poll() is None, "the page did not start"
            time.sleep(0.005)
        print(f"start {time.perf_counter() - began:.2f} s")
        url = json.loads((folder / "page.json").read_text())["url"]
        people = asyncio.run(everybody(url, args.people, args.seconds, args.pause))
        report(people, store, args.seconds)
        spent = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        answers = sum(len(person.answered) for person in people)
        print(f"{1000 * sum(map(int, spent)) / os.sysconf('SC_CLK_TCK') / answers:.2f} ms of a core for an answer")
        process.stdin.close()
        process.wait()
        print(f"largest memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")


def report(people: list[Person], store: LabelStore, seconds: float) -> None:
    """Print times, and compare what people were told with what is kept."""
    for what in ("answer", "take", "state"):
        took = sorted(1000 * one for person in people for one in person.took[what])
        if took:
            p95, p99 = took[int(0.95 * len(took))], took[int(0.99 * len(took))]
            print(
                f"{what:<7} {len(took):>6}  median {median(took):6.1f} ms  p95 {p95:6.1f}  p99 {p99:6.1f}  "
                f"most {took[-1]:6.1f}"
            )
    told = {number: label for person in people for number, label in person.answered.items()}
    kept = {query.id: query.label for query in store.queries() if query.kind}
    twice = sum(len(person.answered) for person in people) - len(told)
    print(
        f"{len(told) / seconds:.0f} answers a second; lost {len(told.items() - kept.items())}; done twice {twice}; "
        f"conflicts {sum(person.conflicts for person in people)}; kept untold {len(kept.items() - told.items())}"
    )


if __name__ == "__main__":
    main()
