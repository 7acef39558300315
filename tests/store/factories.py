"""How to build each store: a second one has only to be added here to run the conformance tests."""

from __future__ import annotations

from collections.abc import Callable

from persistasaurus._clock import Clock
from persistasaurus._store.base import Store
from persistasaurus._store.sqlite import SqliteStore

# From an empty place of the test's own, and a clock, to a store that is not open yet.
Factory = Callable[[str, Clock], Store]

SHARED: dict[str, Factory] = {
    "sqlite": lambda place, clock: SqliteStore(f"{place}/flows.db", clock=clock),
}
ALL: dict[str, Factory] = {
    **SHARED,
    "sqlite-memory": lambda _place, clock: SqliteStore(":memory:", clock=clock),
}
