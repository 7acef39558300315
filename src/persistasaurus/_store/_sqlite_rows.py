"""Statements and their rows, many at once.

Each statement gives up the interpreter's lock, and getting it back beside a busy thread takes up to
5 ms, so a batch is written by as few statements as it can be. The number of rows in a text is one of
a few, so that SQLite's prepared statements are found again; what is missing repeats the last row.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import apsw

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448)
_LONGEST_TEXT = 16_384
"""Of a longer one apsw does not keep the prepared statement."""


def read_rows(connection: apsw.Connection, sql: str, values: Any = ()) -> list[Any]:
    """Return all rows of a query, so that no snapshot stays open."""
    return connection.execute(sql, values).fetchall()


def write(connection: apsw.Connection, sql: str, values: Any = ()) -> int:
    """Execute a writing statement and return how many rows it changed."""
    connection.execute(sql, values)
    return connection.changes()


def write_rows(
    connection: apsw.Connection,
    sql: str,
    row: str,
    rows: Sequence[Sequence[Any]],
    *,
    last_row: str | None = None,
    extra: Sequence[Any] = (),
) -> int:
    """Execute `sql`, with `row` in place of `{rows}` as often as needed, and return how many rows changed.

    The statement must do the same when its last row is there several times. `extra` is bound after the
    rows, for what `last_row` or the end of the statement has more.
    """
    changed = 0
    for part in _parts(rows, rows_at_once(sql, row, last_row or row)):
        size = _SIZES[bisect_left(_SIZES, len(part))]
        values = list(chain.from_iterable(part))
        if size > len(part):
            values.extend(tuple(part[-1]) * (size - len(part)))
        values.extend(extra)
        connection.execute(_text(sql, row, last_row or row, size), values)
        changed += connection.changes()
    return changed


@cache
def rows_at_once(sql: str, row: str, last_row: str) -> int:
    """Return how many rows one statement writes at most."""
    room = _LONGEST_TEXT - len(sql) - len(last_row)
    return max(size for size in _SIZES if (size - 1) * (len(row) + 1) <= room)


def _parts(rows: Sequence[Sequence[Any]], at_once: int) -> Iterator[Sequence[Sequence[Any]]]:
    for start in range(0, len(rows), at_once):
        yield rows[start : start + at_once]


@cache
def _text(sql: str, row: str, last_row: str, size: int) -> str:
    return sql.replace("{rows}", ",".join([row] * (size - 1) + [last_row]))
