"""Who may talk to the AppHost: someone on this machine who knows the token, and no other site's page."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE = ("GET", "HEAD")
_OURS = ("same-origin", "none")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what is addressed to `hosts` and knows `token`, by cookie or `Authorization: Bearer`.

    A GET with `?t=TOKEN` is answered with the cookie and a redirect to the same place without it, where
    `cookie` names one. Everything else is refused: 421 for another host, 401 without the token, 403 for
    an unsafe request that another site's page has made.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: Iterable[str], cookie: str | None = None) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(hosts)
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = MutableHeaders()
        headers.update(_HEADERS)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in headers.items():
                    sent.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope)
        await (self._app if answer is None else answer)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return PlainTextResponse("This server is not addressed by that host name.\n", 421)
        login = self._login(scope)
        if login is not None:
            return login
        by_header = self._is_token(headers.get("authorization", "").removeprefix("Bearer "))
        if not by_header and not self._is_token(self._cookie_in(headers)):
            return PlainTextResponse(
                "The token is missing or wrong. Open the link that `persistasaurus dev` has printed.\n",
                401,
                {"www-authenticate": "Bearer"},
            )
        if scope["method"] not in _SAFE and not _is_ours(headers, host, needs_proof=not by_header):
            return PlainTextResponse("A page of another site may not do this.\n", 403)
        return None

    def _login(self, scope: Scope) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("t")
        if self._cookie is None or scope["method"] != "GET" or given is None or not self._is_token(given):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "t"])
        # One slash: two would begin a host's name.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        answer.set_cookie(self._cookie, given, httponly=True, samesite="strict", path="/")
        return answer

    def _cookie_in(self, headers: Headers) -> str:
        if self._cookie is None:
            return ""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


def _is_ours(headers: Headers, host: str, *, needs_proof: bool) -> bool:
    """Whether a request was made by one of our own pages, or by no page at all.

    A browser sends the cookie along by itself, so with a cookie one of the two headers must prove it.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return not needs_proof
    return site in (None, *_OURS) and origin in (None, f"http://{host}")
