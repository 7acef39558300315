"""Drives an async flow: its own event loop, called by the host's.

The host's loop shows the flow one completion at a time and lets it run until it waits again. Nothing of
the flow runs at any other moment, so it is a pure function of the order of its events.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from persistasaurus._clock import to_ms
from persistasaurus._engine import driving
from persistasaurus._engine.children import ask_child, cancel_child
from persistasaurus._engine.delays import take_due
from persistasaurus._engine.loop import FlowLoop
from persistasaurus._engine.run import Halt, Run
from persistasaurus._engine.scope import scope
from persistasaurus._engine.signals import ask_resume, ask_signal
from persistasaurus._engine.steps import ask_step, begin_fresh
from persistasaurus._events import Happening
from persistasaurus._model import CANCELLED, Kind
from persistasaurus.errors import FlowParked, PersistasaurusError, WrongContextError

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.progress import Progress
    from persistasaurus._engine.registry import StepDefinition, Target
    from persistasaurus._engine.signals import Signal

log = logging.getLogger("persistasaurus.flow")

REPLAY_SLICE_S = 0.005
"""How long a replay may hold the host's loop before others have their turn."""


class AsyncRun(Run):
    """One async flow instance in memory."""

    loop: FlowLoop
    main: asyncio.Task[Any] | None = None
    _inbox: deque[Operation | None]
    _slice_over = False

    def start(self) -> None:
        """Begin to drive the flow on the host's loop."""
        self.engine.on_host(self._start)

    def post(self, note: Callable[[], None]) -> None:
        """Have the host's loop call `note`, then go on with the flow."""
        self.engine.on_host(self._noted, note)

    def _noted(self, note: Callable[[], None]) -> None:
        if self.finished:
            return
        if self.main is None:
            self.engine.host.call_soon(self._noted, note)  # before it has begun
            return
        note()
        self.pump()

    def _start(self) -> None:
        if self.finished:
            return
        self.loop = FlowLoop(self, now=0.0)
        self._inbox = deque()
        try:
            self.instance = self.engine.memory.make_instance(self.target)
            args, kwargs = self.target.definition.arguments.unpack(self.bound)
            if self.instance is not None:
                args = (self.instance, *args)
            called: Coroutine[Any, Any, Any] = self.target.definition.function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the user's constructor
            driving.fail(self.engine, self, error)
            return
        context = contextvars.copy_context()
        context.run(scope.set, self)
        if self.engine.facts.traced:
            context.run(self.engine.facts.enter, Happening.FLOW_STARTED, self)
        self.main = self.loop.start(called, context=context, name=self.flow_id)
        self.pump()

    def pump(self) -> None:
        """Let the flow run until it waits for something that has not come yet."""
        main = self.main
        if self.finished or self.thread_ident is not None or main is None:
            return
        self.thread_ident = threading.get_ident()
        try:
            if not self.live:
                self._drain(self._replayed())
                if self._slice_over:
                    self._slice_over = False
                    self.engine.host.call_soon(self.pump)
                    return
            self._show_committed(main)
            if self.halted is not None or main.done():
                self._end()
            elif self.idle or not self.nothing_runs():
                return
            elif not take_due(self.engine, self):
                self._rest()
        finally:
            self.thread_ident = None

    def _drain(self, deliveries: Iterable[float]) -> None:
        try:
            self.loop.drain(deliveries)
        except SystemExit as exit_:
            self._note_exit(exit_)

    def _note_exit(self, exit_: SystemExit) -> None:
        log.warning("flow called sys.exit(%s)", exit_.code, extra={"flow_id": self.flow_id})

    def _show_committed(self, main: asyncio.Task[Any]) -> None:
        """Let the flow run, after each completion that was committed just now."""
        inbox = self._inbox
        if not inbox:
            self._drain(())
        while inbox and self.halted is None and not main.done():
            self.show(inbox.popleft())
            try:
                self.loop.drain(now=(self.now_ms - self.flow.created_at_ms) / 1000)
            except SystemExit as exit_:
                self._note_exit(exit_)
                self._drain(())  # what was ready beside it

    def _over(self) -> bool:
        return self.halted is not None or self.main is None or self.main.done()

    def _replayed(self) -> Iterator[float]:
        """Show a recorded event each time it is advanced, until it is another's turn on the host's loop."""
        until = time.monotonic() + REPLAY_SLICE_S
        count = 0
        while self.recorded and not self._over():
            count += 1
            if not count & 63 and time.monotonic() > until:
                self._slice_over = True
                return
            self.deliver(*self.recorded.popleft())
            yield (self.now_ms - self.flow.created_at_ms) / 1000
        if not self._over():
            self.go_live()
            yield (self.now_ms - self.flow.created_at_ms) / 1000

    def settle(self, operation: Operation) -> None:
        """Set the future or fire the timer that the flow waits on."""
        if operation.row is not None or operation.error is not None:
            try:
                self.outcome_of(operation)
            except PersistasaurusError as error:
                self.halted = error
                return
        future = operation.future
        if operation.fire is not None:
            operation.fire()
        elif not future.done():
            if operation.error is None:
                future.set_result(operation.value)
            else:
                future.set_exception(operation.error)

    def show_cancel(self) -> None:
        """Cancel the flow's main task, as `asyncio.Task.cancel` does."""
        if self.main is not None:
            self.main.cancel()

    def committed(self, report: Progress) -> None:
        """Show the flow what was committed."""
        self.written(report)
        with self.guard:
            self.in_flight -= 1
        if report.then is not None and (report.child is not None or not self.finished):
            report.then(report.answer)  # a child is driven also where its parent was let go of meanwhile
        if self.finished:
            return
        if report.completes is not None:
            self._inbox.append(report.completes)
        elif report.cancels:
            self._inbox.append(None)
        self.pump()

    def at_rest(self) -> bool:
        """Whether the flow waits and nothing is on its way to it; from any thread."""
        begun = self.main is not None and self.live and not self.finished
        waits = begun and self.thread_ident is None and not self._inbox
        return waits and self.nothing_runs() and not self.unwritten

    def _rest(self) -> None:
        """Nothing of the flow runs: write when it goes on, or see that it never will."""
        if any(not operation.abandoned for operation in self.open.values()):
            driving.rest(self.engine, self, release=self.engine.is_crowded())
            return
        if self.cancel_sent and self._inbox:
            return
        self.halted = FlowParked(
            f"Flow {self.flow_id!r} waits for something that nothing will ever do: no step, timer, signal "
            "or child "
            "flow is pending. Perhaps it awaits an Event that nobody sets. Correct the flow and retry it."
        )
        self._end()

    def abandon_soon(self) -> None:
        """Drop the flow from memory; from any thread."""
        self.engine.on_host(self.abandon)

    def _end(self) -> None:
        if self.halted is None and not self.live:
            self.check_all_asked()
        if self.halted is not None:
            driving.halt(self.engine, self, self.halted)
            return
        task = self.main
        if task is None or task.cancelled():
            driving.end_cancelled(self.engine, self)
            return
        error = task.exception()
        if error is None:
            driving.end_complete(self.engine, self, task.result())
        elif isinstance(error, asyncio.CancelledError) and self.cancel_sent:
            driving.end_cancelled(self.engine, self)
        else:
            driving.fail(self.engine, self, error)

    def nudge(self) -> None:
        """Look again whether anything of the flow still runs."""
        self.engine.on_host(self.pump)

    def abandon(self) -> None:
        """Drop the flow from memory; its coroutines are closed, nothing of it runs any more."""
        self.finished = True
        for operation in self.open.values():
            operation.abandoned = True
            if operation.task is not None:
                self.engine.cancel_task(operation.task)
        if self.main is not None:
            self.halted = self.halted or Halt()
            before, self.thread_ident = self.thread_ident, threading.get_ident()
            if self.loop.abandon():
                # Each knows the other: apart, they are gone at once instead of at the collector's next turn.
                self.main = None
                del self.loop
            self.thread_ident = before
        self.open.clear()

    # The flow's own calls.

    def call_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Any:
        """Return the coroutine of a step that the flow calls directly."""
        if not definition.is_async:
            name = definition.log_name[1]
            raise WrongContextError(
                f"The sync step {name!r} was called directly in the async flow {self.target.name[1]!r}, "
                "which it "
                f"would block. Use `await {name}.submit(...)`, or make the step async."
            )
        return self._await_step(definition, instance, args, kwargs)

    async def _await_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Any:
        operation = self.submit_step(definition, instance, args, kwargs)
        try:
            return await operation.future
        except asyncio.CancelledError:
            self.drop(operation)
            raise

    def submit_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Operation:
        """Ask for a step without waiting for it."""
        operation = ask_step(self, definition, instance, args, kwargs, inline=False)
        if operation.row is not None or not self.live:
            return self._go(operation)
        operation.future = asyncio.Future(loop=self.loop)
        begin_fresh(self.engine, self, operation)
        return operation

    def call_flow(self, target: Target, args: Any, kwargs: Any) -> Any:
        """Return the coroutine of a child flow."""
        if not target.definition.is_async:
            name = target.name[1]
            raise WrongContextError(
                f"The sync flow {name!r} was called directly in the async flow {self.target.name[1]!r}, "
                "which it "
                f"would block. Use `await {name}.submit(...)`."
            )
        return self._await_flow(target, args, kwargs)

    async def _await_flow(self, target: Target, args: Any, kwargs: Any) -> Any:
        return await self._await(self.submit_flow(target, args, kwargs))

    def submit_flow(self, target: Target, args: Any, kwargs: Any) -> Operation:
        """Start a child flow without waiting for it."""
        return self._go(ask_child(self, target, args, kwargs))

    async def await_signal(self, signal: Signal[Any]) -> Any:
        """Wait for the next value of a signal."""
        return await self._await(self._go(ask_signal(self, signal, None)))

    def wait_signal(self, signal: Signal[Any], timeout_ms: int | None) -> Any:
        """Refuse the sync way of waiting."""
        raise WrongContextError(
            f"`signal.wait()` would block the async flow {self.target.name[1]!r}. Use `await signal`, with "
            "`asyncio.timeout(...)` around it for a limit."
        )

    def wait_for(self, definition: StepDefinition, instance: Any, timeout_ms: int | None) -> Any:
        """Return the coroutine that waits until somebody resumes a step."""
        if not definition.is_async:
            raise WrongContextError(
                f"wait_for({definition.log_name[1]}) would block the async flow {self.target.name[1]!r}: "
                "the step is "
                "sync. Make the step async."
            )
        return self._await_resume(definition, instance, timeout_ms)

    async def _await_resume(self, definition: StepDefinition, instance: Any, timeout_ms: int | None) -> Any:
        return await self._await(self._go(ask_resume(self, definition, instance, timeout_ms)))

    def sleep(self, duration_ms: int) -> None:
        """Refuse the sync way of sleeping."""
        raise WrongContextError(
            f"`sleep()` would block the async flow {self.target.name[1]!r}. Use `await asyncio.sleep(...)`, "
            "which is "
            "durable in a flow."
        )

    def _go(self, operation: Operation) -> Operation:
        # A plain future: the flow never sees it, so it is in no set and needs no number.
        operation.future = asyncio.Future(loop=self.loop)
        self.ask_done(operation)
        return operation

    async def _await(self, operation: Operation) -> Any:
        try:
            return await operation.future
        except asyncio.CancelledError:
            self.drop(operation)
            raise

    def await_operation(self, operation: Operation) -> Generator[Any, Any, Any]:
        """Wait for a submitted operation."""
        return self._await(operation).__await__()

    def drop(self, operation: Operation) -> None:
        """Stop what the flow has cancelled."""
        if operation.done or not operation.future.cancelled():
            return
        self._drop(operation)

    def _drop(self, operation: Operation) -> None:
        if self.finished:
            return  # the flow itself is dropped: its coroutines are being closed, nothing is cancelled
        with self.guard:
            if operation.abandoned or operation.commits:
                operation.abandoned = True
                return
            operation.abandoned = True
        row = operation.row
        if row is not None and row[11] is not None:
            return  # its completion is still to come
        self.open.pop(operation.number, None)
        if operation.kind == Kind.CHILD:  # on replay too: a crash may have come between the two, or a retry
            cancel_child(self.engine, self, operation)
        if row is not None and row[4] == CANCELLED:
            return
        if operation.task is not None:
            self.engine.host.call_soon(self.engine.cancel_task, operation.task)
        if operation.started_at_ms:
            with self.guard:
                operation.due_at_ms = None
                operation.status = CANCELLED
                self.unwritten[operation.number] = operation

    # The flow loop's timers.

    def start_timer(self, delay: float, fire: Callable[[], None]) -> int:
        """Ask for a durable timer."""
        # Before the timer has a number, which one that is refused would keep.
        delay_ms = to_ms(round(delay, 6), "the delay of a timer")
        operation = self.ask(Kind.TIMER, self.engine.timer_name_id)
        operation.fire = fire
        if operation.row is None:
            operation.delay_ms = delay_ms
        self.ask_done(operation)
        return operation.number

    def cancel_timer(self, number: int) -> None:
        """Forget a timer that the flow does not wait for any more."""
        operation = self.open.get(number)
        if operation is not None:
            self._drop(operation)
