"""The labelling page: a small web server over a run's label store, in a process of its own, without torch."""

import asyncio
import errno
import json
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ssl_lightning.labelling.page.desk import Desk, Media
from ssl_lightning.labelling.page.guard import Guard, address, cookie_name, error
from ssl_lightning.labelling.page.requests import HELD, LARGEST, Fields
from ssl_lightning.labelling.page.sights import TYPES
from ssl_lightning.labelling.store import LabelStore

STATIC = Path(__file__).parent / "static"
STATIC_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
RELOAD = 8.0  # seconds for which a tab that was left keeps its samples: it may only be loaded anew
TRIES = 50  # ports after the one that was asked for
FILE = "page.json"  # of the run: where its page is

Handler = Callable[[Request], Awaitable[Response]]


class Page:
    """The page's requests, each answered by the desk.

    Args:
        desk: Over the store.
        url: Of the store, whose password no message may tell.
    """

    def __init__(self, desk: Desk, url: str) -> None:
        self._desk = desk
        self._hidden = url, make_url(url).render_as_string(hide_password=True)
        self._static = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in STATIC_TYPES}

    def routes(self) -> list[Route]:
        """Return what is served where."""
        gets = {
            "/": self.index, "/static/{name}": self.static, "/media/{number:int}": self.media,
            "/neighbour/{number:int}/{place:int}": self.media, "/api/state": self.state, "/api/history": self.history,
            "/api/review": self.review, "/api/item/{number:int}": self.item,
        }  # fmt: skip
        posts = {
            "/api/take": self.take, "/api/answer": self.answer, "/api/undo": self.undo, "/api/close": self.close,
            "/api/release": self.release,
        }  # fmt: skip
        return [
            *(Route(path, self._told(handler), methods=["GET"]) for path, handler in gets.items()),
            *(Route(path, self._told(handler), methods=["POST"]) for path, handler in posts.items()),
        ]

    def _told(self, handler: Handler) -> Handler:
        """Turn what is refused into one line of JSON."""

        async def told(request: Request) -> Response:
            try:
                return await handler(request)
            except (ValueError, SQLAlchemyError, OSError) as refusal:
                # what a database or disk refuses now, it may take later: the answer is to be sent again
                cause = refusal.__cause__ if isinstance(refusal, ValueError) else refusal
                later = isinstance(cause, SQLAlchemyError | OSError)
                lines = str(refusal).replace(*self._hidden).splitlines() or [type(refusal).__name__]
                return error(503 if later else 400, lines[0])

        return told

    async def index(self, request: Request) -> Response:
        """Serve the page itself."""
        return Response(self._static["index.html"], media_type="text/html", headers={"cache-control": "no-store"})

    async def static(self, request: Request) -> Response:
        """Serve its script and style."""
        name = request.path_params["name"]
        if name not in self._static:
            return error(404, f"there is no `{name}` here; open the page at `/`.")
        kind = STATIC_TYPES[Path(name).suffix]
        return Response(self._static[name], media_type=kind, headers={"cache-control": "no-cache"})

    async def media(self, request: Request) -> Response:
        """Serve the picture or sound of a sample, which no browser needs to ask for twice."""
        number, place = request.path_params["number"], request.path_params.get("place")
        tag = request.query_params.get("v")
        found: Media | None = None
        if number <= LARGEST and (place is None or place <= LARGEST):
            found = await self._desk.media(number, place, tag)
        if found is None:
            return error(404, "there is no such picture or sound; load the page anew.")
        cache = "no-cache" if tag is None else "private, max-age=31536000, immutable"
        headers = {"etag": f'"{found.tag}"', "cache-control": cache}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return FileResponse(found.path, media_type=TYPES[found.path.suffix], headers=headers)

    async def state(self, request: Request) -> Response:
        """Tell classes, counts and round."""
        return _json(await self._desk.state())

    async def history(self, request: Request) -> Response:
        """Tell the last answers."""
        given = request.query_params
        fields = Fields({name: _whole(given[name]) for name in ("before", "limit") if name in given})
        limit = fields.whole("limit", 1, 500) if fields.has("limit") else 50
        return _json({"events": await self._desk.history(fields.number("before"), limit)})

    async def review(self, request: Request) -> Response:
        """Tell samples that deserve a second look."""
        which = request.query_params.get("which", "")
        if which not in ("doubts", "unsure", "skip"):
            raise ValueError(f"`which={which[:60]!a}` must be doubts, unsure or skip.")
        return _json({"items": await self._desk.review(which)})

    async def item(self, request: Request) -> Response:
        """Tell one sample."""
        number = request.path_params["number"]
        found = await self._desk.item(number) if number <= LARGEST else None
        return error(404, f"there is no query {number}.") if found is None else _json({"item": found})

    async def _fields(self, request: Request) -> Fields:
        fields = Fields(await request.body())
        run = fields.text("run", 64)
        if run != self._desk.run:  # a tab that was open when another run's page began at this address
            raise HTTPException(409, "this tab shows another run; load the page anew.")
        return fields

    async def take(self, request: Request) -> Response:
        """Give samples to label."""
        fields = await self._fields(request)
        return _json({"items": await self._desk.take(fields.session(), fields.whole("count", 1, HELD))})

    async def release(self, request: Request) -> Response:
        """Let others have the samples of a tab that was left."""
        await self._desk.release((await self._fields(request)).session(), RELOAD)
        return _json({})

    async def answer(self, request: Request) -> Response:
        """Commit answers; what others answered meanwhile is told and left as it is."""
        found = await self._desk.answer((await self._fields(request)).answers())
        saved = [{"query": one.query, "answer": one.answer} for one in found if one.taken]
        return _json({"saved": saved, "conflict": [one._asdict() for one in found if not one.taken]})

    async def undo(self, request: Request) -> Response:
        """Take back answers."""
        fields = await self._fields(request)
        who, session = fields.annotator(), fields.session()
        return _json({"items": await self._desk.undo(session, who, fields.numbers("answers"))})

    async def close(self, request: Request) -> Response:
        """Let the run go on with what there is."""
        await self._desk.close((await self._fields(request)).whole("round", -1, 2**31 - 1))
        return _json({})


def make_app(desk: Desk, store: str, token: str, hosts: Sequence[str], cookie: str, lifespan: Any = None) -> ASGIApp:
    """Build the page's app.

    Args:
        desk: Over the store.
        store: Its URL.
        token: Secret of those who may use it.
        hosts: Names that the page is reached by.
        cookie: Name of the cookie that keeps the secret.
        lifespan: What to do when it starts and ends.
    """

    async def refused(_: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, HTTPException)
        return error(refusal.status_code, str(refusal.detail))

    async def broken(_: Request, defect: Exception) -> Response:
        return error(500, f"a defect of the page ({type(defect).__name__}); its output tells more.")

    app = Starlette(
        routes=Page(desk, store).routes(),
        exception_handlers={HTTPException: refused, Exception: broken},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, token, hosts, cookie)


def serve(
    folder: Path,
    store: str,
    host: str = "127.0.0.1",
    port: int = 8765,
    lease: float = 300,
    attached: bool = False,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page of a run until it is interrupted.

    Args:
        folder: Of the run.
        store: URL of its labels.
        host: Address to serve at; `0.0.0.0` for all of this machine's.
        port: The first to try; 0 for any.
        lease: Seconds for which a browser's tab holds the samples it was given.
        attached: End when standard input does, as when the program that started this one ends.
        open_browser: Open the page here.
        say: Takes the lines that tell where it is.

    Raises:
        ValueError: If the address cannot be served, or the store not be opened.
    """
    listener = listen(host, port)
    found = int(listener.getsockname()[1])
    labels, token, name = LabelStore(store), secrets.token_urlsafe(32), _public_name(host)
    url = address(name, found, token)
    hosts = ["127.0.0.1", "localhost", "::1", host, name, socket.gethostname(), socket.getfqdn()]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            _write_private(folder / FILE, {"url": url, "pid": os.getpid(), "host": host, "port": found})
        except OSError as refusal:  # a note for programs; people have the line below
            say(f"`{folder / FILE}` cannot be written ({refusal.strerror}): the address is told here alone.")
        if port not in (0, found):
            say(f"port {port} is taken; the page is at {found}.")
        say(f"Label at {url}")
        if open_browser:
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        yield
        forget(folder)

    cookie = cookie_name(str(folder.resolve()), found)
    app = make_app(Desk(folder, labels, lease), store, token, hosts, cookie, lifespan)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
        lifespan="on", timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    if attached:
        threading.Thread(target=_end_with_input, args=[server], daemon=True).start()
    try:
        asyncio.run(server.serve([listener]))
    finally:
        forget(folder)
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """Listen at a port, or at the next that is free.

    Args:
        host: Address.
        port: The first to try; 0 for any.

    Raises:
        ValueError: If the address is not of this machine, or no port is free.
    """
    last = port if port == 0 else min(port + TRIES, 65535)
    host = host.strip("[]")
    for number in range(port, last + 1):
        try:
            family, _, _, _, where = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
                0
            ]
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
                listener.listen(128)
            except OSError:
                listener.close()
                raise
            return listener
        except (OSError, UnicodeError) as refusal:
            if getattr(refusal, "errno", 0) == errno.EADDRINUSE:
                continue
            said = getattr(refusal, "strerror", None) or refusal
            raise ValueError(
                f"`host={host}`, `port={number}` cannot be served: {said}; give an address of this machine "
                "(127.0.0.1, or 0.0.0.0 for all of them) and a port from 1024 to 65535."
            ) from None
    raise ValueError(f"`port={port}` and those up to {last} are taken; give another, or 0 for any that is free.")


def forget(folder: Path) -> None:
    """Remove the note of where the page is, if it is that of this process."""
    path = folder / FILE
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
            path.unlink()


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Write a file that nobody else can read at any time, in place of the one that is there."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(scratch, path)


def _public_name(host: str) -> str:
    """Return the name to tell people: of a host that stands for all addresses, that which leads to other machines."""
    host = host.strip("[]")
    if host not in ("0.0.0.0", "::"):
        return host
    family = socket.AF_INET if host == "0.0.0.0" else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8::1", 9))  # sends nothing
        return str(probe.getsockname()[0])
    return socket.gethostname()


def _end_with_input(server: uvicorn.Server) -> None:
    with suppress(OSError, ValueError, AttributeError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    server.should_exit = True


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def _json(content: dict[str, Any]) -> Response:
    # in ASCII: whatever a file held, it can be sent
    text = json.dumps(content, allow_nan=False)
    return Response(text, media_type="application/json", headers={"cache-control": "no-store"})
