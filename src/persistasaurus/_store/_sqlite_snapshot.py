"""All rows of a SQLite store at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw

from persistasaurus._store._sqlite_errors import explained
from persistasaurus._store._sqlite_rows import read_rows
from persistasaurus._store.whole import Key, Row, Table, Unreadable, in_order

_PAGE = "SELECT {columns} FROM {table} WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT ?"
_ONE = "SELECT {columns} FROM {table} WHERE ({key}) = ({marks})"


class SqliteSnapshot:
    """A connection in a read transaction; nothing is written to the file meanwhile but to its log."""

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def count(self, table: Table) -> int:
        """Return how many rows there are."""
        return int(self._rows("SELECT count(*) FROM {table}".replace("{table}", table.name))[0][0])

    def rows(self, table: Table, *, after: Key | None = None) -> Iterator[Row | Unreadable]:
        """Yield the rows in the order of their keys; one whose text is none any more as an Unreadable."""
        return in_order(table, lambda last, limit: self._page(table, last, limit), after)

    def sequences(self) -> Mapping[str, int]:
        """Return the highest numbers that were ever given."""
        return dict(self._rows("SELECT name, seq FROM sqlite_sequence"))

    def strays(self) -> Iterator[tuple[str | None, str]]:
        """Yield what SQLite's own check reports, and rows that refer to nothing."""
        for (line,) in self._rows("PRAGMA integrity_check"):
            if line != "ok":
                yield None, f"SQLite's integrity_check reports: {line}"
        for flow_id, problem in self._rows(_STRAYS):
            # hex: an id that is no text any more is shown all the same.
            yield bytes.fromhex(flow_id).decode(errors="replace"), problem

    def _page(self, table: Table, after: Key, limit: int) -> Sequence[Row | Unreadable]:
        try:
            return self._rows(_sql(_PAGE, table, table.columns), (*after, limit))
        except UnicodeDecodeError:
            keys = self._rows(_sql(_PAGE, table, table.columns[: table.keys]), (*after, limit))
        return [self._one(table, key) for key in keys]

    def _one(self, table: Table, key: Key) -> Row | Unreadable:
        try:
            (row,) = self._rows(_sql(_ONE, table, table.columns), key)
        except UnicodeDecodeError as error:
            return Unreadable(key, str(error))
        return row  # type: ignore[no-any-return]

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with explained(self._path):
            return read_rows(self._connection, sql, values)


def _sql(template: str, table: Table, columns: Sequence[str]) -> str:
    sql = template.replace("{columns}", ", ".join(columns)).replace("{table}", table.name)
    marks = ", ".join("?" * table.keys)
    return sql.replace("{key}", ", ".join(table.columns[: table.keys])).replace("{marks}", marks)


_STRAYS = """
    SELECT hex(flow_id), 'It is a child of a flow that is not there.' FROM flow
    WHERE parent_key IS NOT NULL AND parent_key NOT IN (SELECT flow_key FROM flow)
    UNION ALL
    SELECT hex(flow_id), 'It is owned by a worker that is not there, so that nobody drives it.' FROM flow
    WHERE owner IS NOT NULL AND owner NOT IN (SELECT worker_id FROM worker)
"""
