"""A SQLite store as a whole, in service or not."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from persistasaurus._store import _sqlite_service as service
from persistasaurus._store._sqlite_errors import explained
from persistasaurus._store._sqlite_file import SqliteFile
from persistasaurus._store._sqlite_open import connect, resolve
from persistasaurus._store._sqlite_rows import read_rows, write
from persistasaurus._store._sqlite_snapshot import SqliteSnapshot
from persistasaurus._store.migrate import is_current
from persistasaurus._store.service import Mark, check_mark
from persistasaurus._store.whole import TABLES, Key, Row, State, Table
from persistasaurus.errors import StoreError

_PAGES = 4_000


class SqliteWhole:
    """The file of a store, opened whether or not it is in service."""

    def __init__(self, path: str | Path) -> None:
        self._file = SqliteFile(path, durability="full", busy_timeout_s=300.0)

    @property
    def shown(self) -> str:
        """The path, as messages quote it."""
        return f"'{self._file.path}'"

    @property
    def path(self) -> str:
        """Where the file is, without symbolic links once it is open."""
        return self._file.path

    def state(self) -> State:
        """Look at the file; nothing is made or changed."""
        path = resolve(self.path)
        if not Path(path).exists():
            return State.MISSING
        with explained(path), closing(connect(path, durability="full", writing=False)) as connection:
            return State.CURRENT if is_current(connection, path) else State.OLD

    def open(self, *, create: bool = False) -> None:
        """Open the file, with `create` also one that does not exist; it is migrated."""
        if not create and not Path(self.path).exists():
            raise StoreError(f"There is no database {self.shown}. Give the path of one.")
        self._file.open()

    def close(self) -> None:
        """Close every connection; where nobody else uses the file, it is whole by itself."""
        self._file.close()

    @contextmanager
    def snapshot(self) -> Generator[SqliteSnapshot, None, None]:
        """Hold what the store is now. The log grows meanwhile, and is cut by a later commit."""
        connection = connect(self.path, durability="full", writing=False)
        with closing(connection):
            connection.execute("BEGIN")
            read_rows(connection, "SELECT count(*) FROM migration")
            yield SqliteSnapshot(connection, self.path)

    def copy_pages(self, target: str, advance: Callable[[int, int], object]) -> None:
        """Copy the file into another one as it is now, while others write (https://sqlite.org/backup.html).

        `advance` is told how many pages of how many are done.
        """
        connection = connect(self.path, durability="full", writing=False)
        with explained(target), closing(connection), closing(apsw.Connection(target)) as into:
            # One snapshot for all of it: else each commit of others would begin the copy anew.
            connection.execute("BEGIN")
            read_rows(connection, "SELECT count(*) FROM migration")
            with into.backup("main", connection, "main") as backup:
                while not backup.done:
                    backup.step(_PAGES)
                    advance(backup.page_count - backup.remaining, backup.page_count)

    def mark(self) -> Mark | None:
        """Return what a promotion has left here."""
        return self._file.read(service.read_mark)

    def is_empty(self) -> bool:
        """Whether nobody has put anything into it and no worker is on it."""
        return self._file.read(_is_empty)

    def take_out_of_service(self, mark: Mark, *, instead_of: Mark | None, empty: bool) -> None:
        """Leave the mark and refuse everybody's writes, in one transaction."""

        def take(db: apsw.Connection) -> None:
            check_mark(service.read_mark(db), instead_of, self.shown)
            if empty and not _is_empty(db):
                raise StoreError(f"The database {self.shown} is not empty any more. Nothing was changed.")
            if read_rows(db, "SELECT 1 FROM worker"):
                raise StoreError(
                    f"A worker has started on the database {self.shown} just now. Nothing was changed. Stop "
                    "it and run the command again."
                )
            service.write_mark(db, mark, self.shown)

        self._file.write(take)

    def set_mark(self, mark: Mark | None, *, instead_of: Mark) -> None:
        """Replace the mark, in one transaction."""

        def replace(db: apsw.Connection) -> None:
            check_mark(service.read_mark(db), instead_of, self.shown)
            service.write_mark(db, mark, self.shown)

        self._file.write(replace)

    def last_key(self, table: Table) -> Key | None:
        """Return the highest key of a table."""
        return self._file.read(lambda db: _last_key(db, table))

    def receive(self, table: Table, rows: Sequence[Row], *, after: Key | None, token: str | None) -> None:
        """Add rows behind those that end with the key `after`, in one transaction."""

        def add(db: apsw.Connection) -> None:
            if _last_key(db, table) != after:
                raise StoreError(f"Another process is filling the database {self.shown}. Let it finish.")
            db.executemany(_INSERTS[table.name], rows)

        self._write_as(token, add)

    def receive_sequences(self, sequences: Mapping[str, int], *, token: str | None) -> None:
        """Number what comes later from behind these, in one transaction."""

        def set_each(db: apsw.Connection) -> None:
            for name, number in sequences.items():
                write(db, "DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                write(db, "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))

        self._write_as(token, set_each)

    def free_flows(self, now_ms: int) -> None:
        """Take every flow from its owner, in one transaction."""

        def free(db: apsw.Connection) -> None:
            write(db, _FREE, (now_ms,))
            write(db, "DELETE FROM worker")

        self._file.write(free)

    def clear(self, token: str) -> None:
        """Delete all rows, in one transaction."""

        def delete(db: apsw.Connection) -> None:
            for table in TABLES:
                write(db, "DELETE FROM {table}".replace("{table}", table.name))

        self._write_as(token, delete)

    def _write_as(self, token: str | None, act: service.Act) -> None:
        self._file.write(lambda db: service.act_as(db, token, act, self.shown))


def _is_empty(connection: apsw.Connection) -> bool:
    ((found,),) = read_rows(
        connection,
        """
        SELECT EXISTS (SELECT 1 FROM flow) OR EXISTS (SELECT 1 FROM step) OR EXISTS (SELECT 1 FROM signal)
            OR EXISTS (SELECT 1 FROM name) OR EXISTS (SELECT 1 FROM worker)
        """,
    )
    return not found


def _last_key(connection: apsw.Connection, table: Table) -> Key | None:
    key = ", ".join(table.columns[: table.keys])
    order = ", ".join([f"{column} DESC" for column in table.columns[: table.keys]])
    sql = "SELECT {key} FROM {table} ORDER BY {order} LIMIT 1".replace("{key}", key)
    rows = read_rows(connection, sql.replace("{table}", table.name).replace("{order}", order))
    return next((tuple(row) for row in rows), None)


_INSERTS = {
    table.name: "INSERT INTO {table} ({columns}) VALUES ({marks})".replace("{table}", table.name)
    .replace("{columns}", ", ".join(table.columns))
    .replace("{marks}", ", ".join("?" * len(table.columns)))
    for table in TABLES
}
# As after a crash, but for the count that parks a flow which crashes its process: this one has not.
_FREE = """
    UPDATE flow SET
        owner = NULL, lost_claims = lost_claims + (NOT idle),
        due_at_ms = CASE WHEN idle THEN due_at_ms ELSE ? END
    WHERE owner IS NOT NULL
"""
