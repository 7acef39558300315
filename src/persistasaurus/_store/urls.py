"""Which store an address means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import UsageError

if TYPE_CHECKING:
    from persistasaurus._store.base import Store

_SQLITE = "sqlite://"


def make_store(url: str | os.PathLike[str], *, durability: str) -> Store:
    """Return the store of an address, not opened yet.

    A path, "sqlite:///relative.db", "sqlite:////absolute.db", ":memory:" or "sqlite://" (in memory).

    Raises:
        UsageError: no store has such an address.
    """
    if not isinstance(url, (str, os.PathLike)):
        raise UsageError(f"A database is named by a path or a URL, not by {url!r}.")
    text = os.fspath(url)
    if not text or "\0" in text:
        raise UsageError('The database address is empty or holds a NUL. Give a path such as "flows.db".')
    if text.startswith(_SQLITE):
        path = unquote(text.removeprefix(_SQLITE))
        if path and not path.startswith("/"):
            raise UsageError(f"{text!r}: write sqlite:///relative.db or sqlite:////absolute.db.")
        return SqliteStore(path[1:] or ":memory:", durability=durability)
    scheme, separator, _ = text.partition("://")
    if separator:
        raise UsageError(f"There is no store for {scheme!r} addresses. Give a path, or sqlite:///flows.db.")
    return SqliteStore(text, durability=durability)
