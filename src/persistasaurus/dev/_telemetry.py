"""Traces, logs and metrics of the running processes, as many as there is room for."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

SPANS = 100_000
LOGS = 50_000
SERIES = 2_000
POINTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened within a span."""

    name: str
    at_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLink:
    """A span that another one has to do with."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span. Ids are hexadecimal, times nanoseconds since 1970, attributes plain JSON values."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    name: str
    kind: str
    """"internal", "server", "client", "producer", "consumer" or "unspecified"."""
    resource: str
    """The service's name."""
    instance: str
    scope: str
    start_ns: int
    end_ns: int
    status: str
    """"unset", "ok" or "error"."""
    message: str
    attributes: Mapping[str, Any]
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One structured log record."""

    number: int = 0
    """Rises in the order of arrival."""
    at_ns: int
    resource: str
    instance: str
    scope: str
    severity: int
    """1 to 24, as OpenTelemetry counts: 9 is INFO, 13 WARN, 17 ERROR."""
    level: str
    text: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A metric's value at a time: `value` of a sum or gauge, else what a histogram has counted."""

    at_ns: int
    value: float | None = None
    count: int | None = None
    sum: float | None = None
    low: float | None = None
    high: float | None = None
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One metric of one process with one set of attributes, points oldest first."""

    name: str
    kind: str
    """"gauge", "sum", "histogram" or "summary"."""
    unit: str
    description: str
    resource: str
    instance: str
    attributes: Mapping[str, Any]
    is_monotonic: bool
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a list of traces shows of one."""

    trace_id: str
    name: str
    """The root's, or that of the earliest span while the root has not arrived."""
    resource: str
    resources: tuple[str, ...]
    start_ns: int
    duration_ns: int
    spans: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A span in its place in the tree: rows in reading order, `depth` 0 for a root."""

    span: Span
    depth: int
    children: int


@dataclass(slots=True)
class Revision:
    """How often something was received of each kind: who shows one looks again once its number is another."""

    traces: int = 0
    logs: int = 0
    metrics: int = 0


class Telemetry:
    """A bounded memory of what was received; the oldest traces, records, series and points make room.

    Any thread may add and ask. It is gone with the AppHost.
    """

    def __init__(self, changed: Callable[[], object] = lambda: None) -> None:
        self._changed = changed
        self.revision = Revision()
        self._lock = threading.Lock()
        self._traces: OrderedDict[str, dict[str, Span]] = OrderedDict()
        self._summaries: dict[str, Trace] = {}
        """Of those traces that have not changed since somebody asked."""
        self._spans = 0
        self._logs: deque[LogRecord] = deque(maxlen=LOGS)
        self._log_number = 0
        self._series: OrderedDict[tuple[str, ...], tuple[Series, deque[Point]]] = OrderedDict()

    # Receiving.

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Keep spans; one that arrives twice is kept once."""
        with self._lock:
            for span in spans:
                trace = self._traces.setdefault(span.trace_id, {})
                self._spans += span.span_id not in trace
                trace[span.span_id] = span
                self._summaries.pop(span.trace_id, None)
            while self._spans > SPANS:
                self._make_room()
            self.revision.traces += 1
        self._changed()

    def _make_room(self) -> None:
        oldest = next(iter(self._traces))
        self._summaries.pop(oldest, None)
        if len(self._traces) > 1:
            self._spans -= len(self._traces.pop(oldest))
            return
        trace = self._traces[oldest]
        del trace[next(iter(trace))]
        self._spans -= 1

    def add_logs(self, records: Iterable[LogRecord]) -> None:
        """Keep log records, numbered as they come."""
        with self._lock:
            for record in records:
                self._log_number += 1
                self._logs.append(replace(record, number=self._log_number))
            self.revision.logs += 1
        self._changed()

    def add_points(self, series: Iterable[Series]) -> None:
        """Append the points of each series to those that are known of it."""
        with self._lock:
            for new in series:
                key = (new.name, new.resource, new.instance, repr(sorted(new.attributes.items())))
                _, points = self._series.pop(key, (new, deque[Point](maxlen=POINTS)))
                points.extend(new.points)
                self._series[key] = replace(new, points=()), points
            while len(self._series) > SERIES:
                self._series.popitem(last=False)
            self.revision.metrics += 1
        self._changed()

    # Asking.

    @property
    def span_count(self) -> int:
        """How many spans are kept."""
        return self._spans

    def traces(
        self,
        *,
        resource: str | None = None,
        text: str = "",
        errors_only: bool = False,
        shortest_ms: float = 0,
        limit: int = 100,
    ) -> list[Trace]:
        """Return the traces that fit, newest first. `text` is looked for in names and the trace's id."""
        with self._lock:
            for trace_id, spans in self._traces.items():
                if trace_id not in self._summaries:
                    self._summaries[trace_id] = _summary(spans.values())
            found = [
                summary
                for trace_id, summary in self._summaries.items()
                if summary.duration_ns >= shortest_ms * 1e6
                and (resource is None or resource in summary.resources)
                and (summary.errors or not errors_only)
                and (not text or _is_in(text.casefold(), trace_id, self._traces[trace_id].values()))
            ]
        found.sort(key=lambda trace: trace.start_ns, reverse=True)
        return found[:limit]

    def trace(self, trace_id: str) -> list[Branch]:
        """Return one trace's spans in the order of the tree, children by their start; empty if unknown."""
        with self._lock:
            spans = dict(self._traces.get(trace_id, {}))
        return _tree(spans)

    def trace_size(self, trace_id: str) -> int:
        """Return how many spans of a trace are kept."""
        return len(self._traces.get(trace_id, ()))

    def logs(
        self,
        *,
        resource: str | None = None,
        lowest_severity: int = 0,
        text: str = "",
        trace_id: str | None = None,
        after: int = 0,
        limit: int = 500,
    ) -> list[LogRecord]:
        """Return the last `limit` records that fit, oldest first; `after` is a record's number."""
        with self._lock:
            records = self._logs.copy()
        needle = text.casefold()
        found = (
            record
            for record in reversed(records)
            if record.number > after
            and record.severity >= lowest_severity
            and (resource is None or record.resource == resource)
            and (trace_id is None or record.trace_id == trace_id)
            and (not needle or needle in record.text.casefold())
        )
        return list(islice(found, limit))[::-1]

    def metrics(self, *, resource: str | None = None) -> list[tuple[str, str]]:
        """Return each metric as resource and name, sorted."""
        with self._lock:
            known = {(series.resource, series.name) for series, _ in self._series.values()}
        return sorted(pair for pair in known if resource in (None, pair[0]))

    def instruments(self) -> list[Series]:
        """Return all series, each with its latest point alone, sorted by resource and name."""
        with self._lock:
            found = [
                replace(series, points=(points[-1],)) for series, points in self._series.values() if points
            ]
        return sorted(found, key=lambda series: (series.resource, series.name, series.instance))

    def series(self, name: str, *, resource: str | None = None) -> list[Series]:
        """Return the series of a metric with their points."""
        with self._lock:
            return [
                replace(series, points=tuple(points))
                for series, points in self._series.values()
                if series.name == name and resource in (None, series.resource)
            ]


def _is_in(needle: str, trace_id: str, spans: Iterable[Span]) -> bool:
    return needle in trace_id or any(needle in span.name.casefold() for span in spans)


def _summary(spans: Collection[Span]) -> Trace:
    ids = {span.span_id for span in spans}
    first = min(spans, key=lambda span: (span.parent_id in ids, bool(span.parent_id), span.start_ns))
    start_ns = min(span.start_ns for span in spans)
    return Trace(
        trace_id=first.trace_id,
        name=first.name,
        resource=first.resource,
        resources=tuple(sorted({span.resource for span in spans})),
        start_ns=start_ns,
        duration_ns=max(span.end_ns for span in spans) - start_ns,
        spans=len(spans),
        errors=sum(span.status == "error" for span in spans),
    )


def _tree(spans: dict[str, Span]) -> list[Branch]:
    children: dict[str, list[Span]] = {}
    for span in sorted(spans.values(), key=lambda span: (span.start_ns, span.span_id), reverse=True):
        parent_id = span.parent_id if span.parent_id in spans else ""
        children.setdefault(parent_id, []).append(span)
    placed: dict[str, Branch] = {}
    # Spans that are each other's parents hang from no root: the second round takes them as they come.
    for roots in (children.get("", []), sorted(spans.values(), key=lambda s: s.start_ns, reverse=True)):
        left = [(span, 0) for span in roots]
        while left:
            span, depth = left.pop()
            if span.span_id in placed:
                continue
            below = children.get(span.span_id, [])
            placed[span.span_id] = Branch(span=span, depth=depth, children=len(below))
            left += [(child, depth + 1) for child in below]
    return list(placed.values())
