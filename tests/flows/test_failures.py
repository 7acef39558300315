"""A failure is recorded as data, raised as itself, and retried from the step that failed."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowHandle, FlowStatus, Persistasaurus, Signal, current, flow, sleep, step
from persistasaurus._engine.memory import Memory
from persistasaurus._engine.results import Outcome
from persistasaurus._events import Event, Happening
from tests.flows.kit import eventually, log_of, ran, start, until_status, until_waiting

go = Signal("failures-go", str)
broken: set[str] = set()
"""The labels of steps that fail at present."""


class Uhoh(Exception):
    pass


@pytest.fixture(autouse=True)
def _nothing_is_broken() -> None:
    broken.clear()


@step
def work(label: str) -> str:
    ran.append(label)
    if label in broken:
        raise Uhoh(f"Uh oh, {label}")
    return label


@step
async def work_async(label: str, ms: int = 0) -> str:
    await asyncio.sleep(ms / 1000)
    ran.append(label)
    if label in broken:
        raise Uhoh(f"Uh oh, {label}")
    return label


@flow
def line() -> list[str]:
    return [work(label) for label in "abc"]


@flow
async def async_line() -> list[str]:
    return [await work_async(label) for label in "abc"]


both_colours = pytest.mark.parametrize("lined", [line, async_line])


@both_colours
def test_an_uncaught_failure_ends_the_flow_and_is_raised_as_itself(database: Path, lined: Any) -> None:
    # given
    broken.add("b")
    with Persistasaurus(database) as app:
        # when
        handle = start(app, lined, "f")
        with pytest.raises(Uhoh, match="Uh oh, b") as raised:
            handle.result(10)
        # then
        record = handle.record()
        assert record.status == FlowStatus.FAILED
        assert record.error is not None
        assert record.error["type"] == "Uhoh"
        assert log_of(handle)[1][2] == "FAILED"
        notes = "\n".join(raised.value.__notes__)
        assert "'f'" in notes
        assert f"({lined._definition.log_name[1]})" in notes
        assert "step 2 (work" in notes


@both_colours
def test_a_failed_flow_is_not_rerun_by_the_next_start(database: Path, lined: Any) -> None:
    # given
    broken.add("b")
    with Persistasaurus(database) as app, pytest.raises(Uhoh):
        start(app, lined, "f").result(10)
    broken.clear()
    ran.clear()
    # when
    with Persistasaurus(database) as app:
        # then
        with pytest.raises(Uhoh):
            app.run(lined.options(flow_id="f"))
        assert app.handle("f").status() == FlowStatus.FAILED
    assert ran == []


@both_colours
def test_retry_goes_on_at_the_failed_step(database: Path, lined: Any) -> None:
    # given
    broken.add("b")
    with Persistasaurus(database) as app:
        handle = start(app, lined, "f")
        until_status(handle, FlowStatus.FAILED)
        first = handle.steps()[0]
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == ["a", "b", "c"]
        assert handle.steps()[0] == first
        assert handle.steps()[1].attempts == 2
        assert handle.steps()[1].error is None
        assert handle.record().error is None
    assert ran == ["a", "b", "b", "c"]


@both_colours
def test_running_the_instance_again_goes_on_at_the_failed_step(database: Path, lined: Any) -> None:
    # given
    broken.add("c")
    with Persistasaurus(database) as app:
        instance = app.get_flow(lined, "f")
        with pytest.raises(Uhoh):
            instance.run(lambda f: f())
        # when it still fails
        with pytest.raises(Uhoh):
            instance.run(lambda f: f())
        broken.clear()
    # when it is run by another app
    with Persistasaurus(database) as app:
        result = app.get_flow(lined, "f").run(lambda f: f())
    # then
    assert result == ["a", "b", "c"]
    assert ran == ["a", "b", "c", "c", "c"]


def test_a_result_asked_for_after_a_retry_is_not_the_failure_from_before_it(database: Path) -> None:
    failed, go_on = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        if event.happening is Happening.FLOW_ENDED and event.flow_id == "f" and not failed.is_set():
            failed.set()
            go_on.wait(10)

    # given a failure that is recorded, and of which this process has not told anybody yet
    broken.add("b")
    with Persistasaurus(database, observer=hold) as app:
        handle = start(app, async_line, "f")
        assert failed.wait(10)
        broken.clear()
        handle.retry()
        # when
        threading.Timer(0.1, go_on.set).start()
        # then
        assert handle.result(10) == ["a", "b", "c"]


@both_colours
def test_a_flow_that_fails_as_soon_as_it_runs_is_not_run_again_by_its_own_start(
    database: Path, lined: Any
) -> None:
    # given
    broken.add("a")
    with Persistasaurus(database) as app:
        # when
        for number in range(100):
            with pytest.raises(Uhoh):
                app.get_flow(lined, f"f{number}").run(lambda f: f())
    # then
    assert ran == ["a"] * 100


def test_a_flow_can_be_retried_many_times(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        broken.add("b")
        handle = start(app, line, "f")
        for _ in range(5):
            until_status(handle, FlowStatus.FAILED)
            handle.retry()
        until_status(handle, FlowStatus.FAILED)
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == ["a", "b", "c"]
        assert handle.steps()[1].attempts == 7


def test_retry_leaves_a_flow_alone_that_did_not_fail(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, line, "f")
        assert handle.result(10) == ["a", "b", "c"]
        handle.retry()
        assert handle.status() == FlowStatus.COMPLETE


# A failure that the flow catches.


@flow
def catching() -> str:
    try:
        work("bad")
    except Uhoh as error:
        note = str(error)
    return f"{note}; {work('good')}"


def test_a_caught_failure_is_recorded_as_one(database: Path) -> None:
    # given
    broken.add("bad")
    with Persistasaurus(database) as app:
        # when
        handle = start(app, catching, "f")
        # then
        assert handle.result(10) == "Uh oh, bad; good"
        first = handle.steps()[0]
        assert first.status == FlowStatus.FAILED
        assert first.error is not None
        assert (first.error["type"], first.error["message"]) == ("Uhoh", "Uh oh, bad")
        assert first.return_value is None


# Compensation: after the retry the flow takes another way.


@flow
def compensating() -> str:
    reserved = work("reserve")
    try:
        work("charge")
    except Uhoh:
        work("refund")
        raise
    work("ship")
    return reserved


def test_a_retried_flow_may_take_another_way_after_its_failure(database: Path) -> None:
    # given a flow that compensated before it failed
    broken.add("charge")
    with Persistasaurus(database) as app:
        handle = start(app, compensating, "f")
        with pytest.raises(Uhoh):
            handle.result(10)
        assert ran == ["reserve", "charge", "refund"]
        # when the cause is gone
        broken.clear()
        handle.retry()
        # then the flow goes the good way, and what it did before stays in the log under its own number
        assert handle.result(10) == "reserve"
        parameters = [row.parameters for row in handle.steps()]
        assert parameters == [{"label": label} for label in ("reserve", "charge", "refund", "ship")]
    assert ran == ["reserve", "charge", "refund", "charge", "ship"]


@flow
async def compensating_async() -> str:
    reserved = await work_async("reserve")
    try:
        await work_async("charge")
    except Uhoh:
        await asyncio.sleep(0.01)
        await work_async("refund")
        raise
    await work_async("ship")
    return reserved


def test_a_retried_async_flow_may_take_another_way_too(database: Path) -> None:
    # given
    broken.add("charge")
    with Persistasaurus(database) as app:
        handle = start(app, compensating_async, "f")
        with pytest.raises(Uhoh):
            handle.result(10)
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == "reserve"
    assert ran == ["reserve", "charge", "refund", "charge", "ship"]


def test_a_retry_that_fails_again_compensates_once_for_all(database: Path) -> None:
    # given
    broken.add("charge")
    with Persistasaurus(database) as app:
        handle = start(app, compensating, "f")
        until_status(handle, FlowStatus.FAILED)
        # when
        handle.retry()
        with pytest.raises(Uhoh):
            handle.result(10)
    # then the refund that was recorded is the one that the flow asks for again
    assert ran == ["reserve", "charge", "refund", "charge"]


def test_the_other_way_is_replayed_by_the_next_app(database: Path) -> None:
    # given a flow that took another way after its retry and then waits
    broken.add("charge")
    with Persistasaurus(database) as app:
        handle = start(app, compensating_and_waiting, "f")
        until_status(handle, FlowStatus.FAILED)
        broken.clear()
        handle.retry()
        until_waiting(handle)
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "word")
        # then
        assert app.handle("f").result(10) == "f/4 word f/6"
    assert ran == ["charge", "refund", "refund2", "charge", "shipped f/4", "shipped f/6"]


@step
def ship(label: str) -> str:
    ran.append(f"{label} {current().idempotency_key}")
    return current().idempotency_key


@flow
def compensating_and_waiting() -> str:
    try:
        work("charge")
    except Uhoh:
        refunded = failing_child("refund")
        sleep(0)
        raise RuntimeError(refunded) from None
    return f"{ship('shipped')} {go.wait()} {ship('shipped')}"


@flow
async def parallel() -> list[str]:
    branches = [work_async("left", 0), work_async("bad", 30), work_async("right", 60)]
    found = await asyncio.gather(*branches, return_exceptions=True)
    after = await work_async("after")
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [*(str(one) for one in found), after]


def test_parallel_branches_that_completed_are_not_run_again(database: Path) -> None:
    # given
    broken.add("bad")
    with Persistasaurus(database) as app:
        handle = start(app, parallel, "f")
        until_status(handle, FlowStatus.FAILED)
        assert sorted(ran) == ["after", "bad", "left", "right"]
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == ["left", "bad", "right", "after"]
    assert sorted(ran) == ["after", "bad", "bad", "left", "right"]


@flow
async def grouped() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work_async(label, ms))
            for label, ms in (("quick", 0), ("bad", 20), ("slow", 60))
        ]
    return [task.result() for task in tasks]


def test_an_exception_group_is_raised_as_one_and_its_steps_are_retried(database: Path) -> None:
    # given
    broken.add("bad")
    with Persistasaurus(database) as app:
        handle = start(app, grouped, "f")
        with pytest.raises(ExceptionGroup) as raised:
            handle.result(10)
        assert [type(error) for error in raised.value.exceptions] == [Uhoh]
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == ["quick", "bad", "slow"]
    assert ran == ["quick", "bad", "bad", "slow"]


@flow
def raises_by_itself() -> None:
    work("a")
    if broken:
        raise ValueError("not a step's")
    work("b")


def test_a_failure_of_the_body_itself_is_retried_from_the_recorded_steps(database: Path) -> None:
    # given
    broken.add("anything")
    with Persistasaurus(database) as app:
        handle = start(app, raises_by_itself, "f")
        with pytest.raises(ValueError, match="not a step's"):
            handle.result(10)
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) is None
    assert ran == ["a", "b"]


def test_a_failure_that_wraps_a_steps_failure_reopens_that_step(database: Path) -> None:
    # given
    broken.add("inner")
    with Persistasaurus(database) as app:
        handle = start(app, wrapping, "f")
        with pytest.raises(RuntimeError, match="outer") as raised:
            handle.result(10)
        assert isinstance(raised.value.__cause__, Uhoh)
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == "inner"
    assert ran == ["inner", "inner"]


@flow
def wrapping() -> str:
    try:
        return work("inner")
    except Uhoh as error:
        raise RuntimeError("outer") from error


def test_a_wait_that_timed_out_gets_its_whole_time_again(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, impatient, "f")
        with pytest.raises(TimeoutError):
            handle.result(10)
        # when
        handle.retry()
        handle.send(go, "in time")
        # then
        assert handle.result(10) == "in time"


@flow
def impatient() -> str:
    return go.wait(timeout=0.2)


# Children.


@flow
def failing_child(label: str) -> str:
    return work(label) + work(f"{label}2")


@flow
def retried_parent() -> str:
    return work("p") + failing_child("c") + work("q")


@flow
async def failing_async_child(label: str, ms: int = 0) -> str:
    return await work_async(label, ms) + await work_async(f"{label}2")


@flow
async def retried_async_parent() -> str:
    return await work_async("p") + await failing_async_child("c") + await work_async("q")


@pytest.mark.parametrize("family", [retried_parent, retried_async_parent])
def test_a_failed_child_is_retried_with_its_parent(database: Path, family: Any) -> None:
    # given
    broken.add("c2")
    with Persistasaurus(database) as app:
        handle = start(app, family, "f")
        with pytest.raises(Uhoh, match="c2"):
            handle.result(10)
        assert app.handle("f/2").status() == FlowStatus.FAILED
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == "pcc2q"
        assert app.handle("f/2").status() == FlowStatus.COMPLETE
    assert ran == ["p", "c", "c2", "c2", "q"]


@flow
async def parallel_parent() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(failing_async_child(label, ms)) for label, ms in (("slow", 2000), ("bad", 20))
        ]
    return [task.result() for task in tasks]


def failed_parallel(app: Persistasaurus) -> FlowHandle[Any]:
    """Start the parent and let one child fail, so that the other is cancelled."""
    broken.add("bad")
    handle = start(app, parallel_parent, "f")
    with pytest.raises(ExceptionGroup):
        handle.result(10)
    until_status(app.handle("f/1"), FlowStatus.CANCELLED)
    return handle


def test_a_child_that_was_cancelled_by_its_siblings_failure_is_retried_with_the_parent(
    database: Path,
) -> None:
    with Persistasaurus(database) as app:
        # given
        handle = failed_parallel(app)
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == ["slowslow2", "badbad2"]


def test_a_childs_end_that_is_told_late_is_not_taken_for_its_end_after_the_retry(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[tuple[Any, ...]] = []
    real = Memory.child_ended

    def told_late(self: Memory, run: Any, outcome: Outcome) -> None:
        if run.flow_id == "f/1" and not late:
            late.append((self, run, outcome))
        else:
            real(self, run, outcome)

    monkeypatch.setattr(Memory, "child_ended", told_late)
    with Persistasaurus(database) as app:
        # given a child of which its parent has not heard yet that it was cancelled
        handle = failed_parallel(app)
        eventually(lambda: late)
        # when both are retried before it hears
        broken.clear()
        handle.retry()
        engine = app._engine_here("a test")
        eventually(lambda: any(run.flow_id == "f" for run in list(engine.runs.values())))
        engine.on_host(real, *late[0])
        # then it hears of the new end
        assert handle.result(10) == ["slowslow2", "badbad2"]


@flow
async def gathering_parent() -> list[str]:
    return await asyncio.gather(failing_async_child("slow", 150), failing_async_child("bad", 20))


def test_a_child_that_ran_when_its_parent_failed_is_there_after_the_retry(database: Path) -> None:
    # given
    broken.add("bad")
    with Persistasaurus(database) as app:
        handle = start(app, gathering_parent, "f")
        with pytest.raises(Uhoh):
            handle.result(10)
        # when
        broken.clear()
        handle.retry()
        # then
        assert handle.result(10) == ["slowslow2", "badbad2"]


# A retry after a restart, with other things going on.


@flow
def long_story() -> list[str]:
    told = [work("one")]
    told.append(go.wait())
    sleep(0.01)
    told.append(work("two"))
    return told


def test_a_flow_that_waited_and_slept_before_it_failed_is_retried_in_another_app(database: Path) -> None:
    # given
    broken.add("two")
    with Persistasaurus(database) as app:
        until_waiting(start(app, long_story, "f"))
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "word")
        until_status(app.handle("f"), FlowStatus.FAILED)
    # when
    broken.clear()
    with Persistasaurus(database) as app:
        app.handle("f").retry()
        # then
        assert app.handle("f").result(10) == ["one", "word", "two"]
    assert ran == ["one", "two", "two"]


def test_the_error_in_the_log_is_plain_json(database: Path) -> None:
    broken.add("a")
    with Persistasaurus(database) as app:
        handle = start(app, line, "f")
        eventually(lambda: handle.status() == FlowStatus.FAILED)
        error = handle.steps()[0].error
        assert json.loads(json.dumps(error)) == error
        assert error is not None
        assert "work" in error["traceback"]
