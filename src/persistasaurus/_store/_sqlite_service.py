"""The mark of a promotion in a SQLite store, and the triggers that hold everybody to it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import apsw

from persistasaurus._store._sqlite_rows import read_rows, write
from persistasaurus._store.service import Mark, Service, check_arriving, refused
from persistasaurus._store.whole import TABLES
from persistasaurus.errors import StoreMovedError

_GUARDED = (*[table.name for table in TABLES], "worker")
_ACTS = ("INSERT", "UPDATE", "DELETE")

Act: TypeAlias = Callable[[apsw.Connection], object]


def read_mark(connection: apsw.Connection) -> Mark | None:
    """Return the mark, None where there never was a promotion."""
    rows = read_rows(connection, "SELECT state, place, token FROM service")
    return next((Mark(Service(state), place, token) for state, place, token in rows), None)


def check_in_service(connection: apsw.Connection, path: str) -> None:
    """Raise StoreMovedError where the store is out of service."""
    mark = read_mark(connection)
    if mark is not None and not mark.in_service:
        raise StoreMovedError(refused(f"'{path}'", mark))


def write_mark(connection: apsw.Connection, mark: Mark | None, shown: str) -> None:
    """Replace the mark, and guard the tables by triggers where it lets nobody in.

    A trigger reaches whoever has the file open already: each write looks at the schema.
    """
    for table in _GUARDED:
        for act in _ACTS:
            connection.execute(_DROP.replace("{table}", table).replace("{act}", act))
    write(connection, "DELETE FROM service")
    if mark is None:
        return
    write(connection, "INSERT INTO service VALUES (1, ?, ?, ?)", mark)
    if mark.in_service:
        return
    message = refused(shown, mark).replace("'", "''")
    for table in _GUARDED:
        for act in _ACTS:
            sql = _CREATE.replace("{table}", table).replace("{act}", act)
            connection.execute(sql.replace("{message}", message))


def act_as(connection: apsw.Connection, token: str | None, act: Act, shown: str) -> None:
    """Run `act` past the triggers of a store that is being filled by the promotion of that token.

    Raises:
        StoreError: it is not, or not any more.
    """
    if token is None:
        act(connection)
        return
    check_arriving(read_mark(connection), token, shown)
    # For this connection alone, https://sqlite.org/c3ref/c_dbconfig_defensive.html.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    try:
        act(connection)
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)


_DROP = "DROP TRIGGER IF EXISTS out_of_service_{table}_{act}"
_CREATE = """
    CREATE TRIGGER out_of_service_{table}_{act} BEFORE {act} ON {table}
    BEGIN SELECT RAISE(ABORT, '{message}'); END
"""
