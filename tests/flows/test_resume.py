"""`wait_for` a step: somebody outside resumes it, with the step's own arguments."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    FlowNotFound,
    FlowNotWaiting,
    FlowStatus,
    Persistasaurus,
    SerializationError,
    UsageError,
    current,
    flow,
    step,
    wait_for,
)
from persistasaurus.testing import MovableClock
from tests.flows import foreign
from tests.flows.kit import eventually, log_of, ran, sql, start, until_waiting


@step
def confirm(at: datetime, by: str = "someone") -> str:
    ran.append(by)
    return f"{by} {at.year}"


@step
async def confirm_async(at: datetime, by: str = "someone") -> str:
    ran.append(by)
    return f"{by} {at.year}"


@flow
def sync_confirmed() -> str:
    return wait_for(confirm)


@flow
async def confirmed() -> str:
    return await wait_for(confirm_async)


NOON = datetime(2031, 5, 6, 12, tzinfo=UTC)
confirmations = pytest.mark.parametrize(
    "confirming,by_step", [(sync_confirmed, confirm), (confirmed, confirm_async)]
)


@confirmations
def test_a_resume_runs_the_step_with_its_arguments(database: Path, confirming: Any, by_step: Any) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, confirming, "f"))
        assert log_of(handle) == [(1, by_step._definition.log_name[1], "WAITING_FOR_SIGNAL")]
        handle.resume(by_step, NOON, by="bob")
        assert handle.result(10) == "bob 2031"
        (row,) = handle.steps()
        assert row.parameters == {"at": "2031-05-06T12:00:00Z", "by": "bob"}
        assert (row.attempts, row.status) == (1, FlowStatus.COMPLETE)
    assert ran == ["bob"]


@confirmations
def test_a_resume_may_come_before_the_wait_and_before_the_flow(
    database: Path, confirming: Any, by_step: Any
) -> None:
    with Persistasaurus(database) as app:
        app.handle("f").resume(by_step, NOON)
    with Persistasaurus(database) as app:
        assert app.run(confirming.options(flow_id="f")) == "someone 2031"


@confirmations
def test_a_resume_that_does_not_fit_is_refused_and_nothing_consumed(
    database: Path, confirming: Any, by_step: Any
) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, confirming, "f"))
        with pytest.raises(SerializationError):
            handle.resume(by_step, "not a date")
        with pytest.raises((SerializationError, TypeError)):
            handle.resume(by_step)
        assert sql(database, "SELECT count(*) FROM signal") == [(0,)]
        handle.resume(by_step, NOON)
        handle.result(10)


def test_a_step_that_is_not_the_flows_own_is_refused(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, sync_confirmed, "f"))
        with pytest.raises(FlowNotWaiting, match="foreign_step"):
            handle.resume(foreign.foreign_step, 1)
        with pytest.raises(UsageError):
            handle.resume(sync_confirmed)  # type: ignore[call-arg]
        handle.resume(confirm, NOON)
        handle.result(10)


@flow
def confirmed_in_time() -> str:
    try:
        return wait_for(confirm, timeout=timedelta(hours=1))
    except TimeoutError:
        return "too late"


@flow
async def confirmed_in_time_async() -> str:
    try:
        return await wait_for(confirm_async, timeout=timedelta(hours=1))
    except TimeoutError:
        return "too late"


@pytest.mark.parametrize("confirming", [confirmed_in_time, confirmed_in_time_async])
def test_a_wait_for_a_step_times_out(database: Path, confirming: Any) -> None:
    clock = MovableClock()
    with Persistasaurus(database, clock=clock) as app:
        handle = start(app, confirming, "f")
        eventually(lambda: log_of(handle))
        clock.advance_sync(3601)
        assert handle.result(10) == "too late"
        assert handle.steps()[0].status == FlowStatus.FAILED
    assert ran == []


class TwoConfirmations:
    @flow
    async def sign_up(self, user: str) -> list[str]:
        first = await wait_for(self.confirm_email)
        second = await wait_for(self.confirm_phone)
        return [user, first, second]

    @step
    async def confirm_email(self, at: datetime) -> str:
        return f"email {at.year}"

    @step
    async def confirm_phone(self, at: datetime) -> str:
        return f"phone {at.year}"

    @step
    async def never_waited_for(self) -> None:
        raise AssertionError


def test_an_instance_resumes_by_a_lambda(database: Path) -> None:
    with Persistasaurus(database) as app:
        instance = app.get_flow(TwoConfirmations, "f")
        handle = until_waiting(instance.start(lambda f: f.sign_up("eve")))
        instance.resume(lambda f: f.confirm_phone(NOON))
        instance.resume(lambda f: f.confirm_email(at=NOON))
        assert handle.result(10) == ["eve", "email 2031", "phone 2031"]


def test_signal_resume_goes_to_the_step_that_is_waited_for(database: Path) -> None:
    with Persistasaurus(database) as app:
        instance = app.get_flow(TwoConfirmations, "f")
        with pytest.raises(FlowNotFound):
            instance.signal_resume(NOON)
        handle = until_waiting(instance.start(lambda f: f.sign_up("eve")))
        with pytest.raises(SerializationError):
            instance.signal_resume("no date")
        instance.signal_resume(NOON)
        eventually(lambda: [r for r in handle.steps() if r.method_name == "confirm_phone"])
        until_waiting(handle)
        instance.signal_resume(NOON)
        assert handle.result(10) == ["eve", "email 2031", "phone 2031"]
        with pytest.raises(FlowNotWaiting):
            instance.signal_resume(NOON)


def test_a_resume_of_a_step_of_the_class_that_is_never_waited_for_is_queued(database: Path) -> None:
    with Persistasaurus(database) as app:
        instance = app.get_flow(TwoConfirmations, "f")
        until_waiting(instance.start(lambda f: f.sign_up("eve")))
        instance.resume(lambda f: f.never_waited_for())
    assert sql(database, "SELECT name FROM signal") == [("step:TwoConfirmations.never_waited_for",)]


def test_a_resumed_step_that_was_interrupted_runs_again_with_its_arguments(database: Path) -> None:
    # given a step that was resumed and still runs when its app is left
    with Persistasaurus(database, drain=0) as app:
        handle = until_waiting(start(app, slowly_confirmed, "f"))
        handle.resume(confirm_slowly, "first")
        eventually(lambda: ran)
    # when
    release.set()
    with Persistasaurus(database) as app:
        # then
        assert app.handle("f").result(10) == "first 2"
    assert ran == ["first 1", "first 2"]


release = asyncio.Event()


@step
async def confirm_slowly(by: str) -> str:
    ran.append(f"{by} {current().attempt}")
    if len(ran) == 1:
        await asyncio.sleep(30)
    return ran[-1]


@flow
async def slowly_confirmed() -> str:
    return await wait_for(confirm_slowly)
