"""`keep`: flows that ended long ago are removed by the workers, and nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowConflict, FlowNotFound, FlowStatus, Persistasaurus, Signal, flow, sleep, step
from persistasaurus._engine.recovery import retry
from persistasaurus.testing import MovableClock
from tests.flows.kit import eventually, ran, sql, start, until_status, until_waiting

DAY = timedelta(days=1)
MS = timedelta(milliseconds=1)
MONTH = 30 * DAY
go = Signal("retention-go", str)
never_sent = Signal("retention-never", str)


class World:
    broken = True


@pytest.fixture
def clock() -> MovableClock:
    World.broken = True
    return MovableClock(datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def app(database: Path, clock: MovableClock) -> Iterator[Persistasaurus]:
    with Persistasaurus(database, clock=clock, keep=MONTH) as app:
        yield app


@step
def note(label: str) -> str:
    ran.append(label)
    return label


@step
def fragile() -> str:
    if World.broken:
        raise ValueError("not today")
    return note("mended")


@flow
def brief(label: str = "brief") -> str:
    return note(label)


@flow
def failing() -> str:
    return note("first") + fragile()


@flow
def waiting() -> str:
    return go.wait()


@flow
def sleeps_for_days() -> str:
    sleep(400 * DAY)
    return note("slept")


@flow
def family() -> str:
    told = brief("child")
    return told + go.wait()


@flow
def failing_family() -> str:
    return note("mother") + failing()


def ids(app: Persistasaurus) -> list[str]:
    return sorted(record.flow_id for record in app.flows())


def counts(database: Any) -> list[int]:
    """Return how many rows each table of flows has."""
    return [sql(database, f"SELECT count(*) FROM {table}")[0][0] for table in ("flow", "step", "signal")]


def test_a_flow_is_gone_once_it_ended_longer_ago_than_it_is_kept(
    app: Persistasaurus, clock: MovableClock, database: Path
) -> None:
    """By the app's clock, to the millisecond, with its steps and the signals that it never took."""
    handle = start(app, brief, "f")
    assert handle.result(10) == "brief"
    handle.send(never_sent, "x")

    clock.advance_sync(MONTH - MS)
    assert handle.status() == FlowStatus.COMPLETE
    clock.advance_sync(DAY)

    assert counts(database) == [0, 0, 0]
    for ask in (handle.status, handle.result, handle.record, handle.steps, handle.retry, handle.cancel):
        with pytest.raises(FlowNotFound, match="'f'"):
            ask()


def test_without_keep_everything_is_kept(database: Path, clock: MovableClock) -> None:
    """And it makes no thread."""
    with Persistasaurus(database, clock=clock) as app:
        handle = start(app, brief, "f")
        handle.result(10)
        clock.advance_sync(4_000 * DAY)

        assert handle.result(10) == "brief"
        assert "persistasaurus-retention" not in [thread.name for thread in threading.enumerate()]


def test_a_client_removes_nothing(database: Path, clock: MovableClock) -> None:
    """Whatever it was told to keep."""
    with Persistasaurus(database, clock=clock) as app:
        start(app, brief, "f").result(10)
    clock.advance_sync(2 * MONTH)

    with Persistasaurus(database, clock=clock, keep=MONTH, worker=False) as client:
        clock.advance_sync(DAY)
        assert ids(client) == ["f"]


def test_a_worker_that_is_entered_later_removes_what_is_old_by_then(
    database: Path, clock: MovableClock
) -> None:
    """More than one transaction takes."""
    with Persistasaurus(database, clock=clock) as app:
        for number in range(250):
            start(app, brief, f"f{number}")
        for number in range(250):
            app.handle(f"f{number}").result(10)
        clock.advance_sync(MONTH)

    with Persistasaurus(database, clock=clock, keep=MONTH) as app:
        clock.advance_sync(0)
        assert ids(app) == []


def test_what_has_not_ended_is_kept(app: Persistasaurus, clock: MovableClock) -> None:
    """A sleeping, a waiting and a parked flow outlive any time to keep, and go on as ever."""
    asleep, patient = start(app, sleeps_for_days, "asleep"), until_waiting(start(app, waiting, "waiting"))
    parked = until_waiting(start(app, waiting, "parked"))
    sql(app._url, "UPDATE flow SET input = '{}', checksum = 7 WHERE flow_id = 'parked'")
    app.__exit__(None, None, None)
    app.__enter__()
    parked.send(go, "x")
    until_status(parked, FlowStatus.PARKED)

    clock.advance_sync(399 * DAY)

    assert ids(app) == ["asleep", "parked", "waiting"]
    clock.advance_sync(2 * DAY)
    assert asleep.result(10) == "slept"
    patient.send(go, "gone on")
    assert patient.result(10) == "gone on"


def test_a_failed_flow_can_be_retried_until_it_is_gone(app: Persistasaurus, clock: MovableClock) -> None:
    """From then on its time is counted from its new end."""
    handle = until_status(start(app, failing, "f"), FlowStatus.FAILED)
    clock.advance_sync(MONTH - DAY)
    World.broken = False
    handle.retry()
    assert handle.result(10) == "firstmended"

    clock.advance_sync(MONTH - DAY)
    assert handle.result(10) == "firstmended"
    clock.advance_sync(2 * DAY)

    assert ids(app) == []
    assert ran == ["first", "mended"]


def test_a_retry_that_comes_just_too_late_says_so(app: Persistasaurus) -> None:
    """The flow was read for it, and is removed before it is reopened."""
    handle = until_status(start(app, failing, "f"), FlowStatus.FAILED)
    engine = app._engine
    assert engine is not None
    history = engine.store.load(handle._row().flow_key)
    assert history is not None
    assert engine.store.prune(engine.now_ms(), limit=1).flows == 1

    with pytest.raises(FlowNotFound, match="'f'"):
        retry(engine.store, history, engine.now_ms(), texts=engine.texts)

    assert counts(app._url) == [0, 0, 0]


def test_an_id_that_is_gone_starts_a_new_flow(app: Persistasaurus, clock: MovableClock) -> None:
    """Until then it is the one that it always was; afterwards with any input, and its steps run again."""
    assert start(app, brief, "f", "once").result(10) == "once"
    with pytest.raises(FlowConflict):
        start(app, brief, "f", "twice")
    clock.advance_sync(MONTH)

    assert start(app, brief, "f", "twice").result(10) == "twice"
    assert ran == ["once", "twice"]


def test_children_are_kept_with_their_parent_and_go_with_it(app: Persistasaurus, clock: MovableClock) -> None:
    """One that ended a year ago is there for as long as its parent waits."""
    handle = until_waiting(start(app, family, "f"))
    clock.advance_sync(365 * DAY)
    assert ids(app) == ["f", "f/1"]

    handle.send(go, "!")
    assert handle.result(10) == "child!"
    clock.advance_sync(MONTH - MS)
    assert ids(app) == ["f", "f/1"]
    clock.advance_sync(MS)

    assert ids(app) == []


def test_a_parent_that_failed_of_its_child_can_be_retried_with_it(
    app: Persistasaurus, clock: MovableClock
) -> None:
    """The child, which failed first, is not removed before it."""
    handle = until_status(start(app, failing_family, "f"), FlowStatus.FAILED)
    child = app.handle("f/2")
    sql(app._url, "UPDATE flow SET updated_at_ms = updated_at_ms - 100000 WHERE flow_id = 'f/2'")
    clock.advance_sync(MONTH - MS)
    World.broken = False
    handle.retry()

    assert handle.result(10) == "motherfirstmended"
    assert child.result(10) == "firstmended"
    assert ran == ["mother", "first", "mended"]


def test_whoever_waits_for_a_flow_that_is_removed_is_told_that_there_is_none(
    app: Persistasaurus, clock: MovableClock
) -> None:
    """Here one that waits, and was removed by hand: it will never end."""
    until_waiting(start(app, waiting, "f"))
    with Persistasaurus(app._url, clock=clock, worker=False) as client:
        told: list[BaseException] = []

        def wait() -> None:
            try:
                client.handle("f").result(10)
            except FlowNotFound as error:
                told.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: client._engine is not None and client._engine.results._waiting)
        sql(app._url, "DELETE FROM step")
        sql(app._url, "DELETE FROM flow")
        start(app, brief, "other").result(10)
        thread.join(10)

    assert [str(error)[:28] for error in told] == ["No flow has the id 'f' in th"]


def test_several_workers_share_the_work(database: Path, clock: MovableClock) -> None:
    """None of them fails, and each flow is removed once."""
    with Persistasaurus(database, clock=clock) as app:
        for number in range(300):
            start(app, brief, f"f{number}")
        for number in range(300):
            app.handle(f"f{number}").result(10)
        clock.advance_sync(MONTH)

    apps = [Persistasaurus(database, clock=clock, keep=MONTH) for _ in range(3)]
    for each in apps:
        each.__enter__()
    try:
        eventually(lambda: ids(apps[0]) == [])
        clock.advance_sync(0)
        removed = [each._engine.retention.removed for each in apps if each._engine is not None]
        assert sum(removed) == 300
    finally:
        for each in apps:
            each.__exit__(None, None, None)


def test_a_store_that_cannot_be_pruned_for_a_while_is_pruned_afterwards(
    app: Persistasaurus, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The flows are driven meanwhile."""
    engine = app._engine
    assert engine is not None
    start(app, brief, "f").result(10)
    sql(app._url, "ALTER TABLE signal RENAME TO elsewhere")
    clock.set_forward(MONTH + DAY)
    eventually(lambda: "cannot be removed" in caplog.text)
    assert start(app, brief, "g").result(10) == "brief"
    sql(app._url, "ALTER TABLE elsewhere RENAME TO signal")

    clock.advance_sync(0)

    assert ids(app) == ["g"]
