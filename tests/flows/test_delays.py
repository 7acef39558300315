"""Durable time: fixed when it is first recorded, never cut short, never started over."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    FlowHandle,
    FlowStatus,
    Persistasaurus,
    Retry,
    Signal,
    flow,
    now,
    sleep,
    step,
    wait,
    wait_for,
)
from persistasaurus.testing import MovableClock
from tests.flows.kit import eventually, log_of, ran, sql, start

START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MS = timedelta(milliseconds=1)
YEAR = timedelta(days=365)

never_sent = Signal("never sent", int)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(START)


class Site:
    """A database and a clock, on which one app after the other is entered."""

    def __init__(self, database: Path, clock: MovableClock) -> None:
        self.database = database
        self.clock = clock
        self._app: Persistasaurus | None = None

    @property
    def app(self) -> Persistasaurus:
        if self._app is None:
            self._app = Persistasaurus(self.database, clock=self.clock)
            self._app.__enter__()
        return self._app

    def leave(self) -> None:
        if self._app is not None:
            self._app.__exit__(None, None, None)
        self._app = None

    def start(self, flow: Any, *args: Any) -> FlowHandle[Any]:
        """Start the flow "f" and wait until it rests."""
        handle = start(self.app, flow, "f", *args)
        self.clock.advance_sync(0)
        return handle

    def restart(self) -> FlowHandle[Any]:
        """Leave the app, enter another one and return the flow "f" there, once it rests."""
        self.leave()
        handle = self.app.handle("f")
        self.clock.advance_sync(0)
        return handle


@pytest.fixture
def site(database: Path, clock: MovableClock) -> Iterator[Site]:
    site = Site(database, clock)
    yield site
    site.leave()


# Each of these waits an hour and then ends.


@step
def wake() -> str:
    ran.append("wake")
    return "woke"


@step(delay=HOUR)
def wake_late() -> str:
    return wake()


@step(delay=HOUR)
async def wake_late_too() -> str:
    return wake()


@step(retry=Retry(attempts=2, wait=HOUR, jitter=0))
def wake_at_the_second_try() -> str:
    ran.append("try")
    if len(ran) < 2:
        raise ConnectionError("not yet")
    return wake()


@step
async def confirmed() -> None:
    ran.append("confirmed")


@step
async def hang() -> None:
    ran.append("hang")
    await asyncio.Event().wait()


@flow
def sleeps() -> str:
    sleep(HOUR)
    return wake()


@flow
async def sleeps_in_asyncio() -> str:
    await asyncio.sleep(3600)
    return await wake.submit()


@flow
def delays_a_step() -> str:
    return wake_late()


@flow
async def delays_an_async_step() -> str:
    return await wake_late_too()


@flow
async def has_a_timeout() -> str:
    try:
        async with asyncio.timeout(3600):
            await never_sent
    except TimeoutError:
        return await wake.submit()
    return "never"


@flow
def waits_for_a_signal() -> str:
    try:
        never_sent.wait(timeout=HOUR)
    except TimeoutError:
        return wake()
    return "never"


@flow
async def waits_for_a_resume() -> str:
    try:
        await wait_for(confirmed, timeout=HOUR)
    except TimeoutError:
        return await wake.submit()
    return "never"


@flow
def tries_again() -> str:
    return wake_at_the_second_try()


@flow
def waits_for_a_future() -> str:
    done, _ = wait([wake_late.submit()])
    return str(done.pop().result())


WAITS = [
    sleeps,
    sleeps_in_asyncio,
    delays_a_step,
    delays_an_async_step,
    has_a_timeout,
    waits_for_a_signal,
    waits_for_a_resume,
    tries_again,
    waits_for_a_future,
]
every_wait = pytest.mark.parametrize(
    "waiting", WAITS, ids=lambda waiting: waiting._definition.function.__name__
)


def has_woken() -> bool:
    return "wake" in ran


@every_wait
def test_a_wait_ends_when_it_is_due_and_not_a_millisecond_before(waiting: Any, site: Site) -> None:
    """An hour is an hour by the wall clock."""
    handle = site.start(waiting)

    site.clock.advance_sync(HOUR - MS)
    assert not has_woken()
    assert handle.status() == FlowStatus.PENDING

    site.clock.advance_sync(MS)
    assert handle.result(0) == "woke"
    assert ran.count("wake") == 1


@every_wait
def test_after_a_restart_only_the_rest_is_waited(waiting: Any, site: Site) -> None:
    """Fifty minutes before it, ten after it, whether it took no time or five of the ten."""
    site.start(waiting)
    site.clock.advance_sync(timedelta(minutes=50))
    site.restart()
    site.leave()
    site.clock.set_forward(timedelta(minutes=5))
    handle = site.restart()

    site.clock.advance_sync(timedelta(minutes=5) - MS)
    assert not has_woken()

    site.clock.advance_sync(MS)
    assert handle.result(0) == "woke"
    assert ran.count("wake") == 1


@every_wait
def test_what_became_due_while_no_app_ran_goes_on_at_once(waiting: Any, site: Site) -> None:
    """Nobody waits the hour over again."""
    site.start(waiting)
    site.leave()
    site.clock.set_forward(2 * HOUR)

    handle = site.restart()

    assert handle.result(0) == "woke"
    assert ran.count("wake") == 1


@pytest.mark.peer("clock moved back and a timer was dropped")
@every_wait
def test_a_clock_that_is_set_back_loses_no_wait(waiting: Any, site: Site) -> None:
    """By the year that it is set back, the wait takes longer; due is due by the wall clock."""
    handle = site.start(waiting)

    site.clock.set_back(YEAR)
    site.clock.advance_sync(YEAR + HOUR - MS)
    assert not has_woken()

    site.clock.advance_sync(MS)
    assert handle.result(0) == "woke"


@every_wait
def test_a_clock_that_is_set_back_over_a_restart_loses_no_wait(waiting: Any, site: Site) -> None:
    """The due time stands in the log, not in a count of seconds."""
    site.start(waiting)
    site.leave()
    site.clock.set_back(YEAR)

    handle = site.restart()
    site.clock.advance_sync(YEAR)
    assert not has_woken()

    site.clock.advance_sync(HOUR)
    assert handle.result(0) == "woke"


@every_wait
def test_a_clock_that_is_set_forward_and_back_ends_a_wait_once(waiting: Any, site: Site) -> None:
    """What has ended has ended, whatever the clock shows afterwards."""
    handle = site.start(waiting)

    site.clock.set_forward(YEAR)
    assert handle.result(10) == "woke"
    site.clock.set_back(YEAR)
    site.restart()
    site.clock.advance_sync(2 * HOUR)

    assert ran.count("wake") == 1


@every_wait
def test_a_due_time_is_recorded_once_and_for_ever(waiting: Any, site: Site) -> None:
    """Restarts at any moment leave it as it is."""
    site.start(waiting)

    def due() -> list[tuple[Any, ...]]:
        return sql(site.database, "SELECT due_at_ms FROM step WHERE due_at_ms IS NOT NULL")

    at_first = due()
    for _ in range(3):
        site.clock.advance_sync(timedelta(minutes=7))
        site.restart()

    assert at_first == [(round((START + HOUR).timestamp() * 1000),)]
    assert due() == at_first


# What the log shows, and what the flow sees.


def test_the_log_shows_the_delay_of_a_step(site: Site) -> None:
    """While it is waited out and afterwards."""
    handle = site.start(delays_a_step)
    (waiting,) = handle.steps()
    site.clock.advance_sync(HOUR)
    (ended,) = handle.steps()

    assert (waiting.status, waiting.delay, waiting.attempts) == (FlowStatus.PENDING, HOUR, 0)
    assert (ended.status, ended.delay, ended.attempts) == (FlowStatus.COMPLETE, HOUR, 1)
    assert sql(site.database, "SELECT delay, status FROM execution_log WHERE step = 1") == [
        (3_600_000, "COMPLETE")
    ]


@flow
def thrice() -> list[datetime]:
    seen = []
    for hours in (1, 2, 3):
        sleep(timedelta(hours=hours))
        seen.append(now())
    return seen


@flow
async def thrice_in_asyncio() -> list[datetime]:
    seen = []
    for hours in (1, 2, 3):
        await asyncio.sleep(hours * 3600)
        seen.append(now())
    return seen


@pytest.mark.parametrize("waiting", [thrice, thrice_in_asyncio], ids=["sync", "async"])
def test_each_sleep_begins_when_the_one_before_it_has_ended(waiting: Any, site: Site) -> None:
    """And the flow sees the same times after a restart as it saw live."""
    site.start(waiting)

    site.clock.advance_sync(4 * HOUR)
    handle = site.restart()
    site.clock.advance_sync(4 * HOUR)

    assert handle.result(0) == [START + HOUR, START + 3 * HOUR, START + 6 * HOUR]


@flow
def sleeps_for_nothing() -> int:
    sleep(0)
    sleep(timedelta(0))
    return 1


def test_a_sleep_of_zero_is_recorded_and_ends_at_once(site: Site) -> None:
    """It takes a step number like any other."""
    handle = site.start(sleeps_for_nothing)

    assert handle.result(0) == 1
    assert log_of(handle) == [(1, "sleep", "COMPLETE"), (2, "sleep", "COMPLETE")]


@step(delay=0.001)
async def soon() -> int:
    return 1


@flow
async def several_at_once() -> list[int]:
    return list(await asyncio.gather(*(soon() for _ in range(20))))


def test_delayed_steps_wait_side_by_side(site: Site) -> None:
    """Twenty of a millisecond take one."""
    handle = site.start(several_at_once)

    site.clock.advance_sync(MS)

    assert handle.result(0) == [1] * 20


# Races.


@flow
async def the_shorter_of_two() -> str:
    long = asyncio.create_task(asyncio.sleep(7200, "long"))
    short = asyncio.create_task(asyncio.sleep(3600, "short"))
    done, _ = await asyncio.wait([long, short], return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


@flow
async def a_sleep_within_its_timeout() -> str:
    async with asyncio.timeout(7200):
        await asyncio.sleep(3600)
    return "slept"


@flow
async def a_sleep_beyond_its_timeout() -> str:
    try:
        async with asyncio.timeout(3600):
            await asyncio.sleep(7200)
    except TimeoutError:
        return "timed out"
    return "slept"


RACES = [
    (the_shorter_of_two, "short"),
    (a_sleep_within_its_timeout, "slept"),
    (a_sleep_beyond_its_timeout, "timed out"),
]


@pytest.mark.parametrize("race, winner", RACES, ids=[winner for _, winner in RACES])
@pytest.mark.parametrize("away", [False, True], ids=["app is there", "app is away"])
def test_the_timer_that_is_due_first_wins_however_late_someone_looks(
    race: Any, winner: str, away: bool, site: Site
) -> None:
    """After a jump past both, or an outage that both fell into: in the order of their times."""
    handle = site.start(race)

    if away:
        site.leave()
    site.clock.set_forward(timedelta(days=1))
    if away:
        handle = site.restart()

    assert handle.result(10) == winner


@flow
async def step_against_time() -> str:
    try:
        async with asyncio.timeout(3600):
            await hang()
    except TimeoutError:
        await asyncio.sleep(3600)
        return "timed out"
    return "never"


def test_a_timer_ends_a_step_that_hangs_and_replay_sees_it_too(site: Site) -> None:
    """The step's number is used up; what follows finds its own."""
    handle = start(site.app, step_against_time, "f")
    eventually(lambda: ran == ["hang"])
    site.clock.set_forward(HOUR)
    eventually(lambda: len(handle.steps()) == 3)

    handle = site.restart()
    site.clock.advance_sync(HOUR)

    assert handle.result(0) == "timed out"
    assert ran == ["hang"]


@step
async def quick() -> str:
    ran.append("quick")
    return "quick"


@flow
async def step_within_time() -> str:
    async with asyncio.timeout(3600):
        first = await quick()
    await asyncio.sleep(7200)
    return first


def test_a_step_that_ends_in_time_stops_the_timer_for_good(site: Site) -> None:
    """Its hour passes, now and after a restart, and nothing happens."""
    site.start(step_within_time)
    site.clock.advance_sync(HOUR)
    handle = site.restart()

    site.clock.advance_sync(HOUR)

    assert handle.result(0) == "quick"
    assert ran == ["quick"]


# A delay on a step that is waited for.


@step(delay=HOUR)
async def approve_late(by: str) -> str:
    ran.append(by)
    return f"approved by {by}"


@flow
async def waits_for_a_delayed_step() -> str:
    return await wait_for(approve_late)


@pytest.mark.parametrize("restarted", [False, True], ids=["live", "restarted"])
def test_a_delay_on_a_step_that_is_waited_for_begins_with_its_resume(restarted: bool, site: Site) -> None:
    """The step is called then, and its delay counts from its call, over restarts too."""
    handle = site.start(waits_for_a_delayed_step)
    site.clock.advance_sync(5 * HOUR)
    assert handle.status() == FlowStatus.WAITING_FOR_SIGNAL
    handle.resume(approve_late, "bob")

    site.clock.advance_sync(HOUR - MS)
    if restarted:
        handle = site.restart()
    assert ran == []
    assert handle.status() == FlowStatus.PENDING

    site.clock.advance_sync(MS)
    assert handle.result(0) == "approved by bob"
    assert ran == ["bob"]


# Real time.


@flow
def naps(seconds: float) -> None:
    sleep(seconds)


@flow
async def naps_in_asyncio(seconds: float) -> None:
    await asyncio.sleep(seconds)


@step(delay=0.2)
def delayed_a_little() -> None:
    pass


@flow
def delays_a_little(_: float) -> None:
    delayed_a_little()


@pytest.mark.real_time
@pytest.mark.parametrize("waiting", [naps, naps_in_asyncio, delays_a_little], ids=["sync", "async", "delay"])
def test_by_the_machines_clock_too_a_delay_is_not_cut_short(waiting: Any, database: Path) -> None:
    """Nor is it much longer than it should be."""
    with Persistasaurus(database) as app:
        began = time.time()
        app.run(waiting, 0.2)
        took = time.time() - began

    assert 0.2 <= took < 5


# Many.


@pytest.mark.timeout(300)
def test_20_000_flows_sleep_an_hour_in_few_threads_and_little_memory(tmp_path: Path) -> None:
    """And all of them wake when the clock passes the hour."""
    program = Path(__file__).with_name("many_sleepers.py")

    done = subprocess.run(
        [sys.executable, program, tmp_path / "many.db", "20000"], capture_output=True, check=True, text=True
    )
    seen = json.loads(done.stdout)

    assert seen["asleep"] == 20_000
    assert seen["woken"] == 20_000
    assert seen["most_threads"] < 40
    assert seen["memory_asleep_mb"] < 150
    assert seen["memory_at_most_mb"] < 150
