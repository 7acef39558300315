"""A process that stands still for longer than its lease: a laptop that is closed, a stopped container."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from persistasaurus import Persistasaurus, Retry, current, flow, step
from persistasaurus._clock import SystemClock
from persistasaurus._events import Happening
from persistasaurus._store.base import Store, WorkerRow
from tests.flows.kit import ran, start


class Suspending(SystemClock):
    """The machine's clock, which a test lets jump as one does that was suspended."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + int(self.slept_s * 1000)

    def steady(self) -> float:  # type: ignore[override]
        return SystemClock.steady() + self.slept_s


@step(retry=Retry(attempts=2, wait=0.2, jitter=0))
async def suspended_attempt() -> int:
    attempt = current().attempt
    ran.append(f"attempt {attempt}")
    if attempt == 1:
        raise OSError
    await asyncio.sleep(0.5)
    return attempt


@flow
async def suspended_flow() -> int:
    return await suspended_attempt()


def test_an_attempt_that_was_due_meanwhile_begins_once(database: Path) -> None:
    """It is due and the lease is over: whoever looks finds it so, and it is kept back once for each look."""
    clock = Suspending()

    def suspend(event: Any) -> None:
        if event.happening == Happening.STEP_RETRIED:
            clock.slept_s = 10.0

    with Persistasaurus(database, clock=clock, lease=0.6, observer=suspend) as app:
        assert start(app, suspended_flow, "f").result(10) == 2

    assert ran == ["attempt 1", "attempt 2"]


suspended = Suspending()


def _taken_over_at_once(app: Persistasaurus) -> list[int]:
    """Suspend the machine, and let another worker take over, between registering and the first heartbeat."""
    make = app._new_store
    taken: list[int] = []

    def new_store() -> Store:
        store = make()
        register = store.register_worker

        def register_worker(worker: WorkerRow, *, lease_ms: int) -> int:
            worker_id = register(worker, lease_ms=lease_ms)
            if not taken:
                suspended.slept_s = 60.0
                store.take_over(worker_id, now_ms=suspended.now_ms(), only_expired=False)
                taken.append(worker_id)
            return worker_id

        setattr(store, "register_worker", register_worker)  # noqa: B010 - a method, to the type checkers
        return store

    setattr(app, "_new_store", new_store)  # noqa: B010 - as above
    return taken


def test_an_app_is_entered_although_its_lease_ran_out_on_the_way(database: Path) -> None:
    """It registers anew: nothing of it runs yet."""
    app = Persistasaurus(database, clock=suspended)
    taken = _taken_over_at_once(app)
    with app:
        assert taken
        assert app.run(hello) == "hello"


@flow
def hello() -> str:
    return "hello"
