"""The dashboard: pages over what a host knows, in the layout of the flows' pages, and JSON beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response

from persistasaurus.dev._apphost import Database
from persistasaurus.dev._control import control
from persistasaurus.dev._flow_pages import FlowPages, entries, within
from persistasaurus.dev._log_pages import LogPages
from persistasaurus.dev._metric_pages import MetricPages
from persistasaurus.dev._resource_pages import ResourcePages
from persistasaurus.dev._stream import stream
from persistasaurus.dev._trace_pages import TracePages
from persistasaurus.web._shell import NavEntry, Shell

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

FOLDER = Path(__file__).parent / "pages"

NAV = (
    NavEntry("Resources", "resources", "r"),
    NavEntry("Console", "console", "c"),
    NavEntry("Logs", "logs", "l"),
    NavEntry("Traces", "traces", "t"),
    NavEntry("Metrics", "metrics", "m"),
)


class Pages:
    """The app that shows a host and acts on it. The token is checked in front of it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        databases = [one for one in host.app.resources.values() if isinstance(one, Database)]
        nav = NAV + entries(databases)
        self._shell = self._shell_with(nav)
        self._flows = {
            one.name: FlowPages(host, one, self._shell_with(within(nav, one))) for one in databases
        }
        self.app = FastAPI(openapi_url=None)
        router = self._shell.router()
        router.get("/")(self._front)
        router.get("/events/{topic}")(self._events)
        for pages in (ResourcePages, LogPages, TracePages, MetricPages):
            router.include_router(pages(host, self._shell).router())
        self.app.include_router(self._shell.static_router())
        self.app.include_router(router)
        for name, flows in self._flows.items():
            self.app.mount(f"/db/{name}", flows)
        self.app.mount("/", control(host))

    async def close(self) -> None:
        """Leave the databases whose flows were looked at."""
        await asyncio.gather(*(flows.close() for flows in self._flows.values()))

    def _shell_with(self, nav: tuple[NavEntry, ...]) -> Shell:
        return Shell(title=self._host.app.name, nav=nav, folders=[FOLDER])

    async def _front(self, request: Request) -> Response:
        return self._shell.redirect(request, NAV[0].path)

    async def _events(self, topic: str, of: str = "") -> Response:
        return stream(self._host.changes, self._look(topic, of))

    def _look(self, topic: str, of: str) -> Callable[[], Hashable]:
        """Return what changes together with a page."""
        host = self._host
        revision = host.telemetry.revision
        match topic:
            case "console":
                return lambda: host.console.newest(host.names_of(of))
            case "logs":
                return lambda: revision.logs
            case "traces":
                return lambda: revision.traces
            case "trace":
                return lambda: host.telemetry.trace_size(of)
            case "metrics":
                return lambda: revision.metrics
            case _:
                return lambda: tuple((one.name, one.state, one.since, one.pid) for one in host.resources())
