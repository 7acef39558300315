"""A real PgBouncer in transaction mode before a server: each transaction may get another connection."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.postgres import UNPRIVILEGED, free_port

CONNECTIONS = 3
"""Of the pooler to the server: fewer than the stores of a test have, so that they change hands."""


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """Give the URL of a pooler before the server of a URL."""
    server = urlsplit(url)
    port = free_port()
    place = Path(tempfile.mkdtemp(prefix="persistasaurus-pgbouncer-"))
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    (place / "users.txt").write_text(f'"{server.username}" "{server.password or ""}"\n')
    (place / "pgbouncer.ini").write_text(
        f"""
        [databases]
        * = host={server.hostname} port={server.port}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = trust
        auth_file = {place}/users.txt
        pool_mode = transaction
        default_pool_size = {CONNECTIONS}
        max_client_conn = 500
        logfile = {place}/log
        """.replace("        ", "")
    )
    if user is not None:
        for each in (place, *place.iterdir()):
            shutil.chown(each, user)
    process = subprocess.Popen(
        [_program(), place / "pgbouncer.ini"], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        through = server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
        _wait_for(through.partition("?")[0], process)
        yield through
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(place, ignore_errors=True)


def _program() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return found or pytest.fail("PgBouncer was not found. Install it: apt-get install pgbouncer")


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise
        time.sleep(0.01)
