"""One flow instance in memory: what it has asked for, what it has seen, what it waits for.

A run is driven by one thread at a time: `AsyncRun` by the host's event loop, `SyncRun` by the thread of
the flow. Both replay the recorded events first and then go on with those that are committed live.
"""

from __future__ import annotations

import logging
import random
import threading
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from persistasaurus._engine.commit import Progress
from persistasaurus._engine.history import (
    AFTER_REOPENED,
    CANCEL,
    Event,
    Replay,
    describe,
    differs,
    mismatch,
    not_asked,
)
from persistasaurus._engine.operation import Operation
from persistasaurus._engine.scope import scope
from persistasaurus._model import PENDING, WAITING, Kind
from persistasaurus._store.base import FlowRow, FlowUpdate, Mailbox, SignalRow

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.registry import Definition, Target

log = logging.getLogger("persistasaurus.flow")


class Halt(BaseException):
    """Unwinds a flow's body; no `except Exception` stops it and no step starts while it does."""


class SoftMismatch(Halt):
    """The flow took another way than before a failure that was reopened; the rest is dropped."""


class Run(ABC):
    """The state that both drivers share."""

    def __init__(self, engine: Engine, flow: FlowRow, target: Target, replay: Replay, bound: dict[str, Any]) -> None:
        self.engine = engine
        self.worker_id = engine.worker_id
        self.key = flow.flow_key
        self.flow_id = flow.flow_id
        self.flow = flow
        self.target = target
        self.bound = bound
        self.instance: Any = None
        self.number = 0
        self.seen = 0
        self.now_ms = flow.created_at_ms
        self.rows = replay.rows
        self.recorded: deque[Event] = deque(replay.events)
        self.last_recorded = max(replay.rows, default=0)
        self.open: dict[int, Operation] = {}
        self.frontier: list[Operation] = []
        self.live = False
        self.unwritten: dict[int, Any] = {}
        """Rows of started steps that travel with the flow's next commit."""
        self.in_flight = 0
        """Commits on their way that the driver waits for."""
        self.active = 0
        """Attempts running right now."""
        self.signals: list[SignalRow] = []
        self.taken: set[int] = set()
        self.pokes = flow.pokes
        self.crashes = flow.crashes
        self.lost_claims = flow.lost_claims
        self.idle = False
        """Whether the store says that nothing of the flow runs."""
        self.halted: BaseException | None = None
        self.finished = False
        self.has_children = False
        self.cancel_sent = flow.cancel_event is not None
        self.cancelled_at_ms = flow.cancel_event_at_ms
        self.replayed = len(replay.events)
        self.lost_before = flow.lost_claims
        self.guard = threading.Lock()
        """Held for a moment where steps that end in other threads touch the counts and rows."""
        self.failures: dict[int, tuple[BaseException, int]] = {}
        self.mail: Mailbox | None = None
        """What others had left when the flow was claimed; read once its history is used up."""
        # The writer's: the numbers of the last committed event.
        self.events = len(replay.events)
        self.chain = replay.chain
        self.cancel_event = flow.cancel_event
        self._random: random.Random | None = None

    # What the two drivers do each in its own way.

    @abstractmethod
    def start(self) -> None:
        """Begin to drive the flow; from any thread."""

    @abstractmethod
    def post(self, note: Callable[[], None]) -> None:
        """Have the driver call `note` soon; from any thread."""

    @abstractmethod
    def check_place(self) -> None:
        """Raise `WrongContextError` where the caller is not the flow's own code."""

    @abstractmethod
    def settle(self, operation: Operation) -> None:
        """Show the flow a completion."""

    @abstractmethod
    def committed(self, report: Progress, answer: Any) -> None:
        """Take note of a durable write; called by the driver in the order of the commits."""

    @abstractmethod
    def nudge(self) -> None:
        """Have the driver look again whether anything of the flow runs; from any thread."""

    @abstractmethod
    def abandon(self) -> None:
        """Drop the flow from memory without running any more of it; in the driver's thread."""

    @abstractmethod
    def abandon_soon(self) -> None:
        """Drop the flow from memory; from any thread."""

    # Asking for operations.

    def ask(self, kind: Kind, name_id: int, name: tuple[str, str]) -> Operation:
        """Give the next operation its step number, and hold it against the log."""
        if self.halted is not None:
            raise self.halted if isinstance(self.halted, Halt) else Halt
        self.number = number = self.number + 1
        row = self.rows.get(number)
        operation = Operation(number, kind, name_id, row, self.seen)
        if row is not None:
            if differs(row, kind, name_id):
                self._differs(row, kind, name)
            if row[11] is None:
                operation.restore()
        self.open[number] = operation
        return operation

    def ask_done(self, operation: Operation) -> None:
        """Go on with a described operation: begin it where the flow is past its recorded history."""
        row = operation.row
        if row is not None:
            if row[6] == AFTER_REOPENED and row[13] != operation.parameters and row[13] is not None:
                self._differs(row, operation.kind, ("", "the same with other arguments"))
            if row[11] is not None:
                return
        if self.live:
            self.engine.begin(self, operation)
        else:
            self.frontier.append(operation)

    def _differs(self, row: Any, kind: int, name: tuple[str, str]) -> None:
        """Stop the flow: park it, or drop what was recorded after a failure that was reopened."""
        if row.asked == AFTER_REOPENED:
            self.halted = SoftMismatch(row.step)
            raise self.halted
        recorded = describe(row.kind, self.engine.name_of(row.name_id))
        self.halted = mismatch(self.flow_id, row.step, recorded, describe(kind, name))
        raise Halt

    # Showing completions to the flow.

    def deliver(self, event: Event) -> None:
        """Show the flow its next recorded or committed completion."""
        self.seen += 1
        self.now_ms = max(self.now_ms, event.at_ms)
        if event.step == CANCEL:
            self.show_cancel()
            return
        operation = self.open.pop(event.step, None)
        if operation is None:
            if event.step > self.number:
                self._not_asked(event.step)
            return
        operation.done = True
        self.settle(operation)

    @abstractmethod
    def show_cancel(self) -> None:
        """Raise the cancel in the flow's code."""

    def _not_asked(self, step: int) -> None:
        row = self.rows[step]
        if row.asked == AFTER_REOPENED:
            self.halted = SoftMismatch(step)
            return
        recorded = describe(row.kind, self.engine.name_of(row.name_id))
        self.halted = not_asked(self.flow_id, step, recorded)

    def go_live(self) -> None:
        """Begin what the flow has asked for beyond its recorded history."""
        self.live = True
        self.check_all_asked()
        if self.halted is not None:
            return
        frontier, self.frontier = self.frontier, []
        for operation in frontier:
            if not operation.abandoned:
                self.engine.begin(self, operation)
        if self.mail is not None:
            mail, self.mail = self.mail, None
            self.read_mail(mail)

    def check_all_asked(self) -> None:
        """Halt the flow where its code has not asked for everything that the log holds."""
        if self.number >= self.last_recorded:
            return
        missing = [n for n in self.rows if n > self.number and self.rows[n].asked != AFTER_REOPENED]
        if missing:
            self._not_asked(min(missing))

    def outcome_of(self, operation: Operation) -> None:
        """Set the value or error that a recorded row stands for."""
        if operation.row is not None and operation.row[11] is not None:
            self.engine.decode_recorded(self, operation)
        if operation.error is not None:
            self.failures[id(operation.error)] = (operation.error, operation.number)

    # Writing.

    def put(self, report: Progress, *, ended: Operation | None = None) -> bool:
        """Send a write to the store, with the rows that wait for company.

        With `ended` the write is the outcome of that operation's attempt; false, and nothing is
        written, where the flow has cancelled it meanwhile.
        """
        with self.guard:
            if ended is not None:
                if ended.running:
                    ended.running = False
                    self.active -= 1
                if ended.abandoned:
                    self.nudge()
                    return False
                ended.commits = report.completes is not None
                self.unwritten.pop(ended.number, None)
            if self.unwritten:
                report.rows.extend(self.unwritten.values())
                self.unwritten.clear()
            if report.update is None and (self.idle or self.lost_claims or (self.crashes and report.completes)):
                self.running(report)
            self.in_flight += 1
            self.engine.put(report)
        return True

    def put_nothing(self, operation: Operation) -> None:
        """Note that an attempt has ended of which nothing is recorded."""
        with self.guard:
            if operation.running:
                operation.running = False
                self.active -= 1
        self.nudge()

    def running(self, report: Progress) -> None:
        """Have the write say that the flow runs, and what its crash counts are."""
        self.lost_claims = 0
        if report.completes is not None:
            self.crashes = 0
        self.idle = False
        report.update = self.update(PENDING)

    def update(
        self,
        status: int,
        *,
        result: str | None = None,
        error: str | None = None,
        reason: str | None = None,
        release: bool = False,
        idle: bool = False,
        due_at_ms: int | None = None,
        outcome_checksum: int | None = None,
    ) -> FlowUpdate:
        """Return the flow's whole changeable state for a write."""
        return FlowUpdate(
            flow_key=self.key,
            status=status,
            updated_at_ms=self.engine.now_ms(),
            result=result,
            error=error,
            reason=reason,
            release=release,
            idle=idle,
            due_at_ms=due_at_ms,
            seen_pokes=self.pokes,
            crashes=self.crashes,
            lost_claims=self.lost_claims,
            cancel_event=None,
            cancel_event_at_ms=self.cancelled_at_ms,
            outcome_checksum=outcome_checksum,
        )

    def write_cancel(self, requested_at_ms: int) -> None:
        """Record the cancel as the flow's next event."""
        if self.cancel_sent:
            return
        self.cancel_sent = True
        self.cancelled_at_ms = max(requested_at_ms, self.now_ms)
        report = Progress(self)
        report.cancels = True
        self.running(report)
        self.put(report)

    # Waiting.

    def nothing_runs(self) -> bool:
        """Whether only time, a signal or another flow can bring the flow on."""
        return not self.active and not self.in_flight

    def next_due_ms(self) -> int | None:
        """Return when the flow goes on by itself, None where it never does."""
        dues = [o.due_at_ms for o in self.open.values() if o.due_at_ms is not None and not o.abandoned]
        return min(dues) if dues else None

    def waiting_status(self) -> int:
        """Return the status that an idle flow shows."""
        kinds = {o.kind for o in self.open.values() if not o.abandoned}
        if kinds and kinds <= {Kind.SIGNAL, Kind.WAIT_FOR} and self.next_due_ms() is None:
            return WAITING
        return PENDING

    def read_mail(self, mail: Mailbox) -> None:
        """Take in what others have left for the flow."""
        self.pokes = max(self.pokes, mail.pokes)
        self.signals = [s for s in mail.signals if s.signal_id not in self.taken]
        if mail.cancel_requested_at_ms is not None:
            self.write_cancel(mail.cancel_requested_at_ms)
        self.engine.hand_out(self, mail)

    # What the flow's code may ask without a step.

    def rng(self) -> random.Random:
        """Return the flow's own generator, the same in every replay."""
        if self._random is None:
            self._random = random.Random(self.flow.seed)  # noqa: S311 - determinism is the point
        return self._random

    def uuid(self) -> uuid.UUID:
        """Return the next UUID of the flow, the same in every replay."""
        return uuid.UUID(int=self.rng().getrandbits(128), version=4)

    def enter(self, variable: ContextVar[Any] = scope) -> None:
        """Make this the flow of the current context."""
        variable.set(self)

    def name_id(self, definition: Definition) -> int:
        """Return the number of a definition's name in this store."""
        store = self.engine.store_number
        found = definition.name_ids.get(store)
        if found is None:
            found = definition.name_ids[store] = self.engine.intern(definition.log_name)
        return found
