"""A run that asks, and its page: what the tests of the page share."""

import io
import json
import subprocess
import sys
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from ssl_lightning.labelling.records import Query
from ssl_lightning.labelling.shown import keep_sight
from ssl_lightning.labelling.store import LabelStore

CLASSES = ("cat", "dog", "bird")
HOSTILE = "<img src=x onerror=alert(1)>"


def png(shade: int, size: int = 24) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (shade % 256, 90, 160)).save(stream, "PNG")
    return stream.getvalue()


def wav() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x00\x10" * 8000)
    return stream.getvalue()


def new_run(folder: Path, classes: Sequence[str] = CLASSES) -> LabelStore:
    """A run that has asked for nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
    store.add_classes(classes)
    return store


def ask(folder: Path, store: LabelStore, names: Sequence[str], number: int = 0, **facts: object) -> None:
    """Ask for pictures, as `active` does."""
    for place, name in enumerate(names):
        keep_sight(folder, name, "f", "image", png(10 * place))
    queries = [Query(name, score=0.5, fingerprint="f", **facts) for name in names]  # type: ignore[arg-type]
    store.add_round(number, "Entropy", 0, queries, None)


def names(count: int, start: int = 0) -> list[str]:
    return [f"{number:03}.png" for number in range(start, start + count)]


@contextmanager
def page_of(folder: Path, *options: str) -> Iterator[str]:
    """Serve the page by the command, and give its address."""
    command = [sys.executable, "-m", "ssl_lightning", "label", str(folder), "--port", "0", "--attached", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield url_of(folder, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def url_of(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until a page serves."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            told = json.loads((folder / "page.json").read_text(encoding="utf-8"))
            if told["pid"] == process.pid:
                return str(told["url"])
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    process.kill()
    assert process.stdout is not None
    raise AssertionError(process.stdout.read().decode())
