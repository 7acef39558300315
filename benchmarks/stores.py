"""Fresh databases on either store, and how large they are."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    import psycopg

Fresh = Callable[[], AbstractContextManager[str]]
"""Gives a database that did not exist before, by its path or URL, and removes it."""

_BYTES = """
    SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


@contextmanager
def fresh_file() -> Iterator[str]:
    """Give the path of a SQLite database that does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="persistasaurus-bench-") as folder:
        yield str(Path(folder, "bench.db"))


@contextmanager
def fresh_on_server() -> Iterator[Fresh]:
    """Start a PostgreSQL server with `fsync` on, and give what makes databases on it."""
    # Only here: without the peers, the benchmarks do without the tests' packages.
    from tests.postgres import Server  # noqa: PLC0415

    server = Server(fsync="on", full_page_writes="on", shared_buffers="256MB", autovacuum="on").start()

    @contextmanager
    def fresh() -> Iterator[str]:
        name = f"bench_{uuid.uuid4().hex[:12]}"
        server.sql(f"CREATE DATABASE {name}")
        yield f"{server.url.rpartition('/')[0]}/{name}"
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")

    try:
        yield fresh
    finally:
        server.remove()


def bytes_on_disk(database: str) -> int:
    """Return the size of a database's tables and indexes, after a checkpoint."""
    if not database.startswith("postgresql://"):
        connection = apsw.Connection(database)
        connection.pragma("wal_checkpoint(TRUNCATE)")
        connection.close()
        return Path(database).stat().st_size
    with _connected(database) as server:
        server.execute("VACUUM")
        server.execute("CHECKPOINT")
        found = server.execute(_BYTES).fetchone()
    assert found is not None
    return int(found[0])


def _connected(url: str) -> psycopg.Connection:
    import psycopg  # noqa: PLC0415 - as above

    return psycopg.connect(url, autocommit=True)
