"""A step that fails is tried again as its `Retry` says, and the count of attempts survives everything."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowStatus, Persistasaurus, Retry, current, flow, step
from persistasaurus.testing import MovableClock
from tests.flows.kit import eventually, ran, sql, start

failures_left: dict[str, int] = {}
gate = threading.Event()


class Busy(Exception):
    pass


class Hopeless(Busy):
    pass


def attempt(label: str) -> str:
    here = current()
    ran.append(f"{label}{here.attempt}:{here.idempotency_key}")
    if failures_left.get(label, 0) > 0:
        failures_left[label] -= 1
        raise Busy(label)
    return label


QUICK = Retry(attempts=3, wait=0.01, jitter=0)


@step(retry=QUICK)
def flaky(label: str) -> str:
    return attempt(label)


@step(retry=QUICK)
async def flaky_async(label: str) -> str:
    return attempt(label)


@flow
def calls_flaky() -> str:
    return flaky("x")


@flow
def submits_flaky() -> str:
    return flaky.submit("x").result()


@flow
async def calls_flaky_async() -> str:
    return await flaky_async("x")


@flow
async def calls_sync_flaky_from_async() -> str:
    return await flaky.submit("x")


every_way = pytest.mark.parametrize(
    "calling", [calls_flaky, submits_flaky, calls_flaky_async, calls_sync_flaky_from_async]
)


@every_way
def test_a_step_is_tried_again_until_it_succeeds(database: Path, calling: Any) -> None:
    # given
    failures_left["x"] = 2
    with Persistasaurus(database) as app:
        # when
        handle = start(app, calling, "f")
        # then
        assert handle.result(10) == "x"
        assert handle.steps()[0].attempts == 3
        assert handle.steps()[0].error is None
    assert ran == ["x1:f/1", "x2:f/1", "x3:f/1"]


@every_way
def test_a_step_that_fails_on_its_last_attempt_has_failed(database: Path, calling: Any) -> None:
    # given
    failures_left["x"] = 9
    with Persistasaurus(database) as app:
        # when
        handle = start(app, calling, "f")
        with pytest.raises(Busy):
            handle.result(10)
        # then
        row = handle.steps()[0]
        assert (row.status, row.attempts) == (FlowStatus.FAILED, 3)
    assert len(ran) == 3


def test_a_retried_flow_gives_its_step_all_its_attempts_again(database: Path) -> None:
    # given
    failures_left["x"] = 5
    with Persistasaurus(database) as app:
        handle = start(app, calls_flaky, "f")
        with pytest.raises(Busy):
            handle.result(10)
        # when
        handle.retry()
        # then the attempts go on counting
        assert handle.result(10) == "x"
        assert handle.steps()[0].attempts == 6


# The wait between attempts is durable.


@step(retry=Retry(attempts=3, wait=3600, jitter=0))
def hourly(label: str) -> str:
    return attempt(label)


@flow
def waits_an_hour() -> str:
    return hourly("x")


def test_an_attempt_after_a_retry_counts_although_a_crash_cut_it_short(database: Path) -> None:
    """The log does not say that it began: the next one may not have its number."""
    # given a flow that was retried, and whose worker died before it recorded anything
    failures_left["x"] = 3
    with Persistasaurus(database) as app, pytest.raises(Busy):
        start(app, calls_flaky, "f").result(10)
    ran.clear()
    with Persistasaurus(database, worker=False) as client:
        client.handle("f").retry()
    sql(database, "UPDATE flow SET crashes = 1, lost_claims = 1")
    # when
    with Persistasaurus(database) as app:
        assert app.handle("f").result(10) == "x"
    # then
    assert ran == ["x5:f/1"]


def test_the_attempt_and_the_next_ones_time_are_recorded_before_the_wait(database: Path) -> None:
    # given
    failures_left["x"] = 1
    with Persistasaurus(database) as app:
        handle = start(app, waits_an_hour, "f")
        # when, then
        row = eventually(lambda: [r for r in handle.steps() if r.error])[0]
        assert (row.status, row.attempts) == (FlowStatus.PENDING, 1)
        assert row.error["type"] == "Busy"
        assert handle.status() == FlowStatus.PENDING


def test_a_restart_neither_shortens_the_wait_nor_resets_the_count(database: Path) -> None:
    # given
    clock = MovableClock()
    failures_left["x"] = 1
    with Persistasaurus(database, clock=clock) as app:
        handle = start(app, waits_an_hour, "f")
        eventually(lambda: [r for r in handle.steps() if r.error])
    # when it is started again within the hour
    with Persistasaurus(database, clock=clock) as app:
        handle = app.handle("f")
        clock.advance_sync(3500)
        time.sleep(0.1)
        assert handle.status() == FlowStatus.PENDING
        assert len(ran) == 1
        # when the hour is over
        clock.advance_sync(101)
        # then
        assert handle.result(10) == "x"
        assert handle.steps()[0].attempts == 2
    assert ran == ["x1:f/1", "x2:f/1"]


# Which failures.


@step(retry=Retry(attempts=5, wait=0, jitter=0, on=Busy, unless=Hopeless))
def choosy(kind: str) -> None:
    ran.append(kind)
    raise {"busy": Busy, "hopeless": Hopeless, "other": ValueError}[kind](kind)


@flow
def picks(kind: str) -> None:
    choosy(kind)


@pytest.mark.parametrize("kind,times", [("busy", 5), ("hopeless", 1), ("other", 1)])
def test_only_the_failures_that_are_meant_are_retried(database: Path, kind: str, times: int) -> None:
    with Persistasaurus(database) as app, pytest.raises((Busy, ValueError), match=kind):
        app.run(picks, kind)
    assert ran == [kind] * times


@step(retry=Retry(attempts=5, wait=0))
def exits() -> None:
    ran.append("exit")
    raise SystemExit(1)


@flow
def calls_exits() -> None:
    exits()


def test_what_is_no_exception_is_not_retried(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(Exception, match="SystemExit"):
        app.run(calls_exits)
    assert ran == ["exit"]


@step(retry=Retry(attempts=3, wait=0))
def unrecordable() -> Any:
    ran.append("run")
    return object()


@flow
def calls_unrecordable() -> None:
    unrecordable()


def test_a_result_that_cannot_be_recorded_is_not_retried(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(Exception, match="unrecordable"):
        app.run(calls_unrecordable)
    assert ran == ["run"]


# Timeouts, each attempt for itself.


@step(timeout=0.05, retry=QUICK)
async def slow_at_first(label: str) -> str:
    here = current()
    ran.append(f"{label}{here.attempt}")
    if here.attempt < 3:
        await asyncio.sleep(5)
    return label


@step(timeout=timedelta(milliseconds=50), retry=QUICK)
def slow_at_first_sync(label: str) -> str:
    here = current()
    ran.append(f"{label}{here.attempt}")
    if here.attempt < 3:
        gate.wait(0.3)
    return label


@flow
async def times_out_async() -> str:
    return await slow_at_first("t")


@flow
def times_out_sync() -> str:
    return slow_at_first_sync("t")


@pytest.mark.parametrize("timing_out", [times_out_async, times_out_sync])
def test_an_attempt_that_takes_too_long_is_followed_by_the_next(database: Path, timing_out: Any) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, timing_out, "f")
        assert handle.result(10) == "t"
        assert handle.steps()[0].attempts == 3
    assert ran == ["t1", "t2", "t3"]


@step(timeout=0.05)
async def too_slow() -> None:
    await asyncio.sleep(5)


@step(timeout=0.05)
def too_slow_sync() -> str:
    gate.wait(0.3)
    return "late"


@flow
async def fails_by_time() -> None:
    await too_slow()


@flow
def fails_by_time_sync() -> str:
    return too_slow_sync()


@pytest.mark.parametrize("timing_out", [fails_by_time, fails_by_time_sync])
def test_a_step_whose_last_attempt_is_too_slow_raises_a_timeout_error(
    database: Path, timing_out: Any
) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, timing_out, "f")
        with pytest.raises(TimeoutError, match="too_slow"):
            handle.result(10)
        # then what the step says later is not heard
        time.sleep(0.35)
        assert handle.steps()[0].status == FlowStatus.FAILED
        assert handle.steps()[0].return_value is None


# The arithmetic, which is pure.


def waits(retry: Retry, count: int, key: str = "k") -> list[int | None]:
    return [retry.next_wait_ms(ValueError(), made=made, key=key) for made in range(1, count + 1)]


def test_the_waits_grow_by_the_backoff_up_to_the_longest() -> None:
    retry = Retry(attempts=6, wait=1, backoff=3, max_wait=timedelta(seconds=20), jitter=0)
    assert waits(retry, 6) == [1_000, 3_000, 9_000, 20_000, 20_000, None]


def test_a_backoff_of_one_waits_the_same_each_time() -> None:
    assert waits(Retry(attempts=4, wait=timedelta(seconds=2), backoff=1, jitter=0), 3) == [2_000] * 3


def test_jitter_only_lengthens_and_is_the_same_for_the_same_attempt() -> None:
    retry = Retry(attempts=50, wait=1, backoff=1, jitter=0.5)
    first = waits(retry, 49)
    assert all(wait is not None and 1_000 <= wait <= 1_500 for wait in first)
    assert len(set(first)) > 10
    assert waits(retry, 49) == first
    assert waits(retry, 49, key="other") != first


def test_a_thousand_attempts_do_not_overflow() -> None:
    assert waits(Retry(attempts=2_000, jitter=0), 1_999)[-1] == 3_600_000


def test_one_attempt_is_never_followed_by_another() -> None:
    assert waits(Retry(attempts=1), 1) == [None]


@pytest.mark.parametrize(
    "bad",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 2.5},
        {"wait": -1},
        {"wait": float("nan")},
        {"wait": timedelta(seconds=-1)},
        {"backoff": 0.5},
        {"backoff": float("nan")},
        {"backoff": float("inf")},
        {"max_wait": -1},
        {"max_wait": float("inf")},
        {"jitter": -0.1},
        {"jitter": float("nan")},
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Retry(**bad)


@pytest.mark.parametrize("which", ["delay", "timeout"])
@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), timedelta(days=-1)])
def test_a_steps_duration_that_makes_no_sense_is_refused(which: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=which):
        step(**{which: bad})


def test_the_default_is_one_attempt(database: Path) -> None:
    failures_left["once"] = 1
    with Persistasaurus(database) as app, pytest.raises(Busy):
        app.run(calls_once)
    assert len(ran) == 1


@step
def once() -> str:
    return attempt("once")


@flow
def calls_once() -> str:
    return once()
