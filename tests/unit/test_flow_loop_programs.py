"""Random programs of tasks, locks, queues, timeouts and cancels run as on asyncio's own loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import warnings
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.flow_loop_world import Replay, Stuck, World, run_plainly

Body = list[tuple[Any, ...]]

TIMERS = 15
"""Timers of 1, 2, 4... seconds: no two sums of them are equal, so that no two timers are due at once."""

indices = st.integers(0, 2)
simple = st.one_of(
    st.tuples(st.just("sleep")),
    st.tuples(st.just("turn")),
    st.tuples(st.just("fail")),
    st.tuples(st.sampled_from(["set", "clear", "await_event", "put", "get"]), indices),
    st.tuples(st.sampled_from(["join", "cancel", "shield"]), st.integers(0, 5)),
)
bodies = st.recursive(
    st.lists(simple, max_size=4),
    lambda body: st.lists(
        st.one_of(
            simple,
            st.tuples(
                st.sampled_from(["spawn", "timeout", "wait_for", "catch", "finally", "generate"]), body
            ),
            st.tuples(st.sampled_from(["lock", "semaphore", "notify", "await_condition"]), indices, body),
            st.tuples(st.just("gather"), st.lists(body, max_size=3), st.booleans()),
            st.tuples(
                st.sampled_from(["group", "wait_first", "wait_all", "completed"]), st.lists(body, max_size=3)
            ),
        ),
        max_size=5,
    ),
    max_leaves=12,
)


class Program:
    """Runs a body and notes what happens, when."""

    def __init__(self, body: Body, seconds: list[int]) -> None:
        self.log: list[tuple[Any, ...]] = []
        self._body = body
        self._seconds = iter(seconds)
        self._names = itertools.count()
        self._tasks: list[asyncio.Task[Any]] = []

    async def main(self) -> None:
        self._events = [asyncio.Event() for _ in range(3)]
        self._queues: list[asyncio.Queue[str]] = [asyncio.Queue(maxsize=n) for n in (0, 1, 2)]
        self._locks = [asyncio.Lock() for _ in range(3)]
        self._semaphores = [asyncio.Semaphore(n) for n in (1, 2, 3)]
        self._conditions = [asyncio.Condition() for _ in range(3)]
        await self._catch(self._body)
        # The list grows while it is read. A flow's loop runs what is ready after the main task's end, too.
        for task in self._tasks:
            await asyncio.wait([task])

    async def _run(self, body: Body) -> str:
        name = f"body {next(self._names)}"
        self._note(name, "starts")
        try:
            for kind, *arguments in body:
                self._note(name, kind)
                await getattr(self, f"_{kind}")(*arguments)
        except (Exception, asyncio.CancelledError) as error:
            self._note(name, type(error).__name__)
            raise
        self._note(name, "ends")
        return name

    def _note(self, *what: Any) -> None:
        loop = asyncio.get_running_loop()
        if not getattr(loop, "ended", False):
            self.log.append((*what, loop.time()))

    def _children(self, bodies: list[Body]) -> list[asyncio.Task[Any]]:
        tasks = [asyncio.create_task(self._run(body)) for body in bodies]
        self._tasks += tasks
        return tasks

    def _next(self) -> float:
        return next(self._seconds, 0)

    async def _sleep(self) -> None:
        await asyncio.sleep(self._next())

    async def _turn(self) -> None:
        await asyncio.sleep(0)

    async def _fail(self) -> None:
        raise ValueError

    async def _set(self, index: int) -> None:
        self._events[index].set()

    async def _clear(self, index: int) -> None:
        self._events[index].clear()

    async def _await_event(self, index: int) -> None:
        await self._events[index].wait()

    async def _put(self, index: int) -> None:
        await self._queues[index].put(f"item {next(self._names)}")

    async def _get(self, index: int) -> None:
        self._note(await self._queues[index].get())

    async def _join(self, index: int) -> None:
        if self._tasks:
            await asyncio.wait([self._tasks[index % len(self._tasks)]])

    async def _cancel(self, index: int) -> None:
        if self._tasks:
            self._tasks[index % len(self._tasks)].cancel()

    async def _shield(self, index: int) -> None:
        if self._tasks:
            await asyncio.shield(self._tasks[index % len(self._tasks)])

    async def _spawn(self, body: Body) -> None:
        self._children([body])

    async def _timeout(self, body: Body) -> None:
        async with asyncio.timeout(self._next() or None):
            await self._run(body)

    async def _wait_for(self, body: Body) -> None:
        await asyncio.wait_for(self._run(body), self._next() or None)

    async def _catch(self, body: Body) -> None:
        try:
            await self._run(body)
        except (Exception, asyncio.CancelledError) as error:
            self._note("caught", type(error).__name__)

    async def _finally(self, body: Body) -> None:
        try:
            await self._run(body)
        finally:
            await asyncio.sleep(self._next())

    async def _generate(self, body: Body) -> None:
        async def items() -> Any:
            for part in body:
                await self._run([part])
                yield len(body)

        async for item in items():
            self._note("item", item)

    async def _lock(self, index: int, body: Body) -> None:
        async with self._locks[index]:
            await self._run(body)

    async def _semaphore(self, index: int, body: Body) -> None:
        async with self._semaphores[index]:
            await self._run(body)

    async def _notify(self, index: int, body: Body) -> None:
        async with self._conditions[index]:
            await self._run(body)
            self._conditions[index].notify_all()

    async def _await_condition(self, index: int, body: Body) -> None:
        async with self._conditions[index]:
            await self._conditions[index].wait()
            await self._run(body)

    async def _gather(self, bodies: list[Body], exceptions: bool) -> None:
        came = await asyncio.gather(*self._children(bodies), return_exceptions=exceptions)
        self._note(*map(repr, came))

    async def _group(self, bodies: list[Body]) -> None:
        async with asyncio.TaskGroup() as group:
            for body in bodies:
                self._tasks.append(group.create_task(self._run(body)))

    async def _wait_first(self, bodies: list[Body]) -> None:
        await self._wait(bodies, asyncio.FIRST_COMPLETED)

    async def _wait_all(self, bodies: list[Body]) -> None:
        await self._wait(bodies, asyncio.ALL_COMPLETED)

    async def _wait(self, bodies: list[Body], until: str) -> None:
        tasks = self._children(bodies)
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=self._next() or None, return_when=until)
            self._note([tasks.index(task) for task in done])

    async def _completed(self, bodies: list[Body]) -> None:
        # Tasks, because asyncio starts coroutines by their addresses.
        awaitables: Iterator[Awaitable[str]] = asyncio.as_completed(self._children(bodies))
        for one in awaitables:
            self._note(await one)


def _outcome(run: Any, body: Body, seconds: list[int]) -> tuple[list[tuple[Any, ...]], str]:
    program = Program(body, seconds)
    try:
        run(program.main())
        end = "ended"
    except (Stuck, Exception, asyncio.CancelledError) as error:
        end = type(error).__name__
    return program.log, end


@pytest.fixture(autouse=True)
def _nothing_logged() -> Iterator[None]:
    """Failures that nobody looks at are part of the programs."""
    loggers = [logging.getLogger("asyncio"), logging.getLogger("persistasaurus.flow")]
    for logger in loggers:
        logger.disabled = True
    yield
    gc.collect()
    for logger in loggers:
        logger.disabled = False


orders_of_timers = st.permutations([2**n for n in range(TIMERS)])


@settings(max_examples=200)
@given(bodies, orders_of_timers)
def test_a_random_program_takes_the_same_turns_as_on_asyncios_own_loop(
    body: Body, seconds: list[int]
) -> None:
    """Everything that happens, in order, with its time; also where the program hangs."""
    assert _outcome(World().run, body, seconds) == _outcome(run_plainly, body, seconds)


@settings(max_examples=150)
@given(bodies, orders_of_timers, st.integers(0, 15))
def test_a_random_program_takes_the_same_turns_on_replay(
    body: Body, seconds: list[int], at_once: int
) -> None:
    """It asks for the same timers and sees the same, however many events it is shown at once."""
    world = World()
    live = _outcome(world.run, body, seconds)
    replay = Replay(world.fired)

    again = _outcome(lambda coroutine: replay.run(coroutine, at_once=at_once), body, seconds)

    assert again == live
    assert (replay.started, replay.cancelled) == (world.started, world.cancelled)


@settings(max_examples=200)
@given(bodies, orders_of_timers, st.integers(0, 6))
@example([("generate", [("timeout", [("sleep",)])])], [2, 1], 1)
def test_a_random_program_can_be_dropped_at_any_event(body: Body, seconds: list[int], events: int) -> None:
    """Without a warning, without a report, without cancelling a timer or asking for one."""
    world = World()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = world.start(Program(body, seconds).main())
        for _ in range(events):
            world.fire_next()
        asked = len(world.started), list(world.cancelled)
        reported = len(world.loop.unhandled)
        ended = task.done()
        world.loop.abandon()
        gc.collect(1)

    assert (len(world.started), world.cancelled) == asked
    assert ended or len(world.loop.unhandled) == reported
