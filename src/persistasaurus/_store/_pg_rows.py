"""Statements on one connection, and the arrays by which many rows go into one.

Each statement is native PostgreSQL: `$1` stands for the first value, `{schema}` for the store's schema.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import psycopg

LATEST = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the database's default is: each statement sees what those that it waited for have written."""
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""For reads that must agree with each other."""


class Session:
    """A connection that somebody uses right now."""

    __slots__ = ("connection", "schema")

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self.connection = connection
        self.schema = schema

    def send(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Execute a statement; in a transaction its rows are there once that has ended, or is asked."""
        return self.connection.execute(_text(sql, self.schema), values)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""
        return self.send(sql, values).fetchall()

    def copy(self, sql: str) -> AbstractContextManager[psycopg.Copy]:
        """Begin a COPY ... FROM STDIN, which takes rows."""
        return self.connection.cursor().copy(_text(sql, self.schema))

    def script(self, sql: str) -> None:
        """Execute several statements that have no values."""
        self.connection.execute(_text(sql, self.schema))

    @contextmanager
    def transaction(self, begin: str = LATEST) -> Generator[None, None, None]:
        """Send what is executed inside as one transaction, in one round trip where nobody asks for rows.

        What must not be committed has to be undone by a statement, with `{schema}.ensure`.
        """
        failure: BaseException | None = None
        try:
            with self.connection.pipeline():
                try:
                    self.send(begin)
                    yield
                    self.send("COMMIT")
                except BaseException as error:  # noqa: BLE001 - raised below: the pipeline would log a warning
                    failure = error
        except psycopg.Error as error:
            failure = failure or error
        if failure is not None:
            raise failure


def numbers(values: Iterable[int | None]) -> str:
    """Return whole numbers as an array's text."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def texts(values: Iterable[str | None]) -> str:
    """Return texts as an array's text."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(maxsize=512)
def _text(sql: str, schema: str) -> bytes:
    return sql.replace("{schema}", f'"{schema}"').encode()
