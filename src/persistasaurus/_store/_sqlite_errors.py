"""Turns what SQLite reports into a StoreError that says what to do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import apsw

from persistasaurus.errors import DamagedRecordError, StoreError, StoreMovedError

# Another connection is in the way for now; SQLITE_PROTOCOL is a race for the WAL's read marks.
BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)

_CURES: tuple[tuple[type[apsw.Error], str, str], ...] = (
    (
        apsw.FullError,
        "The disk or the quota is full",
        "Free some space: the library retries by itself and has lost nothing that it acknowledged.",
    ),
    (
        apsw.ReadOnlyError,
        "The file or its directory is read-only, or the file was moved",
        "Make both writable for this user, and open the store again.",
    ),
    (
        apsw.IOError,
        "The operating system reported an input/output error",
        "Look at the disk, its free space and the system's log. The library retries by itself.",
    ),
    (
        apsw.CorruptError,
        "The file is damaged",
        "Stop every process that uses it, and restore it from a backup (or try `sqlite3 FILE .recover`).",
    ),
    (apsw.NotADBError, "It is not a SQLite database", "Give the path of another file, or of a new one."),
    (
        apsw.CantOpenError,
        "It cannot be opened",
        "Look at the permissions of the file and its directory and at the limit of open files.",
    ),
    (apsw.NoMemError, "There is no memory left", "Give the process more memory."),
    (
        apsw.TooBigError,
        "A value is larger than SQLite's limit of 1 GB",
        "Store the value elsewhere, record its place.",
    ),
    (
        BUSY[0],
        "Another process held its lock for longer than the busy timeout",
        "Find the process that holds a write transaction open, and end it.",
    ),
)


class explained:  # noqa: N801
    """Raise whatever SQLite raises inside as a StoreError about the database at `path`.

    A class, because every commit passes here and a generator takes ten times as long.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, apsw.Error):
            # The one trigger there is says all: the store is out of service.
            if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_TRIGGER:
                raise StoreMovedError(str(error)) from error
            raise StoreError(_message(self._path, error)) from error


@contextmanager
def damage_named(path: str, what: str) -> Generator[None, None, None]:
    """Raise what an unreadable row of `what` causes as a DamagedRecordError."""
    try:
        yield
    except (apsw.CorruptError, apsw.SQLError, UnicodeDecodeError, ValueError) as error:
        raise DamagedRecordError(
            f"A row of {what} in the database '{path}' cannot be read: {error}. The file was damaged or "
            "edited. Restore it from a backup, or repair the row by SQL and retry the flow."
        ) from error


def _message(path: str, error: apsw.Error) -> str:
    for kind, why, cure in _CURES:
        if isinstance(error, kind):
            return f"The database '{path}' could not be used. {why} ({error}). {cure}"
    return (
        f"The database '{path}' could not be used. SQLite reported {type(error).__name__}: {error}. "
        "Please report this with the steps that lead to it."
    )
