"""How to build each store: a second one has only to be added here to run the conformance tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from persistasaurus._clock import Clock
from persistasaurus._store.base import Store
from persistasaurus._store.postgres import PostgresStore
from persistasaurus._store.sqlite import SqliteStore
from tests import postgres

# From an empty place of the test's own, and a clock, to a store that is not open yet.
Factory = Callable[[str, Clock], Store]

PLACES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "sqlite": lambda folder: nullcontext(str(folder)),
    "sqlite-memory": lambda _: nullcontext(""),
    "postgres": lambda _: postgres.new_schema(),
}

SHARED: dict[str, Factory] = {
    "sqlite": lambda place, clock: SqliteStore(f"{place}/flows.db", clock=clock),
    "postgres": lambda url, clock: PostgresStore(url, clock=clock),
}
ALL: dict[str, Factory] = {
    **SHARED,
    "sqlite-memory": lambda _place, clock: SqliteStore(":memory:", clock=clock),
}
