"""The deterministic event loop on which an async flow runs.

    engine: deliver one completion -> FlowLoop.drain() -> the flow has run until it waits again

It has a ready queue and nothing else: no clock, no threads, no I/O, no store. What the flow does between
two deliveries follows from the deliveries alone, in every process. So `gather`, `TaskGroup`, `Queue` and
the rest of asyncio work as they stand, and take the same turns on replay.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from asyncio import events, tasks
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from persistasaurus._engine.loop_end import close_coroutine, close_generator, is_exhausted, leave_unfinished
from persistasaurus._engine.loop_handles import Handle, NoTimers, Nowhere, TimerHandle, Unfinished
from persistasaurus._engine.loop_order import (
    ENSURE_FUTURE,
    GATHERING_INIT,
    WAIT,
    CompletionOrder,
    FlowFuture,
    FlowTask,
    check_awaited,
    find_as_completed,
    number_gathering,
)
from persistasaurus._engine.loop_refusals import refuse_the_rest
from persistasaurus.errors import WrongContextError

if TYPE_CHECKING:
    # Typeshed's base is abstract in the fifty methods that are refused below.
    _Loop = Any
else:
    _Loop = asyncio.AbstractEventLoop

log = logging.getLogger("persistasaurus.flow")

_getframe = sys._getframe
_get_running_loop = events._get_running_loop
_set_running_loop = events._set_running_loop
_get_hooks = sys.get_asyncgen_hooks
_set_hooks = sys.set_asyncgen_hooks

# From 3.14 on a thread has one current task, whatever the loop: the host's would stand in the way.
_ONE_TASK_A_THREAD = sys.version_info >= (3, 14)
_swap_task: Any = getattr(tasks, "_swap_current_task", None)


class TimerPort(Protocol):
    """Where a flow's timers go; the engine makes them durable."""

    def start_timer(self, delay: float, fire: Callable[[], None]) -> int:
        """Have `fire` called once, `delay` seconds after the loop's time, and return the timer's number.

        `delay` is above zero and finite. `fire` only queues the timer's callback: `drain()` follows it.
        """
        ...

    def cancel_timer(self, number: int) -> None:
        """Forget a timer that has not fired; called at most once for each."""
        ...


@refuse_the_rest
class FlowLoop(_Loop):  # type: ignore[misc]  # Any to mypy, see above
    """The event loop of one flow instance in memory. It belongs to the thread that drives the flow.

    `now` and all times are seconds on a clock that only the engine moves. `unhandled` holds what asyncio
    reported to the loop instead of to the flow: failed callbacks, failures that nobody looked at.
    """

    # What most flows never need is not made for them.
    unhandled: Sequence[dict[str, Any]] = ()
    _generators: Unfinished[AsyncGenerator[Any, Any]] | None = None
    _main: FlowTask | None = None
    _completing: CompletionOrder | None = None
    _running = False
    _futures = 0
    _started = 0

    def __init__(self, timers: TimerPort, *, now: float) -> None:
        self._timers = timers
        self._time = now
        self._ready: list[Handle] = []
        # asyncio holds tasks weakly. One that only a cycle holds would be collected, and its `finally` run,
        # whenever the garbage collector comes by. So would an async generator.
        self._tasks: Unfinished[FlowTask] = Unfinished(FlowTask.done)

    # What the engine calls.

    def start(self, coroutine: Coroutine[Any, Any, Any], *, context: Context, name: str) -> FlowTask:
        """Make the flow's main task; `drain()` runs it up to its first wait.

        `context` is the one that every task of the flow copies: it says which flow the code belongs to.
        """
        self._main = self._new_task(coroutine, name, context)
        return self._main

    def drain(self, deliveries: Iterable[float] = (), *, now: float = 0.0) -> None:
        """Run what is ready, and what that makes ready, until the flow waits again; the time is then `now`.

        `deliveries` makes one delivery whenever it is advanced and gives its time, and the flow runs after
        each: a replay saves the way in and out. May be called from a callback or task of another event loop,
        which is the running one again afterwards, or from a thread without one. A callback's exception goes
        to `unhandled`.

        Raises:
            RuntimeError: called from inside the flow.
            KeyboardInterrupt, SystemExit: one came up; what was ready after it is still ready.
        """
        if self._running:
            raise RuntimeError("A flow's event loop was driven from inside the flow. Drive it from outside.")
        host = _get_running_loop()
        host_task = _swap_task(host, None) if _ONE_TASK_A_THREAD and host is not None else None
        firstiter, finalizer = _get_hooks()
        _set_hooks(self._keep_generator, leave_unfinished)
        _set_running_loop(self)
        self._running = True
        try:
            if now > self._time:  # noqa: PLR1730 - max() is a call
                self._time = now
            self._run_ready()
            for at in deliveries:
                if at > self._time:  # noqa: PLR1730 - as above
                    self._time = at
                self._run_ready()
        finally:
            self._completing = None
            self._running = False
            _set_running_loop(host)
            _set_hooks(firstiter, finalizer)
            if host_task is not None:
                _swap_task(host, host_task)

    def abandon(self) -> bool:
        """Drop the flow from memory: close its coroutines in their contexts and run nothing more of it.

        Returns whether all of them had ended before. Closing one runs its `finally` blocks, which nothing
        can prevent. They find a loop that is closed: whatever they ask it for raises `GeneratorExit`, so
        that no step and no timer starts and none is cancelled. Async generators are not finished. Nothing is
        logged, but of a flow that has ended the failures that it did not look at. May be called again.

        Raises:
            RuntimeError: called from inside the flow.
        """
        if not self._running:
            self._ready = []
            if self._started == 1 and self._generators is None and self._tasks.are_finished():
                self._let_go()  # nothing is left to close, of most flows
                self._tasks.clear()
                return True
        self.drain(self._close())
        return False

    # What asyncio and the flow call.

    def time(self) -> float:
        """Return the time of the event that the flow was shown last, in seconds."""
        return self._time

    def is_running(self) -> bool:
        """Whether the flow's code runs right now."""
        return self._running

    def is_closed(self) -> bool:
        """Whether the flow was dropped from memory."""
        return False

    def get_debug(self) -> bool:
        """Return False, always."""
        frame = _getframe(1)
        if frame.f_code is GATHERING_INIT:
            self._futures += 1
            number_gathering(frame, self._futures)
        return False

    def get_task_factory(self) -> None:
        """Return None: tasks are the loop's own."""

    def get_exception_handler(self) -> None:
        """Return None: the loop logs what it is told."""

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Handle:
        """Queue a callback behind what is ready."""
        handle = Handle()
        handle.callback = callback
        handle.args = args
        handle.context = copy_context() if context is None else context
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call back by a durable timer, `delay` seconds from now; at once where that is not above zero."""
        return self._call_at(self._time + delay, delay, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """Call back by a durable timer when the loop's time is `when`; at once where that is past."""
        # To the microsecond: seconds since 1970 have no more digits, and 5 should stay 5.
        delay = round(when - self._time, 6)
        return self._call_at(when, delay, callback, args, context)

    def create_future(self) -> FlowFuture:
        """Return a new future of this loop."""
        future = FlowFuture(loop=self)
        self._futures = future.number = self._futures + 1
        frame = _getframe(1)
        if frame.f_code is WAIT:
            check_awaited(frame)
        return future

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> FlowTask:
        """Return a task that runs the coroutine from its next turn on.

        Raises:
            TypeError: it is no coroutine, or comes from an `as_completed` whose order is not fixed.
            WrongContextError: an eager start was asked for.
        """
        if eager_start:
            coro.close()
            raise WrongContextError(
                "An async flow cannot start a task eagerly: its tasks take their turns in one order, live "
                "and on replay. Leave out eager_start."
            )
        caller = _getframe(1)
        if caller.f_code in ENSURE_FUTURE:
            frame = find_as_completed(caller)
            if frame is not None:
                return self._completed_task(frame, coro)
        return self._new_task(coro, name, context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note and log what went wrong outside of the flow's own reach."""
        self.unhandled = [*self.unhandled, context]
        error = context.get("exception")
        task = context.get("task") or context.get("future")
        log.error(
            "%s (%s)",
            context.get("message") or "A callback of a flow failed",
            task.get_name() if isinstance(task, FlowTask) else "no task",
            exc_info=error if isinstance(error, BaseException) else None,
        )

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Do what `call_exception_handler` does."""
        self.call_exception_handler(context)

    # Private.

    def _new_task(self, coroutine: Any, name: object = None, context: Context | None = None) -> FlowTask:
        number = self._started + 1
        if context is None:
            context = copy_context()
        task = FlowTask(
            coroutine, loop=self, name=f"Task-{number}" if name is None else str(name), context=context
        )
        self._started = task.number = number
        task.context = context
        self._tasks.add(task)
        return task

    def _keep_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._generators is None:
            self._generators = Unfinished(is_exhausted)
        self._generators.add(generator)

    def _completed_task(self, frame: Any, coroutine: Any) -> FlowTask:
        order = self._completing
        if order is None or order.frame is not frame:
            order = self._completing = CompletionOrder(frame, coroutine, self._new_task)
        return order.take(coroutine)

    def _call_at(
        self,
        when: float,
        delay: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> TimerHandle:
        timer = TimerHandle(self, when)
        timer.callback = callback
        timer.args = args
        timer.context = copy_context() if context is None else context
        if delay <= 0:
            self._ready.append(timer)
        elif delay < math.inf:
            timer.number = self._timers.start_timer(delay, timer.fire)
        elif delay != math.inf:
            raise ValueError("A flow was asked to wait for NaN seconds. Give a number.")
        return timer

    def _run_ready(self) -> None:
        while self._ready:
            batch = self._ready
            if len(batch) == 1:
                self._run_handle(batch.pop())
                continue
            self._ready = []
            batch.reverse()
            try:
                while batch:
                    self._run_handle(batch.pop())
            finally:
                if batch:
                    batch.reverse()
                    self._ready[:0] = batch

    def _run_handle(self, handle: Handle) -> None:
        callback = handle.callback
        if callback is None:
            return
        try:
            handle.context.run(callback, *handle.args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio: it never stops the loop
            self._callback_failed(handle, error)

    def _callback_failed(self, handle: Handle, error: BaseException) -> None:
        name = getattr(handle.callback, "__qualname__", type(handle.callback).__qualname__)
        self.call_exception_handler(
            {"message": f"Exception in callback {name}", "exception": error, "handle": handle}
        )

    def _close(self) -> Iterator[float]:
        """Close everything, as the one delivery that a dropped flow still gets."""
        self._let_go()
        context = None
        for task in self._tasks.drop():
            if task.done():
                continue
            context = task.context
            coroutine: Any = task.get_coro()
            close_coroutine(coroutine, context)
            # What waits and what it waits for hold each other, in circles that only the collector would
            # free, and each holds the flow's context. Made anew, a task lets go of both.
            # Without its number it hashes by its address meanwhile: see `FlowTask.__hash__`. Without the
            # flow's context, because CPython never lets go of the old one where a new one is handed in.
            del task.number, task.context
            FlowTask.__init__(task, coroutine, loop=self, name=task.get_name())
        for generator in self._generators.drop() if self._generators is not None else ():
            if context is not None:
                close_generator(generator, context)
        yield self._time

    def _let_go(self) -> None:
        if self._main is not None and self._main.done():
            self._report_failures()
        self.__class__ = _AbandonedLoop
        self._ready = Nowhere()
        self._timers = NoTimers()
        self._main = None

    def _report_failures(self) -> None:
        """Report what failed in a flow that has ended; in one that goes on, someone may yet look at it."""
        for task in self._tasks:
            # What unwinds a stopped flow is nobody's failure: it is parked, and its record says why.
            if task.done() and task._log_traceback and isinstance(error := task.exception(), Exception):
                message = "Task exception was never retrieved"
                self.call_exception_handler({"message": message, "exception": error, "task": task})


class _AbandonedLoop(FlowLoop):
    """A loop whose flow was dropped: it takes nothing on, and `finally` blocks that ask it end there."""

    def is_closed(self) -> bool:
        return True

    def create_future(self) -> NoReturn:
        raise GeneratorExit("The flow was dropped from memory.")

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> NoReturn:
        coro.close()
        raise GeneratorExit("The flow was dropped from memory.")

    def _call_at(
        self, when: float, delay: float, callback: Any, args: Any, context: Context | None
    ) -> NoReturn:
        raise GeneratorExit("The flow was dropped from memory.")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Say nothing of tasks that were never to finish."""
