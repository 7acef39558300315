"""One flow instance in memory: what it has asked for, what it has seen, what it waits for.

A run is driven by one thread at a time: `AsyncRun` by the host's event loop, `SyncRun` by the thread of
the flow. Both replay the recorded events first and then go on with those that are committed live.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from persistasaurus._engine import dispatch, outbox
from persistasaurus._engine.attempts import is_settled
from persistasaurus._engine.calls import Calls
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
from persistasaurus._engine.operation import Operation, RowParts
from persistasaurus._engine.progress import Progress
from persistasaurus._engine.recorded import decode_recorded
from persistasaurus._engine.retried import is_asked_again, next_number, renumber, take_another_way
from persistasaurus._engine.signals import note_taken
from persistasaurus._model import PENDING, Kind
from persistasaurus._store.base import FlowRow, FlowUpdate, Mailbox, SignalRow
from persistasaurus.errors import FlowParked, StoreError

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.registry import Definition, Target


class Halt(BaseException):
    """Unwinds a flow's body; no `except Exception` stops it and no step starts while it does."""


class StoreTrouble(Halt):
    """The store failed in a call of the flow's own: none of the flow's failures, it goes on from its log."""


class Run(Calls):
    """The state that both drivers share."""

    thread_ident: int | None = None
    """The thread that runs the flow's code right now, which tells its calls from those of other threads."""
    instance: Any = None
    # CPython keeps up to thirty attributes of an object in a row, and more in a table of its own, slow to
    # make and to read: those in which few flows differ stand here until they do.
    recorded: deque[Event] | tuple[()] = ()
    """Events of the history that the flow has not been shown yet."""
    last_recorded = 0
    replayed = 0
    """How many events were recorded when the flow was claimed."""
    events = 0
    chain = 0
    """The number and the checksum of the last event that was given its place in the log."""
    number = 0
    seen = 0
    live = False
    in_flight = 0
    """Commits on their way that the driver waits for."""
    active = 0
    """Attempts running right now."""
    held = 0
    """Attempts kept back because this worker may not start any."""
    idle = False
    """Whether the store may say that nothing of the flow runs."""
    halted: BaseException | None = None
    finished = False
    pokes = 0
    crashes = 0
    lost_claims = 0
    lost_before = 0
    """Earlier claims that ended without a release."""
    cancel_sent = False
    cancelled_at_ms: int | None = None
    cancel_event: int | None = None
    has_children = False
    frontier: list[Operation] | None = None
    """What the flow has asked for beyond the history that it is being shown."""
    signals: Sequence[SignalRow] = ()
    taken: AbstractSet[int] = frozenset()
    unclaimed: Sequence[Operation] = ()
    """Waits whose signal came when the flow had just left them, oldest first."""
    failures: dict[int, tuple[BaseException, int, int]] | None = None
    """What steps have raised, with their numbers and their names'."""
    mail: Mailbox | None = None
    """What others had left when the flow was claimed; read once its history is used up."""
    mail_read = False
    """Whether it was; a flow that was started just now reads it when it first waits for a signal."""

    def __init__(
        self, engine: Engine, flow: FlowRow, target: Target, replay: Replay, bound: dict[str, Any]
    ) -> None:
        self.engine = engine
        self.worker_id = flow.owner
        self.key = flow.flow_key
        self.flow_id = flow.flow_id
        self.flow = flow
        self.target = target
        self.bound = bound
        self.now_ms = flow.created_at_ms
        self.rows = replay.rows
        if replay.rows or replay.events:
            self.recorded = deque(replay.events)
            self.last_recorded = max((n for n, row in replay.rows.items() if row[6] >= 0), default=0)
            self.replayed = self.events = len(replay.events)
            self.chain = replay.chain
        self.open: dict[int, Operation] = {}
        self.unwritten: dict[int, Operation | RowParts] = {}
        """What has begun and travels with the flow's next commit; an operation stands for its row by then."""
        if flow.pokes:
            self.pokes = flow.pokes
        if flow.crashes:
            self.crashes = flow.crashes
        if flow.lost_claims:
            self.lost_claims = self.lost_before = flow.lost_claims
        if flow.cancel_event is not None:
            self.cancel_sent = True
            self.cancel_event = flow.cancel_event
            self.cancelled_at_ms = flow.cancel_event_at_ms
        self.guard = threading.Lock()
        """Held for a moment where steps that end in other threads touch the counts and rows."""

    # What the two drivers do each in its own way.

    @abstractmethod
    def start(self) -> None:
        """Begin to drive the flow; from any thread."""

    @abstractmethod
    def post(self, note: Callable[[], None]) -> None:
        """Have the driver call `note` soon; from any thread."""

    @abstractmethod
    def settle(self, operation: Operation) -> None:
        """Show the flow a completion."""

    @abstractmethod
    def committed(self, report: Progress) -> None:
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

    def ask(self, kind: Kind, name_id: int) -> Operation:
        """Give the next operation its step number, and hold it against the log."""
        if self.halted is not None:
            raise self.halted if isinstance(self.halted, Halt) else Halt
        if self.number >= self.engine.settings.max_steps:
            self._too_many()
        if not self.rows:
            self.number += 1
            operation = self.open[self.number] = Operation(self.number, kind, name_id, None, self.seen)
            return operation
        number = next_number(self)
        row = self.rows.get(number)
        if row is not None and row[6] == AFTER_REOPENED and not is_asked_again(row, kind, name_id):
            number, row = take_another_way(self, number), None
        self.number = number
        operation = Operation(number, kind, name_id, row, self.seen)
        if row is not None:
            if differs(row, kind, name_id):
                self._differs(row, kind, name_id)
            if row[11] is None:
                operation.restore()
        self.open[number] = operation
        return operation

    def ask_done(self, operation: Operation) -> None:
        """Go on with a described operation: begin it where the flow is past its recorded history."""
        row = operation.row
        if row is not None:
            if row[6] == AFTER_REOPENED and row[13] != operation.parameters:
                renumber(self, operation)
            if row[11] is not None:
                return
        if self.live:
            dispatch.begin(self.engine, self, operation)
        else:
            if self.frontier is None:
                self.frontier = []
            self.frontier.append(operation)

    def _differs(self, row: Any, kind: int, name_id: int) -> None:
        """Stop the flow, which is to be parked."""
        names = self.engine.names
        recorded = describe(row.kind, names.of(row.name_id))
        self.halted = mismatch(self.flow_id, row.step, recorded, describe(kind, names.of(name_id)))
        raise Halt

    def _too_many(self) -> None:
        """Stop the flow, which is to be parked, before its history is longer than a replay can bear."""
        self.halted = FlowParked(
            f"Flow {self.flow_id!r} asked for more steps than max_steps={self.engine.settings.max_steps:,}. "
            "Leave its loop, let it start another flow for the rest, or raise max_steps; then retry the flow."
        )
        raise Halt

    # Showing completions to the flow.

    def show(self, operation: Operation | None) -> None:
        """Show the flow what was committed just now: the end of an operation, or with None its cancel."""
        if operation is None:
            self.deliver(CANCEL, self.cancelled_at_ms or 0)
        else:
            self.deliver(operation.number, operation.started_at_ms + (operation.ended_after_ms or 0))

    def deliver(self, step: int, at_ms: int) -> None:
        """Show the flow its next recorded or committed completion."""
        self.seen += 1
        if at_ms > self.now_ms:  # noqa: PLR1730 - max() is a call
            self.now_ms = at_ms
        if step == CANCEL:
            self.show_cancel()
            return
        operation = self.open.pop(step, None)
        if operation is None:
            if step > self.number:
                self._not_asked(step)
            return
        operation.done = True
        self.settle(operation)
        if operation.kind == Kind.SIGNAL:
            note_taken(self, operation)

    @abstractmethod
    def show_cancel(self) -> None:
        """Raise the cancel in the flow's code."""

    def _not_asked(self, step: int) -> None:
        row = self.rows[step]
        recorded = describe(row.kind, self.engine.names.of(row.name_id))
        self.halted = not_asked(self.flow_id, step, recorded)

    def go_live(self) -> None:
        """Begin what the flow has asked for beyond its recorded history."""
        self.live = True
        self.check_all_asked()
        if self.halted is not None:
            return
        frontier, self.frontier = self.frontier, None
        for operation in frontier or ():
            if not operation.abandoned:
                dispatch.begin(self.engine, self, operation)
        if self.mail is not None:
            mail, self.mail = self.mail, None
            self.read_mail(mail)

    def check_all_asked(self) -> None:
        """Halt the flow where its code has not asked for everything that the log holds."""
        if self.number >= self.last_recorded:
            return
        missing = [n for n in self.rows if n > self.number and self.rows[n].asked >= 0]
        if missing:
            self._not_asked(min(missing))

    def outcome_of(self, operation: Operation) -> None:
        """Set the value or error that a recorded row stands for."""
        if operation.row is not None and operation.row[11] is not None:
            decode_recorded(self.engine, self, operation)
        if operation.error is not None:
            if self.failures is None:
                self.failures = {}
            self.failures[id(operation.error)] = (operation.error, operation.number, operation.name_id)

    # Writing.

    def put(self, report: Progress) -> None:
        """Send a write to the store, with the rows that wait for company."""
        with self.guard:
            outbox.send(self, report)

    def write_starts(self, report: Progress) -> None:
        """Have a write hold every start that is not written yet; called by the writer."""
        outbox.write_starts(self, report)

    def running(self, report: Progress) -> None:
        """Have the write say that the flow runs, and what its crash counts are."""
        if self.lost_claims and is_settled(self):
            self.lost_claims = 0
        if report.completes is not None:
            self.crashes = 0
        self.engine.memory.resting.discard(self.key)
        report.update = self.update(PENDING)

    def written(self, report: Progress) -> None:
        """Take note of what the store says of the flow now; in the driver, in the order of the commits."""
        if report.update is not None:
            # Not before: what begins until then is held back, for a crash during it would not be counted.
            self.idle = report.update.idle

    def update(  # noqa: PLR0913 - the columns that it may set
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

    @abstractmethod
    def at_rest(self) -> bool:
        """Whether the flow waits and nothing is on its way to it; from any thread."""

    def is_busy(self) -> bool:
        """Whether an attempt runs, or a write is on its way."""
        with self.guard:  # under which the one becomes the other
            return bool(self.active or self.in_flight)

    def nothing_runs(self) -> bool:
        """Whether only time, a signal or another flow can bring the flow on."""
        with self.guard:  # as above
            return not (self.active or self.in_flight or self.held)

    def read_mail(self, mail: Mailbox) -> None:
        """Take in what others have left for the flow, once its history is used up."""
        if mail.pokes < (self.mail or self).pokes:
            return  # another thread read it before what was taken in meanwhile, which may hold more
        if not self.live:
            self.mail = mail
            return
        self.mail_read = True
        self.pokes = max(self.pokes, mail.pokes)
        self.signals = [s for s in mail.signals if s.signal_id not in self.taken]
        if mail.cancel_requested_at_ms is not None:
            self.write_cancel(mail.cancel_requested_at_ms)
        dispatch.deal_out(self.engine, self, mail)

    def name_id(self, definition: Definition) -> int:
        """Return the number of a definition's name in this store."""
        store = self.engine.store_number
        found = definition.name_ids.get(store)
        if found is None:
            found = definition.name_ids[store] = self.intern(definition.log_name)
        return found

    def intern(self, name: tuple[str, str]) -> int:
        """Return the number of a name that the flow asks for; where the store fails, the flow is let go."""
        try:
            return self.engine.names.intern(name)
        except StoreError as error:
            self.halted = StoreTrouble(str(error))
            raise self.halted from error
