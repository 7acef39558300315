"""A digest over every row of a store: equal where two stores hold the same, whatever kind they are."""

from __future__ import annotations

import hashlib
import json

from persistasaurus._store.whole import TABLES, Row, Table, Unreadable
from persistasaurus.errors import DamagedRecordError

_encode = json.JSONEncoder(check_circular=False, default=repr, separators=(",", ":")).encode
_ROWS = 500


class Digest:
    """SHA-256 over the rows of each table in the order of their keys, a JSON list each."""

    def __init__(self) -> None:
        self._hashes = {table.name: hashlib.sha256() for table in TABLES}
        self._pending: dict[str, list[Row]] = {table.name: [] for table in TABLES}

    def add(self, table: Table, row: Row) -> None:
        """Take in the next row of a table."""
        pending = self._pending[table.name]
        pending.append(row)
        if len(pending) == _ROWS:
            self._flush(table.name)

    def of(self, table: Table) -> str:
        """Return the digest of one table."""
        self._flush(table.name)
        return self._hashes[table.name].hexdigest()

    def __str__(self) -> str:
        whole = hashlib.sha256()
        for table in TABLES:
            whole.update(f"{table.name} {self.of(table)}\n".encode())
        return f"sha256:{whole.hexdigest()}"

    def _flush(self, name: str) -> None:
        # One row a line: what ends a row is in none.
        lines = [_encode(row) for row in self._pending[name]]
        if lines:
            self._hashes[name].update(("\n".join(lines) + "\n").encode())
            self._pending[name].clear()


def readable(table: Table, row: Row | Unreadable, shown: str) -> Row:
    """Return a row that can be copied.

    Raises:
        DamagedRecordError: it cannot be read.
    """
    if isinstance(row, Unreadable):
        key = ", ".join(map(str, row.key))
        raise DamagedRecordError(
            f"A row of table {table.name} (key {key}) in the database {shown} cannot be read: {row.problem}. "
            "Look at it with `persistasaurus db verify`, and restore it from a backup."
        )
    return row
