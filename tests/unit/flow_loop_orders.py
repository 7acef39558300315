"""A program that prints in which order asyncio's sets come out: `python flow_loop_orders.py flow 17`.

The first argument says on which loop, the second is a seed that mixes the free memory, so that new objects
lie elsewhere in every process.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from asyncio import as_completed  # before the library is imported, as in user code
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.unit.flow_loop_world import World, run_plainly


async def _nothing(*_: object) -> None:
    pass


async def _ask(asked: list[int], number: int, delay: float = 0) -> int:
    asked.append(number)
    await asyncio.sleep(delay)
    return number


class _Deferred:
    """An awaitable that is no coroutine."""

    def __init__(self, asked: list[int], number: int) -> None:
        self._call = (asked, number)

    def __await__(self) -> Any:
        return _ask(*self._call).__await__()


async def waited() -> list[list[str]]:
    """Tasks in the sets that `wait` returns."""
    tasks = {asyncio.create_task(asyncio.sleep(n % 2 * 9), name=str(n)) for n in range(20)}
    sets = await asyncio.wait(tasks, timeout=1)
    return [[task.get_name() for task in tasks] for tasks in sets]


async def waited_gatherings() -> list[Any]:
    """The futures of `gather` in a set with others."""
    both = [asyncio.gather(asyncio.sleep(0, n)) for n in range(9)]
    done, _ = await asyncio.wait([*both, asyncio.ensure_future(asyncio.sleep(0, ["task"]))])
    return [future.result() for future in done]


async def waited_futures() -> list[int]:
    """Bare futures of the loop."""
    futures = [asyncio.get_running_loop().create_future() for _ in range(9)]
    for number, future in enumerate(futures):
        future.set_result(number)
    done, _ = await asyncio.wait(futures)
    return [future.result() for future in done]


async def cancelled_group() -> list[int]:
    """The tasks that a failing group cancels."""
    order = []

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(9)
        finally:
            order.append(number)

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(child(number))
            await asyncio.sleep(1)
            raise ValueError
    return order


async def _completed(give: Callable[[list[Any]], Any], make: Callable[..., Any]) -> list[Any]:
    asked: list[int] = []
    given = give([make(asked, number) for number in range(12)])
    came = [await one for one in as_completed(given)]
    names = [asyncio.current_task().get_name()]
    return [asked, came, names]


async def completed_list() -> list[Any]:
    """Coroutines in a list."""
    return await _completed(list, _ask)


async def completed_tuple() -> list[Any]:
    """Coroutines in a tuple."""
    return await _completed(tuple, _ask)


async def completed_values() -> list[Any]:
    """Coroutines among the values of a dict."""
    return await _completed(lambda given: dict(enumerate(given)).values(), _ask)


async def completed_awaitables() -> list[Any]:
    """Objects that can be awaited and are no coroutines."""
    return await _completed(list, _Deferred)


async def _finished() -> list[asyncio.Task[int]]:
    tasks = []
    for number in range(12):
        tasks.append(asyncio.create_task(_ask([], number)))
        # Numbers that lie apart meet in the small table of a set.
        for _ in range(number % 5):
            asyncio.get_running_loop().create_future()
    await asyncio.sleep(1)
    return tasks


async def completed_task_set() -> list[int]:
    """Finished tasks in a set."""
    return [await one for one in as_completed(set(await _finished()))]


async def completed_task_generator() -> list[int]:
    """Finished tasks from a generator."""
    return [await one for one in as_completed(iter(await _finished()))]


async def completed_mixture() -> list[Any]:
    """Coroutines, running tasks and one that has finished, some of them twice."""
    asked: list[int] = []
    tasks = [asyncio.ensure_future(_ask(asked, n, n)) for n in (0, 1, 2)]
    await asyncio.sleep(0.5)
    rest = [_ask(asked, n, n / 10) for n in (7, 5, 6, 3, 4)]
    came = [await one for one in as_completed([rest[0], *tasks, *rest, tasks[2]], timeout=1.7)]
    return [asked, came]


async def completed_nested() -> list[Any]:
    """One as_completed inside another, and the one after it."""
    asked: list[int] = []

    async def inner(base: int) -> list[int]:
        return [await one for one in as_completed([_ask(asked, base + n) for n in range(5)])]

    return [[await one for one in as_completed([inner(10), inner(20), inner(30)])] for _ in range(2)] + asked


SCENES = {
    function.__name__: function
    for function in (
        waited,
        waited_gatherings,
        waited_futures,
        cancelled_group,
        completed_list,
        completed_tuple,
        completed_values,
        completed_awaitables,
        completed_task_set,
        completed_task_generator,
        completed_mixture,
        completed_nested,
    )
}


def _mix_memory(seed: int) -> list[Any]:
    """Leave holes in the memory where futures, tasks and coroutines go, those of flows and others."""
    chance = random.Random(seed)
    plain, flow = asyncio.new_event_loop(), World().loop
    filler: list[Any] = []
    for _ in range(2000):
        for loop in (plain, flow):
            filler += [loop.create_future(), loop.create_task(_nothing())]
        coroutine = _ask([], 0)
        coroutine.close()
        filler.append(coroutine)
    plain.run_until_complete(asyncio.sleep(0))
    plain.close()
    flow.drain()
    flow.abandon()
    chance.shuffle(filler)
    kept = filler[:5000]
    while len(filler) > 5000:
        filler.pop()
    return kept


if __name__ == "__main__":
    run = {
        "flow": lambda program: World().run(program),
        "plain": lambda program: run_plainly(program, numbered=False),
    }[sys.argv[1]]
    held = _mix_memory(int(sys.argv[2]))
    print(json.dumps({name: run(program()) for name, program in SCENES.items()}))
