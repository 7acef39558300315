"""Async steps that never suspend share a task, and notice nothing of each other."""

from __future__ import annotations

import asyncio
import contextvars
import time
from pathlib import Path

import pytest

from persistasaurus import Persistasaurus, flow, step
from persistasaurus.testing import MovableClock
from tests.flows.kit import log_of, ran, start

room: contextvars.ContextVar[str] = contextvars.ContextVar("room", default="the hall")
tasks: dict[str, asyncio.Task[object] | None] = {}


@step
async def move_to(name: str) -> str:
    found = room.get()
    room.set(name)
    tasks[name] = asyncio.current_task()
    return found


@step
async def look_after_a_pause(name: str) -> str:
    before = asyncio.current_task()
    room.set(name)
    await asyncio.sleep(0.01)
    tasks[name] = asyncio.current_task()
    assert tasks[name] is before
    return room.get()


@step
async def give_up_within(seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(60)
    except TimeoutError:
        return "late"
    return "in time"


@step
async def cancel_oneself() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "returned all the same"


@step
async def raise_a(what: str) -> str:
    raise {"stop": StopAsyncIteration, "exit": SystemExit, "value": ValueError}[what](what)


@step
async def count_up(number: int) -> int:
    ran.append(str(number))
    return number


@step(timeout=0.05)
async def hang(number: int) -> int:
    await asyncio.sleep(60)
    return number


@flow
async def rooms() -> list[str]:
    room.set("the flow's own")
    return [*await asyncio.gather(*[move_to(f"room {n}") for n in range(5)]), await move_to("last")]


@flow
async def looks() -> list[str]:
    return list(await asyncio.gather(*[look_after_a_pause(f"pause {n}") for n in range(5)], move_to("door")))


@flow
async def deadlines() -> list[str]:
    return list(await asyncio.gather(*[give_up_within(0.01 * n) for n in range(1, 4)]))


@flow
async def self_cancel_among_others() -> list[object]:
    return list(await asyncio.gather(count_up(1), cancel_oneself(), count_up(2), give_up_within(0.01)))


@flow
async def each_its_own_failure() -> list[str]:
    outcomes = await asyncio.gather(
        raise_a("stop"), raise_a("value"), raise_a("exit"), hang(1), return_exceptions=True
    )
    return [type(each).__name__ for each in outcomes]


@flow
async def many_short_ones(count: int) -> int:
    return sum(await asyncio.gather(*[count_up(n) for n in range(count)]))


@flow
async def first_of_two() -> int:
    winner = asyncio.create_task(count_up(1))
    loser = asyncio.create_task(count_up(2))
    loser.cancel()
    return await winner


def test_what_a_step_sets_in_its_context_no_other_step_sees(database: Path) -> None:
    """Each sees what the flow had set when it called it."""
    with Persistasaurus(database) as app:
        assert app.run(rooms) == ["the flow's own"] * 6


def test_a_step_that_suspends_keeps_its_task_and_its_context(database: Path) -> None:
    """`asyncio.current_task()` is the same before and after, and nobody else's meanwhile."""
    tasks.clear()

    with Persistasaurus(database) as app:
        assert app.run(looks) == [*[f"pause {n}" for n in range(5)], "the hall"]

    assert len({id(tasks[f"pause {n}"]) for n in range(5)}) == 5


def test_a_timeout_within_a_step_ends_that_step_alone(database: Path) -> None:
    """Three steps with limits of their own, side by side."""
    with Persistasaurus(database) as app:
        assert app.run(deadlines) == ["late"] * 3


def test_a_step_that_cancels_its_own_task_cancels_no_other(database: Path) -> None:
    """What it returned is recorded, and those behind it run."""
    with Persistasaurus(database) as app:
        assert app.run(self_cancel_among_others) == [1, "returned all the same", 2, "late"]


def test_each_step_fails_by_its_own_exception(database: Path) -> None:
    """Also by one that ends a process elsewhere, which a flow sees as a failed step, and by its timeout."""
    with Persistasaurus(database) as app:
        names = app.run(each_its_own_failure)

    assert names == ["StopAsyncIteration", "ValueError", "StepFailed", "TimeoutError"]


def test_a_step_that_is_cancelled_before_its_turn_does_not_run(database: Path) -> None:
    """The other one does, and the log says so."""
    with Persistasaurus(database) as app:
        handle = start(app, first_of_two, "two")
        assert handle.result() == 1
        assert ran == ["1"]
        assert [row[:2] for row in log_of(handle)] == [(1, "count_up")]


@pytest.mark.real_time
async def test_a_crowd_of_short_steps_leaves_the_loop_to_others(database: Path) -> None:
    """A heartbeat on the same loop goes on while two thousand steps run, none of which ever suspends."""
    gaps: list[float] = []

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async with Persistasaurus(database) as app:
        heart = asyncio.create_task(beat())
        assert await app.run_async(many_short_ones, 2_000) == sum(range(2_000))
        heart.cancel()

    assert len(gaps) > 10


async def test_short_steps_and_a_moved_clock_go_together(database: Path) -> None:
    """The clock waits for what is durable and not yet shown to its flow."""
    clock = MovableClock()

    async with Persistasaurus(database, clock=clock) as app:
        handle = await app.start_async(many_short_ones, 300)
        await clock.advance(1)
        assert (await handle.status_async()).value == "COMPLETE"
