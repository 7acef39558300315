"""Where the flows of a crash test are: in a file, or in a schema of a PostgreSQL server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from tests import postgres

STORES = ("sqlite", "postgres")


@dataclass(frozen=True)
class Place:
    """A folder, and which store a trial is about."""

    folder: Path
    store: str = "sqlite"

    def database(self, name: str) -> str:
        """Return the path or URL of a database that is not there yet."""
        if self.store == "sqlite":
            return str(self.folder / f"{name}.db")
        return postgres.with_schema(postgres.server_url(), f"t_{uuid.uuid4().hex[:12]}")


def is_there(db: str) -> bool:
    """Whether a process has lived long enough to make a database."""
    if not postgres.is_url(db):
        return Path(db).exists()
    return bool(postgres.in_schema(db, "SELECT to_regclass('execution_log') IS NOT NULL")[0][0])
