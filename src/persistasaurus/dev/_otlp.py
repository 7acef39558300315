"""OpenTelemetry's wire format, protobuf or JSON, to plain records."""

from __future__ import annotations

import base64
import binascii
import importlib
import json
from collections.abc import Iterator
from typing import Any, TypeGuard

from persistasaurus.dev._telemetry import (
    LogRecord,
    Point,
    Series,
    Span,
    SpanEvent,
    SpanLink,
    Telemetry,
)

LONGEST_TEXT = 16_384
MOST_ATTRIBUTES = 256

# Generated code and a library without types: as Any, here and nowhere else.
_json_format: Any = importlib.import_module("google.protobuf.json_format")
_message: Any = importlib.import_module("google.protobuf.message")
_status: Any = importlib.import_module("google.rpc.status_pb2")
_collector = "opentelemetry.proto.collector"
_services: dict[str, Any] = {
    signal: importlib.import_module(f"{_collector}.{package}.v1.{package}_service_pb2")
    for signal, package in (("traces", "trace"), ("logs", "logs"), ("metrics", "metrics"))
}
_MESSAGES = {"traces": "Trace", "logs": "Logs", "metrics": "Metrics"}
_REJECTED = {
    "traces": "rejected_spans",
    "logs": "rejected_log_records",
    "metrics": "rejected_data_points",
}

_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS = ("unset", "ok", "error")
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


class MalformedError(ValueError):
    """A body that is not what OTLP says."""


def receive(signal: str, body: bytes, telemetry: Telemetry, *, is_json: bool) -> bytes:
    """Decode a request of "traces", "logs" or "metrics", keep what it holds and return the response's body.

    Raises:
        MalformedError: the body is not such a request; nothing of it was kept.
    """
    request = _decode(signal, body, is_json=is_json)
    rejected = 0
    match signal:
        case "traces":
            spans = list(_spans(request))
            good = [span for span in spans if len(span.trace_id) == 32 and len(span.span_id) == 16]  # noqa: PLR2004
            rejected = len(spans) - len(good)
            telemetry.add_spans(good)
        case "logs":
            telemetry.add_logs(list(_logs(request)))
        case _:
            telemetry.add_points(list(_series(request)))
    response = getattr(_services[signal], f"Export{_MESSAGES[signal]}ServiceResponse")()
    if rejected:
        setattr(response.partial_success, _REJECTED[signal], rejected)
        response.partial_success.error_message = "Spans need a trace id of 16 bytes and a span id of 8."
    return encode(response, is_json=is_json)


def refusal(message: str, *, is_json: bool) -> bytes:
    """Return the body of an answer that says what is wrong, a google.rpc.Status."""
    return encode(_status.Status(code=3, message=message), is_json=is_json)


def encode(message: Any, *, is_json: bool) -> bytes:
    """Return a message as protobuf or as JSON."""
    if is_json:
        return str(_json_format.MessageToJson(message, indent=None)).encode()
    return bytes(message.SerializeToString())


def _decode(signal: str, body: bytes, *, is_json: bool) -> Any:
    request = getattr(_services[signal], f"Export{_MESSAGES[signal]}ServiceRequest")()
    try:
        if is_json:
            _json_format.ParseDict(_with_bytes(json.loads(body)), request, ignore_unknown_fields=True)
        else:
            request.ParseFromString(body)
    except (_message.Error, _json_format.Error, ValueError, TypeError, RecursionError) as error:
        what = "JSON" if is_json else "protobuf"
        raise MalformedError(f"This is no OTLP {signal} request in {what}: {str(error)[:200]}") from error
    return request


def _with_bytes(tree: Any) -> Any:
    """Write the ids of OTLP's JSON, which are hexadecimal, as protobuf's JSON has bytes: in base64."""
    left: list[Any] = [tree]
    while left:
        node = left.pop()
        if _is_array(node):
            left += node
        elif _is_object(node):
            for key in _IDS:
                if isinstance(node.get(key), str):
                    node[key] = _base64_of(node[key])
            left += node.values()
    return tree


def _is_array(node: Any) -> TypeGuard[list[Any]]:
    return isinstance(node, list)


def _is_object(node: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(node, dict)


def _base64_of(hexadecimal: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(hexadecimal)).decode("ascii")
    except binascii.Error as error:
        raise MalformedError(f"{hexadecimal!r:.80} is no id: ids are hexadecimal in OTLP's JSON.") from error


# Records.


def _spans(request: Any) -> Iterator[Span]:
    for batch in request.resource_spans:
        resource, instance = _origin(batch.resource)
        for scoped in batch.scope_spans:
            for span in scoped.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=_text(span.name),
                    kind=_name_in(_KINDS, span.kind),
                    resource=resource,
                    instance=instance,
                    scope=_text(scoped.scope.name),
                    start_ns=span.start_time_unix_nano,
                    end_ns=max(span.end_time_unix_nano, span.start_time_unix_nano),
                    status=_name_in(_STATUS, span.status.code),
                    message=_text(span.status.message),
                    attributes=_attributes(span.attributes),
                    events=tuple(
                        SpanEvent(
                            name=_text(event.name),
                            at_ns=event.time_unix_nano,
                            attributes=_attributes(event.attributes),
                        )
                        for event in span.events
                    ),
                    links=tuple(
                        SpanLink(
                            trace_id=link.trace_id.hex(),
                            span_id=link.span_id.hex(),
                            attributes=_attributes(link.attributes),
                        )
                        for link in span.links
                    ),
                )


def _logs(request: Any) -> Iterator[LogRecord]:
    for batch in request.resource_logs:
        resource, instance = _origin(batch.resource)
        for scoped in batch.scope_logs:
            for record in scoped.log_records:
                body = _value(record.body)
                yield LogRecord(
                    at_ns=record.time_unix_nano or record.observed_time_unix_nano,
                    resource=resource,
                    instance=instance,
                    scope=_text(scoped.scope.name),
                    severity=record.severity_number,
                    level=_level(record),
                    text=body if isinstance(body, str) else json.dumps(body),
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    attributes=_attributes(record.attributes),
                )


def _level(record: Any) -> str:
    if record.severity_number:
        return _name_in(_LEVELS, (record.severity_number - 1) // 4)
    return _text(record.severity_text).upper()


def _series(request: Any) -> Iterator[Series]:
    for batch in request.resource_metrics:
        resource, instance = _origin(batch.resource)
        for scoped in batch.scope_metrics:
            for metric in scoped.metrics:
                field = metric.WhichOneof("data")
                if field is None:
                    continue
                data = getattr(metric, field)
                for point in data.data_points:
                    yield Series(
                        name=_text(metric.name),
                        kind="histogram" if field == "exponential_histogram" else field,
                        unit=_text(metric.unit),
                        description=_text(metric.description),
                        resource=resource,
                        instance=instance,
                        attributes=_attributes(point.attributes),
                        is_monotonic=field == "sum" and data.is_monotonic,
                        points=(_point(field, point),),
                    )


def _point(field: str, point: Any) -> Point:
    if field in ("gauge", "sum"):
        which = point.WhichOneof("value")
        return Point(at_ns=point.time_unix_nano, value=0.0 if which is None else float(getattr(point, which)))
    is_histogram = field != "summary"
    return Point(
        at_ns=point.time_unix_nano,
        count=point.count,
        sum=point.sum,
        low=point.min if is_histogram and point.HasField("min") else None,
        high=point.max if is_histogram and point.HasField("max") else None,
        bounds=tuple(point.explicit_bounds) if field == "histogram" else (),
        buckets=tuple(point.bucket_counts) if field == "histogram" else (),
    )


def _origin(resource: Any) -> tuple[str, str]:
    known = _attributes(resource.attributes)
    name = str(known.get("service.name", "unknown"))
    return name, str(known.get("service.instance.id", name))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {_text(pair.key): _value(pair.value) for pair in pairs[:MOST_ATTRIBUTES]}


def _value(value: Any) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "string_value":
            return _text(value.string_value)
        case "bytes_value":
            return _text(base64.b64encode(value.bytes_value).decode("ascii"))
        case "array_value":
            return [_value(item) for item in value.array_value.values[:MOST_ATTRIBUTES]]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case field:
            return getattr(value, field)


def _text(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _name_in(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]
