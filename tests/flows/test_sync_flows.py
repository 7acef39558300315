"""A sync flow runs in a thread of a small pool, and holds none while it waits for long."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    FlowStatus,
    Persistasaurus,
    Signal,
    UsageError,
    WrongContextError,
    as_completed,
    flow,
    sleep,
    step,
    wait,
)
from tests.flows.kit import eventually, log_of, ran, start, until_waiting

go = Signal("sync-go", str)
bodies: list[str] = []
gates: dict[str, threading.Event] = {}


@step
def note(label: str) -> str:
    ran.append(label)
    return label


@step
def gated(label: str) -> str:
    gates[label].wait(10)
    ran.append(label)
    return label


@step
def nap(label: str, ms: int) -> str:
    time.sleep(ms / 1000)
    return label


@step
def broken(ms: int) -> None:
    time.sleep(ms / 1000)
    raise ValueError("broken")


@step
async def async_nap(label: str, ms: int) -> str:
    import asyncio

    await asyncio.sleep(ms / 1000)
    return label


@step
def thread_name() -> str:
    return threading.current_thread().name


@flow
def in_its_own_thread() -> list[str]:
    return [threading.current_thread().name, thread_name(), thread_name.submit().result()]


def test_a_step_called_directly_runs_in_the_flows_thread_a_submitted_one_in_another(database: Path) -> None:
    with Persistasaurus(database) as app:
        own, direct, submitted = app.run(in_its_own_thread)
    assert own == direct
    assert own != submitted


@flow
def collects() -> list[str]:
    futures = [nap.submit(str(n), 40 - 10 * n) for n in range(4)]
    return [future.result() for future in futures]


def test_submitted_steps_run_beside_each_other(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, collects, "f")
        assert handle.result(10) == ["0", "1", "2", "3"]
        assert [row.parameters for row in handle.steps()] == [
            {"label": str(n), "ms": 40 - 10 * n} for n in range(4)
        ]


@flow
def mixes_colours() -> list[str]:
    return [async_nap.submit("async", 5).result(), nap("sync", 1)]


def test_a_sync_flow_uses_an_async_step_by_submit(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert app.run(mixes_colours) == ["async", "sync"]


@flow
def waits_for_all_and_first() -> list[Any]:
    futures = [nap.submit("slow", 500), nap.submit("quick", 1)]
    first = wait(futures, return_when=FIRST_COMPLETED)
    found: list[Any] = [[f.result() for f in first.done], len(first.not_done)]
    rest = wait(futures)
    found.append([f.result() for f in rest.done])
    failing = [broken.submit(1), nap.submit("late", 500)]
    early = wait(failing, return_when=FIRST_EXCEPTION)
    found.append([len(early.done), len(early.not_done)])
    timed = wait([nap.submit("later", 500)], timeout=timedelta(milliseconds=5))
    found.append([len(timed.done), len(timed.not_done)])
    return found


def test_wait_returns_when_it_was_asked_to(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert app.run(waits_for_all_and_first) == [["quick"], 1, ["slow", "quick"], [1, 1], [0, 1]]


@flow
def completes_in_order() -> list[str]:
    found = [f.result() for f in as_completed([nap.submit(str(n), 600 - 290 * n) for n in range(3)])]
    try:
        for future in as_completed([nap.submit("quick", 1), nap.submit("slow", 1_500)], timeout=0.6):
            found.append(future.result())
    except TimeoutError:
        found.append("timeout")
    return found


def test_as_completed_yields_in_the_order_of_the_ends(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert app.run(completes_in_order) == ["2", "1", "0", "quick", "timeout"]


@flow
def limits_a_result() -> list[str]:
    slow = nap.submit("slow", 100)
    found = []
    try:
        slow.result(timeout=0.02)
    except TimeoutError:
        found.append("not yet")
    found.append(str(slow.done()))
    found.append(slow.result(timeout=5))
    return found


def test_a_results_timeout_leaves_the_step_running(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, limits_a_result, "f")
        assert handle.result(10) == ["not yet", "False", "slow"]
        assert [name for _, name, _ in log_of(handle)] == ["nap", "timer", "timer"]


# Unwinding.


@flow
def unwinds_tidily() -> list[str]:
    notes = [note("before")]
    try:
        go.wait()
    except Exception:
        bodies.append("caught")
        raise
    finally:
        bodies.append("finally")
    notes.append(note("after"))
    return notes


def test_a_long_wait_unwinds_the_flow_and_it_comes_back(database: Path) -> None:
    # given a flow whose thread is needed elsewhere
    bodies.clear()
    with Persistasaurus(database, flow_threads=1) as app:
        handle = until_waiting(start(app, unwinds_tidily, "f"))
        # when, then: its finally blocks run, its handlers of Exception do not
        eventually(lambda: bodies == ["finally"])
        assert app.run(mixes_colours) == ["async", "sync"]
        # when it is resumed
        handle.send(go, "x")
        # then
        assert handle.result(10) == ["before", "after"]
    assert ran == ["before", "after"]
    assert "caught" not in bodies


@flow
def busy_while_unwinding() -> str:
    try:
        return go.wait()
    finally:
        bodies.append("finally")
        note("in finally")
        bodies.append("after the step")


def test_no_step_starts_while_a_flow_unwinds(database: Path) -> None:
    # given
    bodies.clear()
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, busy_while_unwinding, "f"))
        eventually(lambda: "finally" in bodies)
        # then
        assert ran == []
        assert "after the step" not in bodies
        # when it ends for good, the step runs
        handle.send(go, "x")
        assert handle.result(10) == "x"
    assert ran == ["in finally"]


@flow
def greedy() -> str:
    try:
        return go.wait()
    except BaseException:
        bodies.append("caught all")
        return "swallowed"


def test_a_flow_that_catches_everything_is_unwound_all_the_same(database: Path) -> None:
    # given
    bodies.clear()
    with Persistasaurus(database) as app:
        handle = until_waiting(start(app, greedy, "f"))
        eventually(lambda: "caught all" in bodies)
        # when
        handle.send(go, "real")
        # then
        assert handle.result(10) == "real"


def test_a_sleep_lasts_across_a_restart_and_is_not_started_over(database: Path) -> None:
    # given
    with Persistasaurus(database) as app:
        began = time.monotonic()
        handle = start(app, sync_sleeps, "f", 0.6)
        eventually(lambda: log_of(handle)[:1])
        due = handle.steps()[0]
    # when
    with Persistasaurus(database) as app:
        assert app.handle("f").result(10) == "slept"
        took = time.monotonic() - began
        assert app.handle("f").steps()[0].timestamp == due.timestamp
    # then
    assert took >= 0.6


@flow
def sync_sleeps(seconds: float) -> str:
    sleep(seconds)
    return "slept"


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_sleep_that_is_no_duration_is_refused(database: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match="sleep"):
        sleep(bad)


# Many flows, few threads.


@flow
def one_of_many(n: int) -> int:
    note(f"a{n}")
    sleep(0.05)
    total = sum(int(f.result()) for f in [nap.submit(str(n), 0), nap.submit("1", 0)])
    note(f"b{n}")
    return total


def test_five_hundred_flows_on_four_threads_all_end_and_no_step_runs_twice(database: Path) -> None:
    with Persistasaurus(database, flow_threads=4, step_threads=4) as app:
        # given, when
        handles = [app.start(one_of_many, n) for n in range(500)]
        # then
        assert [handle.result(60) for handle in handles] == [n + 1 for n in range(500)]
    assert len(ran) == len(set(ran)) == 1000


@flow
def branch_leaf(n: int) -> int:
    sleep(0.01)
    return n


@flow
def branch(depth: int) -> int:
    if depth == 0:
        return branch_leaf(1)
    children = [branch.submit(depth - 1) for _ in range(2)]
    return sum(child.result() for child in children)


@pytest.mark.peer("recovery deadlocks when pending > threads")
def test_more_waiting_parents_than_threads_do_not_deadlock(database: Path) -> None:
    with Persistasaurus(database, flow_threads=2) as app:
        assert app.handle(start(app, branch, "tree", 4).flow_id).result(30) == 16


def test_waiting_flows_hold_no_threads(database: Path) -> None:
    # given
    before = threading.active_count()
    with Persistasaurus(database, flow_threads=3) as app:
        handles = [app.start(unwinds_tidily) for _ in range(40)]
        for handle in handles:
            until_waiting(handle)
        # then
        assert threading.active_count() - before <= 3 + 12 + 4
        for handle in handles:
            handle.send(go, "x")
        assert all(handle.result(20) == ["before", "after"] for handle in handles)


# Wrong colours and places.


@flow
def calls_async_step() -> Any:
    return async_nap("x", 1)


@flow
def waits_twice_wrong() -> Any:
    return wait(["not a future"])  # type: ignore[list-item]


def test_an_async_step_called_directly_says_the_cure(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(WrongContextError, match="submit"):
        app.run(calls_async_step)


def test_wait_takes_only_this_flows_futures(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(WrongContextError):
        app.run(waits_twice_wrong)


def test_wait_outside_of_a_flow_says_what_it_is_for() -> None:
    with pytest.raises(UsageError, match="sync flows"):
        wait([])


@flow
def steps_from_a_thread() -> str:
    found: list[str] = []

    def elsewhere() -> None:
        try:
            note("from a thread")
        except WrongContextError as error:
            found.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    return found[0]


def test_a_step_called_from_another_thread_is_refused(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert "submit" in app.run(steps_from_a_thread)
    assert ran == []


@step
def outer(label: str) -> str:
    return note(label) + note(label)


@flow
def nested() -> str:
    return outer("x")


def test_a_step_inside_a_step_is_a_plain_part_of_it(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, nested, "f")
        assert handle.result(10) == "xx"
        assert log_of(handle) == [(1, "outer", "COMPLETE")]


def test_outside_of_a_flow_everything_is_a_plain_call() -> None:
    assert note("plain") == "plain"
    assert nested() == "xx"
    assert note.submit("later").result() == "later"


# Leaving.


def test_leaving_waits_for_the_running_step_and_starts_no_other(database: Path) -> None:
    # given a flow in its first step
    gates["slow"] = threading.Event()
    with Persistasaurus(database) as app:
        handle = start(app, two_steps, "f")
        eventually(lambda: app._engine is not None and any(run.active for run in app._engine.runs.values()))
        # when the app is left while it runs
        threading.Timer(0.15, gates["slow"].set).start()
    # then the step was recorded, the next one not begun
    assert ran == ["slow"]
    with Persistasaurus(database) as app:
        assert app.handle(handle.flow_id).result(10) == ["slow", "next"]
    assert ran == ["slow", "next"]


@flow
def two_steps() -> list[str]:
    return [gated("slow"), note("next")]


def test_leaving_does_not_wait_for_a_flow_that_sleeps(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, sync_sleeps, "f", 3600)
        eventually(lambda: log_of(handle))
        began = time.monotonic()
    assert time.monotonic() - began < 2
    with Persistasaurus(database, worker=False) as app:
        assert app.handle("f").status() == FlowStatus.PENDING
