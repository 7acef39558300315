"""A signal is consumed once or is still pending; it may come before the wait and before the flow."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from persistasaurus import (
    DuplicateNameError,
    FlowNotFound,
    FlowStatus,
    Persistasaurus,
    SerializationError,
    Signal,
    StoreError,
    UsageError,
    WrongContextError,
    flow,
)
from persistasaurus.testing import MovableClock
from tests.flows.kit import eventually, log_of, sql, start, until_waiting


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


def test_a_signal_arrives_although_it_cannot_be_read_at_first(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, approved, "f"))
        store = app._engine_here("a test").store
        real, refused = store.mailbox, []

        def refuses_twice(flow_key: int) -> Any:
            if len(refused) == 2:
                return real(flow_key)
            refused.append(flow_key)
            raise StoreError("refused by the test")

        monkeypatch.setattr(store, "mailbox", refuses_twice)
        handle.send(approval, Approval(by="ann", level=2))
        assert handle.result(10) == "ann 2"
        assert len(refused) == 2
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
        until_waiting(handle)
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


@pytest.mark.parametrize("wrong,cure", [(waits_wrongly, "await signal"), (awaits_wrongly, "signal.wait")])
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


def until_asked(handle: Any) -> None:
    eventually(lambda: log_of(handle))


limits = pytest.mark.parametrize("limiting", [sync_limited, limited])


@pytest.mark.peer("a timed-out wait not recorded")
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
def test_a_signal_in_time_wins_over_a_timeout_that_passes_while_nobody_drives(
    database: Path, limiting: Any
) -> None:
    # given a signal that was sent in time, to a flow that no worker drives
    clock = MovableClock()
    with Persistasaurus(database, clock=clock) as app:
        until_asked(start(app, limiting, "f"))
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
        until_asked(start(app, limiting, "f"))
        clock.advance_sync(3000)
    # when
    with Persistasaurus(database, clock=clock) as app:
        clock.advance_sync(601)
        # then
        until_waiting(app.handle("f"))
        app.handle("f").send(word, "x")
        assert app.handle("f").result(10) == ["nobody", "x"]


@flow
async def patient_listener() -> list[str]:
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


@pytest.mark.parametrize("waiting", [patient_listener, sync_patient])
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


@pytest.mark.parametrize("waiting", [patient_listener, sync_patient])
def test_no_signal_is_lost_or_doubled_at_a_timeout_across_restarts(database: Path, waiting: Any) -> None:
    # given a flow whose waits time out all the time, in four lives
    for life in range(4):
        with Persistasaurus(database) as app:
            handle = app.start(waiting.options(flow_id="f"))
            # when
            for n in range(10):
                handle.send(word, str(10 * life + n))
                threading.Event().wait(0.003)
    # then
    with Persistasaurus(database) as app:
        assert app.handle("f").result(20) == [str(n) for n in range(40)]


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
