"""Marks, by which a store finds out what became of a transaction whose answer was lost.

Each transaction of a writer leaves a number of its own in the writer's row. After a lost connection the row
says whether the transaction was committed: it is locked for the look, which waits for what the server may
still be doing for the connection that broke.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import psycopg

from persistasaurus._clock import SystemClock
from persistasaurus._store._pg_errors import WRITER_GONE, ConnectionLost
from persistasaurus._store._pg_pool import Pool
from persistasaurus._store._pg_rows import Session, numbers
from persistasaurus.errors import OutcomeUnknownError, StoreError

T = TypeVar("T")

PATIENCE_S = 3.0
"""How long a call looks for the outcome of its transaction before it says that it is not known."""
LOCK_PATIENCE_MS = 5_000
"""How long one that ends a worker, or a store, waits for another session's lock."""
TRIES = 3
"""Of a transaction whose connection breaks each time: it may be what breaks it."""
FORGOTTEN_MS = 3_600_000
"""Rows of stores that nobody has seen for so long are removed."""

_REAL = SystemClock()


class Mark(NamedTuple):
    """What a transaction leaves in its writer's row."""

    writer_id: int
    number: int


class Writer:
    """One row for marks; its transactions follow one another."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._number = 0
        self._unknown: int | None = None
        self._known: dict[int, bool] = {}
        self.writer_id = 0

    def open(self) -> None:
        """Make the row, for this opening of the store."""
        self.writer_id = self._pool.write(_insert)
        self._number, self._unknown = 0, None
        self._known.clear()

    def new_mark(self) -> int:
        """Return a number for a transaction."""
        with self._lock:
            self._number += 1
            return self._number

    def run(self, number: int | None, act: Callable[[Session, Mark], T], look: Callable[[Session], T]) -> T:
        """Run `act`, one transaction that leaves the mark, at most once; `look` reads its answer back.

        The same number again after an OutcomeUnknownError, which bears it, goes on with the same transaction.
        Without one the next is taken, in the order in which the transactions are run: marks only rise.

        Raises:
            OutcomeUnknownError: the connection was lost meanwhile and the server cannot be asked yet.
            StoreError: nothing was applied.
        """
        with self._lock:
            if number is None:
                self._number += 1
                number = self._number
            try:
                return self._run(number, act, look)
            except OutcomeUnknownError as error:
                error.mark = number
                raise

    def _run(self, number: int, act: Callable[[Session, Mark], T], look: Callable[[Session], T]) -> T:
        happened = self._settle(number)
        tries = 0
        while not happened:
            try:
                return self._attempt(number, act)
            except ConnectionLost as lost:
                tries += 1
                if not lost.sent:
                    raise
                self._unknown = number
                happened = self._happened(number)
                if not happened and tries == TRIES:
                    raise
        try:
            return self._patiently(lambda: self._pool.read(look))
        except OutcomeUnknownError:
            # It has happened: given again, it must not happen once more.
            self._known[number] = True
            raise

    def _settle(self, number: int) -> bool:
        """Return whether the transaction of a mark was committed when its outcome was not known."""
        if self._unknown is not None and self._unknown != number:
            self._settle_another(self._unknown)
        if self._unknown is not None:
            return self._happened(number)
        return self._known.pop(number, False)

    def _attempt(self, number: int, act: Callable[[Session, Mark], T]) -> T:
        try:
            return self._pool.write(lambda session: act(session, Mark(self.writer_id, number)))
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, psycopg.Error) or cause.sqlstate != WRITER_GONE:
                raise
        # Removed, for this store was not seen for long: begin anew.
        self.writer_id = self._pool.write(_insert)
        return self._pool.write(lambda session: act(session, Mark(self.writer_id, number)))

    def _settle_another(self, unknown: int) -> None:
        try:
            self._known[unknown] = self._happened(unknown)
        except OutcomeUnknownError as error:
            # Its own mark would hide that of the other.
            raise StoreError(f"Nothing of this was written: an earlier write comes first. {error}") from error

    def _happened(self, number: int) -> bool:
        """Find out whether the transaction of a mark was committed."""
        happened, self.writer_id = self._patiently(
            lambda: self._pool.write(lambda session: _fence_off(session, self.writer_id, number))
        )
        self._unknown = None
        return happened

    def _patiently(self, ask: Callable[[], T]) -> T:
        give_up_at, pause = _REAL.steady() + PATIENCE_S, 0.02
        while True:
            try:
                return ask()
            except StoreError as error:
                if _REAL.steady() >= give_up_at or self._pool.unusable:
                    raise _unknown(self._pool.address.shown, error) from error
            time.sleep(pause)
            pause = min(pause * 2, 0.5)


def _unknown(shown: str, error: StoreError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"The connection to the database {shown} was lost during a commit, and whether that was written "
        f"is not known yet: it may be there already, or be written later. ({error}) A start with an id of "
        "one's own and a cancel are safe to repeat; before a signal is sent again, look whether it arrived."
    )


def _insert(session: Session) -> int:
    ((writer_id,),) = session.rows(
        "INSERT INTO {schema}.writer (mark, seen_at_ms) VALUES (0, {schema}.clock_ms()) RETURNING writer_id"
    )
    return int(writer_id)


def _fence_off(session: Session, writer_id: int, number: int) -> tuple[bool, int]:
    """Return whether the mark was left, and the writer's number from now on: a new one where it was not.

    What is under way to the server, in whatever buffer, bears the old one and is refused when it arrives.
    """
    with session.transaction():
        session.send("SELECT set_config('lock_timeout', '1s', true)")
        renamed = session.send(
            """
            UPDATE {schema}.writer SET writer_id = DEFAULT WHERE writer_id = $1 AND mark <> $2
            RETURNING writer_id
            """,
            (writer_id, number),
        )
        found = session.send("SELECT FROM {schema}.writer WHERE writer_id = $1", (writer_id,))
    row = renamed.fetchone()
    return found.rowcount > 0, writer_id if row is None else int(row[0])


def wait_briefly(session: Session) -> None:
    """Have the transaction that has begun wait for another's lock for some seconds, not for ever."""
    session.send("SELECT set_config('lock_timeout', $1, true)", (f"{LOCK_PATIENCE_MS}ms",))


def leave(session: Session, writer_ids: list[int]) -> None:
    """Remove the rows of a store that is closed."""
    with session.transaction():
        wait_briefly(session)
        remove(session, writer_ids)


def remove(session: Session, writer_ids: list[int]) -> None:
    """Remove the rows of a store that is closed, and those that nobody has seen for long."""
    session.send(
        """
        WITH gone AS (
            DELETE FROM {schema}.writer
            WHERE writer_id = ANY ($1::bigint[])
                OR (writer_id > 0 AND seen_at_ms < {schema}.clock_ms() - $2)
            RETURNING mark
        )
        UPDATE {schema}.writer SET mark = mark + (SELECT coalesce(sum(mark), 0) FROM gone)
        WHERE writer_id = 0 AND EXISTS (SELECT FROM gone)
        """,
        (numbers(writer_ids), FORGOTTEN_MS),
    )


def touch(session: Session, writer_ids: list[int]) -> int:
    """Note that the store is still there, remove those that are not, and return the server's time."""
    remove(session, [])
    ((now_ms,),) = session.rows("SELECT {schema}.clock_ms()")
    session.send(
        "UPDATE {schema}.writer SET seen_at_ms = $1 WHERE writer_id = ANY ($2::bigint[])",
        (now_ms, numbers(writer_ids)),
    )
    return int(now_ms)
