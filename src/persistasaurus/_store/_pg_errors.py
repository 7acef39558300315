"""Turns what PostgreSQL and its driver report into a StoreError that says what to do."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from persistasaurus.errors import LeaseLost, StoreError, StoreMovedError

LEASE_LOST = "PS001"
WRITER_GONE = "PS002"
"""What `ensure` raises in the database; see the migrations."""
OUT_OF_SERVICE = "PS003"
"""What `refuse` raises there."""

TRANSIENT = (errors.SerializationFailure, errors.DeadlockDetected)
"""The transaction was undone because of another one: the same again may pass."""

MISSING = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction)
"""What comes where the schema, or something in it, was dropped."""

_CURES: tuple[tuple[type[psycopg.Error], str, str], ...] = (
    (
        errors.InsufficientPrivilege,
        "The user lacks a privilege",
        "Grant it, or have an administrator run `persistasaurus db upgrade` once.",
    ),
    (
        errors.DiskFull,
        "The server's disk is full",
        "Free some space: the library retries by itself and has lost nothing that it acknowledged.",
    ),
    (
        errors.ReadOnlySqlTransaction,
        "The server takes no writes, it is a replica or was made read-only",
        "Give the URL of the primary.",
    ),
    (
        errors.UndefinedTable,
        "The schema or one of its tables is missing",
        "Restore the schema from a backup, or start the process again to make a new one.",
    ),
    (
        errors.LockNotAvailable,
        "Another session holds a lock for long",
        "Look into pg_locks for it; the library has waited and tries again where it has to.",
    ),
    (
        errors.QueryCanceled,
        "The server cancelled the statement",
        "Look for a statement_timeout of the user or the database, or an administrator's cancel.",
    ),
)


# A refused connection has no code, only the server's words.
_FULL = (
    r"too many clients|connection slots|too many connections",
    "The server has no connection left",
    "Raise max_connections or the role's limit, run fewer workers, or put PgBouncer between.",
)
_REFUSALS = (
    (
        r"password|role .* does not exist|no pg_hba.conf entry",
        "The server refused the user or the password",
        "Correct the URL, or the password file (~/.pgpass) that it relies on.",
    ),
    (
        r"database .* does not exist",
        "There is no such database on the server",
        "Create it (CREATE DATABASE ...), or give another name in the URL.",
    ),
    _FULL,
)


class ConnectionLost(StoreError):
    """The server could not be reached, or the connection broke.

    `sent` tells whether a statement was on its way, so that what it did is not known; `is_full` that the
    server, the database or the role has as many connections as it may.
    """

    def __init__(self, message: str, *, sent: bool, is_full: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.is_full = is_full


def lease_lost(worker_id: int | None) -> LeaseLost:
    """Return the error of a worker that is not alive in the database."""
    return LeaseLost(
        f"Worker {worker_id} is not alive in the database any more: its lease ended, and its flows were "
        "released or taken over by another worker. Nothing was written. The flows go on where they are now."
    )


def explained(error: psycopg.Error, shown: str) -> StoreError:
    """Return what to raise for an error that left the connection whole: nothing was applied."""
    if error.sqlstate == OUT_OF_SERVICE:
        return StoreMovedError(_said(error))
    for kind, why, cure in _CURES:
        if isinstance(error, kind):
            return StoreError(f"The database {shown} could not be used. {why} ({_said(error)}). {cure}")
    return StoreError(
        f"The database {shown} could not be used. PostgreSQL reported {type(error).__name__}: {_said(error)}."
        " Please report this with the steps that lead to it."
    )


def ends_connection(error: psycopg.Error) -> bool:
    """Whether it says nothing of what the server was asked before, which may be done, COMMIT included.

    That is the server's farewell, and what the driver itself reports: a server's own refusal has a code, and
    leaves the connection whole.
    """
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and error.sqlstate is None:
        return not isinstance(error, errors.PipelineAborted)
    return error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def unreachable(error: BaseException, shown: str) -> ConnectionLost:
    """Return what to raise where no connection can be made: nothing was applied."""
    said = _said(error)
    for refusal in _REFUSALS:
        words, why, cure = refusal
        if re.search(words, said):
            message = f"The database {shown} could not be opened. {why} ({said}). {cure}"
            return ConnectionLost(message, sent=False, is_full=refusal is _FULL)
    return ConnectionLost(
        f"The database {shown} cannot be reached ({said}). Start the server, or look at the host, the port "
        "and the user in the URL.",
        sent=False,
    )


def broken(error: BaseException, shown: str) -> ConnectionLost:
    """Return what to raise where a connection broke while it was used."""
    return ConnectionLost(
        f"The connection to the database {shown} broke: {_said(error)}. The server was stopped, or the "
        "network failed. The library connects again by itself.",
        sent=True,
    )


def _said(error: BaseException) -> str:
    """Return what the server or the driver said, in one line; neither ever says the password."""
    diagnostics = getattr(error, "diag", None)
    message = getattr(diagnostics, "message_primary", None) or str(error)
    return " ".join(message.split()).rstrip(".") or type(error).__name__
