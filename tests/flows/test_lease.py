"""A worker starts no step that its lease may not cover, by its own steady clock."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from persistasaurus import Persistasaurus, flow, step
from persistasaurus._clock import SystemClock
from tests.flows.kit import eventually, ran, sql, start
from tests.flows.refusing import refused

may_end = threading.Event()


class LateClock:
    """A steady clock that has gone on while the process did not run."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self.late_s = 0.0
        self.now_ms = self._real.now_ms
        self.drives = self._real.drives

    def steady(self) -> float:
        return self._real.steady() + self.late_s


@step
def outlasts_the_lease() -> None:
    ran.append("first")
    assert may_end.wait(20)


@step
def after_the_lease() -> None:
    ran.append("second")


@flow
def leased() -> None:
    outlasts_the_lease()
    after_the_lease()


@flow
async def leased_async() -> None:
    await outlasts_the_lease.submit()
    await after_the_lease.submit()


@pytest.mark.parametrize("steps", [leased, leased_async], ids=["sync", "async"])
def test_no_step_starts_past_the_lease_until_it_is_renewed(
    database: Path, steps: object, caplog: pytest.LogCaptureFixture
) -> None:
    # given a flow in its first step, and a lease that cannot be renewed
    may_end.clear()
    clock = LateClock()
    with Persistasaurus(database, clock=clock) as app:
        handle = start(app, steps, "f")
        eventually(lambda: ran)
        with refused(database, "UPDATE", "worker"):
            clock.late_s = 100.0
            eventually(lambda: "the store cannot be reached" in caplog.text)
            # when the step ends, past the lease
            may_end.set()
            eventually(lambda: sql(database, "SELECT 1 FROM step WHERE step = 1 AND status = 1"))
            # then the next one is held back
            eventually(lambda: app._engine_here("a test").has_held() or len(ran) > 1)
            assert ran == ["first"]
        # until the lease is renewed
        handle.result(20)
    assert ran == ["first", "second"]
