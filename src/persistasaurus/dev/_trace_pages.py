"""Traces: a list, and one of them as a waterfall with a table beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from persistasaurus.dev._log_pages import Text, services, when
from persistasaurus.dev._telemetry import Trace
from persistasaurus.dev._waterfall import took, waterfall
from persistasaurus.web._payload import inert
from persistasaurus.web._problem import Refused
from persistasaurus.web._shell import Shell

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

PAGE = 100
MOST = 1_000
ROWS = 300
MOST_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A trace in the list."""

    trace: Trace
    name: str
    at: datetime
    took: str


class TracePages:
    """The list of traces, newest first, and one of them."""

    def __init__(self, host: Host, shell: Shell) -> None:
        self._host = host
        self._shell = shell

    def router(self) -> APIRouter:
        """Return the routes."""
        router = self._shell.router()
        router.get("/traces")(self._list)
        router.get("/traces/{trace_id}")(self._one)
        return router

    async def _list(
        self,
        request: Request,
        resource: Text = "",
        text: Text = "",
        errors: Text = "",
        shortest_ms: Text = "",
        limit: Annotated[int, Query(ge=1, le=MOST)] = PAGE,
    ) -> Response:
        found = self._host.telemetry.traces(
            resource=resource or None,
            text=text.strip(),
            errors_only=bool(errors),
            shortest_ms=_milliseconds(shortest_ms),
            limit=limit + 1,
        )
        asked = {"resource": resource, "text": text, "errors": errors, "shortest_ms": shortest_ms}
        context = {
            "here": "traces",
            **asked,
            "resources": services(self._host),
            "traces": [
                Shown(
                    trace=trace, name=inert(trace.name), at=when(trace.start_ns), took=took(trace.duration_ns)
                )
                for trace in found[:limit]
            ],
            "more": urlencode({**asked, "limit": MOST}) if len(found) > limit and limit < MOST else "",
            "events": "events/traces",
        }
        return self._shell.page(request, "traces.html", context)

    async def _one(
        self, request: Request, trace_id: str, rows: Annotated[int, Query(ge=1, le=MOST_ROWS)] = ROWS
    ) -> Response:
        branches = self._host.telemetry.trace(trace_id)
        if not branches:
            raise Refused(
                404,
                "not-found",
                f"There is no trace {trace_id!r:.80} in memory. Old ones make room, and all are gone with "
                "the AppHost.",
            )
        context = {
            "here": "traces",
            "trace_id": trace_id,
            "fall": waterfall(branches, rows),
            "most": MOST_ROWS if rows < MOST_ROWS else 0,
            "events": f"events/trace?{urlencode({'of': trace_id})}",
        }
        return self._shell.page(request, "trace.html", context)


def _milliseconds(text: str) -> int:
    given = text.strip() or "0"
    if not (given.isascii() and given.isdecimal() and len(given) < 13):  # noqa: PLR2004 - three hundred years
        raise Refused(422, "payload", f"{text!r:.40} is no whole number of milliseconds. Give one from 0.")
    return int(given)
