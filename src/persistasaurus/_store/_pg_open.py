"""What is looked at when a store is opened: whether the server can keep what the library promises."""

from __future__ import annotations

import logging
from typing import NamedTuple

from persistasaurus._store._pg_rows import Session
from persistasaurus._store._sqlite_open import Durability
from persistasaurus.errors import StoreError

log = logging.getLogger("persistasaurus.store")

OLDEST_SERVER = 140000


class Server(NamedTuple):
    """What a server says of itself."""

    version: int
    encoding: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    synchronous_standbys: str
    is_replica: bool
    backend_pid: int


def ask(session: Session) -> Server:
    """Ask the server, in one round trip."""
    ((*settings,),) = session.rows(
        """
        SELECT
            current_setting('server_version_num')::bigint, current_setting('server_encoding'),
            current_setting('fsync'), current_setting('full_page_writes'),
            current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
            pg_is_in_recovery(), pg_backend_pid()
        """
    )
    return Server(*settings)


def check(server: Server, shown: str) -> None:
    """Refuse a server that cannot hold a store.

    Raises:
        StoreError: it says why, and what to do.
    """
    if server.version < OLDEST_SERVER:
        raise StoreError(
            f"The server of the database {shown} is PostgreSQL {server.version // 10000}, and the library "
            f"needs {OLDEST_SERVER // 10000} or newer. Upgrade the server, or use another one."
        )
    if server.encoding != "UTF8":
        raise StoreError(
            f"The database {shown} has the encoding {server.encoding}, which cannot hold every text. Create "
            "one with ENCODING 'UTF8' (and TEMPLATE template0)."
        )
    if server.is_replica:
        raise StoreError(
            f"The server of the database {shown} is a replica and takes no writes. Give the URL of the "
            "primary."
        )


def synchronous_commit(server: Server, durability: Durability, shown: str) -> str | None:
    """Return what each commit has to set, None where the server's setting will do; warn of what it risks."""
    risky = [name for name in ("fsync", "full_page_writes") if getattr(server, name) == "off"]
    if risky:
        log.warning(
            "the server of the database %s runs with %s=off: a power loss or a crash of its machine can lose "
            "or damage everything. Set it to on.",
            shown,
            "=off and ".join(risky),
        )
    if durability != "full":
        return "off"
    if server.synchronous_commit == "off":
        log.warning(
            "the server of the database %s has synchronous_commit=off: this app's commits set it to on for "
            "themselves. Set it to on, or pass durability='may-lose-last-commits-on-power-loss'.",
            shown,
        )
        return "on"
    if server.synchronous_standbys and server.synchronous_commit in ("local", "remote_write"):
        log.warning(
            "the server of the database %s has synchronous_commit=%s: a failover to the standby can lose the "
            "last commits. Set it to on.",
            shown,
            server.synchronous_commit,
        )
    return None
