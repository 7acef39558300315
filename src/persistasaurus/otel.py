"""Traces, metrics and logs of flows by OpenTelemetry.

    app = Persistasaurus("flows.db", observer=OpenTelemetry())

Needs the extra `otel`: pip install persistasaurus[otel]. All of it is made from what is committed, once, and
never again on replay. A span covers one stretch in which a flow runs in a process, and under it one each
attempt of a step. A flow that goes on after a wait, a crash or a deploy has a new trace, which links to the
span in which the flow was started.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry._logs import LoggerProvider, SeverityNumber, get_logger_provider
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from persistasaurus._events import Event, Happening

__all__ = ["FlowLogHandler", "OpenTelemetry", "configure"]

_SCOPE = "persistasaurus"
_W3C = TraceContextTextMapPropagator()
_BAD = frozenset({"FAILED", "PARKED"})
_Place = tuple[str, int, int]


class OpenTelemetry:
    """An observer that tells OpenTelemetry; give each app one of its own.

    Without providers it uses the global ones. Spans have the attributes `flow.id`, `flow.name`, `flow.status`
    and those of steps `flow.step` (its number), `flow.step.name` and `flow.attempt`. What user code makes in
    a step, a client's request for instance, is a child of the step's span. A process that is killed never
    tells of what it was running then; the flow goes on in another trace.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._instruments = _Instruments(metrics.get_meter(_SCOPE, meter_provider=meter_provider))
        self._lock = threading.Lock()
        self._flows: dict[str, Span] = {}
        self._steps: dict[_Place, tuple[Span, int]] = {}

    def __call__(self, event: Event) -> None:
        """Take note of a fact."""
        self._instruments.count(event)
        match event.happening:
            case Happening.FLOW_STARTED | Happening.FLOW_RECOVERED:
                self._run_span(event)
            case Happening.STEP_STARTED:
                self._begin_step(event)
            case Happening.STEP_ENDED | Happening.STEP_RETRIED:
                self._end_step(event)
            case Happening.WAIT_STARTED | Happening.WAIT_ENDED:
                self._note_wait(event)
            case Happening.FLOW_IDLE | Happening.FLOW_ENDED | Happening.FLOW_PARKED:
                self._end_run(event)
            case Happening.LEASE_LOST | Happening.APP_LEFT:
                self._end_all(event)
            case Happening.COMMITTED | Happening.STORE_MEASURED:
                return

    def capture(self) -> str | None:
        """Return the calling code's span, to be kept with the flow that it starts."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier.get("traceparent")

    def enter(self, event: Event) -> None:
        """Make a flow's or a step's span the current one of the calling context."""
        span = self._flows.get(event.flow_id)
        if event.step:
            found = self._steps.get((event.flow_id, event.step, event.attempt))
            span = found[0] if found is not None else span
        if span is not None:
            context.attach(trace.set_span_in_context(span))

    def context_of(self, flow_id: str, step: int = 0, attempt: int = 0) -> Context | None:
        """Return the context of a step that runs here now, or of its flow; None where neither does."""
        found = self._steps.get((flow_id, step, attempt))
        span = found[0] if found is not None else self._flows.get(flow_id)
        return None if span is None else trace.set_span_in_context(span)

    def _run_span(self, event: Event) -> Span:
        """Return the span of the stretch in which the flow runs now."""
        with self._lock:
            span = self._flows.get(event.flow_id)
            if span is None:
                span = self._flows[event.flow_id] = self._new_run_span(event)
            return span

    def _new_run_span(self, event: Event) -> Span:
        origin = _W3C.extract({"traceparent": event.trace}) if event.trace else Context()
        started = event.happening is Happening.FLOW_STARTED
        link = trace.get_current_span(origin).get_span_context()
        return self._tracer.start_span(
            f"flow {event.flow_name}",
            # The start belongs to the caller's trace. A later stretch, perhaps next week, only links to it.
            context=origin if started else Context(),
            links=[Link(link)] if link.is_valid and not started else [],
            attributes=_attributes(event),
            start_time=_ns(event),
        )

    def _begin_step(self, event: Event) -> None:
        span = self._tracer.start_span(
            f"step {event.step_name}",
            context=trace.set_span_in_context(self._run_span(event), Context()),
            attributes=_attributes(event),
            start_time=_ns(event),
        )
        self._steps[event.flow_id, event.step, event.attempt] = span, event.at_ms

    def _end_step(self, event: Event) -> None:
        found = self._steps.pop((event.flow_id, event.step, event.attempt), None)
        if found is None:
            return  # it did not run here: what was recorded before a retry is used again
        span, started_at_ms = found
        status = event.status or "RETRIED"
        self._instruments.step_took((event.at_ms - started_at_ms) / 1000, event, status)
        _end(span, event, status, failed=status in ("FAILED", "RETRIED"))

    def _note_wait(self, event: Event) -> None:
        attributes = {**_attributes(event), "flow.wait.duration_ms": event.count}
        self._run_span(event).add_event(event.happening.value, attributes, timestamp=_ns(event))

    def _end_run(self, event: Event) -> None:
        with self._lock:
            span = self._flows.pop(event.flow_id, None)
        for place in [place for place in list(self._steps) if place[0] == event.flow_id]:
            # The flow has left it: a race's loser, a timed-out attempt.
            left = self._steps.pop(place, None)
            if left is not None:
                _end(left[0], event, "CANCELLED", failed=False)
        if span is not None:
            _end(span, event, event.status or "IDLE", failed=event.status in _BAD)

    def _end_all(self, event: Event) -> None:
        with self._lock:
            spans = [*self._flows.values(), *(span for span, _ in self._steps.values())]
            self._flows.clear()
            self._steps.clear()
        for span in spans:
            _end(span, event, "LEFT", failed=False)


class _Instruments:
    """The metrics. None has a flow's id: there are only as many series as flows and steps have names."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._started = meter.create_counter("persistasaurus.flow.started", "{flow}", "Flows started here")
        self._recovered = meter.create_counter(
            "persistasaurus.flow.recovered", "{flow}", "Flows that came back into memory with a history"
        )
        self._ended = meter.create_counter("persistasaurus.flow.ended", "{flow}", "Flows ended, by status")
        self._parked = meter.create_counter("persistasaurus.flow.parked", "{flow}", "Flows parked")
        self._step = meter.create_histogram("persistasaurus.step.duration", "s", "Attempts of steps")
        self._retries = meter.create_counter(
            "persistasaurus.step.retries", "{attempt}", "Failures tried again"
        )
        self._lag = meter.create_histogram(
            "persistasaurus.queue.lag", "s", "How late due flows were taken up"
        )
        self._commit = meter.create_histogram(
            "persistasaurus.commit.size", "{write}", "Writes a group commit"
        )
        self._store = meter.create_gauge("persistasaurus.store.size", "By", "Bytes of the store")

    def count(self, event: Event) -> None:
        """Count a fact."""
        flow = {"flow.name": event.flow_name}
        match event.happening:
            case Happening.FLOW_STARTED:
                self._started.add(1, flow)
            case Happening.FLOW_RECOVERED:
                self._recovered.add(1, flow)
                self._lag.record(event.count / 1000, flow)
            case Happening.FLOW_ENDED:
                self._ended.add(1, {**flow, "flow.status": event.status})
            case Happening.FLOW_PARKED:
                self._parked.add(1, flow)
            case Happening.STEP_RETRIED:
                self._retries.add(1, {**flow, "flow.step.name": event.step_name})
            case Happening.COMMITTED:
                self._commit.record(event.count)
            case Happening.STORE_MEASURED:
                self._store.set(event.count)
            case _:
                return

    def step_took(self, seconds: float, event: Event, status: str) -> None:
        """Record how long an attempt took, until its end was durable."""
        attributes = {
            "flow.name": event.flow_name,
            "flow.step.name": event.step_name,
            "flow.status": status,
        }
        self._step.record(max(0.0, seconds), attributes)


class FlowLogHandler(logging.Handler):
    """Sends log records to OpenTelemetry, each with the span of its flow and step.

    A record that user code writes in a step has the step's span; those of the library name flow, step and
    attempt in their fields and get the spans of these.
    """

    def __init__(
        self,
        telemetry: OpenTelemetry,
        *,
        level: int = logging.NOTSET,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        super().__init__(level)
        self._telemetry = telemetry
        self._provider = logger_provider

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        if record.name.startswith("opentelemetry"):
            return  # an exporter that fails would log about its own logs
        try:
            logger = (self._provider or get_logger_provider()).get_logger(record.name)
            logger.emit(
                timestamp=int(record.created * 1_000_000_000),
                context=self._context(record),
                severity_number=_severity(record.levelno),
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes=_fields(record),
                exception=record.exc_info[1] if record.exc_info else None,
            )
        except Exception:  # noqa: BLE001 - logging's own way: a handler raises nothing
            self.handleError(record)

    def _context(self, record: logging.LogRecord) -> Context:
        here = context.get_current()
        flow_id: Any = getattr(record, "flow_id", None)
        if trace.get_current_span(here).get_span_context().is_valid or not isinstance(flow_id, str):
            return here
        step, attempt = getattr(record, "step", 0), getattr(record, "attempt", 0)
        return self._telemetry.context_of(flow_id, step, attempt) or here


def configure(*, service_name: str | None = None) -> OpenTelemetry:
    """Set OpenTelemetry up from the environment where nobody has, and return an observer for an app.

    Traces, metrics and logs go by OTLP over HTTP to `OTEL_EXPORTER_OTLP_ENDPOINT`; without it nothing is
    sent. Providers that are set already are used as they are. The root logger gets a handler.
    """
    from persistasaurus._otel_sdk import set_up  # noqa: PLC0415 - the SDK, for those who ask for it

    set_up(service_name)
    telemetry = OpenTelemetry()
    logging.getLogger().addHandler(FlowLogHandler(telemetry, level=logging.INFO))
    return telemetry


def _attributes(event: Event) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"flow.id": event.flow_id, "flow.name": event.flow_name}
    if event.step:
        attributes["flow.step"] = event.step
        attributes["flow.step.name"] = event.step_name
        attributes["flow.attempt"] = event.attempt
    return attributes


def _end(span: Span, event: Event, status: str, *, failed: bool) -> None:
    span.set_attribute("flow.status", status)
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=_ns(event))


def _ns(event: Event) -> int:
    return event.at_ms * 1_000_000


def _severity(level: int) -> SeverityNumber:
    steps = (
        (logging.CRITICAL, SeverityNumber.FATAL),
        (logging.ERROR, SeverityNumber.ERROR),
        (logging.WARNING, SeverityNumber.WARN),
        (logging.INFO, SeverityNumber.INFO),
    )
    return next((number for least, number in steps if level >= least), SeverityNumber.DEBUG)


def _fields(record: logging.LogRecord) -> Mapping[str, str | int]:
    fields: dict[str, str | int] = {"code.file.path": record.pathname, "code.line.number": record.lineno}
    for name in ("flow_id", "step", "attempt"):
        value: Any = getattr(record, name, None)
        if isinstance(value, (str, int)):
            fields[f"flow.{name.removeprefix('flow_')}"] = value
    return fields
