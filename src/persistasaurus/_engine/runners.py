"""Runs the attempts of async steps on the host's loop: one that never suspends costs no task of its own.

A task serves the attempts that are ready, one after the other, each in its own context, until one of them
suspends. From then on it is that attempt's task alone, and another one serves the rest. So whatever a step
asks of its task (`asyncio.timeout`, `TaskGroup`, a cancel) is asked of one that nobody else uses meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from persistasaurus._engine.scope import StepScope, scope

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run

# The constructor of a named tuple is a function of Python's, which every step would call.
_step_scope: Callable[[tuple[str, int, int]], StepScope] = partial(getattr(tuple, "__new__"), StepScope)  # noqa: B009 - unknown to typeshed

TURN_S = 0.005
"""How long attempts that never suspend may hold the host's loop before others have their turn."""


class Runners:
    """The tasks of async steps. It belongs to the host's thread.

    `begin` makes the coroutine of an attempt, which runs in the given context, None where it may not run now;
    `end` records what it returned, `fail` what it raised.
    """

    def __init__(
        self,
        begin: Callable[[Run, Operation, contextvars.Context], Coroutine[Any, Any, Any] | None],
        end: Callable[[Run, Operation, Any], None],
        fail: Callable[[Run, Operation, BaseException], None],
    ) -> None:
        self._begin = begin
        self._end = end
        self._fail = fail
        self._ready: deque[tuple[Run, Operation, contextvars.Context]] = deque()
        self._server: asyncio.Task[None] | None = None

    def submit(self, host: asyncio.AbstractEventLoop, run: Run, operation: Operation) -> None:
        """Run an attempt soon, in a copy of the caller's context."""
        context = contextvars.copy_context()
        context.run(scope.set, _step_scope((run.flow_id, operation.number, operation.attempt)))
        self._ready.append((run, operation, context))
        if self._server is None:
            self._serve(host)

    def _serve(self, host: asyncio.AbstractEventLoop) -> None:
        # Not host.create_task: an eager task factory would run the step right here, inside the flow's loop.
        self._server = asyncio.Task(self._work(), loop=host, context=contextvars.Context())
        self._server.add_done_callback(self._served)

    def _served(self, server: asyncio.Task[None]) -> None:
        """Go on with what is ready, whatever ended the task that served it."""
        if self._server is server:
            self._leave(server)

    def _leave(self, server: asyncio.Task[None]) -> None:
        self._server = None
        if self._ready:
            self._serve(server.get_loop())

    async def _work(self) -> None:
        await self._attempts()

    @types.coroutine
    def _attempts(self) -> Generator[Any, Any, None]:
        server: Any = asyncio.current_task()
        ready, begin = self._ready, self._begin
        until = time.monotonic() + TURN_S
        ours = sys.getrefcount(server)
        # A step may have cancelled its task, or kept it and cancel it yet: no other step may feel that.
        # Up to 3.12 a cancel that was taken back is not forgotten.
        while (
            ready and not server.cancelling() and not server._must_cancel and sys.getrefcount(server) <= ours
        ):
            run, operation, context = ready.popleft()
            coroutine = begin(run, operation, context)
            if coroutine is None:
                continue
            try:
                awaited = context.run(coroutine.send, None)
            except StopIteration as ended:
                context.run(self._end, run, operation, ended.value)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a user's failure becomes data
                context.run(self._fail, run, operation, error)
            else:
                operation.task = server
                self._leave(server)
                yield from self._see_through(run, operation, context, _go_on(coroutine, context, awaited))
                return
            if time.monotonic() > until:
                yield
                until = time.monotonic() + TURN_S

    def _see_through(
        self, run: Run, operation: Operation, context: contextvars.Context, rest: Generator[Any, Any, Any]
    ) -> Generator[Any, Any, None]:
        """Wait for an attempt that has suspended, and record how it ends."""
        try:
            value = yield from rest
        except (KeyboardInterrupt, _Closed):
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            context.run(self._fail, run, operation, error)
        else:
            context.run(self._end, run, operation, value)


class _Closed(GeneratorExit):
    """The task is being closed, not the step that says so."""


def _go_on(
    coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, awaited: Any
) -> Generator[Any, Any, Any]:
    """Drive a coroutine that has suspended to its end, as `await` would, but in its own context."""
    while True:
        try:
            try:
                answer = yield awaited
            except GeneratorExit:
                context.run(coroutine.close)
                raise _Closed from None
            except BaseException as error:  # noqa: BLE001 - a cancel, mostly; it is the step's to handle
                awaited = context.run(coroutine.throw, error)
            else:
                awaited = context.run(coroutine.send, answer)
        except StopIteration as ended:
            return ended.value
