"""The mark of a promotion in a PostgreSQL store, and the triggers that hold everybody to it."""

from __future__ import annotations

from persistasaurus._store._pg_rows import Session
from persistasaurus._store.service import Mark, Service, check_arriving, refused
from persistasaurus._store.whole import TABLES
from persistasaurus.errors import StoreMovedError

GUARDED = (*[table.name for table in TABLES], "worker")


def read_mark(session: Session) -> Mark | None:
    """Return the mark, None where there never was a promotion."""
    rows = session.rows("SELECT state, place, token FROM {schema}.service")
    return next((Mark(Service(state), place, token) for state, place, token in rows), None)


def check_in_service(session: Session, shown: str) -> None:
    """Raise StoreMovedError where the store is out of service."""
    mark = read_mark(session)
    if mark is not None and not mark.in_service:
        raise StoreMovedError(refused(shown, mark))


def lock(session: Session) -> None:
    """Wait for everybody's transactions, and let nobody write until the caller's transaction has ended."""
    for table in GUARDED:
        session.send("LOCK TABLE {schema}.{table} IN SHARE ROW EXCLUSIVE MODE".replace("{table}", table))


def write_mark(session: Session, mark: Mark | None, shown: str) -> None:
    """Replace the mark, and guard the tables where it lets nobody in; the caller holds the lock.

    The triggers are always there, disabled: to create or drop one would wait for every reader, and a backup
    reads for long.
    """
    session.send("DELETE FROM {schema}.service")
    if mark is not None:
        session.send(
            "INSERT INTO {schema}.service (id, state, place, token, message) VALUES (1, $1, $2, $3, $4)",
            (*mark, refused(shown, mark)),
        )
    act = "DISABLE" if mark is None or mark.in_service else "ENABLE"
    for table in GUARDED:
        sql = "ALTER TABLE {schema}.{table} {act} TRIGGER out_of_service"
        session.send(sql.replace("{table}", table).replace("{act}", act))


def act_as(session: Session, token: str | None, shown: str) -> None:
    """Pass the triggers, in this transaction, of a store that is being filled by the promotion of that token.

    Raises:
        StoreError: it is not, or not any more.
    """
    if token is None:
        return
    # Shared, so that nobody gives the promotion up in the middle.
    session.send("SELECT FROM {schema}.service FOR SHARE")
    check_arriving(read_mark(session), token, shown)
    session.send("SELECT set_config('persistasaurus.promotion', $1, true)", (token,))
