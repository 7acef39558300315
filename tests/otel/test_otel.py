"""Spans, metrics and log records of flows: each once, in the right place, and none on replay."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from persistasaurus import Persistasaurus, Retry, Signal, flow, step
from persistasaurus.otel import FlowLogHandler
from tests.flows.kit import eventually, until_waiting
from tests.otel.conftest import Sdk

go_on = Signal("otel-go-on", int)
tries: list[int] = []
log = logging.getLogger("tests.otel")
tracers: list[trace.TracerProvider] = []


@pytest.fixture(autouse=True)
def _fresh(sdk: Sdk) -> Iterator[None]:
    tries.clear()
    tracers[:] = [sdk.tracers]
    yield
    tracers.clear()


def client_call() -> None:
    """Do what an instrumented client does: a span of its own, under whatever is current."""
    trace.get_tracer("client", tracer_provider=tracers[0]).start_span("client call").end()


@step
def traced_sync(text: str) -> str:
    client_call()
    log.warning("in a sync step")
    return text


@step
async def traced_async(text: str) -> str:
    await asyncio.sleep(0)
    client_call()
    return text


@step(retry=Retry(attempts=3, wait=0))
def second_time_lucky() -> int:
    tries.append(1)
    if len(tries) < 2:
        raise ConnectionError("Uh oh")
    return len(tries)


@step
def never_lucky() -> None:
    raise ValueError("card 4711 was declined")


@flow
def traced_flow() -> int:
    traced_sync("secret-payload")
    return second_time_lucky()


@flow
async def traced_async_flow() -> list[str]:
    return list(await asyncio.gather(*[traced_async(str(n)) for n in range(3)]))


@flow
def traced_wait() -> int:
    traced_sync("before")
    return go_on.wait()


@flow
def traced_failure() -> None:
    never_lucky()


@flow
def traced_parent() -> int:
    return traced_child()


@flow
def traced_child() -> int:
    return second_time_lucky()


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_flow_is_a_span_and_each_attempt_of_a_step_one_below_it(database: Path, sdk: Sdk) -> None:
    """With the attributes that say which, and an error where an attempt failed."""
    with Persistasaurus(database, observer=sdk.observer()) as app:
        assert app.run(traced_flow.options(flow_id="f")) == 2

    (run,) = sdk.spans("flow traced_flow")
    assert attributes(run) == {"flow.id": "f", "flow.name": "traced_flow", "flow.status": "COMPLETE"}
    steps = [*sdk.spans("step traced_sync"), *sdk.spans("step second_time_lucky")]
    assert {span.parent.span_id for span in steps if span.parent} == {run.context.span_id}
    assert [
        (attributes(s)["flow.step"], attributes(s)["flow.attempt"], attributes(s)["flow.status"])
        for s in steps
    ] == [
        (1, 1, "COMPLETE"),
        (2, 1, "RETRIED"),
        (2, 2, "COMPLETE"),
    ]
    assert [span.status.status_code for span in steps] == [
        StatusCode.UNSET,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]


def test_a_start_belongs_to_the_callers_trace(database: Path, sdk: Sdk) -> None:
    """A request that starts a flow sees it below its own span."""
    tracer = trace.get_tracer("caller", tracer_provider=sdk.tracers)
    with Persistasaurus(database, observer=sdk.observer()) as app:
        with tracer.start_as_current_span("request") as request:
            handle = app.start(traced_flow)
        handle.result()

    (run,) = sdk.spans("flow traced_flow")
    assert run.parent is not None
    assert run.parent.span_id == request.get_span_context().span_id
    assert run.context.trace_id == request.get_span_context().trace_id


def test_replay_emits_nothing_and_a_resumed_flow_links_to_its_start(database: Path, sdk: Sdk) -> None:
    """Another process, next week: its own trace, and the way back to the request."""
    tracer = trace.get_tracer("caller", tracer_provider=sdk.tracers)
    with Persistasaurus(database, observer=sdk.observer()) as app:
        with tracer.start_as_current_span("request") as request:
            handle = app.start(traced_wait.options(flow_id="f"))
        until_waiting(handle)
    before = len(sdk.spans("step traced_sync"))

    with Persistasaurus(database, observer=sdk.observer()) as app:
        app.handle("f").send(go_on, 1)
        assert app.handle("f").result(30) == 1

    assert before == len(sdk.spans("step traced_sync")) == 1
    last = sdk.spans("flow traced_wait")[-1]
    assert attributes(last)["flow.status"] == "COMPLETE"
    assert last.context.trace_id != request.get_span_context().trace_id
    assert [link.context.span_id for link in last.links] == [request.get_span_context().span_id]


@pytest.mark.parametrize(
    "started, step_name", [(traced_flow, "traced_sync"), (traced_async_flow, "traced_async")]
)
def test_what_a_step_traces_is_below_the_steps_own_span(
    database: Path, sdk: Sdk, started: Any, step_name: str
) -> None:
    """A client's request in a sync or an async step, also where several run at once."""
    with Persistasaurus(database, observer=sdk.observer()) as app:
        app.run(started)

    steps = [span.context.span_id for span in sdk.spans(f"step {step_name}")]
    calls = [span.parent.span_id for span in sdk.spans("client call") if span.parent]
    assert sorted(calls) == sorted(steps)


def test_a_child_flow_is_below_its_parents_span(database: Path, sdk: Sdk) -> None:
    """One trace from the request to the grandchild's step."""
    with Persistasaurus(database, observer=sdk.observer()) as app:
        app.run(traced_parent)

    (parent,), (child,) = sdk.spans("flow traced_parent"), sdk.spans("flow traced_child")
    assert child.parent is not None
    assert child.parent.span_id == parent.context.span_id


def test_a_wait_is_an_event_of_the_flows_span(database: Path, sdk: Sdk) -> None:
    """With the number and the name of what is waited for."""
    with Persistasaurus(database, observer=sdk.observer()) as app:
        handle = until_waiting(app.start(traced_wait))
        handle.send(go_on, 7)
        assert handle.result() == 7

    events = [event for span in sdk.spans("flow traced_wait") for event in span.events]
    assert [event.name for event in events] == ["wait started", "wait ended"]
    assert {(event.attributes or {})["flow.step.name"] for event in events} == {"otel-go-on"}


def test_a_failed_flow_is_an_error_and_its_payload_is_in_no_span(database: Path, sdk: Sdk) -> None:
    """The status is told, the message of the exception is not."""
    with Persistasaurus(database, observer=sdk.observer()) as app, pytest.raises(ValueError, match="4711"):
        app.run(traced_failure)
    with Persistasaurus(database, observer=sdk.observer()) as app:
        app.run(traced_flow)

    (run,) = sdk.spans("flow traced_failure")
    assert run.status.status_code == StatusCode.ERROR
    assert attributes(run)["flow.status"] == "FAILED"
    everything = "".join(span.to_json() for span in sdk._spans.get_finished_spans())
    assert "4711" not in everything
    assert "secret-payload" not in everything


def test_metrics_count_flows_steps_retries_and_commits(database: Path, sdk: Sdk) -> None:
    """Sums and histograms with names as attributes, and never an id."""
    with Persistasaurus(database, observer=sdk.observer()) as app:
        for _ in range(3):
            tries.clear()
            app.run(traced_flow)
        with pytest.raises(ValueError, match="declined"):
            app.run(traced_failure)
        eventually(lambda: sdk.points("persistasaurus.store.size"))

    def total(name: str, **wanted: str) -> int:
        found = [p for p in sdk.points(name) if wanted.items() <= dict(p.attributes).items()]
        return sum(getattr(point, "value", 0) or getattr(point, "count", 0) for point in found)

    flow_name, status = "flow.name", "flow.status"
    assert total("persistasaurus.flow.started", **{flow_name: "traced_flow"}) == 3
    assert total("persistasaurus.flow.ended", **{status: "COMPLETE"}) == 3
    assert total("persistasaurus.flow.ended", **{status: "FAILED"}) == 1
    assert total("persistasaurus.step.retries") == 3
    assert total("persistasaurus.step.duration", **{"flow.step.name": "second_time_lucky"}) == 6
    assert total("persistasaurus.commit.size") > 0
    assert sdk.points("persistasaurus.store.size")[0].value >= 4096


def test_log_records_carry_the_span_of_their_step_or_flow(database: Path, sdk: Sdk) -> None:
    """The user's own in a step, and the library's about a failed attempt."""
    observer = sdk.observer()
    handler = FlowLogHandler(observer, logger_provider=sdk.loggers)
    root = logging.getLogger()
    root.addHandler(handler)
    level = logging.getLogger("persistasaurus").level
    logging.getLogger("persistasaurus").setLevel(logging.INFO)
    try:
        with Persistasaurus(database, observer=observer) as app:
            app.run(traced_flow.options(flow_id="f"))
    finally:
        root.removeHandler(handler)
        logging.getLogger("persistasaurus").setLevel(level)

    records = {each.log_record.body: each.log_record for each in sdk.records.get_finished_logs()}
    (in_step,) = sdk.spans("step traced_sync")
    assert records["in a sync step"].span_id == in_step.context.span_id
    retried = next(record for body, record in records.items() if str(body).startswith("step failed"))
    assert retried.trace_id == in_step.context.trace_id
    assert (retried.attributes or {})["flow.attempt"] == 1


def test_flows_that_are_left_unfinished_end_their_spans_with_the_app(database: Path, sdk: Sdk) -> None:
    """What was running is seen, as left, and goes on in the next process."""
    with Persistasaurus(database, observer=sdk.observer()) as app:
        until_waiting(app.start(traced_wait))

    assert [attributes(span)["flow.status"] for span in sdk.spans("flow traced_wait")][-1] in ("IDLE", "LEFT")


def test_the_library_itself_loads_nothing_of_opentelemetry() -> None:
    """Who does not trace pays nothing for it."""
    code = "import sys, persistasaurus; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert printed == "[]\n"
