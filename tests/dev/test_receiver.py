"""The receiver: OTLP as protobuf or JSON, plain or gzip; everything else gets an answer that says why not."""

from __future__ import annotations

import gzip
import json

import httpx2
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from persistasaurus.dev._receiver import JSON, LARGEST_BODY, PROTOBUF, receiver
from persistasaurus.dev._telemetry import Telemetry

GZIPPED = {"content-type": PROTOBUF, "content-encoding": "gzip"}
TRACE_ID = "5b8efff798038103d269b633813fc60c"
SPAN_ID = "eee19b7ec3c1b174"
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "api"}}]}
SPAN = {
    "traceId": TRACE_ID.upper(),
    "spanId": SPAN_ID,
    "name": "GET /",
    "kind": 2,
    "startTimeUnixNano": "1000",
    "endTimeUnixNano": "3000",
    "status": {"code": 2, "message": "broken"},
    "attributes": [
        {"key": "n", "value": {"intValue": "7"}},
        {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}]}}},
    ],
    "events": [{"name": "retried", "timeUnixNano": "2000"}],
    "links": [{"traceId": TRACE_ID, "spanId": SPAN_ID}],
    "somethingNew": 1,
}
TRACES = {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [{"spans": [SPAN]}]}]}


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
async def client(telemetry):
    transport = httpx2.ASGITransport(receiver(telemetry))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def in_protobuf() -> bytes:
    request = ExportTraceServiceRequest()
    batch = request.resource_spans.add()
    batch.resource.attributes.add(key="service.name").value.string_value = "api"
    span = batch.scope_spans.add().spans.add(name="GET /", kind=2)
    span.trace_id, span.span_id = bytes.fromhex(TRACE_ID), bytes.fromhex(SPAN_ID)
    return request.SerializeToString()


async def test_spans_in_json_are_received(client, telemetry):
    """Ids are hexadecimal there, and unknown fields are passed over."""
    answer = await client.post("/v1/traces", json=TRACES)

    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, JSON, {})
    (branch,) = telemetry.trace(TRACE_ID)
    span = branch.span
    assert (span.span_id, span.name, span.kind, span.resource) == (SPAN_ID, "GET /", "server", "api")
    assert (span.start_ns, span.end_ns, span.status, span.message) == (1000, 3000, "error", "broken")
    assert span.attributes == {"n": 7, "list": [True]}
    assert (span.events[0].name, span.links[0].trace_id) == ("retried", TRACE_ID)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_spans_in_protobuf_are_received(client, telemetry, encoding):
    """Plain or gzip, with an answer in protobuf."""
    body = in_protobuf()
    headers = {"content-type": PROTOBUF, "content-encoding": encoding}

    answer = await client.post(
        "/v1/traces", content=gzip.compress(body) if encoding == "gzip" else body, headers=headers
    )

    assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF)
    assert not ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans
    assert [trace.resource for trace in telemetry.traces()] == ["api"]


async def test_logs_carry_their_trace(client, telemetry):
    """And a level, whatever the sender calls it."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(severity_number=17)
    record.body.string_value = "it broke"
    record.trace_id = bytes.fromhex(TRACE_ID)

    await client.post("/v1/logs", content=request.SerializeToString(), headers={"content-type": PROTOBUF})

    (kept,) = telemetry.logs(trace_id=TRACE_ID, lowest_severity=17, text="BROKE")
    assert (kept.level, kept.text, kept.resource, kept.number) == ("ERROR", "it broke", "unknown", 1)


async def test_metrics_become_series(client, telemetry):
    """A gauge, a sum and a histogram."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="depth").gauge.data_points.add(as_int=3, time_unix_nano=5)
    metrics.add(name="sent", unit="1").sum.data_points.add(as_double=2.5)
    metrics.add(name="took").histogram.data_points.add(
        count=3, sum=6, explicit_bounds=[1], bucket_counts=[1, 2]
    )
    metrics.add(name="wide").exponential_histogram.data_points.add(count=2, sum=4, max=3)
    metrics.add(name="empty")

    for _ in range(2):
        await client.post(
            "/v1/metrics", content=request.SerializeToString(), headers={"content-type": PROTOBUF}
        )

    assert [name for _, name in telemetry.metrics()] == ["depth", "sent", "took", "wide"]
    (depth,) = telemetry.series("depth")
    assert (depth.kind, [point.value for point in depth.points]) == ("gauge", [3, 3])
    (took,) = telemetry.series("took")
    assert (took.points[0].count, took.points[0].bounds, took.points[0].buckets) == (3, (1,), (1, 2))
    (wide,) = telemetry.series("wide")
    assert (wide.kind, wide.points[0].high, wide.points[0].low) == ("histogram", 3, None)


@pytest.mark.parametrize(
    "content, headers, status",
    [
        pytest.param(b"{", {"content-type": JSON}, 400, id="half JSON"),
        pytest.param(b"[1]", {"content-type": JSON}, 400, id="JSON that is no object"),
        pytest.param(b'{"resourceSpans": 3}', {"content-type": JSON}, 400, id="spans that are a number"),
        pytest.param(b"[" * 100_000, {"content-type": JSON}, 400, id="deep arrays"),
        pytest.param(b'{"a":' * 50_000, {"content-type": JSON}, 400, id="deep objects"),
        pytest.param(
            json.dumps(TRACES).replace(SPAN_ID, "xyz").encode(),
            {"content-type": JSON},
            400,
            id="an id that is no hex",
        ),
        pytest.param(b"\xff" * 50, {"content-type": PROTOBUF}, 400, id="no protobuf"),
        pytest.param(b"garbage", GZIPPED, 400, id="no gzip"),
        pytest.param(gzip.compress(in_protobuf())[:-4], GZIPPED, 400, id="gzip cut short"),
        pytest.param(in_protobuf(), {"content-type": PROTOBUF, "content-encoding": "br"}, 415, id="brotli"),
        pytest.param(in_protobuf(), {"content-type": "text/plain"}, 415, id="plain text"),
        pytest.param(bytes(LARGEST_BODY + 1), {"content-type": PROTOBUF}, 413, id="too large"),
        pytest.param(gzip.compress(bytes(LARGEST_BODY + 1)), GZIPPED, 413, id="too large once unpacked"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_reason(client, telemetry, content, headers, status):
    """As a google.rpc.Status, in the encoding of the request, and nothing is kept."""
    answer = await client.post("/v1/traces", content=content, headers=headers)

    assert answer.status_code == status
    if headers["content-type"] == JSON:
        assert answer.json()["message"]
    else:
        assert Status.FromString(answer.content).message
    assert telemetry.span_count == 0


async def test_a_body_without_a_length_is_capped_too(client):
    """It is counted as it comes."""

    async def endless():
        for _ in range(20):
            yield bytes(1_000_000)

    answer = await client.post("/v1/traces", content=endless(), headers={"content-type": PROTOBUF})

    assert answer.status_code == 413


async def test_spans_without_ids_are_rejected_and_counted(client, telemetry):
    """The others of the batch are kept."""
    batch = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, {"name": "nameless"}]}]}]}

    answer = await client.post("/v1/traces", json=batch)

    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert telemetry.span_count == 1


async def test_a_get_is_not_answered(client):
    """There is nothing to read there."""
    assert (await client.get("/v1/traces")).status_code == 405
