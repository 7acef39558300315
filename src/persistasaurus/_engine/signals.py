"""What flows wait for from outside: typed signals, and steps that somebody resumes.

A signal is consumed in the same transaction as the completion that it causes: it is consumed once, or
it is still pending. It may arrive before anyone waits, and before the flow exists.
"""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from persistasaurus._clock import Duration, to_ms
from persistasaurus._codec import ValueCodec, value_codec
from persistasaurus._engine.outbox import put_end
from persistasaurus._engine.progress import Progress
from persistasaurus._engine.scope import running_flow
from persistasaurus._engine.steps import fail, start_attempt
from persistasaurus._engine.texts import of_signal
from persistasaurus._ids import LONGEST_NAME, is_name
from persistasaurus._model import COMPLETE, PENDING, WAITING, Kind
from persistasaurus._store.base import SignalRow
from persistasaurus._store.checksum import signal_checksum
from persistasaurus.errors import (
    CipherError,
    DuplicateNameError,
    SerializationError,
    UsageError,
    WrongContextError,
)

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.registry import StepDefinition
    from persistasaurus._engine.run import Run

T = TypeVar("T")

log = logging.getLogger("persistasaurus.signal")

_signals: dict[str, Signal[Any]] = {}


class Signal(Generic[T]):
    """A named message of one type that a flow waits for.

    In an async flow `await signal` returns the next value, in a sync flow `signal.wait(timeout=None)`.
    `handle.send(signal, value)` sends one, validated against the type before anything is recorded. It
    is queued where nobody waits yet, survives every crash, and is consumed once, in the order sent.

    Raises:
        DuplicateNameError: the name stands for another type already in this process.
    """

    __slots__ = ("__weakref__", "_codec", "name", "type")

    type: builtins.type[T]

    def __init__(self, name: str, type: builtins.type[T]) -> None:  # noqa: A002 - the word users would expect
        check_signal_name(name)
        known = _signals.get(name)
        if known is not None and not _is_same_type(known.type, type):
            raise DuplicateNameError(
                f"The signal {name!r} carries {known.type!r} already and cannot carry {type!r} too: "
                "a sender who knows only the name could not tell them apart. Use another name."
            )
        self.name = name
        self.type = type
        self._codec: ValueCodec | None = None
        _signals[name] = self

    def __repr__(self) -> str:
        return f"Signal({self.name!r}, {getattr(self.type, '__qualname__', self.type)})"

    @property
    def codec(self) -> ValueCodec:
        """Reads and writes the signal's values."""
        if self._codec is None:
            self._codec = value_codec(self.type)
        return self._codec

    def __await__(self) -> Generator[Any, Any, T]:
        run = self._flow("await signal")
        return run.await_signal(self).__await__()

    def wait(self, timeout: Duration | None = None) -> T:
        """Wait for the next value in a sync flow, at most `timeout` (seconds or `timedelta`).

        The wait survives restarts and holds no thread while it lasts.

        Raises:
            TimeoutError: nothing came in time; that is recorded, and the same on replay.
        """
        timeout_ms = None if timeout is None else to_ms(timeout, "the timeout of a signal")
        run = self._flow("signal.wait()")
        value: T = run.wait_signal(self, timeout_ms)
        return value

    def _flow(self, call: str) -> Run:
        run = running_flow()
        if run is None:
            raise WrongContextError(
                f"`{call}` for {self.name!r} was called outside of a flow. Only a flow waits."
            )
        return run


def _is_same_type(old: Any, new: Any) -> bool:
    """Whether it is the same type, perhaps defined again by a reload or a notebook's cell."""
    if old == new:
        return True
    names = [(getattr(t, "__module__", None), getattr(t, "__qualname__", None)) for t in (old, new)]
    return names[0] == names[1] and names[0][1] is not None


def check_signal_name(name: Any) -> None:
    """Raise `UsageError` where no signal can be called so."""
    if not is_name(name):
        raise UsageError(
            f"The signal name {name!r:.60} cannot be kept. Give a text of 1 to {LONGEST_NAME} characters "
            "without NUL "
            "or lone surrogates."
        )
    if name.startswith("step:"):
        raise UsageError(
            f"The signal name {name!r} begins with 'step:', which stands for resumed steps. Use another "
            "name, or "
            "`resume` for a step."
        )


def known_signal(name: str) -> Signal[Any] | None:
    """Return the signal of a name, where this process has one."""
    return _signals.get(name)


def ask_signal(run: Run, signal: Signal[Any], timeout_ms: int | None) -> Operation:
    """Ask for a wait for a signal."""
    operation = run.ask(Kind.SIGNAL, run.intern(("", signal.name)))
    operation.codec = signal.codec
    operation.arguments = signal.name
    if operation.row is None:
        operation.delay_ms = timeout_ms
    return operation


def ask_resume(run: Run, definition: StepDefinition, instance: Any, timeout_ms: int | None) -> Operation:
    """Ask for a wait for a step's resume."""
    operation = run.ask(Kind.WAIT_FOR, run.name_id(definition))
    operation.definition = definition
    operation.instance = instance
    operation.codec = definition.result
    operation.arguments = definition.signal_name
    if operation.row is None:
        operation.delay_ms = timeout_ms
    return operation


def begin_wait(engine: Engine, run: Run, operation: Operation) -> None:
    """Begin to wait for a signal or a resume, or go on with a step that was resumed already."""
    if operation.row is not None and operation.kind == Kind.WAIT_FOR and operation.parameters is not None:
        _resumed(engine, run, operation)
        return
    operation.waits = True
    if operation.row is None:
        operation.started_at_ms = engine.now_ms()
        if operation.delay_ms is not None:
            operation.due_at_ms = operation.started_at_ms + operation.delay_ms
        engine.write_start(run, operation, WAITING)
    if not run.mail_read and run.mail is None:
        engine.read_mail(run)
    if run.signals or run.unclaimed:
        hand_out(engine, run)
    if operation.due_at_ms is not None and not operation.commits:
        engine.timers.arm(operation.due_at_ms, run, operation)


def hand_out(engine: Engine, run: Run) -> None:
    """Give pending signals to the waits for them: oldest signal first, oldest wait first."""
    for left in run.unclaimed:
        operation = _waiting_for(run, left.arguments)
        if operation is not None:
            run.unclaimed = [each for each in run.unclaimed if each is not left]
            _pass_on(run, left, operation)
    taken: set[int] = set()
    try:
        _hand_out_pending(engine, run, taken)
    finally:
        if taken:
            run.signals = [signal for signal in run.signals if signal.signal_id not in taken]
            run.taken |= taken


def _hand_out_pending(engine: Engine, run: Run, taken: set[int]) -> None:
    for signal in run.signals:
        operation = _waiting_for(run, signal.name)
        if operation is None:
            continue
        taken.add(signal.signal_id)
        try:
            _accept(engine, run, operation, signal)
        except SerializationError as misfit:
            _reject(run, signal, str(misfit))
        except CipherError as unreadable:
            taken.discard(signal.signal_id)  # it stays pending, for when the key is there
            run.halted = unreadable
            return


def _waiting_for(run: Run, name: str) -> Operation | None:
    waits = [o for o in run.open.values() if o.waits and o.arguments == name]
    if any(operation.abandoned and operation.commits for operation in waits):
        return None  # that one's signal is about to be left over, and is older
    return next((o for o in waits if not o.commits and not o.abandoned), None)


def _pass_on(run: Run, left: Operation, operation: Operation) -> None:
    """Give a wait the signal that came too late for an earlier one; its row says from which step."""
    what = f"The value of signal {left.arguments!r}"
    text = left.codec.encode(left.value, what=what)
    operation.value = operation.codec.decode(text, what=what)
    operation.parameters = json.dumps({"from_step": left.number})
    put_end(run, operation, COMPLETE, return_value=text)


def note_taken(run: Run, operation: Operation) -> None:
    """Keep the signal of a wait that the flow had left by then: the next wait of that name gets it."""
    row = operation.row
    parameters = row.parameters if row is not None and row.event is not None else operation.parameters
    if parameters is not None:
        step = json.loads(parameters)["from_step"]
        run.unclaimed = [left for left in run.unclaimed if left.number != step]
    if not operation.abandoned or operation.error is not None or run.halted is not None:
        return
    run.unclaimed = [*run.unclaimed, operation]
    if run.live:
        hand_out(run.engine, run)


def _accept(engine: Engine, run: Run, operation: Operation, signal: SignalRow) -> None:
    expected = signal_checksum(signal.flow_id, signal.name, signal.payload, signal.sent_at_ms)
    if expected != signal.checksum:
        raise SerializationError(
            f"The signal {signal.name!r} is damaged: its row does not match its checksum."
        )
    payload = engine.texts.open(signal.payload, signal.flow_id, of_signal(signal.name))
    if operation.kind == Kind.SIGNAL:
        value = operation.codec.from_json(payload, what=f"The value of signal {signal.name!r}")
        operation.value = value
        text = operation.codec.encode(value, what=f"The value of signal {signal.name!r}")
        put_end(run, operation, COMPLETE, return_value=text, consumed=signal.signal_id)
        return
    definition: StepDefinition = operation.definition
    what = f"The input of step {definition.log_name[1]!r}"
    bound = definition.arguments.from_json(payload, what=what)
    operation.parameters = definition.arguments.encode(bound, what=what)
    operation.arguments = None
    operation.due_at_ms = None
    if definition.delay_ms is not None:
        # The step is called now: its delay counts from here.
        operation.delay_ms = definition.delay_ms
        operation.due_at_ms = engine.now_ms() + definition.delay_ms
    report = Progress(run)
    report.consumed = signal.signal_id
    report.rows = [operation.parts(run.key, PENDING)]
    report.then = lambda _: _resumed(engine, run, operation)
    run.put(report)


def _reject(run: Run, signal: SignalRow, reason: str) -> None:
    """Set a signal aside that does not fit its type; the wait goes on."""
    extra = {"flow_id": run.flow_id, "signal": signal.name}
    log.warning("signal rejected, the flow waits on: %s", reason, extra=extra)
    report = Progress(run)
    report.rejected = (signal.signal_id, reason)
    run.put(report)


def _resumed(engine: Engine, run: Run, operation: Operation) -> None:
    """Run the step that was waited for, with the arguments that it was resumed with."""
    definition: StepDefinition = operation.definition
    bound = definition.arguments.decode(operation.parameters or "{}")
    operation.arguments, operation.keywords = definition.arguments.unpack(bound)
    if operation.due_at_ms is not None and operation.due_at_ms > engine.now_ms():
        engine.timers.arm(operation.due_at_ms, run, operation)
        return
    start_attempt(engine, run, operation)


def on_wait_due(engine: Engine, run: Run, operation: Operation) -> None:
    """End a wait whose timeout is over, unless its signal was sent before."""
    if operation.kind == Kind.WAIT_FOR and operation.parameters is not None:
        if operation.arguments is not None:  # else its resume is being written, and goes on by itself
            start_attempt(engine, run, operation)
        return
    if not engine.read_mail(run):
        # Nobody knows whether it was sent in time: look again soon.
        engine.timers.arm(operation.due_at_ms or 0, run, operation)
        return
    if operation.commits or operation.parameters is not None:
        return
    timeout = timedelta(milliseconds=operation.delay_ms or 0)
    fail(run, operation, TimeoutError(f"Nobody sent {operation.arguments!r} within {timeout}."))
