"""Brings a schema to this library's version, by numbered SQL files under a lock."""

from __future__ import annotations

from functools import cache
from importlib import resources

from persistasaurus._store._pg_rows import Session
from persistasaurus.errors import StoreError, StoreVersionError


def is_current(session: Session, shown: str) -> bool:
    """Return whether the schema is ours and up to date; nothing is written, and no lock taken.

    Raises:
        StoreVersionError: a newer library wrote it.
        StoreError: it is another program's schema.
    """
    ((mark, has_content),) = session.rows(
        """
        SELECT
            obj_description(to_regclass($1), 'pg_class'),
            EXISTS (
                SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
                WHERE nspname = $2
            )
        """,
        (f'"{session.schema}".migration', session.schema),
    )
    if mark != "Persistasaurus":
        if has_content:
            raise StoreError(
                f"The schema '{session.schema}' of the database {shown} belongs to another program: it has "
                "content, but not Persistasaurus's mark. Nothing was changed. Give another schema= or "
                "database."
            )
        return False
    newest = max(_migrations())
    ((version, needed),) = session.rows(
        "SELECT version, needs_library FROM {schema}.migration ORDER BY version DESC LIMIT 1"
    )
    if version > newest:
        raise StoreVersionError(
            f"The schema '{session.schema}' of the database {shown} has version {version}, and this library "
            f"knows versions up to {newest}: a newer library wrote it. Nothing was changed. Install "
            f"persistasaurus {needed} or newer."
        )
    return bool(version == newest)


def migrate(session: Session, shown: str) -> None:
    """Apply the missing migrations in one transaction.

    Whoever waited for the lock finds the work done by another process and does nothing.
    """
    with session.connection.transaction():
        session.send("SELECT pg_advisory_xact_lock(hashtextextended('persistasaurus migration {schema}', 0))")
        if is_current(session, shown):
            return
        # `IF NOT EXISTS` would ask for the right to create one even where it exists.
        if not session.rows("SELECT FROM pg_namespace WHERE nspname = $1", (session.schema,)):
            session.send("CREATE SCHEMA {schema}")
        version = _version(session)
        for number, sql in sorted(_migrations().items()):
            if number > version:
                session.script(sql)


def is_there(session: Session) -> bool:
    """Return whether the schema holds a store, of whatever version."""
    ((found,),) = session.rows("SELECT to_regclass($1) IS NOT NULL", (f'"{session.schema}".migration',))
    return bool(found)


def _version(session: Session) -> int:
    if not is_there(session):
        return 0
    ((version,),) = session.rows("SELECT max(version) FROM {schema}.migration")
    return int(version)


@cache
def _migrations() -> dict[int, str]:
    folder = resources.files("persistasaurus._store").joinpath("migrations_postgres")
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name.split("_")[0]): file.read_text(encoding="utf-8") for file in files}
