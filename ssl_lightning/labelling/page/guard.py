"""Who may speak with the labelling page: its secret, its own name, its own origin, and bodies of a limit."""

import json
import secrets
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from ipaddress import ip_address
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT = 256 * 1024  # bytes of a request's body
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
NO_SECRET = (
    "This page opens with its secret only: use the whole address that `ssl-lightning label` (or `active`) printed, "
    "with its `?token=...`."
)


class Guard:
    """Passes on to an app what comes from people who know the secret, and adds the headers that keep others out.

    Args:
        app: That answers the rest.
        token: The secret.
        hosts: Names and addresses that the page is reached by. Any other name in a request is that of a stranger's
            site, whose owner made it point to this machine (DNS rebinding).
        cookie: Name of the cookie that keeps the secret.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str], cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie
        self._hosts = {bare_host(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        body: bytes | Response = b""
        answer = self._refused(scope) or self._entry(scope)
        if answer is None and scope["method"] == "POST":
            body = await _body(Headers(scope=scope), receive)
            answer = body if isinstance(body, Response) else None
        app = self._app if answer is None else answer
        await app(scope, _replay(body, receive) if isinstance(body, bytes) else receive, _protected(send))

    def _refused(self, scope: Scope) -> Response | None:
        """Refuse another machine's name, method or origin, before anything else is looked at."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if bare_host(host) not in self._hosts and not _is_own_address(bare_host(host), scope):
            return error(403, f"`Host: {host}` is no name of this page; use the address that was printed, or --host.")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return error(405, f"`{scope['method']}` is not possible here; the page takes GET, HEAD and POST.")
        if scope["method"] == "POST":
            if headers.get("origin", "") not in (f"http://{host}", f"https://{host}"):
                return error(403, "this request does not come from the page itself; open the page and answer there.")
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return error(415, "the body must be of `Content-Type: application/json`.")
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] != "/":
            return error(403, "another site may not read what is here; open the page itself.")
        return None

    def _entry(self, scope: Scope) -> Response | None:
        """Let in who brings the secret with the address, or in the cookie that the address gave."""
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_secret(given):
            answer: Response = RedirectResponse("/", status_code=303)
            if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                # a strict cookie goes with no redirect that another site began; with a page's own step it does
                answer = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>...</title>')
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            answer.headers["cache-control"] = "no-store"
            return answer
        if any(self._is_secret(value) for value in _cookies(headers, self._cookie)):
            return None
        if scope["path"].startswith("/api/"):
            return error(401, NO_SECRET)
        return PlainTextResponse(NO_SECRET + "\n", status_code=401, headers={"cache-control": "no-store"})

    def _is_secret(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal as one line of JSON.

    Args:
        status: Of HTTP.
        message: What is wrong, and what would be right.
        headers: Further ones.
    """
    text = json.dumps({"error": message})
    given = {"cache-control": "no-store", **(headers or {})}
    return Response(text, status_code=status, media_type="application/json", headers=given)


def bare_host(host: str) -> str:
    """Return the name or address of a `Host` header, without port and brackets, in lower case.

    Example:
        >>> bare_host("LocalHost:8765"), bare_host("[::1]:80"), bare_host("::1"), bare_host("10.0.0.7")
        ('localhost', '::1', '::1', '10.0.0.7')
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def cookie_name(folder: str, port: int) -> str:
    """Return the name of a page's cookie: browsers do not tell ports apart, and several pages may be open."""
    return f"ssl_lightning_{port}_{blake2b(folder.encode(errors='surrogateescape'), digest_size=6).hexdigest()}"


def address(host: str, port: int, token: str) -> str:
    """Return the address that opens a page.

    Example:
        >>> address("::1", 8765, "secret")
        'http://[::1]:8765/?token=secret'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={quote(token, safe='')}"


def _is_own_address(host: str, scope: Scope) -> bool:
    """Tell whether a host is the very address the connection came to: a number, which no name server can turn."""
    try:
        return bool(scope.get("server")) and ip_address(host) == ip_address(scope["server"][0])
    except ValueError:
        return False


def _cookies(headers: Headers, name: str) -> list[str]:
    pairs = (part.strip().partition("=") for line in headers.getlist("cookie") for part in line.split(";"))
    return [value for key, _, value in pairs if key == name]


async def _body(headers: Headers, receive: Receive) -> bytes | Response:
    """Read a body, or refuse one that is too large: by what it says, or by what comes if it does not say."""
    told = headers.get("content-length", "0")
    parts, size = [], int(told) if told.isascii() and told.isdigit() else 0
    if size <= LIMIT:
        size = 0
        while size <= LIMIT:
            message = await receive()
            if message["type"] == "http.disconnect":
                return error(400, "the request ended before it was whole.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body", False):
                break
    if size > LIMIT:
        return error(
            413, f"the body is larger than {LIMIT} bytes; send fewer answers at once.", {"connection": "close"}
        )
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _protected(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sender
