"""Promises that a busy or unlucky thread could break: order, ends, resumes, waiters, tasks."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowStatus, Persistasaurus, current, flow, step
from persistasaurus._engine.commit import Committer
from persistasaurus._engine.progress import Progress
from persistasaurus._engine.results import Outcome, Results
from persistasaurus._engine.runners import Runners
from persistasaurus._engine.thread import SyncRun
from persistasaurus._events import Event, Happening
from tests.flows.kit import eventually, ran, sql


@step
async def hurried_nap(number: int) -> int:
    await asyncio.sleep(0.008 + (number % 7) * 0.003)
    return number


@flow
async def hurried_naps(count: int) -> int:
    return sum([await hurried_nap(number) for number in range(count)])


@step
def hurried_slow() -> int:
    time.sleep(0.06)
    return 7


@flow
def hurried_two_slow() -> int:
    return hurried_slow() + hurried_slow()


def test_an_end_is_never_overwritten_by_its_own_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step ends while the writer goes from the late starts to the queue."""
    real = Committer._late_starts

    def preempted(self: Committer) -> object:
        found = real(self)
        until = time.monotonic() + 0.3
        while found and not self._queue and time.monotonic() < until:
            time.sleep(0.0005)
        return found

    monkeypatch.setattr(Committer, "_late_starts", preempted)
    with Persistasaurus(tmp_path / "flows.db") as app:
        handle = app.start(hurried_two_slow)
        assert handle.result(timeout=10) == 14
        assert [row.status for row in handle.steps() if row.step] == [FlowStatus.COMPLETE] * 2


def test_no_completion_is_lost_in_a_crowd(tmp_path: Path) -> None:
    """The interpreter changes threads a thousand times more often than usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Persistasaurus(tmp_path / "flows.db") as app:
            handles = [app.start(hurried_naps, 12) for _ in range(400)]
            for handle in handles:
                handle.result(timeout=60)
            assert not [
                (handle.flow_id, row.step)
                for handle in handles
                for row in handle.steps()
                if row.step and row.status is not FlowStatus.COMPLETE
            ]
    finally:
        sys.setswitchinterval(interval)


TORN = """
import os, sqlite3, sys, time
from persistasaurus import Persistasaurus, flow, step, wait_for
from persistasaurus._engine.run import Run
@step
def hurried_confirm(number: int) -> int: return number
@flow
def hurried_twice() -> list[int]: return [wait_for(hurried_confirm), wait_for(hurried_confirm)]
path, part = sys.argv[1:]
real = Run.put
def put(self, report):
    if report.consumed is not None:  # preempted here; the power goes once a late start is written
        until = time.monotonic() + 1
        while time.monotonic() < until:
            if sqlite3.connect(path).execute("SELECT 1 FROM step WHERE parameters IS NOT NULL").fetchone():
                os._exit(9)
            time.sleep(0.001)
    real(self, report)
with Persistasaurus(path) as app:
    if part == "first":
        Run.put = put
        handle = app.start(hurried_twice.options(flow_id="t"))
        handle.resume(hurried_confirm, 5)
        time.sleep(2)
    else:
        time.sleep(1)
        print([row.return_value for row in app.handle("t").steps() if row.step])
"""


def test_a_resume_is_taken_once_though_the_process_dies_as_it_comes(tmp_path: Path) -> None:
    """The row of the wait's start must not hold the arguments of a resume that is not consumed yet."""
    script = tmp_path / "torn.py"
    script.write_text(TORN)
    database = str(tmp_path / "flows.db")
    subprocess.run([sys.executable, str(script), database, "first"], check=False, timeout=30)
    again = subprocess.run(
        [sys.executable, str(script), database, "again"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert again.stdout.strip() == "[5, None]"


CUT_OFF = """
import asyncio, os, signal, sys, threading, time
from persistasaurus import Persistasaurus, current, flow, step
path, kind, part = sys.argv[1:]
begun = threading.Event()
def told() -> int:
    print(current().attempt, flush=True)
    begun.set()
    if part == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return current().attempt
@step
def cut() -> int:
    told()
    if part == "leaves":
        time.sleep(20)
    return 1
@step
async def cut_async() -> int:
    told()
    if part == "leaves":
        await asyncio.sleep(20)
    return 1
@flow
def inline() -> int: return cut()
@flow
def submitted() -> int: return cut.submit().result()
@flow
async def awaited() -> int: return await cut_async()
with Persistasaurus(path, drain=0) as app:
    chosen = {"inline": inline, "submitted": submitted, "awaited": awaited}[kind]
    handle = app.start(chosen.options(flow_id="f"))
    assert begun.wait(10)
    if part != "leaves":
        handle.result(10)
"""


@pytest.mark.parametrize("kind", ["inline", "submitted", "awaited"])
def test_an_attempt_behind_one_that_was_cut_off_in_good_order_is_counted_though_its_process_dies(
    tmp_path: Path, kind: str
) -> None:
    """The one before is in the log, so nobody can tell from that whether another had begun."""
    script = tmp_path / "cut_off.py"
    script.write_text(CUT_OFF)
    attempts: list[str] = []
    for part in ("leaves", "dies", "dies", "ends"):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / "flows.db"), kind, part],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        attempts += done.stdout.split()
    assert attempts == ["1", "2", "3", "4"]


@step
async def hurried_a() -> str:
    await asyncio.sleep(0.005)
    return "a"


@step
async def hurried_b(pause: int) -> str:
    await asyncio.sleep(0.005)
    time.sleep(pause * 0.000_05)
    asyncio.get_running_loop().call_soon(time.sleep, 0.003)
    return "b"


@flow
async def hurried_order(pause: int) -> list[str]:
    seen: list[str] = []

    async def note(step_: Any) -> None:
        seen.append(await step_)

    await asyncio.gather(note(hurried_a()), note(hurried_b(pause)))
    return seen


def test_a_lone_flow_sees_its_steps_in_the_order_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's thread is preempted between two batches, and the app's loop writes meanwhile."""
    real = Committer._ask_for_starts

    def preempted(self: Committer) -> None:
        real(self)
        time.sleep(0.005)

    monkeypatch.setattr(Committer, "_ask_for_starts", preempted)
    with Persistasaurus(tmp_path / "flows.db") as app:
        lived = [app.run(hurried_order.options(flow_id=str(number)), number % 40) for number in range(200)]
    database = sqlite3.connect(tmp_path / "flows.db")
    rows = database.execute(
        "SELECT flow_id, return_value FROM step JOIN flow USING (flow_key) WHERE step > 0 ORDER BY event"
    ).fetchall()
    logged = [[text.strip('"') for flow_id, text in rows if flow_id == str(number)] for number in range(200)]
    assert lived == logged


@step
def hurried_text(pause: float) -> str:
    time.sleep(pause)
    return "x"


@flow
def hurried_fan(pause: float) -> int:
    futures = [hurried_text.submit(pause + number / 1000) for number in range(6)]
    return len([future.result() for future in futures])


def _stands_still_before(name: str, owner: type) -> Callable[[pytest.MonkeyPatch], None]:
    """Have a call begin up to some milliseconds late, as where its thread loses the processor."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(owner, name)

        def late(*given: Any) -> Any:
            time.sleep(random.uniform(0, 0.005))
            return real(*given)

        monkeypatch.setattr(owner, name, late)

    return patch


@pytest.mark.parametrize(
    "places",
    [[("seal", Progress)], [("_ring", SyncRun), ("nothing_runs", SyncRun)]],
    ids=["between an end and its write", "between a commit and its bell"],
)
def test_no_sync_flow_leaves_its_thread_while_an_end_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[tuple[str, type]]
) -> None:
    """It would be written as waiting for nothing, and nobody would ever go on with it."""
    for place in places:
        _stands_still_before(*place)(monkeypatch)
    # given two threads for many flows, so that each is wanted as soon as its flow waits
    with Persistasaurus(tmp_path / "flows.db", flow_threads=2) as app:
        handles = [app.start(hurried_fan, number % 12 / 1000) for number in range(100)]
        assert [handle.result(30) for handle in handles] == [6] * 100


@flow
async def hurried_sleeper() -> None:
    await asyncio.sleep(3600)


def test_a_lone_flow_is_written_by_its_own_loop_also_beside_flows_that_wait(tmp_path: Path) -> None:
    """Else each of its steps costs two changes of threads more."""
    writers: list[str] = []

    def watch(event: Event) -> None:
        if event.happening is Happening.COMMITTED:
            writers.append(threading.current_thread().name)

    database = tmp_path / "flows.db"
    with Persistasaurus(database, observer=watch) as app:
        for _ in range(20):
            app.start(hurried_sleeper)
        eventually(lambda: sql(database, "SELECT sum(idle) FROM flow") == [(20,)])
        writers.clear()
        app.run(hurried_naps, 10)
    assert "persistasaurus-loop" in writers


@step
async def hurried_quick(number: int) -> int:
    return number


@step
async def hurried_suspends(number: int) -> int:
    await asyncio.sleep(0.005)
    return number


@step
async def hurried_takes_back_its_cancel() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    task.uncancel()
    return "done"


@step
async def hurried_is_cancelled_late() -> str:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    return "done"


@step
async def hurried_raises_generator_exit() -> str:
    await asyncio.sleep(0.001)
    raise GeneratorExit


@flow
async def hurried_beside(which: str) -> list[object]:
    odd = {"back": hurried_takes_back_its_cancel, "late": hurried_is_cancelled_late}[which]
    return list(await asyncio.gather(odd(), hurried_suspends(1), hurried_quick(2)))


@flow
async def hurried_exits() -> str:
    try:
        return await hurried_raises_generator_exit()
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("which", ["back", "late"])
def test_a_step_that_plays_with_its_task_fails_no_other_step(tmp_path: Path, which: str) -> None:
    """The step behind it, which suspends, goes on undisturbed."""
    with Persistasaurus(tmp_path / "flows.db") as app:
        assert app.run(hurried_beside, which) == ["done", 1, 2]


def test_a_step_that_raises_generator_exit_after_a_pause_fails(tmp_path: Path) -> None:
    """It is data like any exception; the flow does not wait for ever."""
    with Persistasaurus(tmp_path / "flows.db", drain=0) as app:
        assert app.start(hurried_exits).result(timeout=3) == "StepFailed"


def test_another_loop_in_the_same_thread_may_start_and_await(tmp_path: Path) -> None:
    """A sync flow needs nothing of the loop that entered the app, only threads."""
    app = Persistasaurus(tmp_path / "flows.db")

    async def use() -> int:
        async with asyncio.timeout(5):
            return await (await app.start_async(hurried_two_slow))

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(app.__aenter__())
        try:
            assert second.run(use()) == 14
        finally:
            first.run(app.__aexit__(None, None, None))


leaves = threading.Event()


@step
def hurried_last() -> None:
    ran.append(f"last {current().attempt}")
    leaves.wait(10)


@step
def hurried_next() -> None:
    ran.append(f"next {current().attempt}")


@step
async def hurried_last_async() -> None:
    ran.append(f"last {current().attempt}")
    while not leaves.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.005)


@step
async def hurried_next_async() -> None:
    ran.append(f"next {current().attempt}")


@flow
def hurried_pair() -> None:
    last = hurried_last.submit()
    hurried_next.submit().result()
    last.result()


@flow
async def hurried_async_pair() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(hurried_last_async())
        await asyncio.sleep(0)
        group.create_task(hurried_next_async())


@pytest.mark.parametrize("pair", [hurried_pair, hurried_async_pair])
def test_an_attempt_that_had_no_turn_before_the_app_was_left_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    """Its start was written while it waited for a thread, or for the loop."""
    database = tmp_path / "flows.db"
    leaves.clear()
    real = Runners.submit

    def late(self: Runners, host: asyncio.AbstractEventLoop, run: Any, operation: Any) -> None:
        if operation.number == 2:
            host.call_later(0.3, real, self, host, run, operation)
        else:
            real(self, host, run, operation)

    with monkeypatch.context() as patched, Persistasaurus(database, step_threads=1) as app:
        patched.setattr(Runners, "submit", late)
        app.start(pair.options(flow_id="f"))
        eventually(lambda: sql(database, "SELECT attempts FROM execution_log WHERE step = 2") == [(1,)])
        threading.Timer(0.05, leaves.set).start()
    assert ran == ["last 1"]
    with Persistasaurus(database) as app:
        app.handle("f").result(10)
    assert ran == ["last 1", "next 1"]


def test_one_waiter_that_was_told_keeps_no_other_from_being_told() -> None:
    """A handle that looks twice may register its future twice."""
    results = Results(lambda call, *args: call(*args))
    told: Future[Outcome] = Future()
    other: Future[Outcome] = Future()
    outcome = Outcome(1, "1", None, None)
    results.wait("x", told, key=None)  # _wait_here
    results.tell("x", outcome)
    results.wait("x", told, key=None)  # _wait, with the same future
    results.wait("x", other, key=None)
    results.tell("x", outcome)
    assert other.done()
