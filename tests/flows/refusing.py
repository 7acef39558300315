"""A database that refuses some writes, by a trigger, for as long as a test wants: on both stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows.kit import sql


@contextmanager
def refused(database: Path, event: str, table: str, *, when: str = "1 = 1") -> Iterator[None]:
    """Have the database refuse an INSERT or UPDATE of rows that are `when`, until the block is left."""
    postgres = str(database).startswith("postgresql:")
    if postgres:
        body = "BEGIN RAISE EXCEPTION 'refused by the test'; END"
        sql(database, f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        does = "EXECUTE FUNCTION refuse()"
    else:
        does = "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
    sql(
        database,
        f"CREATE TRIGGER refusing BEFORE {event} ON {table} FOR EACH ROW WHEN ({when}) {does}",
    )
    try:
        yield
    finally:
        sql(database, f"DROP TRIGGER refusing{f' ON {table}' if postgres else ''}")
