"""The wall clock moves as administrators, time zones and skewed machines move it."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from persistasaurus import Persistasaurus, flow, now, sleep, step
from persistasaurus.testing import MovableClock
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.story import Outcome

DELAYS = 50
MOVES = 6
YEAR = timedelta(days=366)
# The nights in which Europe and America change their clocks, a leap day, and the end of 32-bit time.
DATES = [
    datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC),
    datetime(2026, 3, 8, 6, 59, 59, tzinfo=UTC),
    datetime(2026, 11, 1, 5, 59, 59, tzinfo=UTC),
    datetime(2028, 2, 28, 23, 59, 59, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
]


@step
def is_over(begun: str) -> str:
    return begun


@step(delay=timedelta(hours=3))
def three_hours_later(begun: str) -> str:
    return begun


@flow
def months_asleep(seconds: float) -> str:
    begun = now().isoformat()
    sleep(seconds)
    return is_over(begun)


@flow
async def months_asleep_async(seconds: float) -> str:
    begun = now().isoformat()
    await asyncio.sleep(seconds)
    return await is_over.submit(begun)


@flow
def hours_delayed(seconds: float) -> str:
    return three_hours_later(now().isoformat())


def moved_clock(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """Fifty delays while the clock jumps by up to a year, also over restarts: none early, none lost."""
    rng = random.Random(seed)
    clock = MovableClock(rng.choice(DATES) + timedelta(milliseconds=rng.randrange(2000)))
    db = place.database(f"clock-{seed}")
    due: dict[str, datetime] = {}
    latest = clock.now()
    app: Any = None
    for move in range(MOVES):
        if app is None or rng.random() < 0.3:
            if app is not None:
                app.__exit__(None, None, None)
            app = Persistasaurus(db, clock=clock, drain=1).__enter__()
        if move == 0:
            due = _begun(app, clock, rng)
        _move(clock, rng)
        clock.advance_sync(0)
        latest = max(latest, clock.now())
        _judge(app, due, clock.now(), latest, f"seed {seed}, move {move}")
    clock.advance_sync(max(timedelta(), latest + 3 * YEAR - clock.now()))
    _judge(app, due, latest + 3 * YEAR, latest + 3 * YEAR, f"seed {seed}, the end")
    app.__exit__(None, None, None)
    return Outcome(MOVES, len(due))


def _begun(app: Persistasaurus, clock: MovableClock, rng: random.Random) -> dict[str, datetime]:
    due = {}
    for number in range(DELAYS):
        kind: Any = rng.choice([months_asleep, months_asleep_async, hours_delayed])
        seconds = rng.choice([0.001, 1.0, rng.uniform(0, 7200), rng.uniform(0, YEAR.total_seconds())])
        seconds = 10_800 if kind is hours_delayed else round(seconds, 3)
        app.start(kind.options(flow_id=f"{number}"), seconds)
        due[f"{number}"] = clock.now() + timedelta(seconds=seconds)
    clock.advance_sync(0)
    return due


def _move(clock: MovableClock, rng: random.Random) -> None:
    by = timedelta(
        seconds=rng.choice([0.001, 3600, rng.uniform(0, 7200), rng.uniform(0, YEAR.total_seconds())])
    )
    match rng.choice(["advance", "forward", "back"]):
        case "advance":
            clock.advance_sync(min(by, timedelta(days=2)))
        case "forward":
            clock.set_forward(by)
        case _:
            clock.set_back(by)


def _judge(app: Persistasaurus, due: dict[str, datetime], now: datetime, latest: datetime, when: str) -> None:
    ended = {record.flow_id for record in app.flows(status="COMPLETE")}
    early = {flow_id for flow_id in ended if due[flow_id] > latest}
    late = {flow_id for flow_id in due if due[flow_id] <= now and flow_id not in ended}
    assert not early, f"{when}: woken early: {early}"
    assert not late, f"{when}: due and not woken: {late}"
