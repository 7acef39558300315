"""Leaving an app, or its memory, at an awkward moment: nothing runs unseen, is lost or waited for in vain."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from persistasaurus import AppNotRunningError, FlowStatus, Persistasaurus, Signal, current, flow, step
from persistasaurus._engine import engine
from persistasaurus._engine.async_run import AsyncRun
from persistasaurus._engine.progress import Order, Progress
from persistasaurus._store import _sqlite_file
from tests.flows.kit import eventually, log_of, ran, sql, start, until_waiting

never = Signal("leaving-never", int)
apps: list[Persistasaurus] = []
begun = threading.Event()


@step
async def leaving_cleans_up(name: str) -> None:
    ran.append(name)


async def leaving_sleeper(name: str) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await leaving_cleans_up(name)


@flow
async def leaving_group() -> None:
    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(leaving_sleeper(name))


def test_no_clean_up_step_runs_because_a_flow_leaves_the_memory(database: Path) -> None:
    """It would run as a plain call, unrecorded, and again when the flow is cancelled one day."""
    with Persistasaurus(database) as app:
        start(app, leaving_group, "f")
        eventually(lambda: sql(database, "SELECT idle FROM flow") == [(1,)])
    with Persistasaurus(database, residents=0) as app:
        app.start(leaving_group.options(flow_id="g"))
        eventually(lambda: sql(database, "SELECT count(*) FROM flow WHERE owner IS NULL") == [(2,)])
        assert ran == []
        app.handle("f").cancel()
        eventually(lambda: app.handle("f").status() == FlowStatus.CANCELLED)
    assert sorted(ran) == ["a", "b", "c"]


@step
def leaving_step() -> int:
    ran.append(f"attempt {current().attempt}")
    begun.set()
    time.sleep(0.02)
    return 1


@flow
def leaving_once() -> int:
    return leaving_step.submit().result()


def test_an_end_that_comes_as_the_app_is_left_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks a step has ended, and its end is not on its way yet."""
    real = Progress.seal

    def late(self: Progress) -> Any:
        time.sleep(random.uniform(0.02, 0.06))
        return real(self)

    monkeypatch.setattr(Progress, "seal", late)
    for number in range(10):
        begun.clear()
        with Persistasaurus(tmp_path / f"{number}.db") as app:
            app.start(leaving_once.options(flow_id="f"))
            assert begun.wait(10)
    assert ran == ["attempt 1"] * 10
    for number in range(10):
        with Persistasaurus(tmp_path / f"{number}.db") as app:
            app.handle("f").result(10)
    assert ran == ["attempt 1"] * 10


@step
def leaving_starts_another() -> str:
    begun.set()
    time.sleep(0.3)
    return apps[0].start(leaving_waits.options(flow_id="other")).flow_id


@step
async def leaving_async_step() -> int:
    return 1


@flow
async def leaving_lone() -> int:
    return await leaving_async_step()


@flow
async def leaving_waits() -> int:
    return await never


@flow
def leaving_orders() -> str:
    return leaving_starts_another()


def test_a_step_that_runs_while_the_app_is_left_may_still_use_it(database: Path) -> None:
    begun.clear()
    with Persistasaurus(database) as app:
        apps[:] = [app]
        handle = app.start(leaving_orders.options(flow_id="f"))
        assert begun.wait(10)
    with Persistasaurus(database) as app:
        handle = app.handle("f")
        assert handle.result(10) == "other"
        until_waiting(app.handle("other"))


def test_what_is_asked_of_an_app_that_is_just_left_is_refused(tmp_path: Path) -> None:
    """A start that is queued when nobody writes any more would be waited for without end."""
    with Persistasaurus(tmp_path / "flows.db") as app:
        committer = app._engine_here("a test").committer
    order = Order("f")
    committer.put(order)
    with pytest.raises(AppNotRunningError, match="nothing of it has happened"):
        order.answer.result(10)  # type: ignore[call-arg]


def test_an_error_that_nobody_expects_in_one_flows_turn_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the app's own loop writes: the turn is taken in the middle of a commit then."""
    real = AsyncRun.committed

    def fails_for_one(self: AsyncRun, report: Progress) -> None:
        if self.flow_id == "broken":
            raise MemoryError
        real(self, report)

    monkeypatch.setattr(AsyncRun, "committed", fails_for_one)
    database = tmp_path / "flows.db"
    with Persistasaurus(database, drain=0.1) as app:
        app.start(leaving_lone.options(flow_id="broken"))
        eventually(lambda: sql(database, "SELECT count(*) FROM step WHERE event > 0") == [(1,)])
        assert [app.run(leaving_lone) for _ in range(5)] == [1] * 5


def test_an_answer_that_its_caller_cancels_at_the_same_moment_stops_nothing() -> None:
    order = Order("f")

    def cancelled_now() -> bool:
        order.answer.cancel()
        return False

    order.answer.done = cancelled_now  # type: ignore[method-assign]
    order.tell()
    order.refuse(OSError())
    assert order.answer.cancelled()


async def test_an_app_whose_entering_is_cancelled_is_not_entered(tmp_path: Path) -> None:
    """Else it would go on as a worker that nobody leaves."""
    database = tmp_path / "flows.db"
    with Persistasaurus(database):
        pass
    app = Persistasaurus(database)
    with closing(apsw.Connection(str(database))) as other:
        other.execute("BEGIN IMMEDIATE")
        entering = asyncio.ensure_future(app.__aenter__())
        await asyncio.sleep(0.1)
        entering.cancel()
        await asyncio.sleep(0.1)
        other.execute("COMMIT")
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert sql(database, "SELECT count(*) FROM worker") == [(0,)]
    async with app:
        assert app.handle("f").flow_id == "f"


async def test_an_app_is_left_while_every_thread_of_the_executor_waits_for_its_flows(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with Persistasaurus(tmp_path / "flows.db") as app:
        handle = await app.start_async(leaving_waits)
        waiting = [loop.run_in_executor(None, handle.result) for _ in range(40)]
        await asyncio.sleep(0.1)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in found} == {AppNotRunningError}


def test_an_app_is_left_although_another_process_holds_the_write_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_file, "LEAVE_PATIENCE_S", 0.1)
    monkeypatch.setattr(engine, "GIVE_UP_S", 0.1)
    database = tmp_path / "flows.db"
    with closing(apsw.Connection(str(database))) as other:
        with Persistasaurus(database, drain=0.1, lease=0.5) as app:
            until_waiting(start(app, leaving_waits, "f"))
            other.execute("BEGIN IMMEDIATE")
        other.execute("COMMIT")
    # The lease was not given back; whoever comes sees that its process has gone on without it, or waits.
    with Persistasaurus(database, lease=0.5) as app:
        app.handle("f").send(never, 3)
        assert app.handle("f").result(30) == 3


def test_flows_that_wait_leave_room_for_those_that_could_run(database: Path) -> None:
    """Parents that wait for their children, for one: nothing would ever go on."""
    with Persistasaurus(database, capacity=10) as app:
        for number in range(12):
            app.start(leaving_waits.options(flow_id=f"f-{number}"))
        handle = app.start(leaving_once.options(flow_id="f"))
        assert handle.result(20) == 1
        assert log_of(handle) == [(1, "leaving_step", "COMPLETE")]


@flow
def leaving_waits_sync() -> int:
    return never.wait()


@pytest.mark.parametrize("waits", [leaving_waits, leaving_waits_sync], ids=["async", "sync"])
def test_a_signal_that_cannot_be_read_parks_its_flow_and_keeps_no_other(tmp_path: Path, waits: Any) -> None:
    database = tmp_path / "flows.db"
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, waits, "f"))
        sql(
            database,
            "INSERT INTO signal (flow_id, name, payload, sent_at_ms, checksum) "
            "VALUES ('f', 'leaving-never', CAST(x'22ff22' AS TEXT), 1, 1)",
        )
        handle.send(never, 3)
        with Persistasaurus(database, worker=False) as client:
            others = [
                client.start(leaving_once.options(flow_id=f"g-{number}")).flow_id for number in range(3)
            ]
        assert [app.handle(other).result(10) for other in others] == [1] * 3
        eventually(lambda: handle.status() == FlowStatus.PARKED)
        assert "cannot be read" in (handle.record().reason or "")
