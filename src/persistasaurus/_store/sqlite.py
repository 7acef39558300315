"""The SQLite store: one file, any number of processes of one machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from persistasaurus._clock import Clock, SystemClock
from persistasaurus._store import _sqlite_claim, _sqlite_commit, _sqlite_list, _sqlite_prune, _sqlite_read
from persistasaurus._store._sqlite_errors import damage_named
from persistasaurus._store._sqlite_file import SqliteFile
from persistasaurus._store._sqlite_open import Durability
from persistasaurus._store._sqlite_rows import read_rows, write, write_rows
from persistasaurus._store._sqlite_service import check_in_service
from persistasaurus._store.base import (
    Batch,
    Claim,
    Committed,
    FlowFilter,
    FlowRow,
    History,
    Mailbox,
    SignalRow,
    StepRow,
    WorkerRow,
)
from persistasaurus._store.pruning import Pruned, portion
from persistasaurus.errors import DamagedRecordError

T = TypeVar("T")


class SqliteStore:
    """A store in a SQLite file, or in memory with the path ":memory:".

    With `durability="full"` a commit that returned survives a power loss; the other setting says what
    it gives up. `busy_timeout_s` is how long a call waits while other processes hold the write lock.
    `clock` gives the times that no caller hands in: those of cancels and of pokes without an update.
    """

    one_machine = True
    poll_s = 0.0
    longest_batch = _sqlite_commit.STEPS_AT_ONCE

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        durability: Durability = "full",
        busy_timeout_s: float = 300.0,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self._file = SqliteFile(path, durability=durability, busy_timeout_s=busy_timeout_s)
        self._interned: dict[tuple[str, str], int] = {}

    def commit(self, batch: Batch) -> Committed:
        """Apply a group commit durably, in one transaction; a small batch of steps in one statement."""
        if _sqlite_commit.is_one_statement(batch):
            self._file.write_statement(
                lambda db: _sqlite_commit.write_steps(db, batch.steps, batch.worker_id)
            )
            return _sqlite_commit.NOTHING
        return self._file.write(lambda db: _sqlite_commit.apply(db, batch, now_ms=self.clock.now_ms()))

    def open(self, on_change: Callable[[], None] | None = None) -> None:
        """Open or create the database and migrate it under a lock; nobody tells of changes.

        Raises:
            StoreMovedError: it is out of service.
        """
        self._file.open()
        try:
            self._file.read(lambda db: check_in_service(db, self._file.path))
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close every connection; the last one of all processes removes the write-ahead log."""
        self._file.close()
        self._interned.clear()

    def intern(self, class_name: str, method_name: str) -> int:
        """Return the number of a name; one transaction where the name is new."""
        return self.intern_all([(class_name, method_name)])[0]

    def intern_all(self, names: Collection[tuple[str, str]]) -> list[int]:
        """Return the numbers of names; one transaction where one is new."""
        if asked := [name for name in names if name not in self._interned]:
            found = self._file.write(lambda db: [_intern(db, name) for name in asked])
            self._interned.update(zip(asked, found, strict=True))
        return [self._interned[name] for name in names]

    def register_worker(self, worker: WorkerRow, *, lease_ms: int) -> int:
        """Record a living worker in one transaction; the same incarnation again keeps its number."""
        until_ms = self._steady_ms() + lease_ms
        return self._file.write(lambda db: _sqlite_claim.register_worker(db, worker, until_ms))

    def renew_lease(self, worker_id: int, *, lease_ms: int, names: str) -> None:
        """Extend a living worker's lease in one transaction."""
        until_ms = self._steady_ms() + lease_ms
        self._file.write(lambda db: _sqlite_claim.renew_lease(db, worker_id, until_ms, names))

    def workers(self) -> Sequence[WorkerRow]:
        """Return the living workers, oldest first."""
        return self._file.read(lambda db: _sqlite_read.workers(db, self._steady_ms()))

    def take_over(self, worker_id: int, *, now_ms: int, only_expired: bool) -> int:
        """Mark a worker dead and free its flows in one transaction."""
        expired_at_ms = self._steady_ms() if only_expired else None
        return self._file.write(
            lambda db: _sqlite_claim.take_over(db, worker_id, now_ms=now_ms, expired_at_ms=expired_at_ms)
        )

    def release_worker(self, worker_id: int, *, now_ms: int, crashed: bool = False) -> None:
        """End a worker in one transaction, in good order or as after a crash."""
        self._file.hurry()
        if crashed:
            self.take_over(worker_id, now_ms=now_ms, only_expired=False)
            return
        self._file.write(lambda db: _sqlite_claim.release_worker(db, worker_id, now_ms=now_ms))

    def claim(self, worker_id: int, name_ids: Sequence[int], *, now_ms: int, limit: int) -> Claim:
        """Take due flows in one transaction; where nothing is due, no lock is taken."""
        due = self._file.read(
            lambda db: _sqlite_claim.look(db, worker_id, name_ids, now_ms=now_ms, limit=limit)
        )
        if not due.flow_keys and not due.poked:
            return Claim((), (), due.next_due_at_ms)
        return self._file.write(
            lambda db: _sqlite_claim.claim(db, worker_id, name_ids, now_ms=now_ms, limit=limit)
        )

    def load(self, flow_key: int) -> History | None:
        """Return everything about one flow, from one snapshot.

        Raises:
            DamagedRecordError: a row cannot be read.
        """
        return self._read_flows(f"flow {flow_key}", lambda db: _sqlite_read.load(db, flow_key))

    def load_short(self, flow_keys: Sequence[int]) -> Sequence[History]:
        """Return everything about some flows, each from one snapshot; not of those long or damaged."""
        try:
            return self._read_flows("some flows", lambda db: _sqlite_read.load_short(db, flow_keys))
        except DamagedRecordError:
            return ()

    def mailbox(self, flow_key: int) -> Mailbox | None:
        """Return what others have left for a flow, from one snapshot.

        Raises:
            DamagedRecordError: a row cannot be read.
        """
        return self._read_flows(f"flow {flow_key}", lambda db: _sqlite_read.mailbox(db, flow_key))

    def find(self, flow_id: str) -> FlowRow | None:
        """Return a flow by its id.

        Raises:
            DamagedRecordError: the row cannot be read.
        """
        return self._read_flows(f"flow '{flow_id}'", lambda db: _sqlite_read.find(db, flow_id))

    def list_flows(self, which: FlowFilter, *, before_key: int | None, limit: int) -> Sequence[FlowRow]:
        """Return a page of flows, newest first.

        Raises:
            DamagedRecordError: a row cannot be read.
        """
        return self._read_flows(
            "a page of flows",
            lambda db: _sqlite_list.list_flows(db, which, before_key=before_key, limit=limit),
        )

    def signals(self, flow_id: str) -> Sequence[SignalRow]:
        """Return a flow id's pending and rejected signals, oldest first."""
        return self._file.read(lambda db: _sqlite_read.signals(db, flow_id))

    def names(self) -> dict[int, tuple[str, str]]:
        """Return every interned name."""
        return self._file.read(_sqlite_read.names)

    def reopen(
        self, expected: FlowRow, *, steps: Sequence[StepRow], dropped: Sequence[int], now_ms: int
    ) -> bool:
        """Make a failed or parked flow due again, in one transaction."""
        return self._file.write(lambda db: _reopen(db, expected, steps=steps, dropped=dropped, now_ms=now_ms))

    def prune(self, before_ms: int, *, limit: int) -> Pruned:
        """Remove flows that ended long ago in one transaction; where there are none, no lock is taken."""
        families = self._file.read(lambda db: _sqlite_prune.look(db, before_ms, limit))
        next_end_ms = self._file.read(lambda db: _sqlite_prune.next_end_ms(db, before_ms))
        if not families:
            return Pruned(0, next_end_ms)
        roots = portion(families, limit)
        return Pruned(self._file.write(lambda db: _sqlite_prune.prune(db, roots, before_ms)), next_end_ms)

    def prunable(self, before_ms: int) -> int:
        """Return how many flows `prune` would remove."""
        return self._file.read(lambda db: _sqlite_prune.count(db, before_ms))

    def size(self) -> int:
        """Return the bytes of the file and its log."""
        return self._file.size()

    def changes(self) -> int:
        """Return a number that differs once any process has committed."""
        return self._file.changes()

    def check(self) -> None:
        """Raise StoreError where the database file was moved, deleted or replaced."""
        self._file.check()

    def _steady_ms(self) -> int:
        """Return the time that leases go by: all who use a file share this machine's steady clock."""
        return int(self.clock.steady() * 1000)

    def _read_flows(self, what: str, act: Callable[[apsw.Connection], T]) -> T:
        def guarded(db: apsw.Connection) -> T:
            with damage_named(self._file.path, what):
                return act(db)

        return self._file.read(guarded)


def _intern(connection: apsw.Connection, name: tuple[str, str]) -> int:
    write(connection, "INSERT INTO name (class_name, method_name) VALUES (?, ?) ON CONFLICT DO NOTHING", name)
    ((name_id,),) = read_rows(
        connection, "SELECT name_id FROM name WHERE class_name = ? AND method_name = ?", name
    )
    return int(name_id)


def _reopen(
    connection: apsw.Connection,
    expected: FlowRow,
    *,
    steps: Sequence[StepRow],
    dropped: Sequence[int],
    now_ms: int,
) -> bool:
    changed = write(
        connection,
        """
        UPDATE flow SET
            status = 0, updated_at_ms = ?, due_at_ms = ?, result = NULL, error = NULL, reason = NULL,
            outcome_checksum = NULL, idle = 0, crashes = 0, pokes = pokes + 1,
            cancel_requested_at_ms = CASE WHEN status = 5 THEN cancel_requested_at_ms END,
            cancel_event = CASE WHEN status = 5 THEN cancel_event END,
            cancel_event_at_ms = CASE WHEN status = 5 THEN cancel_event_at_ms END
        WHERE flow_key = ? AND status = ? AND pokes = ? AND owner IS NULL
        """,
        (now_ms, now_ms, expected.flow_key, expected.status, expected.pokes),
    )
    if not changed:
        return False
    write(
        connection,
        "DELETE FROM step WHERE flow_key = ? AND step IN (SELECT value FROM json_each(?))",
        (expected.flow_key, json.dumps(list(dropped))),
    )
    write_rows(
        connection,
        "INSERT OR REPLACE INTO step VALUES {rows}",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        steps,
    )
    return True
