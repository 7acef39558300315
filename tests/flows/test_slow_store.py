"""A store that is slower than the waits of the flows on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from persistasaurus import Persistasaurus, Retry, current, flow, step
from tests import postgres
from tests.flows.kit import sql

TWELVE = Retry(attempts=12, wait=0.01, backoff=1, jitter=0)
IDLY = Retry(attempts=12, wait=0.04, backoff=1, jitter=0)  # long enough for the flow to be written as idle
EARLY: list[tuple[int, int, int]] = []
PLACE: list[Path | str] = []


def look_before_failing() -> int:
    """Note an attempt that began before what has to be durable by then.

    That is the failure of the one before it, and that the flow runs: else its crash would not be counted.
    """
    here = current()
    found = sql(
        PLACE[0],
        "SELECT attempts, step.due_at_ms, idle FROM step JOIN flow USING (flow_key) "
        "WHERE flow_id = ? AND step = ?",
        *(here.flow_id, here.step),
    )
    recorded, due, idle = found[0] if found else (0, 0, 0)
    if idle or recorded < here.attempt - 1 or (recorded == here.attempt - 1 and due is None):
        EARLY.append((here.attempt, recorded, idle))
    if here.attempt < 12:
        raise TimeoutError
    return here.attempt


@step(retry=TWELVE)
def looks() -> int:
    return look_before_failing()


@step(retry=TWELVE)
async def looks_async() -> int:
    return look_before_failing()


@step(retry=IDLY)
def looks_idly() -> int:
    return look_before_failing()


@step(retry=IDLY)
async def looks_idly_async() -> int:
    return look_before_failing()


@flow
def retries() -> list[int]:
    return [looks(), looks_idly()]


@flow
async def retries_async() -> list[int]:
    first = await asyncio.gather(looks_async(), looks.submit())
    # Several at once: the flow is idle for all of them, and each may be the first that is due.
    return [*first, *await asyncio.gather(*[looks_idly_async() for _ in range(3)])]


@contextmanager
def busy(database: Path | str) -> Iterator[None]:
    """Hold the lock that writes need for longer than a wait between attempts, again and again."""
    over = threading.Event()
    other: Any
    if postgres.is_url(str(database)):
        other, begin = postgres.connected(str(database)), "BEGIN; LOCK TABLE step IN EXCLUSIVE MODE"
    else:
        other, begin = apsw.Connection(str(database)), "BEGIN IMMEDIATE"
        other.set_busy_timeout(5_000)

    def hold() -> None:
        with closing(other):
            while not over.wait(0.005):
                other.execute(begin)
                time.sleep(0.03)
                other.execute("COMMIT")

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.real_time
def test_no_attempt_begins_before_the_failure_of_the_last_one_is_durable(database: Path | str) -> None:
    """A wait of 10 ms is over while the failure is still on its way to a busy store."""
    PLACE[:], EARLY[:] = [database], []
    with Persistasaurus(database) as app:
        app.run(retries)  # the tables are there
        with busy(database):
            kinds = [retries, retries_async]
            handles = [app.start(kinds[number % 2]) for number in range(6)]
            results = [handle.result() for handle in handles]

    assert results == [[12] * 2, [12] * 5] * 3
    assert EARLY == []
