"""Who may send what from where: one ASGI middleware for everything that the package serves.

Browsers send requests on behalf of any page that they show. What keeps such a page out is the `Host`
header (DNS rebinding), `Origin` and `Sec-Fetch-Site` (forged requests), and a policy for what our own
pages may load.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from persistasaurus.web._body import MOST_BYTES, announced, capped, headers_of, too_large
from persistasaurus.web._problem import Refused, problem_response

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD"})
NONCE = "persistasaurus.nonce"

_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is let in.

    `allowed_hosts` are the names in `Host`, without ports, "*" for any. Without a `token` only requests that
    came to a loopback address are served; with one, all need it, as `Authorization: Bearer` or in the cookie
    that the first visit with `?token=` sets, but for `open_paths`. `max_body` is bytes.
    """

    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    token: str | None = None
    open_paths: frozenset[str] = frozenset({"/health", "/health/ready"})
    max_body: int = MOST_BYTES

    @property
    def cookie(self) -> str:
        """The name of the cookie, another for each token: cookies do not tell ports apart."""
        return f"persistasaurus-{hashlib.sha256((self.token or '').encode()).hexdigest()[:12]}"


class SecurityMiddleware:
    """Lets in what the policy allows, caps bodies, and adds headers; wrap any ASGI app in it."""

    def __init__(self, app: ASGIApp, policy: Policy | None = None) -> None:
        self._app = app
        self._policy = policy or Policy()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket, or refuse it; lifespan events pass."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        nonce = nonce_of(scope)
        guarded = _with_headers(send, nonce)
        refused = refusal(scope, self._policy)
        if refused is not None:
            await _refuse(refused, scope, receive, guarded)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        clean = _without_token(scope, self._policy)
        if clean is not None:
            await self._log_in(clean)(scope, receive, guarded)
            return
        await self._serve(scope, receive, guarded)

    def _log_in(self, target: str) -> RedirectResponse:
        """Keep the token in a cookie, and take it out of the address."""
        response = RedirectResponse(target, status_code=303)
        policy = self._policy
        response.set_cookie(policy.cookie, policy.token or "", httponly=True, samesite="strict", path="/")
        return response

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer 413 once its body is too large, whatever the app makes of that."""
        limit, is_over, has_begun = self._policy.max_body, False, False

        def over() -> Exception:
            nonlocal is_over
            is_over = True
            return _too_large(limit)

        async def send_unless_over(message: Message) -> None:
            nonlocal has_begun
            if is_over and not has_begun:
                return
            has_begun = True
            await send(message)

        try:
            await self._app(scope, capped(receive, limit, over), send_unless_over)
        except Exception:
            if not is_over or has_begun:
                raise
        if is_over and not has_begun:
            await _refuse(_too_large(limit), scope, receive, send)


def refusal(scope: Scope, policy: Policy) -> Refused | None:
    """Return why a request is not served, None where it is."""
    headers = headers_of(scope)
    hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
    if len(hosts) != 1 or not _is_allowed(headers["host"], policy.allowed_hosts):
        return Refused(
            421,
            "host",
            f"This server does not answer to the host {headers.get('host', '')!r:.100}. Use one of "
            f"{', '.join(policy.allowed_hosts)}, or add yours to allowed_hosts.",
        )
    if policy.token is None and not _came_by_loopback(scope):
        return Refused(
            403,
            "address",
            "This server has no token and answers on a loopback address only. Bind it to 127.0.0.1, or "
            "give it a token.",
        )
    is_unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
    if is_unsafe and (told := foreign(headers)):
        return Refused(403, "cross-site", told)
    length = announced(scope)
    if length is not None and length > policy.max_body:
        return _too_large(policy.max_body)
    if policy.token is not None and scope["path"] not in policy.open_paths and not _knows(scope, policy):
        return Refused(
            401,
            "token",
            "This server wants its token, as `Authorization: Bearer <token>`; in a browser, open the address "
            "that it printed when it started.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return None


def nonce_of(scope: Scope) -> str:
    """Return the nonce of a request, for the scripts and styles of its page; the same each time."""
    nonce: str = scope.setdefault(NONCE, secrets.token_urlsafe(16))
    return nonce


def content_policy(nonce: str, *, more: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy of a page: nothing but our own files and what has the nonce.

    `more` are directives that take the place of those of the same name.
    """
    directives = {
        "default-src": "'none'",
        "script-src": f"'self' 'nonce-{nonce}'",
        "style-src": f"'self' 'nonce-{nonce}'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    directives.update((name, value) for name, _, value in (one.partition(" ") for one in more))
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def secure(headers: MutableHeaders, nonce: str) -> None:
    """Add the security headers to a response, where it has none of its own."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", content_policy(nonce))
    if not headers.get("cache-control"):
        headers["Cache-Control"] = "no-store"


def _with_headers(send: Send, nonce: str) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            secure(MutableHeaders(scope=message), nonce)
        await send(message)

    return send_with_headers


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await problem_response(refused)(scope, receive, send)


def _too_large(limit: int) -> Refused:
    # What is left of the body is not read: the connection cannot be used again.
    return Refused(413, "body-too-large", too_large(limit), headers={"Connection": "close"})


def _is_allowed(host: str, allowed: Iterable[str]) -> bool:
    name = host.lower()
    if not name.endswith("]") and ":" in name:
        name, _, port = name.rpartition(":")
        if not (port.isascii() and port.isdigit()):
            return False
    return any(one in ("*", name) for one in map(str.lower, allowed))


def _came_by_loopback(scope: Scope) -> bool:
    server = scope.get("server")
    try:
        # What is no address is a Unix socket, or a test's own transport.
        return server is None or server[1] is None or ipaddress.ip_address(server[0]).is_loopback
    except ValueError:
        return True


def foreign(headers: Any) -> str:
    """Return what shows that another site's page makes a request, an empty text where nothing does."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return f"The browser says that this request is {site!r:.40}. Send it from a page of this server."
    origin = headers.get("origin")
    if origin is not None and _authority(origin) != headers["host"].lower():
        return f"A page of {origin!r:.100} sent this request. Send it from a page of this server."
    return ""


def _authority(origin: str) -> str | None:
    """Return an origin's host with its port, as `Host` would tell it."""
    scheme, _, host = origin.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return None if default is None else host.removesuffix(default)


def _knows(scope: Scope, policy: Policy) -> bool:
    headers = headers_of(scope)
    given = [_bearer(headers.get("authorization", "")), _cookie(headers.get("cookie", ""), policy.cookie)]
    if scope.get("method") in SAFE_METHODS:
        given.append(dict(_query(scope)).get("token", ""))
    wanted = (policy.token or "").encode()
    return any(hmac.compare_digest(one.encode("utf-8", "replace"), wanted) for one in given)


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _without_token(scope: Scope, policy: Policy) -> str | None:
    """Return the address without the token, where a page was asked for with one."""
    query = _query(scope)
    if policy.token is None or scope["method"] not in SAFE_METHODS or "token" not in dict(query):
        return None
    if not hmac.compare_digest(dict(query)["token"].encode("utf-8", "replace"), policy.token.encode()):
        return None
    rest = urlencode([pair for pair in query if pair[0] != "token"])
    # One slash in front: two would name another host.
    return "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
