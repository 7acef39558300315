"""One open SQLite file: a writing connection, a few reading ones, and the rules for using them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import apsw

from persistasaurus._clock import SystemClock
from persistasaurus._store import migrate
from persistasaurus._store._sqlite_errors import BUSY, explained
from persistasaurus._store._sqlite_guard import Guard, guard_of
from persistasaurus._store._sqlite_open import (
    MEMORY,
    Durability,
    check_library,
    connect,
    create_private,
    resolve,
    switch_to_wal,
)
from persistasaurus.errors import StoreError

T = TypeVar("T")

CHECKPOINT_PAGES = 1000
# Past this the log is cut back to nothing as soon as no reader needs it.
WAL_LIMIT_BYTES = 32 * 1024 * 1024
WAL_CHECK_COMMITS = 8
SETTLED_AFTER_MS = 100
READERS = 4
LEAVE_PATIENCE_S = 5.0
"""How long a store that is being left waits for another process's lock."""

# A test's clock stands still; waiting for another process's lock takes real time.
_REAL = SystemClock()


class SqliteFile:
    """The connections of one store. Any thread may call any method; none returns with a lock held."""

    def __init__(self, path: str | Path, *, durability: Durability, busy_timeout_s: float) -> None:
        self.path = str(path)
        self.vfs: str | None = None
        """What stands between SQLite and the disk: the testing kit names one that loses power."""
        self._given_path = path
        self._durability: Durability = durability
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()
        self._writer: apsw.Connection | None = None
        self._readers = [_Reader() for _ in range(READERS)]
        self._entry = threading.Lock()
        self._watch_lock = threading.Lock()
        self._watcher: apsw.Connection | None = None
        self._commits = 0
        self._guard: Guard | None = None
        self._files: list[str] = []
        self._inodes: list[tuple[int, int]] = []
        self._place = ""
        self._directory: tuple[int, int, int] | None = None
        self._wal_tried_bytes = 0
        self._unusable = "is not open. Enter the app first, or call open()"
        self._opening = False
        self._forked = False

    def open(self) -> None:
        """Open or create the file, switch the write-ahead log on and migrate under a lock."""
        if self._forked:
            self._check_usable()
        if self._writer is not None:
            return
        check_library(apsw.sqlite_lib_version())
        self.path = resolve(self._given_path)
        self._opening = True
        with explained(self.path), ExitStack() as undo:
            undo.callback(setattr, self, "_opening", False)  # noqa: FBT003
            if self.path != MEMORY:
                self._guard = guard_of(self.path)
                undo.enter_context(self._guard.lock)
                create_private(self.path)
            with ExitStack() as failed:
                writer = failed.enter_context(closing(self._connect(writing=True)))
                self._prepare(writer)
                if self._guard:
                    self._watcher = failed.enter_context(closing(self._connect(writing=False)))
                    self._guard.hold()
                failed.pop_all()
        self._files = [] if self.path == MEMORY else [self.path + each for each in ("", "-wal", "-shm")]
        self._inodes = self._inodes_now()
        self._place = str(Path(self.path).parent)
        self._writer, self._unusable = writer, ""
        _open_files.add(self)

    def close(self) -> None:
        """Wait for what runs, write the log back into the file and close every connection."""
        if self._forked:
            return
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is None:
                return
            self._unusable = "is closed. Open it again, or use another app"
            _open_files.discard(self)
            with self._watch_lock:
                watcher, self._watcher = self._watcher, None
            with explained(self.path), ExitStack() as undo:
                # Whoever waits for a reader sees then that the store is closed.
                undo.enter_context(self._no_readers())
                if self._guard:
                    undo.enter_context(self._guard.lock)
                    undo.enter_context(self._guard.let_go())
                # The last connection of all processes writes the log back and removes it.
                undo.callback(writer.close)
                for connection in [watcher, *(reader.give_up() for reader in self._readers)]:
                    if connection is not None:
                        connection.close()

    def write(self, act: Callable[[apsw.Connection], T]) -> T:
        """Run `act` in one write transaction; it is durable when this returns, and undone if it raises."""
        self._check_usable()
        with self._lock, explained(self.path):
            connection = self._usable_writer()
            # IMMEDIATE: a transaction that upgrades to write fails with SQLITE_BUSY_SNAPSHOT at once.
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            with _undone_unless_committed(connection):
                answer = act(connection)
                connection.execute("COMMIT")
            self._acknowledge(connection)
            return answer

    def write_statement(self, act: Callable[[apsw.Connection], T]) -> T:
        """Run an `act` of a single writing statement, which is a transaction by itself.

        Each statement gives up the interpreter's lock, and getting it back beside a busy thread takes up
        to 5 ms: one statement instead of BEGIN, INSERT and COMMIT makes that a third.
        """
        self._check_usable()
        with self._lock, explained(self.path):
            connection = self._usable_writer()
            answer = self._patiently(lambda: act(connection))
            self._acknowledge(connection)
            return answer

    def read(self, act: Callable[[apsw.Connection], T]) -> T:
        """Run `act` on a reading connection; it fetches what it reads before it returns."""
        self._check_usable()
        if self.path == MEMORY:
            with self._lock, explained(self.path):
                return act(self._usable_writer())
        with self._entry:
            free = (reader for reader in self._readers if not reader.lock.locked())
            reader = next(free, None) or random.choice(self._readers)  # noqa: S311 - all are busy
        # Nothing but `with` on a lock is safe from a KeyboardInterrupt, which comes between any two calls:
        # a reader that is taken from a queue and not given back would be waited for at close.
        with reader.lock, explained(self.path):
            self._check_usable()
            if reader.connection is None:
                reader.connection = self._connect(writing=False)
            connection = reader.connection
            return self._patiently(lambda: act(connection))

    def changes(self) -> int:
        """Return a number that differs once any connection of any process has committed."""
        self._check_usable()
        with self._watch_lock, explained(self.path):
            watcher = self._watcher
            if watcher is None:
                return self._commits
            # Both only rise, so their sum is never the same again.
            version: int = self._patiently(lambda: watcher.pragma("data_version"))
            return version + self._commits

    def size(self) -> int:
        """Return the bytes of the database and its log, 0 in memory."""
        with suppress(OSError):
            return sum(os.stat(file).st_size for file in self._files[:2])  # noqa: PTH116
        return 0

    def check(self) -> None:
        """Raise StoreError where the path, or its log, is not the file that was opened any more.

        A file that is deleted or replaced while it is open goes on taking commits that nobody finds again.
        """
        self._check_usable()
        if self._inodes_now() != self._inodes:
            raise StoreError(
                f"The database file '{self.path}' or its log (-wal, -shm) was moved, deleted or replaced "
                "while it was open: what is written now would be lost. Put the files back and start the "
                "process again."
            )

    def leave_to_parent(self) -> None:
        """Refuse to work in a forked child: SQLite's locks belong to the parent."""
        self._forked = True
        self._unusable = (
            "was opened before fork() and belongs to the parent process. Open another app in the child"
        )

    @contextmanager
    def _no_readers(self) -> Generator[None, None, None]:
        """Wait until nobody reads, and let nobody begin."""
        with self._entry, ExitStack() as all_of_them:
            for reader in self._readers:
                all_of_them.enter_context(reader.lock)
            yield

    def _usable_writer(self) -> apsw.Connection:
        self._check_usable()
        return cast("apsw.Connection", self._writer)

    def _check_usable(self) -> None:
        # Before the lock too: in a forked child, a thread of the parent may hold it for ever.
        if self._unusable:
            raise StoreError(f"The database '{self.path}' {self._unusable}.")

    def hurry(self) -> None:
        """Wait for other processes' locks for some seconds at most, also where somebody waits already."""
        self._busy_timeout_s = min(self._busy_timeout_s, LEAVE_PATIENCE_S)

    def _patiently(self, act: Callable[[], T]) -> T:
        """Repeat what found another process's lock, for as long as the busy timeout says."""
        give_up_at = math.inf
        while True:
            try:
                return act()
            except BUSY:
                now = _REAL.steady()
                give_up_at = min(give_up_at, now + self._busy_timeout_s)
                if now >= give_up_at or (self._unusable and not self._opening):
                    raise
            # SQLite itself has waited up to a second. Uneven pauses keep processes from moving in step.
            time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311

    def _prepare(self, writer: apsw.Connection) -> None:
        # A stranger's file is refused before anything of it is changed.
        current = self._patiently(lambda: migrate.is_current(writer, self.path))
        self._patiently(lambda: switch_to_wal(writer, self.path))
        writer.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        writer.pragma("journal_size_limit", WAL_LIMIT_BYTES)
        if current:
            return
        self._patiently(lambda: writer.execute("BEGIN IMMEDIATE"))
        with _undone_unless_committed(writer):
            migrate.migrate(writer, self.path)
            writer.execute("COMMIT")

    def _connect(self, *, writing: bool) -> apsw.Connection:
        return self._patiently(
            lambda: connect(self.path, durability=self._durability, writing=writing, vfs=self.vfs)
        )

    def _acknowledge(self, writer: apsw.Connection) -> None:
        self._commits += 1
        if self.path == MEMORY:
            return
        self._check_directory()
        if self._commits % WAL_CHECK_COMMITS == 0:
            self._bound_wal(writer)

    def _check_directory(self) -> None:
        # One stat() instead of three, for each gives up the interpreter's lock: whatever takes one of the
        # files away changes the time of the directory.
        try:
            found = os.stat(self._place)  # noqa: PTH116
        except OSError:
            self.check()
            return
        seen = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if seen != self._directory:
            self.check()
            # Two changes within one tick of the file system's clock show the same time.
            settled = _REAL.now_ms() - found.st_mtime_ns // 1_000_000 > SETTLED_AFTER_MS
            self._directory = seen if settled else None

    def _bound_wal(self, writer: apsw.Connection) -> None:
        size = os.stat(self._files[1]).st_size  # noqa: PTH116
        if size <= WAL_LIMIT_BYTES:
            self._wal_tried_bytes = 0
            return
        # A reader of another process that stays keeps the log from being cut: ask again only once it has
        # grown by a quarter. Our own finish first: with enough of them there would never be none.
        if size < self._wal_tried_bytes * 1.25:
            return
        self._wal_tried_bytes = size
        with self._no_readers(), suppress(*BUSY):
            writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _inodes_now(self) -> list[tuple[int, int]]:
        try:
            found = [os.stat(file) for file in self._files]  # noqa: PTH116
        except OSError:
            return []
        return [(each.st_dev, each.st_ino) for each in found]


class _Reader:
    """A reading connection, made by the first who has its lock, and used by nobody else."""

    __slots__ = ("connection", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: apsw.Connection | None = None

    def give_up(self) -> apsw.Connection | None:
        """Return the connection and forget it."""
        connection, self.connection = self.connection, None
        return connection


@contextmanager
def _undone_unless_committed(connection: apsw.Connection) -> Generator[None, None, None]:
    # A commit that fails has not happened: it exists for others, and for a retry, only once the index of
    # the log is written, which is its last act and needs no disk.
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


_open_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_left_to_parent: list[SqliteFile] = []


def _after_fork_in_child() -> None:
    for file in list(_open_files):
        file.leave_to_parent()
        # Never closed here: https://sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_
        _left_to_parent.append(file)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
