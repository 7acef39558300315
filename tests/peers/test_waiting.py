"""Waiting, cancelling and time as they went wrong elsewhere."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from persistasaurus import FlowStatus, Persistasaurus, Signal, flow, now, sleep, step
from persistasaurus.testing import MovableClock
from tests.flows.kit import start, until_status

news = Signal("peers_news", str)


@flow
def peers_listener() -> str:
    return news.wait()


@flow
async def peers_async_listener() -> str:
    return await news


@flow
def peers_twice() -> list[str]:
    try:
        news.wait(timeout=60)
    except TimeoutError:
        sleep(60)
    return [news.wait()]


@flow
async def peers_left_waiter() -> list[str]:
    left = asyncio.ensure_future(_heard())
    await asyncio.sleep(60)
    left.cancel()
    await asyncio.sleep(60)
    return [await news]


async def _heard() -> str:
    return await news


@pytest.mark.peer("wait/emit lost wake-up")
@pytest.mark.parametrize("listening", [peers_listener, peers_async_listener], ids=["sync", "async"])
def test_a_signal_that_comes_as_a_flow_begins_to_wait_wakes_it(database: Path, listening: Any) -> None:
    """The wait looked, found nothing and went to sleep; the signal that came between the two woke nobody."""
    with Persistasaurus(database) as app:
        handles = []
        for number in range(60):
            handle = start(app, listening, f"f-{number}")
            threading.Event().wait(number / 20_000)  # at any moment of the way into the wait
            handle.send(news, str(number))
            handles.append(handle)

        assert [handle.result(20) for handle in handles] == [str(number) for number in range(60)]


@pytest.mark.peer("a dead waiter eats the next signal")
@pytest.mark.parametrize("waiting", [peers_twice, peers_left_waiter], ids=["timed out", "cancelled"])
@pytest.mark.parametrize("restarted", [False, True], ids=["live", "restarted"])
def test_a_wait_that_was_given_up_takes_no_signal(database: Path, waiting: Any, restarted: bool) -> None:
    """A wait that had timed out was still in the list; the next signal went to it and to nobody else."""
    clock = MovableClock()
    with Persistasaurus(database, clock=clock) as app:
        start(app, waiting, "f")
        clock.advance_sync(90)
        if not restarted:
            app.handle("f").send(news, "good")
            clock.advance_sync(90)
            assert app.handle("f").result(10) == ["good"]
            return
    with Persistasaurus(database, clock=clock) as app:
        app.handle("f").send(news, "good")
        clock.advance_sync(90)
        assert app.handle("f").result(10) == ["good"]


@step
async def scoped(pause: float) -> str:
    """Gives up after a moment, cleaning up in a shield, as anyio's users do."""
    with anyio.move_on_after(0.01) as scope:
        try:
            await anyio.sleep(pause)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
    return "given up" if scope.cancelled_caught else "in time"


@step
async def grouped() -> int:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 30)
        await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    return 1


@flow
async def peers_anyio() -> list[Any]:
    return [await scoped(30), await scoped(0), await grouped()]


@step
async def endless() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 30)


@flow
async def peers_anyio_cancelled() -> None:
    await endless()


@pytest.mark.peer("anyio cancel livelock")
async def test_steps_that_cancel_by_anyio_end_and_leave_the_loop_idle(database: Path) -> None:
    """A cancel was delivered again at each turn of the loop to a task that could not end, for ever."""
    async with Persistasaurus(database) as app:
        assert await app.run_async(peers_anyio) == ["given up", "in time", 1]
        handle = await app.start_async(peers_anyio_cancelled.options(flow_id="c"))
        await asyncio.to_thread(until_status, handle, FlowStatus.PENDING)
        await handle.cancel_async()
        await asyncio.to_thread(until_status, handle, FlowStatus.CANCELLED)
        began = time.process_time()
        await asyncio.sleep(0.2)

        assert time.process_time() - began < 0.15


@flow
def peers_sleeps_a_day() -> str:
    began = now()
    sleep(timedelta(days=1))
    return str(now() - began)


@pytest.fixture
def berlin() -> Iterator[None]:
    """A process whose local time has summer and winter."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.peer("DST skip and repeat in schedules")
@pytest.mark.parametrize("day", [(2026, 3, 28), (2026, 10, 24)], ids=["an hour skipped", "an hour repeated"])
@pytest.mark.usefixtures("berlin")
def test_a_delay_over_a_change_of_the_clocks_is_as_long_as_it_says(database: Path, day: Any) -> None:
    """Due times were kept in local time: they came an hour early or late, twice or never."""
    began = datetime(*day, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    clock = MovableClock(began)
    with Persistasaurus(database, clock=clock) as app:
        handle = start(app, peers_sleeps_a_day, "f")
        clock.advance_sync(timedelta(days=1) - timedelta(milliseconds=1))
        assert handle.status() == FlowStatus.PENDING
    with Persistasaurus(database, clock=clock) as app:
        clock.advance_sync(timedelta(milliseconds=1))
        assert app.handle("f").result(10) == "1 day, 0:00:00"
        assert app.handle("f").steps()[0].timestamp == began.astimezone(UTC)
