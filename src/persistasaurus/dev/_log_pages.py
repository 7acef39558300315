"""What the processes print, and the structured records that they send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from persistasaurus.dev._telemetry import LogRecord
from persistasaurus.web._payload import laid_out, shown_text
from persistasaurus.web._shell import Shell

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

LINES = 500

Text = Annotated[str, Query(max_length=1_000)]

LEVELS = (("0", "All"), ("5", "Debug"), ("9", "Info"), ("13", "Warning"), ("17", "Error"))
_WARNING, _ERROR = 13, 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a console as the pages show it."""

    number: int
    at: datetime
    resource: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One structured record as the pages show it."""

    record: LogRecord
    at: datetime
    tone: str
    text: str
    attributes: list[tuple[str, str]]


class LogPages:
    """The console and the structured logs: the last entries that fit, oldest first."""

    def __init__(self, host: Host, shell: Shell) -> None:
        self._host = host
        self._shell = shell

    def router(self) -> APIRouter:
        """Return the routes."""
        router = self._shell.router()
        router.get("/console")(self._console)
        router.get("/logs")(self._logs)
        return router

    async def _console(self, request: Request, resource: Text = "", text: Text = "") -> Response:
        names = self._host.names_of(resource)
        lines = self._host.console.lines(resources=names, text=text.strip(), limit=LINES)
        context = {
            "here": "console",
            "resource": resource,
            "resources": self._names(),
            "text": text,
            "most": LINES,
            "lines": [
                Line(
                    number=line.number,
                    at=line.at,
                    resource=line.resource,
                    stream=line.stream,
                    text=shown_text(line.text).text,
                )
                for line in lines
            ],
            "events": f"events/console?{urlencode({'of': resource})}",
        }
        return self._shell.page(request, "console.html", context)

    async def _logs(
        self, request: Request, resource: Text = "", level: Text = "0", text: Text = "", trace: Text = ""
    ) -> Response:
        known_level = level if level in dict(LEVELS) else "0"
        found = self._host.telemetry.logs(
            resource=resource or None,
            lowest_severity=int(known_level),
            text=text.strip(),
            trace_id=trace.strip().lower() or None,
            limit=LINES,
        )
        context = {
            "here": "logs",
            "resource": resource,
            "resources": services(self._host),
            "level": known_level,
            "levels": LEVELS,
            "text": text,
            "trace": trace,
            "most": LINES,
            "records": [_record(record) for record in found],
            "events": "events/logs",
        }
        return self._shell.page(request, "logs.html", context)

    def _names(self) -> list[str]:
        """Return what can be chosen: each resource that prints, and its replicas."""
        found = {name: None for s in self._host.resources() if s.command for name in (s.resource, s.name)}
        return list(found)


def services(host: Host) -> list[str]:
    """Return those that may send telemetry."""
    return list({s.resource: None for s in host.resources() if s.command})


def attributes(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return attributes as text: those that are text as they are, others as JSON."""
    return [
        (name, shown_text(value if isinstance(value, str) else laid_out(value)).text)
        for name, value in sorted(found.items())
    ]


def when(ns: int) -> datetime:
    """Return nanoseconds since 1970 as a time, which holds microseconds."""
    return datetime.fromtimestamp(ns // 1_000 / 1e6, UTC)


def _record(record: LogRecord) -> Record:
    tone = "bad" if record.severity >= _ERROR else "wait" if record.severity >= _WARNING else "none"
    return Record(
        record=record,
        at=when(record.at_ns),
        tone=tone,
        text=shown_text(record.text).text,
        attributes=attributes(record.attributes),
    )
