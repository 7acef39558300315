"""Which store an address means."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from persistasaurus._clock import SystemClock
from persistasaurus._store._sqlite_open import Durability
from persistasaurus._store._sqlite_whole import SqliteWhole
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import UsageError

if TYPE_CHECKING:
    from persistasaurus._clock import Clock
    from persistasaurus._store.base import Store
    from persistasaurus._store.whole import WholeStore

_SQLITE = "sqlite://"
_POSTGRES = ("postgresql://", "postgres://")


def make_store(
    url: str | os.PathLike[str], *, durability: Durability, clock: Clock, schema: str | None = None
) -> Store:
    """Return the store of an address, not opened yet.

    A path, "sqlite:///relative.db", "sqlite:////absolute.db", ":memory:" or "sqlite://" (in memory). In a
    URL `%3F` stands for a question mark, as everywhere. "postgresql://..." with an optional "?schema=".

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
    if text.startswith(_POSTGRES):
        return _postgres(text, durability=durability, clock=clock, schema=schema)
    if schema is not None:
        raise UsageError(
            f"schema={schema!r:.60} is for PostgreSQL, and {text!r:.60} is a SQLite file. Leave it out."
        )
    if text.startswith(_SQLITE):
        return SqliteStore(_path_of(text), clock=clock, durability=durability)
    _check_scheme(text)
    return SqliteStore(text, clock=clock, durability=durability)


def _check_scheme(text: str) -> None:
    scheme, separator, rest = text.partition("://")
    if separator and scheme.startswith(("postgresql+", "postgres+")):
        raise UsageError(
            f"{scheme!r:.60} names a driver, and there is only one here. Write "
            f"{shown('postgresql://' + rest)!r:.200}."
        )
    if separator or scheme.startswith("sqlite:"):
        raise UsageError(
            f"There is no store for the address {shown(text)!r:.60}. Give a path, sqlite:///flows.db, or "
            "postgresql://user@host/database."
        )


def whole_store(url: str) -> WholeStore:
    """Return the store of an address as a whole, not opened yet.

    Raises:
        UsageError: no store has such an address.
    """
    store = make_store(url, durability="full", clock=SystemClock())
    if isinstance(store, SqliteStore):
        return SqliteWhole(store._file.path)
    from persistasaurus._store._pg_address import address_of  # noqa: PLC0415 - as above
    from persistasaurus._store._pg_whole import PostgresWhole  # noqa: PLC0415

    return PostgresWhole(address_of(url, None))


def shown(url: str) -> str:
    """Return an address as a message may show it: without the password of a URL."""
    return re.sub(r"(?<=://)([^/@?#]*?):[^/?#]*@", r"\1:***@", re.sub(r"(?i)(password=)[^&]*", r"\1***", url))


def _postgres(url: str, *, durability: Durability, clock: Clock, schema: str | None) -> Store:
    try:
        # Only here: the extra is not there for everybody.
        from persistasaurus._store.postgres import PostgresStore  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"A PostgreSQL database needs the driver psycopg, which cannot be imported ({error}). Run: "
            "pip install 'persistasaurus[postgres]'"
        ) from error
    return PostgresStore(url, schema=schema, clock=clock, durability=durability)


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
