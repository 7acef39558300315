"""Which store an address means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

from persistasaurus._store._sqlite_open import Durability
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import UsageError

if TYPE_CHECKING:
    from persistasaurus._clock import Clock
    from persistasaurus._store.base import Store

_SQLITE = "sqlite://"


def make_store(url: str | os.PathLike[str], *, durability: Durability, clock: Clock) -> Store:
    """Return the store of an address, not opened yet.

    A path, "sqlite:///relative.db", "sqlite:////absolute.db", ":memory:" or "sqlite://" (in memory). In a
    URL `%3F` stands for a question mark, as everywhere.

    Raises:
        UsageError: no store has such an address.
    """
    if not isinstance(url, (str, os.PathLike)):
        raise UsageError(
            f"A database is named by a path or a URL, not by {url!r:.60}. Give a path such as 'flows.db'."
        )
    text = os.fspath(url)
    if not isinstance(text, str):
        raise UsageError(
            f"The database address {text!r:.60} is bytes. Give a text, as os.fsdecode() makes of it."
        )
    if not text or "\0" in text:
        raise UsageError('The database address is empty or holds a NUL. Give a path such as "flows.db".')
    if text.startswith(_SQLITE):
        return SqliteStore(_path_of(text), clock=clock, durability=durability)
    scheme, separator, _ = text.partition("://")
    if separator or scheme.startswith("sqlite:"):
        raise UsageError(
            f"There is no store for the address {text!r:.60}. Give a path, or sqlite:///flows.db."
        )
    return SqliteStore(text, clock=clock, durability=durability)


def _path_of(url: str) -> str:
    """Return what follows sqlite:///, or ":memory:" for an address that is no more than sqlite://."""
    rest = url.removeprefix(_SQLITE)
    if not rest:
        return ":memory:"
    path = unquote(rest)
    # Taken for a file's name, parameters would make a database that nobody finds again.
    if not path.startswith("/") or "?" in rest or "#" in rest:
        raise UsageError(
            f"{url!r:.200}: write sqlite:///relative.db or sqlite:////absolute.db, without parameters."
        )
    if path == "/" or "\0" in path:
        raise UsageError(
            f"{url!r:.200} names no file. Write sqlite:///flows.db, or sqlite:// for one in memory."
        )
    return path[1:]
