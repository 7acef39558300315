"""Drives a sync flow: its body runs in a thread of a bounded pool.

Completions are shown to the flow only where it blocks, in the order of the events. A flow that faces a
long wait is unwound and gives its thread back; it comes back by replay when it is due.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from persistasaurus._engine import driving
from persistasaurus._engine.children import ask_child, cancel_child
from persistasaurus._engine.delays import take_due
from persistasaurus._engine.retried import next_number
from persistasaurus._engine.run import Halt, Run
from persistasaurus._engine.scope import scope
from persistasaurus._engine.signals import ask_resume, ask_signal
from persistasaurus._engine.steps import ask_step
from persistasaurus._events import Happening
from persistasaurus._model import CANCELLED, Kind
from persistasaurus.errors import FlowCancelled, FlowParked, PersistasaurusError, WrongContextError

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.progress import Progress
    from persistasaurus._engine.registry import StepDefinition, Target
    from persistasaurus._engine.signals import Signal

LINGER_S = 0.25
"""How long a waiting flow keeps its thread while no other flow wants it: saves short waits a replay."""


class Unwind(Halt):
    """The flow waits for long; its thread is needed elsewhere."""


class SyncRun(Run):
    """One sync flow instance in memory."""

    _cancel_shown = _cancel_due = False
    _lingers = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._inbox: deque[Operation | None] = deque()
        self._notes: deque[Callable[[], None]] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    def start(self) -> None:
        """Run the flow's body in a thread of the pool."""
        self.engine.flow_pool.submit(self._body)

    def post(self, note: Callable[[], None]) -> None:
        """Have the flow's thread call `note` where it blocks next."""
        self._notes.append(note)
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            return  # it rings already

    def _body(self) -> None:
        if self.finished:
            return
        self.thread_ident = threading.get_ident()
        try:
            contextvars.copy_context().run(self._run)
        finally:
            # The next flow of this thread must not pass for this one in a context that was kept.
            self.thread_ident = None

    def _run(self) -> None:
        scope.set(self)
        self.engine.facts.enter(Happening.FLOW_STARTED, self)
        try:
            self.instance = self.engine.memory.make_instance(self.target)
            args, kwargs = self.target.definition.arguments.unpack(self.bound)
            function = self.target.definition.function
            result = (
                function(*args, **kwargs)
                if self.instance is None
                else function(self.instance, *args, **kwargs)
            )
            self._leave_replay()
        except Halt:
            self._halted()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's failure becomes data
            self._failed(error)
        else:
            if self.halted is not None:
                self._halted()
            else:
                driving.end_complete(self.engine, self, result)

    def _leave_replay(self) -> None:
        """The flow has ended: see that it has asked for everything that the log holds."""
        if not self.live and self.halted is None:
            self.check_all_asked()
        if isinstance(self.halted, Halt):
            raise self.halted

    def _failed(self, error: BaseException) -> None:
        if self.halted is None and not self.finished:
            try:
                self._leave_replay()
            except Halt:
                self._halted()
                return
        if self.halted is not None:
            self._halted()
        elif isinstance(error, FlowCancelled) and self._cancel_shown and error is self._cancel_error:
            driving.end_cancelled(self.engine, self)
        else:
            driving.fail(self.engine, self, error)

    def _halted(self) -> None:
        if self.finished:
            return
        if isinstance(self.halted, Unwind):
            # Its traceback holds the body's frames, and they this: a circle for the collector.
            self.halted.__traceback__ = None
            driving.rest(self.engine, self, release=True)
        else:
            driving.halt(self.engine, self, self.halted or Halt())

    # Blocking.

    def block(self, operation: Operation) -> Any:
        """Return an operation's outcome, showing the flow every event up to it."""
        while not operation.done:
            self._step_on(operation)
        if operation.error is not None:
            raise operation.error
        return operation.value

    def block_any(self, operations: Sequence[Operation]) -> None:
        """Wait until one more of these is done than now, showing the flow every event up to it."""
        before = sum(operation.done for operation in operations)
        while operations and sum(operation.done for operation in operations) == before:
            self._step_on(operations[0])

    def forget(self, operation: Operation) -> None:
        """Stop a timer or wait that the flow has left."""
        operation.abandoned = not operation.done
        row = operation.row
        with self.guard:
            if operation.done or operation.commits or (row is not None and row[11] is not None):
                return
            operation.due_at_ms = None
            if operation.started_at_ms:
                operation.status = CANCELLED
                self.unwritten[operation.number] = operation

    def _step_on(self, operation: Operation) -> None:
        """Take in one event or note, or wait for one."""
        if self.halted is not None:
            raise self.halted if isinstance(self.halted, Halt) else Halt
        if self._cancel_due and not self._still_ends(operation):
            if operation.kind not in (Kind.STEP, Kind.CHILD):
                self.forget(operation)
            operation.abandoned |= operation.inline
            self._raise_cancel()
        if self.recorded:
            self.deliver(*self.recorded.popleft())
        elif not self.live:
            self.go_live()
        else:
            self._step_on_live()

    def _step_on_live(self) -> None:
        if self._inbox:
            self.show(self._inbox.popleft())
        elif self._notes:
            self._notes.popleft()()
        elif self.finished:
            raise Halt
        elif not self.nothing_runs():
            self.engine.committer.help_out()
            self._bell.acquire()
        elif not take_due(self.engine, self):
            self._lingers = True
            try:
                self._linger()
            finally:
                self._lingers = False

    @staticmethod
    def _still_ends(operation: Operation) -> bool:
        """Whether a step in the flow's own thread runs to its end before the cancel is raised."""
        recorded = operation.row is not None and operation.row[11] is not None
        return operation.inline and (recorded or operation.running or operation.commits)

    def _linger(self) -> None:
        """Wait a moment where the thread is not needed elsewhere, then unwind the flow."""
        if not any(not operation.abandoned for operation in self.open.values()):
            self.halted = FlowParked(f"Flow {self.flow_id!r} waits for something that nothing will ever do.")
            raise Halt
        until = time.monotonic() + LINGER_S
        while not self.engine.flow_pool.backlog and not self.engine.stopping:
            left = until - time.monotonic()
            if left <= 0:
                break
            if self._bell.acquire(timeout=min(left, 0.02)):
                return
        # Last of all: who rings has left what he rings for before.
        if self._bell.acquire(blocking=False) or self._inbox or self._notes or not self.nothing_runs():
            return
        self.halted = Unwind()
        raise self.halted

    def at_rest(self) -> bool:
        """Whether the flow waits and nothing is on its way to it; from any thread."""
        waits = self._lingers and self.halted is None and not self._inbox and not self._notes
        return waits and self.nothing_runs() and not self.unwritten

    def settle(self, operation: Operation) -> None:
        """Take over a completion; the flow sees it where it blocks on it."""
        try:
            self.outcome_of(operation)
        except PersistasaurusError as error:
            self.halted = error

    def show_cancel(self) -> None:
        """Raise the cancel at the flow's next durable operation."""
        self._cancel_due = True

    def _raise_cancel(self) -> None:
        self._cancel_due, self._cancel_shown = False, True
        self._cancel_error = FlowCancelled(f"Flow {self.flow_id!r} was cancelled.")
        for operation in list(self.open.values()):
            if operation.kind == Kind.CHILD:  # on replay too: a crash may have come between the two
                cancel_child(self.engine, self, operation)
        raise self._cancel_error

    def nudge(self) -> None:
        """Have the flow's thread look again whether anything still runs."""
        self._ring()

    def committed(self, report: Progress) -> None:
        """Pass on what was committed to the flow's thread; called by the writer's."""
        self.written(report)
        then = report.then
        try:
            if then is not None and report.child is not None:
                then(report.answer)  # the child is driven at once, also while its parent runs a long step
            elif then is not None:
                self._notes.append(lambda: then(report.answer))
        finally:
            if report.completes is not None:
                self._inbox.append(report.completes)
            elif report.cancels:
                self._inbox.append(None)
            with self.guard:
                self.in_flight -= 1
            self._ring()

    def abandon(self) -> None:
        """Drop the flow: it is unwound at its next durable operation, which does not happen."""
        self.finished = True
        self.halted = self.halted or Halt()
        for operation in list(self.open.values()):
            operation.abandoned = True
            if operation.task is not None:
                self.engine.cancel_task(operation.task)
        self._ring()

    def abandon_soon(self) -> None:
        """Drop the flow from memory; from any thread."""
        self.abandon()

    # The flow's own calls.

    def _ask_here(self) -> None:
        """Raise a cancel that came before the operation that the flow is about to ask for."""
        while self.live and self._notes:
            self._notes.popleft()()
        while self._cancel_comes_first() and self.halted is None and not self.finished:
            if self.recorded:
                self.deliver(*self.recorded.popleft())
            elif self._inbox:
                self.show(self._inbox.popleft())
            else:
                self._bell.acquire()
        if self._cancel_due:
            self._raise_cancel()

    def _cancel_comes_first(self) -> bool:
        """Whether the cancel is told before the next operation: it is on its way, or was so live."""
        if not self.cancel_sent or self._cancel_due or self._cancel_shown:
            return False
        row = self.rows.get(next_number(self))
        return self.live or row is None or row.asked >= (self.flow.cancel_event or 0)

    def call_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Any:
        """Run a step in the flow's thread, or return what it has recorded."""
        if definition.is_async:
            name = definition.log_name[1]
            raise WrongContextError(
                f"The async step {name!r} was called directly in the sync flow {self.target.name[1]!r}, "
                "which cannot "
                f"await it. Use `{name}.submit(...).result()`, or make the flow async."
            )
        self._ask_here()
        # A step with a timeout runs in a thread that the flow can leave behind.
        inline = definition.timeout_ms is None
        operation = ask_step(self, definition, instance, args, kwargs, inline=inline)
        self._begin(operation)
        return self.block(operation)

    def submit_step(self, definition: StepDefinition, instance: Any, args: Any, kwargs: Any) -> Operation:
        """Run a step in a thread of the step pool, or on the host's loop."""
        self._ask_here()
        operation = ask_step(self, definition, instance, args, kwargs, inline=False)
        self._begin(operation)
        return operation

    def _begin(self, operation: Operation) -> None:
        """Begin an operation as soon as the recorded history is used up."""
        self.ask_done(operation)
        if not self.live and not self.recorded and self.number >= self.last_recorded:
            self.go_live()

    def call_flow(self, target: Target, args: Any, kwargs: Any) -> Any:
        """Run a child flow and return its result."""
        if target.definition.is_async:
            name = target.name[1]
            raise WrongContextError(
                f"The async flow {name!r} was called directly in the sync flow {self.target.name[1]!r}, "
                "which cannot "
                f"await it. Use `{name}.submit(...).result()`."
            )
        return self.block(self.submit_flow(target, args, kwargs))

    def submit_flow(self, target: Target, args: Any, kwargs: Any) -> Operation:
        """Start a child flow without waiting for it."""
        self._ask_here()
        operation = ask_child(self, target, args, kwargs)
        self._begin(operation)
        return operation

    def await_signal(self, signal: Signal[Any]) -> Any:
        """Refuse the async way of waiting."""
        raise WrongContextError(
            f"`await signal` in the sync flow {self.target.name[1]!r}: use `signal.wait(timeout=...)`."
        )

    def wait_signal(self, signal: Signal[Any], timeout_ms: int | None) -> Any:
        """Wait for the next value of a signal."""
        self._ask_here()
        operation = ask_signal(self, signal, timeout_ms)
        self._begin(operation)
        return self.block(operation)

    def wait_for(self, definition: StepDefinition, instance: Any, timeout_ms: int | None) -> Any:
        """Wait until somebody resumes a step, then run it."""
        if definition.is_async:
            raise WrongContextError(
                f"wait_for({definition.log_name[1]}) in the sync flow {self.target.name[1]!r}: the step is "
                "async. "
                "Make the step sync, or the flow async."
            )
        self._ask_here()
        operation = ask_resume(self, definition, instance, timeout_ms)
        self._begin(operation)
        return self.block(operation)

    def sleep(self, duration_ms: int) -> None:
        """Sleep durably."""
        self._ask_here()
        self.block(self._timer(Kind.SLEEP, duration_ms))

    def timer(self, duration_ms: int) -> Operation:
        """Ask for a timer, for a wait with a timeout."""
        self._ask_here()
        return self._timer(Kind.TIMER, duration_ms)

    def _timer(self, kind: Kind, duration_ms: int) -> Operation:
        is_sleep = kind == Kind.SLEEP
        name_id = self.engine.sleep_name_id if is_sleep else self.engine.timer_name_id
        operation = self.ask(kind, name_id)
        if operation.row is None:
            operation.delay_ms = duration_ms
        self._begin(operation)
        return operation
