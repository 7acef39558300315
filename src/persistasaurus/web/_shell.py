"""What every page of a dashboard stands in: layout, navigation, files for the browser, and live updates.

    shell = Shell(nav=[NavEntry("Flows", "flows", "f"), NavEntry("Resources", "resources", "r")])
    router = shell.router()                       # an APIRouter that guards its routes and answers in HTML

    @router.get("/resources")
    async def resources(request: Request) -> Response:
        return shell.page(request, "resources.html", {"here": "resources", "events": "resources/events"})

    @router.get("/resources/events")              # `look` runs in a thread; a new value makes pages refresh
    async def resources_events(request: Request) -> Response:
        return shell.events(request, look)

    fastapi_app.include_router(shell.static_router())
    fastapi_app.include_router(router)            # all routers of a shell under one prefix

Addresses are relative to where the routers are mounted: `{{ base }}flows` in a template, `shell.redirect(
request, "flows")` in a route. A template extends `base.html`, sets the blocks `title` and `content`, and may
use `time.html` and `payload.html` (with `_payload.shown(value)`), and the filters `ago(now)`, `utc`, `span`
(of milliseconds) and `inert` (for text that somebody else wrote). It may be given:

- `here`: the path of the navigation's entry that it belongs to,
- `events`: the path of a stream of `shell.events`. On each event the page is fetched again (from `refresh`,
  by default its own address) and every element that has an id and `data-live` is replaced by its new self:
  with `data-live="rows"` child by child, those known by their ids, so that rows never jump; with `data-key`
  only once that key is another, so that a form keeps what was typed.

`data-filter` marks the field that `/` goes to, `data-item` the links that `j` and `k` walk,
`data-copy="text"` a hidden button that copies. Without JavaScript all pages work, and are reloaded by hand.
"""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.routing import Match
from starlette.types import Scope

from persistasaurus.web._assets import PAGE_FILES, PAGES, Asset
from persistasaurus.web._body import MOST_BYTES, announced, capped, headers_of, too_large
from persistasaurus.web._payload import inert
from persistasaurus.web._problem import Refused, refusal_of
from persistasaurus.web._route import matched_as_sent
from persistasaurus.web._security import SAFE_METHODS, foreign, nonce_of, secure
from persistasaurus.web._times import ago, span, utc

# At most some five looks a second; a stream ends after a while, and the browser asks again.
LOOK_EVERY_S = 0.2
STREAM_FOR_S = 60.0
_NOTHING_YET = object()


class NavEntry(NamedTuple):
    """A link of the navigation: its text, its path below the mount, and the letter that follows `g`."""

    label: str
    path: str
    key: str = ""


class Shell:
    """Renders pages in one layout. `folders` hold templates that are looked for before our own."""

    def __init__(
        self, *, title: str = "Persistasaurus", nav: Sequence[NavEntry] = (), folders: Sequence[Path] = ()
    ) -> None:
        self.title = title
        self.nav = tuple(nav)
        self._depths: dict[Any, int] = {}
        self._templates = Environment(
            loader=FileSystemLoader([*folders, PAGES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Any] = self._templates.filters
        filters |= {"ago": ago, "inert": inert, "span": span, "utc": utc}

    def router(self) -> APIRouter:
        """Return a router for pages: its routes refuse what another site sends, and show errors as pages."""
        shell = self

        class PageRoute(_PageRoute):
            def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
                # Including the router elsewhere may make its routes again, with a prefix: the first counts.
                shell._depths.setdefault(endpoint, path.count("/") - 1)
                super().__init__(path, endpoint, **settings)

            def error_page(self, request: Request, refused: Refused) -> Response:
                return shell.error(request, refused)

        return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)

    def static_router(self) -> APIRouter:
        """Return the router for the files that pages load, to be included once beside the pages."""
        files = {asset.name: asset for asset in PAGE_FILES}
        router = self.router()

        @router.get("/static/{name}")
        async def static(name: str) -> Response:
            asset = files.get(name)
            if asset is None or not asset.path.is_file():
                raise Refused(404, "not-found", f"There is no file {name!r:.80} here.")
            return _file(asset)

        return router

    def base(self, request: Request) -> str:
        """Return where the routers are mounted, relative to the page: `./`, `../` and so on."""
        return "../" * self._depths[request.scope["endpoint"]] or "./"

    def page(
        self, request: Request, template: str, context: Mapping[str, Any], *, status: int = 200
    ) -> HTMLResponse:
        """Return a page: the template filled with the context, and with what the layout needs."""
        filled = self._templates.get_template(template).render(
            {
                "base": self.base(request),
                "events": None,
                "here": "",
                "nav": self.nav,
                "now": datetime.now(UTC),
                "refresh": None,
                "shell_title": self.title,
                **context,
            }
        )
        # What UTF-8 cannot hold is shown as a replacement; the record keeps it.
        return HTMLResponse(filled.encode("utf-8", "replace"), status_code=status)

    def error(self, request: Request, refused: Refused) -> HTMLResponse:
        """Return the page that tells why a request was refused."""
        page = self.page(request, "error.html", {"refused": refused}, status=refused.status_code)
        page.headers.update(refused.headers or {})
        return page

    def redirect(self, request: Request, path: str) -> Response:
        """Return a redirect to a path below the mount, after something was done."""
        return RedirectResponse(self.base(request) + path, status_code=303)

    def events(
        self, request: Request, look: Callable[[], Hashable | None], *, every: float = LOOK_EVERY_S
    ) -> Response:
        """Return a stream that tells whenever `look` has a new value, and ends where it is None.

        `look` is called in a thread, every `every` seconds. The first event comes at once: something may have
        happened since the page was made.
        """
        return StreamingResponse(
            _stream(request, look, every),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


class _PageRoute(APIRoute, ABC):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return matched_as_sent(super().matches, scope)

    @abstractmethod
    def error_page(self, request: Request, refused: Refused) -> Response:
        """Return the page that says what was refused, and why."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            nonce = nonce_of(request.scope)
            try:
                response = await handle(_checked(request))
            except Exception as error:
                refused = refusal_of(error)
                if refused is None:
                    raise
                response = self.error_page(request, refused)
            # With `no-referrer` browsers send the page's own forms with `Origin: null`, as another site's.
            response.headers.setdefault("Referrer-Policy", "same-origin")
            secure(MutableHeaders(raw=response.raw_headers), nonce)
            return response

        return handle_as_page


def _checked(request: Request) -> Request:
    """Refuse what another site's page sends and what is too large, where no middleware has done so."""
    if request.method not in SAFE_METHODS and (told := foreign(headers_of(request.scope))):
        raise Refused(403, "cross-site", told)
    if (announced(request.scope) or 0) > MOST_BYTES:
        raise _over()
    return Request(request.scope, capped(request.receive, MOST_BYTES, _over), request._send)


def _over() -> Refused:
    return Refused(413, "body-too-large", too_large(MOST_BYTES), headers={"Connection": "close"})


def _file(asset: Asset) -> Response:
    # Of a few kilobytes, sent at once: a page that is left while it loads does not cut it in two.
    return Response(
        asset.path.read_bytes(), media_type=asset.media_type, headers={"Cache-Control": "no-cache"}
    )


async def _stream(request: Request, look: Callable[[], Hashable | None], every: float) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    seen: Hashable | None = _NOTHING_YET
    loop = asyncio.get_running_loop()
    end, told_at = loop.time() + STREAM_FOR_S, loop.time()
    while loop.time() < end and not _server_leaves() and not await request.is_disconnected():
        now = await asyncio.to_thread(look)
        if now != seen:
            told_at = loop.time()
            yield f"event: {'end' if now is None else 'change'}\ndata: -\n\n"
        if now is None:
            return
        if loop.time() - told_at > 15:  # noqa: PLR2004 - what proxies wait for at least
            told_at = loop.time()
            yield ": still here\n\n"
        seen = now
        await asyncio.sleep(every)


def _server_leaves() -> bool:
    """Whether uvicorn was asked to stop: it waits for open streams, and tells apps only after that."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
