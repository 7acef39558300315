"""The numbers that stand for names in the store's rows."""

from __future__ import annotations

from contextlib import suppress

from persistasaurus._store.base import Store
from persistasaurus.errors import StoreError


class Names:
    """Flows', steps' and signals' names and their numbers in one store, looked up once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: dict[tuple[str, str], int] = {}
        self._by_id: dict[int, tuple[str, str]] = {}

    def intern(self, name: tuple[str, str]) -> int:
        """Return the number of a (class name, method name)."""
        found = self._ids.get(name)
        if found is None:
            found = self._ids[name] = self._store.intern(*name)
            self._by_id[found] = name
        return found

    def of(self, name_id: int) -> tuple[str, str]:
        """Return the name that a number stands for."""
        if name_id not in self._by_id:
            with suppress(StoreError):  # asked for a message: the number is better than none
                self._by_id.update(self._store.names())
        return self._by_id.get(name_id, ("", f"name {name_id}"))
