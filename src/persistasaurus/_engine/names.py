"""The numbers that stand for names in the store's rows."""

from __future__ import annotations

from collections.abc import Collection
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

    def intern_all(self, names: Collection[tuple[str, str]]) -> list[int]:
        """Return the numbers of many names, asking the store once."""
        if asked := [name for name in names if name not in self._ids]:
            self._ids.update(zip(asked, self._store.intern_all(asked), strict=True))
            self._by_id.update((self._ids[name], name) for name in asked)
        return [self._ids[name] for name in names]

    def of(self, name_id: int) -> tuple[str, str]:
        """Return the name that a number stands for."""
        if name_id not in self._by_id:
            with suppress(StoreError):  # asked for a message: the number is better than none
                self._by_id.update(self._store.names())
        return self._by_id.get(name_id, ("", f"name {name_id}"))
