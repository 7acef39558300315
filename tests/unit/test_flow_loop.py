"""The event loop of a flow runs asyncio's own primitives as asyncio's own loop does, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import pytest

from tests.unit.flow_loop_world import World, run_plainly

Program = Callable[[], Coroutine[Any, Any, Any]]


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _later(delay: float, result: object = None) -> object:
    await asyncio.sleep(delay)
    if isinstance(result, Exception):
        raise result
    return result


async def gather() -> object:
    ok = await asyncio.gather(_later(3, "a"), _later(1, "b"), _later(2, "c"))
    mixed = await asyncio.gather(_later(1, "a"), _later(2, ValueError("b")), return_exceptions=True)
    return ok, [repr(one) for one in mixed], _now()


async def task_group() -> object:
    seen = []

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(number)
            if number == 3:
                raise ValueError(number)
        except asyncio.CancelledError:
            seen.append(number)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for number in (5, 3, 9, 1):
                group.create_task(child(number))
    except* ValueError as caught:
        failed = str(caught.exceptions)
    # asyncio cancels the rest of a group in another order in every process.
    return sorted(seen), failed, _now()


async def timeout() -> object:
    seen = []
    try:
        async with asyncio.timeout(5) as limit:
            await asyncio.sleep(86_400)
    except TimeoutError:
        seen.append(limit.expired())
    async with asyncio.timeout(5) as limit:
        limit.reschedule(_now() + 50)
        await asyncio.sleep(40)
    with suppress(TimeoutError):
        async with asyncio.timeout_at(_now() - 1):
            await asyncio.sleep(1)
            seen.append("never")
    return seen, _now()


async def wait() -> object:
    tasks = [asyncio.create_task(_later(n, n), name=f"n{n}") for n in (4, 2, 6)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    first = sorted(task.get_name() for task in done), sorted(task.get_name() for task in pending)
    done, pending = await asyncio.wait(pending, timeout=3)
    for task in pending:
        task.cancel()
    return first, len(done), len(pending), _now()


async def wait_for() -> object:
    seen = [await asyncio.wait_for(_later(1, "in time"), 2)]
    for limit in (1, 0):
        try:
            await asyncio.wait_for(_later(3), limit)
        except TimeoutError:
            seen.append("late")
    return seen, _now()


async def shield() -> object:
    inner = asyncio.create_task(_later(5, "done"))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(inner), 1)
    return inner.cancelled(), await inner, _now()


async def as_completed() -> object:
    seen = [await one for one in asyncio.as_completed([_later(n, n) for n in (3, 1, 2)])]
    try:
        for one in asyncio.as_completed([_later(1, 1), _later(9)], timeout=4):
            seen.append(await one)
    except TimeoutError:
        seen.append("late")
    return seen, _now()


async def queue() -> object:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    urgent: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
    seen = []

    async def consume() -> None:
        while True:
            seen.append(await queue.get())
            await asyncio.sleep(1)
            queue.task_done()

    consumer = asyncio.create_task(consume())
    for number in range(5):
        await queue.put(number)
        urgent.put_nowait(-number)
    await queue.join()
    consumer.cancel()
    return seen, [await urgent.get() for _ in range(5)], _now()


async def event_and_locks() -> object:
    event, lock, condition = asyncio.Event(), asyncio.Lock(), asyncio.Condition()
    few = asyncio.Semaphore(2)
    seen = []

    async def worker(name: str) -> None:
        await event.wait()
        async with few, lock:
            seen.append((name, _now()))
            await asyncio.sleep(1)
        async with condition:
            condition.notify(1)

    async def watcher() -> None:
        async with condition:
            await condition.wait_for(lambda: len(seen) == 4)
        seen.append(("watcher", _now()))

    asyncio.get_running_loop().call_later(2, event.set)
    await asyncio.gather(*map(worker, "abcd"), watcher())
    return seen


async def barrier() -> object:
    barrier = asyncio.Barrier(3)

    async def come(delay: float) -> tuple[int, float]:
        await asyncio.sleep(delay)
        return await barrier.wait(), _now()

    return await asyncio.gather(come(3), come(1), come(2))


async def cancelling() -> object:
    seen = []

    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            seen.append(error.args)
            await asyncio.sleep(1)
        return "cleaned up"

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel("enough")
    return await task, seen, task.cancelling(), _now()


async def callbacks() -> object:
    loop = asyncio.get_running_loop()
    seen: list[object] = []
    future = loop.create_future()
    future.add_done_callback(lambda _: seen.append("done"))
    loop.call_soon(seen.append, "soon")
    loop.call_soon(seen.append, "never").cancel()
    late = loop.call_later(2, seen.append, "later")
    loop.call_at(loop.time() + 1, seen.append, "at")
    loop.call_later(1.5, seen.append, "never").cancel()
    future.set_result(None)
    await asyncio.sleep(3)
    return seen, late.when(), late.cancelled()


async def async_generator() -> object:
    async def count(limit: int) -> Any:
        try:
            for number in range(limit):
                await asyncio.sleep(1)
                yield number
        finally:
            seen.append("closed")

    seen: list[object] = []
    async for number in count(3):
        seen.append(number)
    async with aclosing(count(9)) as numbers:
        async for number in numbers:
            if number == 1:
                break
    return seen, _now()


PROGRAMS = [
    gather,
    task_group,
    timeout,
    wait,
    wait_for,
    shield,
    as_completed,
    queue,
    event_and_locks,
    barrier,
    cancelling,
    callbacks,
    async_generator,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_ends_as_on_asyncios_own_loop(program: Program) -> None:
    """The same values, the same order, the same time."""
    assert World().run(program()) == run_plainly(program())


def test_the_accelerated_future_and_task_stay_in_use() -> None:
    """The loop's own classes add a hash to asyncio's C classes."""

    async def flow() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        assert isinstance(future, asyncio.Future)
        assert type(future).__mro__[1].__module__ == "_asyncio"
        assert type(asyncio.current_task()).__mro__[1].__module__ == "_asyncio"

    World().run(flow())


def test_a_task_is_named_by_its_number_among_the_flows_tasks() -> None:
    """asyncio counts the tasks of the whole process, which no replay could repeat."""

    async def flow() -> list[str]:
        asyncio.get_running_loop().create_future()
        tasks = [asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.sleep(0), name="own")]
        await asyncio.wait(tasks)
        return [asyncio.current_task().get_name(), *(task.get_name() for task in tasks)]

    assert World().run(flow()) == World().run(flow()) == ["main", "Task-2", "own"]
