"""What stands around a flow's event loop in its tests: timers in virtual time, and a plain loop beside it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from persistasaurus._engine.loop import FlowLoop
from persistasaurus._engine.loop_order import FlowTask


class World:
    """Fires a flow's timers in order, one at a time, and notes what the flow asked for."""

    def __init__(self, now: float = 0.0) -> None:
        self.started: list[float] = []
        self.cancelled: list[int] = []
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
                self.loop.advance_to(due)
                fire()
                self.loop.drain()
                return True
        return False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a flow to its end."""
        task = self.start(coroutine)
        try:
            while not task.done():
                assert self.fire_next(), "the flow waits for nothing that can come"
            return task.result()
        finally:
            self.loop.abandon()


def run_plainly(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run the same on asyncio's own loop, with a clock that jumps to the next timer."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(coroutine)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        poll = self._selector.select

        def select(timeout: float | None) -> Any:
            self._virtual += timeout or 0.0
            return poll(0)

        self._selector.select = select

    def time(self) -> float:
        return self._virtual
