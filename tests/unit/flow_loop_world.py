"""What stands around a flow's event loop in its tests: timers in virtual time, and a plain loop beside it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from persistasaurus._engine.loop import FlowLoop
from persistasaurus._engine.loop_order import FlowTask


class World:
    """Fires a flow's timers in order, one at a time, and notes what the flow asked for."""

    def __init__(self, now: float = 0.0) -> None:
        self.started: list[float] = []
        self.cancelled: list[int] = []
        self.fired: list[tuple[float, int]] = []
        self.loop = FlowLoop(self, now=now)
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def start_timer(self, delay: float, fire: Callable[[], None]) -> int:
        number = len(self.started)
        self.started.append(delay)
        heapq.heappush(self._due, (self.loop.time() + delay, number, fire))
        return number

    def cancel_timer(self, number: int) -> None:
        assert number not in self.cancelled
        self.cancelled.append(number)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> FlowTask:
        task = self.loop.start(coroutine, context=copy_context(), name="main")
        self.loop.drain()
        return task

    def fire_next(self) -> bool:
        """Deliver the next timer; False where there is none."""
        while self._due:
            due, number, fire = heapq.heappop(self._due)
            if number not in self.cancelled:
                self.fired.append((due, number))
                self.loop.drain(self._fire(due, fire))
                return True
        return False

    def _fire(self, due: float, fire: Callable[[], None]) -> Iterator[float]:
        fire()
        yield due

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a flow to its end."""
        task = self.start(coroutine)
        try:
            while not task.done():
                if not self.fire_next():
                    raise Stuck
            return task.result()
        finally:
            self.loop.abandon()


class Replay:
    """Shows a program the timers that fired in another world, in the same order."""

    def __init__(self, fired: list[tuple[float, int]]) -> None:
        self.started: list[float] = []
        self.cancelled: list[int] = []
        self.loop = FlowLoop(self, now=0.0)
        self._fired = fired
        self._fires: list[Callable[[], None]] = []

    def start_timer(self, delay: float, fire: Callable[[], None]) -> int:
        self.started.append(delay)
        self._fires.append(fire)
        return len(self.started) - 1

    def cancel_timer(self, number: int) -> None:
        self.cancelled.append(number)

    def run(self, coroutine: Coroutine[Any, Any, Any], *, at_once: int) -> Any:
        """Run a program: the first events in one go, as a replay is, and the rest one at a time.

        Raises:
            Stuck: it has not ended with what was recorded.
        """
        task = self.loop.start(coroutine, context=copy_context(), name="main")
        self.loop.drain()
        self.loop.drain(self._deliver(self._fired[:at_once]))
        for event in self._fired[at_once:]:
            self.loop.drain(self._deliver([event]))
        try:
            if not task.done():
                raise Stuck
            return task.result()
        finally:
            self.loop.abandon()

    def _deliver(self, events: list[tuple[float, int]]) -> Iterator[float]:
        for due, number in events:
            self._fires[number]()
            yield due


class Stuck(Exception):
    """Nothing is left that could bring the program on."""


def run_plainly(coroutine: Coroutine[Any, Any, Any], *, numbered: bool = True) -> Any:
    """Run the same on asyncio's own loop, with a clock that jumps to the next timer.

    `numbered` gives its tasks the same place in a set in every run, so that two runs can be compared.

    Raises:
        Stuck: the program waits for nothing that can come.
    """
    loop = _VirtualLoop()
    if numbered:
        loop.set_task_factory(_NumberedTask)
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.ended = True
        while pending := asyncio.all_tasks(loop):
            for task in pending:
                task.cancel()
            with suppress(Stuck):
                loop.run_until_complete(asyncio.wait(pending))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _NumberedTask(asyncio.Task[Any]):
    def __init__(self, loop: _VirtualLoop, coroutine: Any, **options: Any) -> None:
        loop.tasks += 1
        self._number = loop.tasks
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class _VirtualLoop(asyncio.SelectorEventLoop):
    tasks = 0
    ended = False
    """Whether what runs now is no more than the program's clean-up."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        poll = self._selector.select

        def select(timeout: float | None) -> Any:
            if timeout is None:
                raise Stuck
            self._virtual += timeout
            return poll(0)

        self._selector.select = select

    def time(self) -> float:
        return self._virtual
