"""A worker starts no step that its lease may not cover, by its own steady clock."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import Persistasaurus, flow, step
from persistasaurus._clock import SystemClock
from persistasaurus._engine import recovery
from persistasaurus._engine.engine import Engine
from persistasaurus._store.base import History, WorkerRow
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
def only_second() -> None:
    after_the_lease()


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
            eventually(lambda: "the store cannot be used" in caplog.text)
            # when the step ends, past the lease
            may_end.set()
            eventually(lambda: sql(database, "SELECT 1 FROM step WHERE step = 1 AND status = 1"))
            # then the next one is held back
            eventually(lambda: app._engine_here("a test").has_held() or len(ran) > 1)
            assert ran == ["first"]
        # until the lease is renewed
        handle.result(20)
    assert ran == ["first", "second"]


def test_an_attempt_that_is_held_back_as_the_lease_is_renewed_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it waits for the next renewal, which here is minutes away."""
    answers = [False]
    real = Engine.may_start
    monkeypatch.setattr(Engine, "may_start", lambda self: answers.pop() if answers else real(self))
    with Persistasaurus(tmp_path / "flows.db", lease=600) as app:
        app.start(only_second).result(10)
    assert ran == ["second"]


def test_an_app_that_is_away_from_its_store_says_so_once_and_that_it_is_back(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = LateClock()
    with Persistasaurus(database, clock=clock) as app:
        with refused(database, "UPDATE", "worker"):
            clock.late_s = 100.0
            engine = app._engine_here("a test")
            eventually(lambda: engine.worker._troubles > 3)
        eventually(lambda: "the store can be used again" in caplog.text)
    assert caplog.text.count("the store cannot be used") == 1


@flow
def short() -> int:
    return 7


@flow
async def short_async() -> int:
    return 7


@pytest.mark.parametrize("chosen", [short, short_async], ids=["sync", "async"])
def test_a_flow_that_is_taken_in_while_the_lease_is_lost_is_left_to_whoever_has_it_now(
    database: Path | str, chosen: Any
) -> None:
    """Kept in memory without an owner, it would write nothing, and hide how others have ended it."""
    with Persistasaurus(database) as app:
        engine = app._engine
        assert engine is not None
        load_short, lost = engine.store.load_short, threading.Event()

        def load_and_lose(keys: Sequence[int]) -> Sequence[History]:
            found = load_short(keys)
            if not lost.is_set():
                lost.set()
                worker_id = engine.worker_id or 0
                engine.store.take_over(worker_id, now_ms=engine.now_ms(), only_expired=False)
                engine._lease_lost(worker_id)
            return found

        engine.store.load_short = load_and_lose  # type: ignore[method-assign]
        with Persistasaurus(database, worker=False) as client:
            handle = client.start(chosen.options(flow_id="claimed"))
            assert handle.result(20) == 7
        assert app.handle("claimed").result(5) == 7
        assert lost.is_set()


def test_equal_names_of_two_machines_are_no_proof_that_a_worker_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the kernel tells neither boot nor namespace, and the other machine's process has no twin here."""
    name = "darwin:laptop.local:"
    monkeypatch.setattr(recovery, "host_name", lambda: name)
    theirs = WorkerRow(1, "incarnation", name, 2**22 + 1, "", "[]", expired=False)

    assert not recovery.is_gone(theirs, one_machine=False)
    assert recovery.is_gone(theirs, one_machine=True)
