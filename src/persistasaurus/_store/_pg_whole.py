"""A PostgreSQL store as a whole, in service or not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from persistasaurus._store import _pg_migrate, _pg_open
from persistasaurus._store import _pg_service as service
from persistasaurus._store._pg_address import Address
from persistasaurus._store._pg_names import digest_of
from persistasaurus._store._pg_pool import Pool
from persistasaurus._store._pg_rows import SNAPSHOT, Session
from persistasaurus._store._pg_snapshot import NUMBERED, PostgresSnapshot
from persistasaurus._store.service import Mark, check_mark
from persistasaurus._store.whole import NAME, TABLES, Key, Row, State, Table
from persistasaurus.errors import StoreError


class PostgresWhole:
    """The schema of a store, opened whether or not it is in service."""

    def __init__(self, address: Address) -> None:
        self._pool = Pool(address)

    @property
    def shown(self) -> str:
        """The address without its password, and the schema."""
        return self._pool.address.place

    def state(self) -> State:
        """Look at the schema, by a connection of its own; nothing is made or changed."""
        with closing(self._pool.connect()) as connection:
            session = Session(connection, self._pool.address.schema)
            if _pg_migrate.is_current(session, self._pool.address.shown):
                return State.CURRENT
            return State.OLD if _pg_migrate.is_there(session) else State.MISSING

    def open(self, *, create: bool = False) -> None:
        """Connect and check the server; with `create` make or migrate the schema."""
        self._pool.open()
        try:
            self._pool.write(lambda db: self._prepare(db, create=create))
        except BaseException:
            self._pool.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    @contextmanager
    def snapshot(self) -> Generator[PostgresSnapshot, None, None]:
        """Hold what the store is now, in one transaction of its own connection."""
        with closing(self._pool.connect()) as connection:
            session = Session(connection, self._pool.address.schema)
            session.send(SNAPSHOT)
            yield PostgresSnapshot(session, self.shown)

    def mark(self) -> Mark | None:
        """Return what a promotion has left here."""
        return self._pool.read(service.read_mark)

    def is_empty(self) -> bool:
        """Whether nobody has put anything into it and no worker is on it."""
        return self._pool.read(_is_empty)

    def take_out_of_service(self, mark: Mark, *, instead_of: Mark | None, empty: bool) -> None:
        """Leave the mark and refuse everybody's writes, in one transaction that waits for those of others."""

        def take(db: Session) -> None:
            service.lock(db)
            check_mark(service.read_mark(db), instead_of, self.shown)
            service.write_mark(db, mark, self.shown)
            if empty and not _is_empty(db):
                raise StoreError(f"The database {self.shown} is not empty any more. Nothing was changed.")
            if db.rows("SELECT FROM {schema}.worker"):
                raise StoreError(
                    f"A worker has started on the database {self.shown} just now. Nothing was changed. Stop "
                    "it and run the command again."
                )

        self._write(take)

    def set_mark(self, mark: Mark | None, *, instead_of: Mark) -> None:
        """Replace the mark, in one transaction."""

        def replace(db: Session) -> None:
            service.lock(db)
            check_mark(service.read_mark(db), instead_of, self.shown)
            service.write_mark(db, mark, self.shown)

        self._write(replace)

    def last_key(self, table: Table) -> Key | None:
        """Return the highest key of a table."""
        return self._pool.read(lambda db: _last_key(db, table))

    def receive(self, table: Table, rows: Sequence[Row], *, after: Key | None, token: str | None) -> None:
        """Add rows behind those that end with the key `after`, in one transaction."""

        def add(db: Session) -> None:
            service.act_as(db, token, self.shown)
            db.send("LOCK TABLE {schema}.{table} IN SHARE ROW EXCLUSIVE MODE".replace("{table}", table.name))
            if _last_key(db, table) != after:
                raise StoreError(f"Another process is filling the database {self.shown}. Let it finish.")
            with db.copy(_copy(table)) as copy:
                for row in rows:
                    copy.write_row(_with_digest(row) if table is NAME else row)

        self._write(add)

    def receive_sequences(self, sequences: Mapping[str, int], *, token: str | None) -> None:
        """Number what comes later from behind these, in one transaction."""

        def set_each(db: Session) -> None:
            service.act_as(db, token, self.shown)
            highest = db.rows("SELECT coalesce(max(name_id), 0) FROM {schema}.name")[0][0]
            _set_sequence(db, "name", "name_id", highest)
            for table, column in NUMBERED.items():
                _set_sequence(db, table, column, sequences.get(table, 0))
            # Else the first claims would be planned for empty tables.
            for copied in TABLES:
                db.send("ANALYZE {schema}.{table}".replace("{table}", copied.name))

        self._write(set_each)

    def clear(self, token: str) -> None:
        """Delete all rows, in one transaction."""

        def delete(db: Session) -> None:
            service.act_as(db, token, self.shown)
            for table in TABLES:
                db.send("DELETE FROM {schema}.{table}".replace("{table}", table.name))

        self._write(delete)

    def _write(self, act: Callable[[Session], object]) -> None:
        def whole(db: Session) -> None:
            with db.connection.transaction():
                act(db)

        self._pool.write(whole)

    def _prepare(self, db: Session, *, create: bool) -> None:
        server = _pg_open.ask(db)
        _pg_open.check(server, self._pool.address.shown)
        if server.backend_pid != db.connection.info.backend_pid:
            self._pool.pooled = True
            db.connection.prepare_threshold = None
        if _pg_migrate.is_current(db, self._pool.address.shown):
            return
        if not create:
            raise StoreError(
                f"There is no store in the database {self.shown}, or one of an older library. Give another "
                "address or ?schema=, or run `persistasaurus db upgrade` first."
            )
        _pg_migrate.migrate(db, self._pool.address.shown)


def _is_empty(session: Session) -> bool:
    ((found,),) = session.rows(
        """
        SELECT EXISTS (SELECT FROM {schema}.flow) OR EXISTS (SELECT FROM {schema}.step)
            OR EXISTS (SELECT FROM {schema}.signal) OR EXISTS (SELECT FROM {schema}.name)
            OR EXISTS (SELECT FROM {schema}.worker)
        """
    )
    return not found


def _last_key(session: Session, table: Table) -> Key | None:
    key = ", ".join(table.columns[: table.keys])
    order = ", ".join([f"{column} DESC" for column in table.columns[: table.keys]])
    sql = "SELECT {key} FROM {schema}.{table} ORDER BY {order} LIMIT 1".replace("{key}", key)
    rows = session.rows(sql.replace("{table}", table.name).replace("{order}", order))
    return next((tuple(row) for row in rows), None)


def _copy(table: Table) -> str:
    columns = (*table.columns, "digest") if table is NAME else table.columns
    sql = "COPY {schema}.{table} ({columns}) FROM STDIN".replace("{table}", table.name)
    return sql.replace("{columns}", ", ".join(columns))


def _with_digest(row: Row) -> tuple[Any, ...]:
    return (*row, digest_of((row[1], row[2])))


def _set_sequence(session: Session, table: str, column: str, last: int) -> None:
    # Numbers begin with 1: where none was given yet, the next one is that.
    session.send(
        "SELECT setval(pg_get_serial_sequence('{schema}.{table}', $1), $2::bigint, $3::bigint = 1)".replace(
            "{table}", table
        ),
        (column, max(last, 1), int(last > 0)),
    )
