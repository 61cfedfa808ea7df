"""A Label Studio server as its REST interface has it; by the standard library alone."""

import json
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

TOKEN = "LABEL_STUDIO_TOKEN"  # environment variable
PATIENCE = 60  # seconds that one call may take


class ServerError(ValueError):
    """Label Studio cannot be reached, or refuses.

    Args:
        message: What is wrong, and what to do.
        status: Of HTTP; 0 without one.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A Label Studio server.

    Args:
        url: Its address.
        token_file: File with the access token; null for the environment variable `LABEL_STUDIO_TOKEN`.

    Raises:
        ValueError: If the address is none.
    """

    def __init__(self, url: str, token_file: str | None = None) -> None:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            shown = url if "@" not in parts.netloc else f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}"
            raise ValueError(
                f"`url={shown}` is no address of a Label Studio server; give one as `http://localhost:8080`, without a "
                f"name or password, and the access token in the environment variable `{TOKEN}`."
            )
        self.url, self.token_file = url.rstrip("/"), token_file
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._opener: OpenerDirector = build_opener(_NoRedirect, *([ProxyHandler({})] if local else []))
        self._access: tuple[str, str] | None = None  # a personal token, and what it was changed for

    def tasks(self, project: int, since: str | None, page: int, size: int) -> dict[str, Any]:
        """Return a page of a project's tasks with their annotations, those that changed first first.

        Args:
            project: Its number.
            since: Those only that changed then or later, as `updated_at` tells; null for all.
            page: From 1.
            size: Tasks a page.

        Returns:
            `tasks`, and `total`, how many there are on all pages.
        """
        query: dict[str, Any] = {"ordering": ["tasks:updated_at"]}
        if since is not None:
            column = {"filter": "filter:tasks:updated_at", "operator": "greater_or_equal", "type": "Datetime"}
            query["filters"] = {"conjunction": "and", "items": [column | {"value": since}]}
        wanted = {"project": project, "fields": "all", "page": page, "page_size": size, "query": json.dumps(query)}
        found: dict[str, Any] = self.call("GET", "/api/tasks", **wanted)
        return found

    def call(self, method: str, path: str, body: Any = None, /, **query: Any) -> Any:
        """Call the interface.

        Args:
            method: Of HTTP.
            path: From `/api` on.
            body: JSON values; null for none.
            query: Of the address.

        Raises:
            ServerError: If the server cannot be reached, or refuses.
        """
        address = f"{path}?{urlencode(query)}" if query else path
        token = self._token()
        if token.count(".") != 2:
            return self._request(method, address, body, f"Token {token}")
        if self._access is not None and self._access[0] == token:
            try:
                return self._request(method, address, body, f"Bearer {self._access[1]}")
            except ServerError as error:
                if error.status != 401:  # else it has expired, which it does after minutes
                    raise
        fresh = self._request("POST", "/api/token/refresh/", {"refresh": token}, None)
        self._access = token, fresh["access"]
        return self._request(method, address, body, f"Bearer {self._access[1]}")

    def _token(self) -> str:
        """Read the access token anew, so that it can be changed while a run waits."""
        where = f"`token_file={self.token_file}`" if self.token_file else f"the environment variable `{TOKEN}`"
        try:
            token = Path(self.token_file).read_text(encoding="utf-8") if self.token_file else os.environ.get(TOKEN, "")
        except (OSError, UnicodeDecodeError) as error:
            raise ServerError(f"{where} cannot be read: {type(error).__name__}; put the access token there.") from None
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ServerError(
                f"{where} holds no access token of Label Studio; copy yours from its page `Account & Settings`."
            )
        return token

    def _request(self, method: str, address: str, body: Any, authorization: str | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        sent = None if body is None else json.dumps(body).encode()
        request = Request(self.url + address, data=sent, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            raise self._refused(error, f"{method} {address.partition('?')[0]}") from None
        except (URLError, OSError, HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise ServerError(
                f"Label Studio at `{self.url}` cannot be reached ({why}); start it, or mend `url`."
            ) from None
        except ValueError:
            raise ServerError(f"`{self.url}` does not answer as Label Studio does; mend `url`.") from None

    def _refused(self, error: HTTPError, what: str) -> ServerError:
        if error.code == 401:
            held = f"`token_file={self.token_file}`" if self.token_file else f"`{TOKEN}`"
            return ServerError(
                f"Label Studio at `{self.url}` refuses the access token of {held} (HTTP 401); copy yours from its page "
                "`Account & Settings`, and see there that this kind of token is allowed.",
                401,
            )
        if 300 <= error.code < 400:
            return ServerError(
                f"`url={self.url}` leads on to `{error.headers.get('Location')}`; give that server's address, for the "
                "access token is sent nowhere else.",
                error.code,
            )
        try:
            said = json.loads(error.read())
            detail = f"{said.get('detail')} {said.get('validation_errors') or ''}".strip()
        except (ValueError, AttributeError, OSError, HTTPException):
            detail = str(error.reason)
        return ServerError(
            f"Label Studio at `{self.url}` refuses {what} (HTTP {error.code}): {detail:.300}.", error.code
        )


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Go nowhere else, or the token would."""
        return
