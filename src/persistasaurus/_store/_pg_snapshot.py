"""All rows of a PostgreSQL store at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from persistasaurus._store._pg_errors import broken, explained
from persistasaurus._store._pg_rows import Session
from persistasaurus._store.whole import Key, Row, Table, Unreadable, in_order

NUMBERED = {"flow": "flow_key", "signal": "signal_id", "worker": "worker_id"}
"""The tables that give numbers which are never used again, and the column."""


class PostgresSnapshot:
    """A session in a transaction of one snapshot, which no row that is written meanwhile is in."""

    def __init__(self, session: Session, shown: str) -> None:
        self._session = session
        self._shown = shown

    def count(self, table: Table) -> int:
        """Return how many rows there are."""
        return int(self._rows("SELECT count(*) FROM {schema}.{table}".replace("{table}", table.name))[0][0])

    def rows(self, table: Table, *, after: Key | None = None) -> Iterator[Row | Unreadable]:
        """Yield the rows in the order of their keys."""
        sql = _PAGE.replace("{columns}", ", ".join(table.columns)).replace("{table}", table.name)
        marks = ", ".join([f"${number}::bigint" for number in range(1, table.keys + 1)])
        sql = sql.replace("{key}", ", ".join(table.columns[: table.keys])).replace("{marks}", marks)
        sql = sql.replace("{limit}", f"${table.keys + 1}")
        return in_order(table, lambda last, limit: self._rows(sql, (*last, limit)), after)

    def sequences(self) -> Mapping[str, int]:
        """Return the highest numbers that were ever given."""
        given: dict[str, int] = {}
        for table, column in NUMBERED.items():
            sql = "SELECT last_value, is_called FROM {schema}.{sequence}"
            sql = sql.replace("{sequence}", f"{table}_{column}_seq")
            ((last, is_called),) = self._rows(sql)
            given[table] = last if is_called else last - 1
        return given

    def strays(self) -> Iterator[tuple[str | None, str]]:
        """Yield rows that refer to nothing; PostgreSQL reports what is wrong with its files by itself."""
        yield from self._rows(_STRAYS)

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._session.rows(sql, values)
        except psycopg.Error as error:
            if self._session.connection.closed:
                raise broken(error, self._shown) from error
            raise explained(error, self._shown) from error


_PAGE = """
    SELECT {columns} FROM {schema}.{table} WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT {limit}::bigint
"""
_STRAYS = """
    SELECT flow_id, 'It is a child of a flow that is not there.' FROM {schema}.flow
    WHERE parent_key IS NOT NULL
        AND NOT EXISTS (SELECT FROM {schema}.flow AS parent WHERE parent.flow_key = flow.parent_key)
    UNION ALL
    SELECT flow_id, 'It is owned by a worker that is not there, so that nobody drives it.' FROM {schema}.flow
    WHERE owner IS NOT NULL
        AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker_id = flow.owner)
"""
