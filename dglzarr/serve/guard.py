"""Who may ask, how much at once, and what every answer says to a browser."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
COOKIE = "dglzarr"
SHORTEST_TOKEN = 16
LONGEST_QUERY = 12_000
"""Bytes of an address after the question mark."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts allow-downloads allow-popups"
)
"""A report is one file with its own styles and scripts: they get no cookie and no address."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def new_token() -> str:
    """Return a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


class Guard:
    """Lets through whoever may ask, and writes the headers of every answer.

    Parameters
    ----------
    app
        What is guarded.
    token
        Asked for where it is not "": as ``Authorization: Bearer``, as a cookie, or once as
        ``?token=``, for which a browser gets the cookie and an address without it.
    hosts
        Names that the server may be called by, so that no page elsewhere reaches it by a name of
        its own; any where there are none.
    """

    def __init__(self, app: ASGIApp, *, token: str = "", hosts: Sequence[str] = ()) -> None:
        self._app, self._token, self._hosts = app, token, hosts
        self._cookie = sha256(f"dglzarr {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                policy = {"content-security-policy": POLICY, "cache-control": "no-cache"}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in {**HEADERS, **policy}.items()
                        if name.encode() not in known
                    ),
                ]
            await send(message)

        refused = self._refusal(Request(scope))
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to who may not ask, None to who may."""
        if request.method not in METHODS:
            answer = _told(request, 405, "Only GET and HEAD: nothing can be changed here.")
            answer.headers["allow"] = ", ".join(METHODS)
            return answer
        has_body = request.headers.get("content-length", "0") != "0"
        if has_body or "transfer-encoding" in request.headers:
            answer = _told(request, 413, "A question has no body.")
            answer.headers["connection"] = "close"  # nothing in it is taken for another question
            return answer
        if len(request.scope["query_string"]) > LONGEST_QUERY:
            return _told(request, 414, f"The question is longer than {LONGEST_QUERY} bytes.")
        host = request.headers.get("host", "")
        if self._hosts and _host(host) not in self._hosts:
            return _told(request, 421, "This server is not called by that name.")
        return self._without_token(request) if self._token else None

    def _without_token(self, request: Request) -> Response | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_bearer = scheme.lower() == "bearer" and _same(given.strip(), self._token)
        if is_bearer or _same(request.cookies.get(COOKIE, ""), self._cookie):
            return None
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        if any(name == "token" and _same(value, self._token) for name, value in pairs):
            rest = urlencode([(name, value) for name, value in pairs if name != "token"])
            path = "/" + request.url.path.lstrip("/\\")  # two slashes would lead elsewhere
            found = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            found.set_cookie(COOKIE, self._cookie, httponly=True, samesite="lax", path="/")
            return found
        answer = _told(
            request,
            401,
            "A token is needed: open the address that the terminal printed, or send "
            "'Authorization: Bearer TOKEN'.",
        )
        answer.headers["www-authenticate"] = "Bearer"
        return answer


def _same(given: str, expected: str) -> bool:
    """Return whether two texts are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _host(header: str) -> str:
    """Return the name of a Host header, without its port.

    Examples
    --------
    >>> _host("localhost:8000"), _host("[::1]:8000"), _host("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def _told(request: Request, status: int, message: str) -> Response:
    if request.url.path.startswith("/api"):
        return JSONResponse({"error": message}, status)
    return PlainTextResponse(f"{message}\n", status)
