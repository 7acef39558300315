"""The PostgreSQL store: one schema, any number of processes on any number of machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from persistasaurus._clock import Clock, DatabaseClock, SystemClock
from persistasaurus._store import (
    _pg_claim,
    _pg_commit,
    _pg_list,
    _pg_migrate,
    _pg_names,
    _pg_open,
    _pg_prune,
    _pg_read,
    _pg_reopen,
    _pg_writer,
)
from persistasaurus._store._pg_address import address_of
from persistasaurus._store._pg_listen import Listener
from persistasaurus._store._pg_pool import Pool
from persistasaurus._store._pg_rows import Session
from persistasaurus._store._pg_service import check_in_service
from persistasaurus._store._pg_writer import Writer
from persistasaurus._store._sqlite_open import Durability
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
from persistasaurus.errors import OutcomeUnknownError, StoreError

POLL_S = 0.1
POLL_BESIDE_LISTENING_S = 0.25
TOUCH_S = 60.0
"""How often to show that the store is there, and to measure the server's time."""

_OWN_ROWS = 3
"""Rows of marks where no other store is open: two of our own, and the one of those that are gone."""
_REAL = SystemClock()


class PostgresStore:
    """A store in a schema of a PostgreSQL database.

    With `durability="full"` a commit that returned survives whatever the server's own settings survive;
    the other setting says what it gives up. `clock` gives the times that no caller hands in; the machine's
    own clock is replaced by the server's, so that all machines go by one.
    """

    one_machine = False
    longest_batch = 4_096

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        clock: Clock | None = None,
        durability: Durability = "full",
    ) -> None:
        self._address = address_of(url, schema)
        self._pool = Pool(self._address)
        given = clock or SystemClock()
        self._database_clock = DatabaseClock() if isinstance(given, SystemClock) else None
        self.clock: Clock = self._database_clock or given
        self._durability: Durability = durability
        self._synchronous: str | None = None
        self._commits = Writer(self._pool)
        self._others = Writer(self._pool)
        self._lost_claim: tuple[int, int] | None = None
        self._interned: dict[tuple[str, str], int] = {}
        self._listener: Listener | None = None
        self._alone = False
        self._on_change: Callable[[], None] | None = None
        self._touch_at = 0.0

    @property
    def poll_s(self) -> float:
        """How long to wait between two questions for changes; others' notifications come in between."""
        return POLL_S if self._listener is None or not self._listener.hears else POLL_BESIDE_LISTENING_S

    def commit(self, batch: Batch) -> Committed:
        """Apply a group commit durably, in one transaction; a batch of steps by one statement.

        Raises:
            OutcomeUnknownError: the connection was lost; give the same batch again.
        """
        self._pool.check_usable()
        if batch.mark is None:
            batch.mark = self._commits.new_mark()
        now_ms, synchronous = self.clock.now_ms(), self._synchronous
        committed = self._commits.run(
            batch.mark,
            lambda db, mark: _pg_commit.apply(db, batch, mark, now_ms=now_ms, synchronous=synchronous),
            lambda db: _pg_commit.look(db, batch),
        )
        if committed is not _pg_commit.NOTHING:
            self._tell()
        if batch.cancel_children and self._on_change is not None:
            # Some are driven here, and nobody else tells.
            self._on_change()
        return committed

    def open(self, on_change: Callable[[], None] | None = None) -> None:
        """Connect, check the server, create or migrate the schema under a lock.

        Raises:
            StoreMovedError: it is out of service.
        """
        if not self._pool.unusable:
            return
        self._pool.open()
        try:
            self._pool.write(self._prepare)
            self._timed(_server_ms)
            for writer in (self._commits, self._others):
                writer.open()
        except BaseException:
            self._pool.close()
            raise
        self._on_change = on_change
        # Behind a pooler nobody is told: the connection that listens would be another one's a moment later.
        if on_change is not None and not self._pool.pooled:
            self._listener = Listener(self._pool, on_change)

    def close(self) -> None:
        """Close every connection."""
        listener, self._listener = self._listener, None
        if listener is not None and not self._pool.forked:
            listener.close()
        if not self._pool.unusable:
            self._pool.forget(lambda db: _pg_writer.leave(db, self._writer_ids()))
        self._pool.close()
        self._interned.clear()

    def intern(self, class_name: str, method_name: str) -> int:
        """Return the number of a name; one transaction where the name is new."""
        return self.intern_all([(class_name, method_name)])[0]

    def intern_all(self, names: Collection[tuple[str, str]]) -> list[int]:
        """Return the numbers of names; one transaction where one is new."""
        if asked := [name for name in names if name not in self._interned]:
            self._interned.update(self._pool.read(lambda db: _pg_names.intern(db, asked)))
        return [self._interned[name] for name in names]

    def register_worker(self, worker: WorkerRow, *, lease_ms: int) -> int:
        """Record a living worker in one transaction; the same incarnation again keeps its number."""
        return self._timed(lambda db: _pg_claim.register_worker(db, worker, lease_ms))

    def renew_lease(self, worker_id: int, *, lease_ms: int, names: str) -> None:
        """Extend a living worker's lease in one transaction."""
        self._timed(lambda db: (0, _pg_claim.renew_lease(db, worker_id, lease_ms, names)))

    def workers(self) -> Sequence[WorkerRow]:
        """Return the living workers, oldest first."""
        return self._pool.read(_pg_claim.workers)

    def take_over(self, worker_id: int, *, now_ms: int, only_expired: bool) -> int:
        """Mark a worker dead and free its flows in one transaction; 0 where the count was lost."""
        freed = self._others.run(
            None,
            lambda db, mark: _pg_claim.take_over(
                db, worker_id, mark, now_ms=now_ms, only_expired=only_expired
            ),
            lambda _: 0,
        )
        self._tell()
        return freed

    def release_worker(self, worker_id: int, *, now_ms: int, crashed: bool = False) -> None:
        """End a worker in one transaction, in good order or as after a crash."""
        if crashed:
            self.take_over(worker_id, now_ms=now_ms, only_expired=False)
            return
        self._others.run(
            None,
            lambda db, mark: _pg_claim.release_worker(db, worker_id, mark, now_ms=now_ms),
            lambda _: None,
        )
        self._tell()

    def claim(self, worker_id: int, name_ids: Sequence[int], *, now_ms: int, limit: int) -> Claim:
        """Take due flows in one transaction; where nothing is due, no lock is taken.

        A claim whose outcome was not known is found out first, and what it took is the answer.
        """
        if self._lost_claim is not None:
            worker_id_then, number = self._lost_claim
            lost = self._others.run(
                number, lambda _db, _mark: None, lambda db: self._look_at_claim(db, now_ms)
            )
            self._lost_claim = None
            if lost is not None and worker_id_then == worker_id:
                return lost
        which = _pg_claim.Claiming(worker_id, name_ids, now_ms, limit)
        due = self._pool.read(lambda db: _pg_claim.look(db, which))
        if not due.anything:
            return Claim((), (), due.next_due_at_ms)
        try:
            return self._others.run(
                None,
                lambda db, mark: _pg_claim.claim(db, which, mark, suspect=due.suspect),
                lambda db: self._look_at_claim(db, now_ms),
            )
        except OutcomeUnknownError as error:
            self._lost_claim = worker_id, error.mark
            raise

    def load(self, flow_key: int) -> History | None:
        """Return everything about one flow, from one snapshot."""
        return self._pool.read(lambda db: _pg_read.load(db, flow_key))

    def load_short(self, flow_keys: Sequence[int]) -> Sequence[History]:
        """Return everything about some flows, from one snapshot; not of those that are long."""
        return self._pool.read(lambda db: _pg_read.load_short(db, flow_keys))

    def mailbox(self, flow_key: int) -> Mailbox | None:
        """Return what others have left for a flow, from one snapshot."""
        return self._pool.read(lambda db: _pg_read.mailbox(db, flow_key))

    def find(self, flow_id: str) -> FlowRow | None:
        """Return a flow by its id."""
        return self._pool.read(lambda db: _pg_read.find(db, flow_id))

    def list_flows(self, which: FlowFilter, *, before_key: int | None, limit: int) -> Sequence[FlowRow]:
        """Return a page of flows, newest first."""
        return self._pool.read(lambda db: _pg_list.list_flows(db, which, before_key=before_key, limit=limit))

    def signals(self, flow_id: str) -> Sequence[SignalRow]:
        """Return a flow id's pending and rejected signals, oldest first."""
        return self._pool.read(lambda db: _pg_read.signals(db, flow_id))

    def names(self) -> dict[int, tuple[str, str]]:
        """Return every interned name."""
        return self._pool.read(_pg_read.names)

    def reopen(
        self, expected: FlowRow, *, steps: Sequence[StepRow], dropped: Sequence[int], now_ms: int
    ) -> bool:
        """Make a failed or parked flow due again, in one transaction."""
        which = _pg_reopen.Reopening(expected, steps, dropped, now_ms)
        reopened = self._others.run(
            None,
            lambda db, mark: _pg_reopen.reopen(db, which, mark),
            lambda _: True,
        )
        self._tell()
        return reopened

    def prune(self, before_ms: int, *, limit: int) -> Pruned:
        """Remove flows that ended long ago in one transaction, on a connection that no commit waits for.

        It leaves no mark: nobody waits for what it does, and after a lost connection it is done again.
        """
        families = self._pool.read(lambda db: _pg_prune.look(db, before_ms, limit))
        next_end_ms = self._pool.read(lambda db: _pg_prune.next_end_ms(db, before_ms))
        if not families:
            return Pruned(0, next_end_ms)
        roots = portion(families, limit)
        return Pruned(self._pool.write(lambda db: _pg_prune.prune(db, roots, before_ms)), next_end_ms)

    def prunable(self, before_ms: int) -> int:
        """Return how many flows `prune` would remove."""
        return self._pool.read(lambda db: _pg_prune.count(db, before_ms))

    def size(self) -> int:
        """Return the bytes of the schema's tables and indexes."""
        return self._pool.read(_pg_read.size)

    def changes(self) -> int:
        """Return a number that differs once any process has committed what others care about."""
        marks, writers = self._pool.read(_pg_read.changes)
        self._alone = writers <= _OWN_ROWS
        if self._touch_at <= _REAL.steady():
            self._touch_at = _REAL.steady() + TOUCH_S
            with suppress(StoreError):
                self._timed(lambda db: (0, _pg_writer.touch(db, self._writer_ids())))
        return marks

    def check(self) -> None:
        """Raise StoreError where the store is closed, or its schema was dropped."""
        self._pool.check_usable()
        if self._pool.misses_tables and not self._pool.read(_pg_read.exists):
            raise StoreError(
                f"The schema '{self._address.schema}' of the database {self._address.shown} was dropped "
                "while it was open. Restore it from a backup, or start the process again to make a new one."
            )

    def _prepare(self, db: Session) -> None:
        server = _pg_open.ask(db)
        _pg_open.check(server, self._address.shown)
        # A pooler gives us a number of its own.
        if server.backend_pid != db.connection.info.backend_pid:
            self._pool.pooled = True
            db.connection.prepare_threshold = None
        self._synchronous = _pg_open.synchronous_commit(server, self._durability, self._address.shown)
        if not _pg_migrate.is_current(db, self._address.shown):
            _pg_migrate.migrate(db, self._address.shown)
        check_in_service(db, self._address.place)

    def _timed(self, act: Callable[[Session], tuple[int, int]]) -> int:
        """Run an `act` that answers with the server's time as well, and set the clock by it."""
        sent = _REAL.steady()
        answer, server_ms = self._pool.write(act)
        if self._database_clock is not None:
            self._database_clock.measured(server_ms, sent, _REAL.steady())
        return answer

    def _tell(self) -> None:
        """Have other processes look, where there are any."""
        if self._listener is not None and not self._alone:
            self._listener.tell()

    def _look_at_claim(self, db: Session, now_ms: int) -> Claim:
        return _pg_claim.look_at_claim(db, self._others.writer_id, now_ms)

    def _writer_ids(self) -> list[int]:
        return [self._commits.writer_id, self._others.writer_id]


def _server_ms(session: Session) -> tuple[int, int]:
    ((now_ms,),) = session.rows("SELECT {schema}.clock_ms()")
    return 0, now_ms
