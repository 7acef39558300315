"""A retried flow gets back what it had dropped, and so do its children; what it drops again stays dropped."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowCancelled, FlowStatus, Persistasaurus, StoreError, flow, sleep, step
from persistasaurus._engine import thread
from tests.flows.kit import eventually, ran, start, until_status

broken = [True]


@step
async def family_flaky() -> int:
    if broken:
        raise OSError("not yet")
    return 1


@step
async def family_slow() -> int:
    await asyncio.sleep(0 if broken else 20)
    return await family_flaky()


@step(delay=timedelta(seconds=0.5))
async def family_delayed() -> None:
    ran.append(str(time.monotonic()))


@flow
async def family_sleeps() -> int:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(family_flaky())
        group.create_task(asyncio.sleep(0.3))
    return task.result()


@flow
async def family_limited() -> str:
    try:
        async with asyncio.timeout(0.3):
            return f"ended: {await family_slow()}"
    except TimeoutError:
        return "late"


@flow
async def family_delays() -> int:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(family_flaky())
        group.create_task(family_delayed())
    return task.result()


@pytest.mark.parametrize(
    "family, result", [(family_sleeps, 1), (family_limited, "late"), (family_delays, 1)], ids=str
)
def test_a_retried_flow_waits_again_for_what_its_failure_had_dropped(
    database: Path, family: Any, result: Any
) -> None:
    """A sleep, a limit, a delay: dropped, they were due at no time."""
    broken[:] = [True]
    with Persistasaurus(database) as app:
        handle = start(app, family, "f")
        until_status(handle, FlowStatus.FAILED)
        broken.clear()
        before = time.monotonic()
        handle.retry()
        assert handle.result(10) == result
    assert all(float(at) - before >= 0.49 for at in ran)
    assert len(ran) == (family is family_delays)


@flow
async def family_failing_child() -> int:
    await asyncio.sleep(0.1)
    return await family_flaky()


@step
async def family_clean() -> None:
    await asyncio.sleep(0.3)


@flow
async def family_cleaning_child() -> int:
    try:
        await asyncio.sleep(0.3)
    except asyncio.CancelledError:
        await family_clean()
        raise
    return 5


@flow
async def family_parent() -> int:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(family_failing_child())
        second = group.create_task(family_cleaning_child())
    return first.result() + second.result()


def test_a_parent_that_failed_of_a_cancelled_child_can_be_retried(database: Path) -> None:
    """Retried at once it fails of the sibling that is still being cancelled; retried again it goes on."""
    broken[:] = [True]
    with Persistasaurus(database) as app:
        handle = start(app, family_parent, "f")
        until_status(handle, FlowStatus.FAILED)
        broken.clear()
        for _ in range(4):
            handle.retry()
            eventually(lambda: handle.status().ended)
            if handle.status() == FlowStatus.COMPLETE:
                break
            until_status(app.handle("f/2"), FlowStatus.CANCELLED)
        assert handle.result(1) == 6


@step
async def family_counts(number: int) -> int:
    ran.append(f"{number}")
    await asyncio.sleep(0.03)
    return number


@flow
async def family_long_child() -> int:
    return sum([await family_counts(number) for number in range(1_000)])


@flow
async def family_gives_up() -> int:
    try:
        async with asyncio.timeout(0.2):
            await family_long_child()
    except TimeoutError:
        pass
    result = await family_flaky()
    await asyncio.sleep(0.5)
    return result


def test_a_child_that_was_given_up_stays_so_when_its_parent_is_retried(database: Path) -> None:
    broken[:] = [True]
    with Persistasaurus(database) as app:
        handle = start(app, family_gives_up, "f")
        until_status(handle, FlowStatus.FAILED)
        until_status(app.handle("f/2"), FlowStatus.CANCELLED)
        broken.clear()
        handle.retry()
        assert handle.result(10) == 1
        until_status(app.handle("f/2"), FlowStatus.CANCELLED)
        assert len(ran) < 100


def test_a_childs_cancel_is_written_although_the_store_fails_once(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it, so nobody would ask again."""
    broken.clear()
    with Persistasaurus(database) as app:
        store = app._engine_here("a test").store
        real, refused = store.commit, []

        def refuses_once(batch: Any) -> Any:
            if batch.cancels and not refused:
                refused.append(batch)
                raise StoreError("refused by the test")
            return real(batch)

        monkeypatch.setattr(store, "commit", refuses_once)
        handle = start(app, family_gives_up, "f")
        assert handle.result(10) == 1
        until_status(app.handle("f/2"), FlowStatus.CANCELLED)
        assert refused


@flow
def family_sync_child() -> int:
    sleep(3)
    return 1


@flow
def family_sync_parent() -> str:
    child = family_sync_child.submit()
    try:
        sleep(3600)
    except FlowCancelled:
        try:
            return f"the child's result is {child.result()}"
        except FlowCancelled:
            return "the child was cancelled"
    return "the sleep is over"


def test_a_child_is_cancelled_on_replay_where_a_crash_came_before_its_cancel(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Any] = []
    with monkeypatch.context() as patched, Persistasaurus(database, drain=0.1) as app:
        patched.setattr(thread, "cancel_child", lambda *given: lost.append(given))
        handle = start(app, family_sync_parent, "f")
        eventually(lambda: len(handle.steps()) == 2)
        handle.cancel()
        eventually(lambda: lost)
    with Persistasaurus(database) as app:
        assert app.handle("f").result(10) == "the child was cancelled"
