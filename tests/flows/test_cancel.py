"""A cancel is an event like any other: cleanup still runs, children are cancelled, replay is the same."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    FlowCancelled,
    FlowNotFound,
    FlowStatus,
    Persistasaurus,
    Signal,
    flow,
    sleep,
    step,
)
from tests.flows.kit import eventually, log_of, ran, sql, start, until_status, until_waiting

go = Signal("cancel-go", str)
gate = threading.Event()


@pytest.fixture(autouse=True)
def _gate_is_shut() -> None:
    gate.clear()


@step
def note(label: str) -> str:
    ran.append(label)
    return label


@step
def gated(label: str) -> str:
    ran.append(label)
    gate.wait(10)
    ran.append(f"{label} done")
    return label


@step
async def forever(label: str) -> str:
    ran.append(label)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        ran.append(f"{label} cancelled")
        raise
    return label


@flow
def sleeper() -> None:
    note("a")
    sleep(3600)
    note("b")


@flow
async def async_sleeper() -> None:
    await note.submit("a")
    await asyncio.sleep(3600)
    await note.submit("b")


@flow
def waiter() -> None:
    note("a")
    go.wait()
    note("b")


@flow
async def async_waiter() -> None:
    await note.submit("a")
    await go
    await note.submit("b")


@flow
async def stepper() -> None:
    await note.submit("a")
    await forever("step")
    await note.submit("b")


every_flow = pytest.mark.parametrize("flow_", [sleeper, async_sleeper, waiter, async_waiter, stepper])


@every_flow
def test_a_cancelled_flow_ends_and_says_so(database: Path, flow_: Any) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, flow_, "f")
        eventually(lambda: len(log_of(handle)) == 2)
        # when
        handle.cancel()
        # then
        with pytest.raises(FlowCancelled, match="'f'"):
            handle.result(10)
        assert handle.status() == FlowStatus.CANCELLED
        assert sql(database, "SELECT status FROM execution_log WHERE step = 0") == [("CANCELLED",)]
    assert ran[0] == "a"
    assert "b" not in ran


@every_flow
def test_a_flow_is_cancelled_after_a_restart_too(database: Path, flow_: Any) -> None:
    # given a cancel that was sent while no worker was there
    with Persistasaurus(database, drain=0) as app:
        handle = start(app, flow_, "f")
        eventually(lambda: len(log_of(handle)) == 2)
    with Persistasaurus(database, worker=False) as app:
        app.handle("f").cancel()
        assert app.handle("f").status() in (FlowStatus.PENDING, FlowStatus.WAITING_FOR_SIGNAL)
    # when, then
    with Persistasaurus(database) as app, pytest.raises(FlowCancelled):
        app.handle("f").result(10)
    assert "b" not in ran


def test_the_running_async_step_of_a_cancelled_flow_is_cancelled(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, stepper, "f")
        eventually(lambda: "step" in ran)
        handle.cancel()
        until_status(handle, FlowStatus.CANCELLED)
        eventually(lambda: "step cancelled" in ran)
        assert log_of(handle)[1] == (2, "forever", "CANCELLED")


# Cleanup.


@flow
def tidies() -> None:
    try:
        note("work")
        go.wait()
    except FlowCancelled:
        note("caught")
        raise
    finally:
        note("cleanup")


@flow
async def async_tidy() -> None:
    try:
        await note.submit("work")
        await go
    except asyncio.CancelledError:
        await note.submit("caught")
        raise
    finally:
        await asyncio.sleep(0.01)
        await note.submit("cleanup")


tidying = pytest.mark.parametrize("flow_", [tidies, async_tidy])


@tidying
def test_cleanup_steps_still_run(database: Path, flow_: Any) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, flow_, "f"))
        # when
        handle.cancel()
        # then
        until_status(handle, FlowStatus.CANCELLED)
    assert ran == ["work", "caught", "cleanup"]


@step
def interrupted(label: str) -> str:
    from persistasaurus import current

    ran.append(f"{label} {current().attempt}")
    gate.wait(10)
    return label


@flow
def slow_tidy() -> None:
    try:
        note("work")
        go.wait()
    finally:
        note("first")
        interrupted.submit("second").result()


@flow
async def async_slow_tidy() -> None:
    try:
        await note.submit("work")
        await go
    finally:
        await note.submit("first")
        await interrupted.submit("second")


@pytest.mark.parametrize("flow_", [slow_tidy, async_slow_tidy])
def test_a_restart_during_the_cleanup_replays_the_cancel_at_its_place(database: Path, flow_: Any) -> None:
    # given a cancelled flow that is left in the middle of its cleanup
    with Persistasaurus(database, drain=0) as app:
        handle = until_waiting(start(app, flow_, "f"))
        handle.cancel()
        eventually(lambda: "second 1" in ran)
    # when
    gate.set()
    with Persistasaurus(database) as app:
        # then
        until_status(app.handle("f"), FlowStatus.CANCELLED)
        assert app.handle("f").steps()[0].status == FlowStatus.COMPLETE
    assert ran.count("work") == ran.count("first") == 1
    assert ran[-1].startswith("second")


# What is not interrupted.


@flow
def busy() -> None:
    gated("first")
    note("second")


def test_a_sync_flow_sees_the_cancel_at_its_next_durable_operation(database: Path) -> None:
    # given a sync flow in a step
    with Persistasaurus(database) as app:
        handle = start(app, busy, "f")
        eventually(lambda: "first" in ran)
        # when
        handle.cancel()
        time.sleep(0.1)
        gate.set()
        # then the step runs to its end and is recorded, the next is not begun
        until_status(handle, FlowStatus.CANCELLED)
        assert log_of(handle) == [(1, "gated", "COMPLETE")]
    assert ran == ["first", "first done"]


@flow
async def late_step() -> str:
    return await gated.submit("late")


@pytest.mark.peer("cancelled became success")
def test_a_late_step_does_not_turn_a_cancelled_flow_into_a_success(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, late_step, "f")
        eventually(lambda: "late" in ran)
        # when
        handle.cancel()
        until_status(handle, FlowStatus.CANCELLED)
        record = handle.record()
        gate.set()
        eventually(lambda: "late done" in ran)
        time.sleep(0.1)
        # then
        assert handle.record() == record
        assert log_of(handle) == [(1, "gated", "CANCELLED")]


def test_cancelling_a_flow_that_has_ended_changes_nothing(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, just_note, "f")
        assert handle.result(10) == "x"
        before = handle.record()
        handle.cancel()
        time.sleep(0.05)
        assert handle.record() == before


@flow
def just_note() -> str:
    return note("x")


def test_cancelling_twice_is_cancelling_once(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, tidies, "f"))
        handle.cancel()
        handle.cancel()
        until_status(handle, FlowStatus.CANCELLED)
        handle.cancel()
    assert ran == ["work", "caught", "cleanup"]


def test_cancelling_an_unknown_id_says_so(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(FlowNotFound, match="nobody"):
        app.handle("nobody").cancel()


def test_a_flow_that_never_ran_ends_at_once(database: Path) -> None:
    # given a flow that a client started and no worker took
    with Persistasaurus(database, worker=False) as app:
        handle = start(app, just_note, "f")
        # when
        handle.cancel()
        # then
        with pytest.raises(FlowCancelled):
            handle.result(5)
    with Persistasaurus(database) as app:
        assert app.handle("f").status() == FlowStatus.CANCELLED
        with pytest.raises(FlowCancelled):
            app.run(just_note.options(flow_id="f"))
    assert ran == []


def test_a_parked_flow_ends_at_once(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, in_vain, "f")
        until_status(handle, FlowStatus.PARKED)
        # when
        handle.cancel()
        # then
        with pytest.raises(FlowCancelled):
            handle.result(5)
        assert handle.record().reason is None


@flow
async def in_vain() -> None:
    await asyncio.Event().wait()


def test_a_cancelled_flow_is_not_retried_as_it_is(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, tidies, "f"))
        handle.cancel()
        until_status(handle, FlowStatus.CANCELLED)
        handle.retry()
        assert handle.status() == FlowStatus.CANCELLED


# Children.


@flow
def cancelled_child() -> None:
    try:
        go.wait()
    finally:
        note("the child's cleanup")


@flow
async def cancelled_async_child() -> None:
    try:
        await go
    finally:
        await note.submit("the child's cleanup")


@flow
def cancelled_parent() -> None:
    cancelled_child()


@flow
async def cancelled_async_parent() -> None:
    await cancelled_async_child()


@flow
def grandparent() -> None:
    cancelled_parent()


@pytest.mark.parametrize(
    "family,child_id",
    [(cancelled_parent, "f/1"), (cancelled_async_parent, "f/1"), (grandparent, "f/1/1")],
)
def test_children_are_cancelled_with_their_parent(database: Path, family: Any, child_id: str) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, family, "f")
        eventually(lambda: any(record.flow_id == child_id for record in app.flows()))
        until_waiting(app.handle(child_id))
        # when
        handle.cancel()
        # then
        until_status(handle, FlowStatus.CANCELLED)
        until_status(app.handle(child_id), FlowStatus.CANCELLED)
    assert ran == ["the child's cleanup"]


@flow
def survives_its_child() -> str:
    try:
        cancelled_child()
    except FlowCancelled as error:
        return str(error)
    return "nothing"


@flow
async def async_survives_its_child() -> str:
    try:
        await cancelled_async_child()
    except FlowCancelled as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("family", [survives_its_child, async_survives_its_child])
def test_a_parent_is_told_that_its_child_was_cancelled(database: Path, family: Any) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, family, "f")
        eventually(lambda: any(record.flow_id == "f/1" for record in app.flows()))
        until_waiting(app.handle("f/1")).cancel()
        assert "'f/1' was cancelled" in handle.result(10)
        assert handle.steps()[0].status == FlowStatus.CANCELLED


# A flow that goes on all the same.


@flow
def stubborn() -> str:
    try:
        go.wait()
    except FlowCancelled:
        note("no")
    return go.wait()


@flow
async def async_stubborn() -> str:
    try:
        await go
    except asyncio.CancelledError:
        await note.submit("no")
    return await go


@pytest.mark.parametrize("flow_", [stubborn, async_stubborn])
def test_a_flow_that_catches_its_cancel_goes_on_and_replays_the_same(database: Path, flow_: Any) -> None:
    # given a flow that has caught its cancel and waits again
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, flow_, "f"))
        handle.cancel()
        eventually(lambda: ran == ["no"])
        eventually(lambda: len(log_of(handle)) == 3)
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(go, "well then")
        # then
        assert app.handle("f").result(10) == "well then"
    assert ran == ["no"]


@flow
async def cancels_its_own_task() -> str:
    async def inner() -> None:
        await forever("inner")

    task = asyncio.create_task(inner())
    await note.submit("started")
    await asyncio.sleep(0.02)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "inner was cancelled"
    return "not"


def test_a_flows_own_cancels_are_its_own_business(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, cancels_its_own_task, "f")
        assert handle.result(10) == "inner was cancelled"
        eventually(lambda: "inner cancelled" in ran)


@flow
async def raises_cancelled_by_itself() -> None:
    await note.submit("x")
    raise asyncio.CancelledError


def test_a_cancelled_error_that_nobody_asked_for_is_no_success(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, raises_cancelled_by_itself, "f")
        with pytest.raises(Exception, match=r".*") as raised:
            handle.result(10)
        assert handle.status() in (FlowStatus.CANCELLED, FlowStatus.FAILED)
        assert not isinstance(raised.value, TimeoutError)


def test_a_cancel_in_the_face_of_a_signal_loses_neither(database: Path) -> None:
    # given many flows that get a signal and a cancel at once
    with Persistasaurus(database) as app:
        handles = [until_waiting(start(app, (waiter, async_waiter)[n % 2], f"f{n}")) for n in range(20)]

        def send() -> None:
            for handle in handles:
                handle.send(go, "x")

        sender = threading.Thread(target=send)
        sender.start()
        for handle in handles:
            handle.cancel()
        sender.join()
        # then each ends one way or the other, and its signal is consumed or pending
        for handle in handles:
            eventually(lambda handle=handle: handle.status() in (FlowStatus.CANCELLED, FlowStatus.COMPLETE))
        pending = {flow_id for (flow_id,) in sql(database, "SELECT flow_id FROM signal")}
        for handle in handles:
            taken = handle.steps()[1].status == FlowStatus.COMPLETE
            assert taken != (handle.flow_id in pending)
