"""Brings a SQLite file to this library's schema, by numbered SQL files under a lock."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

from functools import cache
from importlib import resources

import apsw

from persistasaurus._store._sqlite_rows import read_rows
from persistasaurus.errors import StoreError, StoreVersionError

# "PERS": `file flows.db` and a wrong path are told apart by it.
APPLICATION_ID = 0x50455253


def is_current(connection: apsw.Connection, path: str) -> bool:
    """Return whether the database is ours and up to date; nothing is written.

    Raises:
        StoreVersionError: a newer library wrote it.
        StoreError: it is another program's database.
    """
    # By one statement, so from one snapshot: another process may be migrating the file right now.
    ((mark, version, has_content),) = read_rows(
        connection,
        """
        SELECT application_id, user_version, EXISTS (SELECT 1 FROM sqlite_schema)
        FROM pragma_application_id, pragma_user_version
        """,
    )
    newest = max(_migrations())
    if mark != APPLICATION_ID:
        if mark or version or has_content:
            raise StoreError(
                f"The database '{path}' belongs to another program: it has content or a mark, but not "
                "Persistasaurus's mark. Nothing was changed. Give the path of another file, or of a new one."
            )
        return False
    if version > newest:
        needed = read_rows(connection, "SELECT needs_library FROM migration WHERE version = ?", (version,))
        library = f"persistasaurus {needed[0][0]} or newer" if needed else "a newer persistasaurus"
        raise StoreVersionError(
            f"The database '{path}' has schema version {version}, and this library knows versions up to "
            f"{newest}: a newer library wrote it. Nothing was changed. Install {library}."
        )
    return bool(version == newest)


def migrate(connection: apsw.Connection, path: str) -> None:
    """Apply the missing migrations; the caller has begun an immediate transaction and commits it.

    Whoever waited for the lock finds the work done by another process and does nothing.
    """
    if is_current(connection, path):
        return
    version = connection.pragma("user_version")
    for number, sql in sorted(_migrations().items()):
        if number > version:
            connection.execute(sql, can_cache=False)
            connection.pragma("user_version", number)
    connection.pragma("application_id", APPLICATION_ID)


@cache
def _migrations() -> dict[int, str]:
    folder = resources.files("persistasaurus._store").joinpath("migrations")
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name.split("_")[0]): file.read_text(encoding="utf-8") for file in files}
