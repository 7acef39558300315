"""A signal is consumed once or is still pending; it may come before the wait and before the flow."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from persistasaurus import (
    DuplicateNameError,
    FlowNotFound,
    FlowNotWaiting,
    FlowStatus,
    Persistasaurus,
    SerializationError,
    Signal,
    UsageError,
    WrongContextError,
    flow,
    step,
    wait_for,
)
from persistasaurus.testing import MovableClock
from tests.flows import foreign
from tests.flows.kit import eventually, log_of, ran, sql, start, until_waiting


class Approval(BaseModel):
    by: str
    level: int = 1


approval = Signal("approval", Approval)
word = Signal("word", str)
number = Signal("number", int)
results: list[Any] = []


@flow
def sync_approved() -> str:
    given = approval.wait()
    return f"{given.by} {given.level}"


@flow
async def approved() -> str:
    given = await approval
    return f"{given.by} {given.level}"


both = pytest.mark.parametrize("approving", [sync_approved, approved])


@both
def test_a_typed_signal_reaches_the_flow_that_waits(database: Path, approving: Any) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, approving, "f"))
        handle.send(approval, Approval(by="ann", level=2))
        assert handle.result(10) == "ann 2"
        assert log_of(handle) == [(1, "approval", "COMPLETE")]
        assert handle.steps()[0].return_value == {"by": "ann", "level": 2}


@both
def test_a_signal_may_come_before_the_flow_exists(database: Path, approving: Any) -> None:
    # given a signal to a flow id that nobody has started
    with Persistasaurus(database) as app:
        app.handle("f").send(approval, Approval(by="early"))
        with pytest.raises(FlowNotFound):
            app.handle("f").status()
    # when
    with Persistasaurus(database) as app:
        # then
        assert app.run(approving.options(flow_id="f")) == "early 1"


@flow
async def three_words() -> list[str]:
    return [await word, await word, await word]


@flow
def sync_three_words() -> list[str]:
    return [word.wait(), word.wait(), word.wait()]


@pytest.mark.parametrize("three", [three_words, sync_three_words])
def test_signals_of_one_name_are_taken_in_the_order_sent(database: Path, three: Any) -> None:
    with Persistasaurus(database) as app:
        handle = app.handle("f")
        for text in ("one", "two"):
            handle.send(word, text)
        start(app, three, "f")
        handle.send(word, "three")
        assert handle.result(10) == ["one", "two", "three"]


def test_what_was_consumed_is_not_consumed_again_after_a_restart(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        handle = start(app, three_words, "f")
        handle.send(word, "one")
        eventually(lambda: len([r for r in handle.steps() if r.status == FlowStatus.COMPLETE]) == 1)
    # when
    with Persistasaurus(database) as app:
        app.handle("f").send(word, "two")
        app.handle("f").send(word, "three")
        # then
        assert app.handle("f").result(10) == ["one", "two", "three"]
    assert sql(database, "SELECT count(*) FROM signal") == [(0,)]


@flow
async def two_waiters() -> list[str]:
    async def one(label: str) -> str:
        return label + await word

    return await asyncio.gather(one("a"), one("b"))


def test_of_two_waiters_the_first_to_wait_gets_the_first_signal(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, two_waiters, "f"))
        handle.send(word, "1")
        handle.send(word, "2")
        assert handle.result(10) == ["a1", "b2"]


@flow
async def other_names() -> list[Any]:
    return [await number, await word]


def test_signals_of_other_names_do_not_get_in_each_others_way(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, other_names, "f"))
        handle.send(word, "later")
        handle.send(number, 7)
        assert handle.result(10) == [7, "later"]


def test_a_signal_that_nobody_consumed_is_still_pending_at_the_end(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, approved, "f")
        handle.send(word, "unasked")
        handle.send(approval, Approval(by="x"))
        handle.result(10)
    assert sql(database, "SELECT name, rejected FROM signal") == [("word", None)]


# What does not fit.


@pytest.mark.parametrize("bad", [3, "text", {"level": 2}, None, {"by": 3}])
def test_a_value_that_does_not_fit_is_refused_at_the_sender(database: Path, bad: Any) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, approved, "f"))
        with pytest.raises(SerializationError, match="approval"):
            handle.send(approval, bad)
        assert sql(database, "SELECT count(*) FROM signal") == [(0,)]
        handle.send(approval, Approval(by="good"))
        assert handle.result(10) == "good 1"


def test_a_number_is_no_text(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(SerializationError):
        app.handle("f").send(word, 3)  # type: ignore[arg-type]


def test_a_signal_by_name_is_json_and_checked_where_the_type_is_known(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, approved, "f"))
        with pytest.raises(SerializationError):
            handle.send("approval", {"level": "high"})
        handle.send("approval", {"by": "json", "level": 3})
        assert handle.result(10) == "json 3"


def test_a_signal_that_does_not_fit_on_arrival_is_set_aside_and_the_wait_goes_on(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a sender that does not know the type
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, approved, "f"))
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("persistasaurus._engine.signals._signals", {})
            handle.send("approval", {"level": "high"})
        # when, then
        ((reason,),) = eventually(
            lambda: sql(database, "SELECT rejected FROM signal WHERE rejected IS NOT NULL"),
        )
        assert "approval" in reason
        assert handle.status() == FlowStatus.WAITING_FOR_SIGNAL
        handle.send(approval, Approval(by="second"))
        assert handle.result(10) == "second 1"
    assert sql(database, "SELECT count(*) FROM signal WHERE rejected IS NOT NULL") == [(1,)]


def test_one_name_stands_for_one_type() -> None:
    Signal("the same", int)
    with pytest.raises(DuplicateNameError, match="the same"):
        Signal("the same", str)
    assert Signal("the same", int).name == "the same"


@pytest.mark.parametrize("bad", ["", "x" * 257, "a\0b", "step:x", 3])
def test_a_signals_name_is_a_short_text(bad: Any) -> None:
    with pytest.raises(UsageError):
        Signal(bad, int)


def test_waiting_outside_of_a_flow_is_refused() -> None:
    with pytest.raises(WrongContextError, match="outside"):
        word.wait()


@flow
async def waits_wrongly() -> str:
    return word.wait()


@flow
def awaits_wrongly() -> Any:
    return word.__await__()


@pytest.mark.parametrize(("wrong", "cure"), [(waits_wrongly, "await signal"), (awaits_wrongly, "signal.wait")])
def test_the_other_colours_way_of_waiting_says_the_cure(database: Path, wrong: Any, cure: str) -> None:
    with Persistasaurus(database) as app, pytest.raises(WrongContextError, match=cure):
        app.run(wrong)


# Timeouts.


@flow
def sync_limited() -> list[str]:
    try:
        found = word.wait(timeout=3600)
    except TimeoutError:
        found = "nobody"
    return [found, word.wait()]


@flow
async def limited() -> list[str]:
    try:
        async with asyncio.timeout(3600):
            found = await word
    except TimeoutError:
        found = "nobody"
    return [found, await word]


limits = pytest.mark.parametrize("limiting", [sync_limited, limited])


@limits
def test_a_timeout_is_recorded_and_the_same_on_replay(database: Path, limiting: Any) -> None:
    # given a wait that timed out
    clock = MovableClock()
    with Persistasaurus(database, clock=clock) as app:
        handle = start(app, limiting, "f")
        eventually(lambda: log_of(handle))
        clock.advance_sync(3601)
        until_waiting(handle)
    # when the signal comes after the restart
    with Persistasaurus(database, clock=clock) as app:
        app.handle("f").send(word, "late")
        # then
        assert app.handle("f").result(10) == ["nobody", "late"]


@limits
def test_a_signal_in_time_wins_over_a_timeout_that_passes_while_nobody_drives(database: Path, limiting: Any) -> None:
    # given a signal that was sent in time, to a flow that no worker drives
    clock = MovableClock()
    with Persistasaurus(database, clock=clock) as app:
        eventually(lambda handle=start(app, limiting, "f"): log_of(handle))
    with Persistasaurus(database, clock=clock, worker=False) as app:
        app.handle("f").send(word, "in time")
    # when the worker comes back long after
    clock.advance_sync(7200)
    with Persistasaurus(database, clock=clock) as app:
        app.handle("f").send(word, "second")
        # then
        assert app.handle("f").result(10)[1] in ("second", "in time")


@limits
def test_a_restart_does_not_start_the_timeout_over(database: Path, limiting: Any) -> None:
    # given
    clock = MovableClock()
    with Persistasaurus(database, clock=clock) as app:
        eventually(lambda handle=start(app, limiting, "f"): log_of(handle))
        clock.advance_sync(3000)
    # when
    with Persistasaurus(database, clock=clock) as app:
        clock.advance_sync(601)
        # then
        until_waiting(app.handle("f"))
        app.handle("f").send(word, "x")
        assert app.handle("f").result(10) == ["nobody", "x"]


@flow
async def patient() -> list[str]:
    found: list[str] = []
    while len(found) < 40:
        try:
            async with asyncio.timeout(0.004):
                found.append(await word)
        except TimeoutError:
            continue
    return found


@flow
def sync_patient() -> list[str]:
    found: list[str] = []
    while len(found) < 40:
        try:
            found.append(word.wait(timeout=0.004))
        except TimeoutError:
            continue
    return found


@pytest.mark.parametrize("waiting", [patient, sync_patient])
def test_no_signal_is_lost_that_comes_at_the_timeout(database: Path, waiting: Any) -> None:
    # given a flow whose waits time out all the time
    with Persistasaurus(database) as app:
        handle = start(app, waiting, "f")
        # when signals come at any moment
        for n in range(40):
            handle.send(word, str(n))
            threading.Event().wait(0.003)
        # then
        assert handle.result(20) == [str(n) for n in range(40)]


def test_a_thousand_concurrent_signals_are_each_consumed_once(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, counts, "f", 1000)

        def send(first: int) -> None:
            for n in range(first, first + 125):
                handle.send(number, n)

        senders = [threading.Thread(target=send, args=(first,)) for first in range(0, 1000, 125)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        taken = handle.result(60)
        assert sorted(taken) == list(range(1000))
        for first in range(0, 1000, 125):
            mine = [n for n in taken if first <= n < first + 125]
            assert mine == sorted(mine)
    assert sql(database, "SELECT count(*) FROM signal") == [(0,)]


@flow
async def counts(many: int) -> list[int]:
    return [await number for _ in range(many)]


# wait_for and resume.


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
    ("confirming", "by_step"), [(sync_confirmed, confirm), (confirmed, confirm_async)]
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


class Signup:
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
        instance = app.get_flow(Signup, "f")
        handle = until_waiting(instance.start(lambda f: f.sign_up("eve")))
        instance.resume(lambda f: f.confirm_phone(NOON))
        instance.resume(lambda f: f.confirm_email(at=NOON))
        assert handle.result(10) == ["eve", "email 2031", "phone 2031"]


def test_signal_resume_goes_to_the_step_that_is_waited_for(database: Path) -> None:
    with Persistasaurus(database) as app:
        instance = app.get_flow(Signup, "f")
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
        instance = app.get_flow(Signup, "f")
        until_waiting(instance.start(lambda f: f.sign_up("eve")))
        instance.resume(lambda f: f.never_waited_for())
    assert sql(database, "SELECT name FROM signal") == [("step:Signup.never_waited_for",)]


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
    from persistasaurus import current

    ran.append(f"{by} {current().attempt}")
    if len(ran) == 1:
        await asyncio.sleep(30)
    return ran[-1]


@flow
async def slowly_confirmed() -> str:
    return await wait_for(confirm_slowly)
