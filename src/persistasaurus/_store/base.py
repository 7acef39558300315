"""What the engine asks of a store: plain rows in, plain rows out, one method one transaction.

Rows are named tuples in the order of their table's columns, so that they are bound as they are.
Times are milliseconds since 1970 by the clock that the store was given; JSON is text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from persistasaurus._clock import Clock
from persistasaurus._store.pruning import Pruning


class StepRow(NamedTuple):
    """One durable operation of a flow; the columns of table `step` in order."""

    flow_key: int
    step: int
    kind: int
    name_id: int
    status: int
    attempts: int
    asked: int
    """How many events the flow had seen when it asked for the operation."""
    started_at_ms: int
    ended_after_ms: int | None
    """The time from `started_at_ms` to the event."""
    delay_ms: int | None
    due_at_ms: int | None
    """When a pending row goes on by itself: a timer, a delay, the next attempt, a wait's timeout."""
    event: int | None
    """The place of the completion in the flow's order of events, from 1, without gaps."""
    attempts_before: int
    """Attempts made before the step was last reopened; the retry policy counts from there."""
    parameters: str | None
    return_value: str | None
    error: str | None
    checksum: int


class FlowRow(NamedTuple):
    """One flow instance; the columns of table `flow` with its name and owner resolved."""

    flow_key: int
    flow_id: str
    class_name: str
    method_name: str
    status: int
    created_at_ms: int
    updated_at_ms: int
    seed: int
    input: str
    result: str | None
    error: str | None
    reason: str | None
    owner: int | None
    idle: int
    due_at_ms: int | None
    pokes: int
    """Rises with every signal, cancel or child's end, so that a flow going idle notices it."""
    crashes: int
    """Claims that ended without release while the flow ran, since its last event."""
    lost_claims: int
    """The same since anything was recorded for it; unrecorded steps count their attempts from it."""
    parent_key: int | None
    parent_step: int | None
    cancel_requested_at_ms: int | None
    cancel_event: int | None
    cancel_event_at_ms: int | None
    checksum: int
    outcome_checksum: int | None
    trace: str | None = None
    """Where its start came from, as an observer tells it (W3C's traceparent)."""


class NewFlow(NamedTuple):
    """A flow to start. With `claim` the committing worker owns it at once, running."""

    flow_id: str
    name_id: int
    created_at_ms: int
    seed: int
    input: str
    parent_key: int | None
    parent_step: int | None
    checksum: int
    claim: bool
    trace: str | None = None


class StartedFlow(NamedTuple):
    """What became of a `NewFlow`: `created` is false where the id existed, with what it holds."""

    flow_key: int
    created: bool
    name_id: int
    input: str
    status: int
    owner: int | None


class FlowUpdate(NamedTuple):
    """The state that a flow's owner writes; every column it names is set."""

    flow_key: int
    status: int
    updated_at_ms: int
    result: str | None
    error: str | None
    reason: str | None
    release: bool
    """Whether the owner lets go of the flow."""
    idle: bool
    """Whether nothing of the flow runs: a crash of the owner is then none of the flow's."""
    due_at_ms: int | None
    """When to wake the flow; replaced by `updated_at_ms` where `pokes` has risen past `seen_pokes`
    and the flow has not ended, so that what came while the owner looked away is not lost."""
    seen_pokes: int
    crashes: int
    lost_claims: int
    cancel_event: int | None
    cancel_event_at_ms: int | None
    outcome_checksum: int | None


class NewSignal(NamedTuple):
    """A signal for a flow id, whether or not the flow exists."""

    flow_id: str
    name: str
    payload: str
    sent_at_ms: int
    checksum: int


class SignalRow(NamedTuple):
    """A signal that is pending, or was set aside with the `rejected` reason."""

    signal_id: int
    flow_id: str
    name: str
    payload: str
    sent_at_ms: int
    rejected: str | None
    checksum: int


class ChildOutcome(NamedTuple):
    """How a child flow ended, for its parent."""

    parent_step: int
    flow_key: int
    flow_id: str
    status: int
    result: str | None
    error: str | None
    reason: str | None
    outcome_checksum: int | None


class Mailbox(NamedTuple):
    """What others have left for a flow since it last looked."""

    pokes: int
    cancel_requested_at_ms: int | None
    signals: Sequence[SignalRow]
    """Pending ones, oldest first."""
    children: Sequence[ChildOutcome]
    """Children that have ended or are parked."""


SHORT = 64
"""So many steps has a history at most that is read together with others."""


class History(NamedTuple):
    """All that is needed to replay a flow: one consistent read."""

    flow: FlowRow
    steps: Sequence[StepRow]
    """In the order of their step numbers."""
    mailbox: Mailbox


class Claim(NamedTuple):
    """One round of claiming: what this worker now owns, and when to ask again."""

    flow_keys: Sequence[int]
    """Newly owned, oldest due first."""
    poked: Sequence[int]
    """Flows this worker owned already whose due time has come or that were poked."""
    next_due_at_ms: int | None
    """The earliest due time still ahead among flows that this worker could claim."""


class WorkerRow(NamedTuple):
    """A living worker. `host` names a boot of a machine and a process namespace."""

    worker_id: int
    incarnation: str
    host: str
    pid: int
    process_started: str
    names: str
    """The names that it can drive, a JSON list."""
    expired: bool = False
    """Whether its lease was over when the store was asked, by the clock that the store judges leases by."""


@dataclass(slots=True)
class Batch:
    """One group commit: everything in it becomes durable together, or nothing does.

    `worker_id` is checked first where the batch holds an owner's writes (`steps`, `updates`,
    `consumed`, `rejected`, `poke`, `cancel_children`, claimed starts). After an OutcomeUnknownError the very
    same batch is to be given again, unchanged and before any other, until its outcome is known.
    """

    worker_id: int | None = None
    starts: list[NewFlow] = field(default_factory=list[NewFlow])
    steps: list[StepRow] = field(default_factory=list[StepRow])
    updates: list[FlowUpdate] = field(default_factory=list[FlowUpdate])
    consumed: list[int] = field(default_factory=list[int])
    """Signal ids to delete."""
    rejected: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Signal ids to set aside, with the reason."""
    poke: list[int] = field(default_factory=list[int])
    """Flow keys (parents) to wake at once."""
    cancel_children: list[int] = field(default_factory=list[int])
    """Flow keys whose unended children are to be cancelled."""
    signals: list[NewSignal] = field(default_factory=list[NewSignal])
    cancels: list[str] = field(default_factory=list[str])
    """Flow ids to cancel; one that is parked, or that never ran, ends at once."""
    mark: int | None = None
    """The store's own note, by which it knows a batch again whose outcome was not known."""


class Committed(NamedTuple):
    """The answers of a group commit, in the order of the batch's lists."""

    starts: Sequence[StartedFlow]
    signals: Sequence[int | None]
    """For each signal the key of the flow that was poked, None where there is none (yet)."""
    cancels: Sequence[tuple[int, int] | None]
    """For each cancel the flow's key and its status after it, None where the id is unknown."""


class FlowFilter(NamedTuple):
    """What to list; None does not restrict."""

    statuses: Sequence[int] | None = None
    names: Sequence[tuple[str, str]] | None = None
    """(class_name, method_name) pairs."""
    id_prefix: str | None = None
    parent_key: int | None = None
    created_from_ms: int | None = None
    created_before_ms: int | None = None


class Store(Pruning, Protocol):
    """A durable store of flows. Every method is one transaction and may be called from any thread.

    Raises:
        StoreError: the database cannot be read or written; nothing of the call was applied.
        OutcomeUnknownError: a connection was lost, and whether the call was applied is not known yet.
        LeaseLost: `worker_id` is not a living worker any more; nothing of the call was applied.
    """

    @property
    def clock(self) -> Clock:
        """The clock that due times and records go by."""
        ...

    @property
    def one_machine(self) -> bool:
        """Whether all who use the store are on this machine, so that another boot's workers are gone."""
        ...

    @property
    def poll_s(self) -> float:
        """How long to wait between two questions for `changes`; less where nobody tells of them."""
        ...

    @property
    def longest_batch(self) -> int:
        """How many writes are best given to one commit, where more than that are there."""
        ...

    def open(self, on_change: Callable[[], None] | None = None) -> None:
        """Open or create the database and migrate it under a lock.

        `on_change` is called from any thread when others may have committed: a hint, which may be wrong
        and may never come.
        """
        ...

    def close(self) -> None:
        """Close every connection; calling it twice is harmless."""
        ...

    def intern(self, class_name: str, method_name: str) -> int:
        """Return the number that stands for a name in the rows, the same for ever."""
        ...

    def intern_all(self, names: Collection[tuple[str, str]]) -> list[int]:
        """Return the numbers of many names, in their order, by one transaction."""
        ...

    def commit(self, batch: Batch) -> Committed:
        """Apply a group commit durably: fenced by the worker, all or nothing."""
        ...

    def register_worker(self, worker: WorkerRow, *, lease_ms: int) -> int:
        """Record a living worker (its `worker_id` is ignored) and return its number, never reused.

        Its lease lasts `lease_ms` from now, by the clock of the store.
        """
        ...

    def renew_lease(self, worker_id: int, *, lease_ms: int, names: str) -> None:
        """Let a living worker's lease last `lease_ms` from now."""
        ...

    def workers(self) -> Sequence[WorkerRow]:
        """Return the living workers, oldest first."""
        ...

    def take_over(self, worker_id: int, *, now_ms: int, only_expired: bool) -> int:
        """Mark a worker dead and release its flows, counting a crash for those that ran.

        With `only_expired` only if its lease is over; returns the flows released.
        """
        ...

    def release_worker(self, worker_id: int, *, now_ms: int, crashed: bool = False) -> None:
        """End a worker: its flows are free, and only where it has `crashed` is that counted."""
        ...

    def claim(self, worker_id: int, name_ids: Sequence[int], *, now_ms: int, limit: int) -> Claim:
        """Take up to `limit` due flows of these names, each oldest first, a share for each name.

        A flow with two or more crashes is a suspect: one is claimed only while no other suspect is
        owned by a living worker and running (so that only the guilty one of a crash loop is left).
        """
        ...

    def load(self, flow_key: int) -> History | None:
        """Return everything about one flow."""
        ...

    def load_short(self, flow_keys: Sequence[int]) -> Sequence[History]:
        """Return everything about different flows at once; those long or damaged are for `load`."""
        ...

    def mailbox(self, flow_key: int) -> Mailbox | None:
        """Return what others have left for a flow."""
        ...

    def find(self, flow_id: str) -> FlowRow | None:
        """Return a flow by its id."""
        ...

    def list_flows(self, which: FlowFilter, *, before_key: int | None, limit: int) -> Sequence[FlowRow]:
        """Return a page of flows, newest first, those with a key below `before_key`."""
        ...

    def signals(self, flow_id: str) -> Sequence[SignalRow]:
        """Return a flow id's pending and rejected signals, oldest first."""
        ...

    def names(self) -> dict[int, tuple[str, str]]:
        """Return every interned name as number -> (class_name, method_name)."""
        ...

    def reopen(
        self, expected: FlowRow, *, steps: Sequence[StepRow], dropped: Sequence[int], now_ms: int
    ) -> bool:
        """Make a failed or parked flow due again with these rows rewritten and those steps dropped.

        Clears its result, error, reason and `crashes` (not `lost_claims`: its steps may have run), and the
        cancel of one that has ended. Counts as a poke, so that no row looks the same after it: false where
        status or pokes are not those expected.
        """
        ...

    def size(self) -> int:
        """Return how many bytes the store takes, as far as can be told."""
        ...

    def changes(self) -> int:
        """Return a number that differs once any process has committed; cheap enough to poll."""
        ...

    def check(self) -> None:
        """Raise StoreError where the database file was moved, deleted or replaced, or a schema dropped."""
        ...
