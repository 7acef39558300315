"""Metrics: a list of instruments, and one as a chart with the same numbers in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from persistasaurus.dev._log_pages import Text, services, when
from persistasaurus.dev._telemetry import Point, Series
from persistasaurus.web._assets import HOW_TO_GET, UPLOT
from persistasaurus.web._payload import inert
from persistasaurus.web._problem import Refused
from persistasaurus.web._shell import Shell

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

LINES = 12
"""More lines than this nobody tells apart; the table has all of them."""
ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One metric of one resource, in the list."""

    resource: str
    name: str
    kind: str
    unit: str
    description: str
    series: int
    latest: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One point in the table."""

    at: datetime
    label: str
    told: str


class MetricPages:
    """The list of instruments, one of them, and its numbers for the chart."""

    def __init__(self, host: Host, shell: Shell) -> None:
        self._host = host
        self._shell = shell

    def router(self) -> APIRouter:
        """Return the routes."""
        router = self._shell.router()
        router.get("/metrics")(self._list)
        router.get("/metric")(self._one)
        router.get("/metric-points")(self._points)
        return router

    async def _list(self, request: Request, resource: Text = "", text: Text = "") -> Response:
        needle = text.strip().casefold()
        found = [
            series
            for series in self._host.telemetry.instruments()
            if resource in ("", series.resource) and needle in series.name.casefold()
        ]
        context = {
            "here": "metrics",
            "resource": resource,
            "resources": services(self._host),
            "text": text,
            "instruments": instruments(found),
            "events": "events/metrics",
        }
        return self._shell.page(request, "metrics.html", context)

    async def _one(self, request: Request, resource: Text, name: Text) -> Response:
        found = self._known(name, resource)
        context = {
            "here": "metrics",
            "name": inert(name),
            "resource": resource,
            "first": found[0],
            "series": [(label_of(one), told(one.points[-1]), len(one.points)) for one in found if one.points],
            "points": measured(found, ROWS),
            "most": ROWS,
            "lines": min(len(found), LINES),
            "source": "metric-points?" + urlencode({"resource": resource, "name": name}),
            "has_chart": UPLOT.path.is_file(),
            "how": HOW_TO_GET,
            "events": "events/metrics",
        }
        return self._shell.page(request, "metric.html", context)

    async def _points(self, resource: Text, name: Text) -> Response:
        return JSONResponse(chart(self._known(name, resource)[:LINES]))

    def _known(self, name: str, resource: str) -> list[Series]:
        found = self._host.telemetry.series(name, resource=resource)
        if not found:
            raise Refused(404, "not-found", f"{resource!r:.80} has sent no metric {name!r:.80}.")
        return found


def instruments(found: Sequence[Series]) -> list[Instrument]:
    """Return the instruments of these series, in their order; each series has its latest point."""
    grouped: dict[tuple[str, str], list[Series]] = {}
    for series in found:
        grouped.setdefault((series.resource, series.name), []).append(series)
    return [
        Instrument(
            resource=inert(resource),
            name=inert(name),
            kind=group[0].kind,
            unit=inert(group[0].unit),
            description=inert(group[0].description),
            series=len(group),
            latest=told(group[0].points[-1]) if len(group) == 1 else "",
            link="metric?" + urlencode({"resource": resource, "name": name}),
        )
        for (resource, name), group in grouped.items()
    ]


def chart(found: Sequence[Series]) -> dict[str, Any]:
    """Return series on one axis of times, in seconds since 1970; None where one has no point.

    A histogram is drawn as the mean of what it has counted.
    """
    values = [{point.at_ns: mean(point) for point in series.points} for series in found]
    times = sorted({ns for by_time in values for ns in by_time})
    return {
        "unit": inert(found[0].unit) if found else "",
        "times": [ns / 1e9 for ns in times],
        "series": [
            {"label": label_of(series), "values": [by_time.get(ns) for ns in times]}
            for series, by_time in zip(found, values, strict=True)
        ],
    }


def mean(point: Point) -> float | None:
    """Return a point as one number, which JSON can hold."""
    value = point.value
    if value is None and point.count and point.sum is not None:
        value = point.sum / point.count
    return None if value is None or value != value or abs(value) == float("inf") else value  # noqa: PLR0124 - NaN


def measured(found: Sequence[Series], limit: int) -> list[Measured]:
    """Return the points of all series, newest first."""
    points = [(point, series) for series in found for point in series.points[-limit:]]
    points.sort(key=lambda pair: pair[0].at_ns, reverse=True)
    return [
        Measured(at=when(point.at_ns), label=label_of(series), told=told(point))
        for point, series in points[:limit]
    ]


def told(point: Point) -> str:
    """Return a point in words."""
    if point.value is not None:
        return f"{point.value:,.6g}"
    parts = [f"{point.count or 0:,} values"]
    whole = mean(point)
    for name, value in (("mean", whole), ("min", point.low), ("max", point.high)):
        if value is not None:
            parts.append(f"{name} {value:,.6g}")
    return ", ".join(parts)


def label_of(series: Series) -> str:
    """Return what tells a series from the others of its metric."""
    attributes = [f"{name}={value}" for name, value in sorted(series.attributes.items())]
    return inert(", ".join([series.instance, *attributes]))[:300]
