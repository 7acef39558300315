"""Keeps the files of an open database from another copy of SQLite in this process.

`sqlite3` of the standard library is not the SQLite of apsw, and POSIX locks do not stand between two
copies in one process: the second one takes itself for the first user, truncates the -shm file that the
other has mapped, and removes the -wal file when it closes (https://sqlite.org/howtocorrupt.html, "Multiple
copies of SQLite linked into the same application"). A lock of an open file description belongs to no
process: held on the bytes by which SQLite asks whether it is alone, it makes the second copy behave like
one in another process. Linux has such locks; elsewhere nothing is guarded.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

# From os_unix.c: the shared range of the database, and the "dead man's switch" of the log's index.
_BYTES = {"": (0x40000002, 510), "-shm": (128, 1)}


class Guard:
    """The locks on the files of one path; one guard for all stores of this process that use them.

    Closing a descriptor of a file drops the POSIX locks that SQLite holds on it, so the descriptors stay
    open for as long as any of the stores, and `lock` is held while a store opens or closes.
    """

    def __init__(self, path: str) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._users = 0
        self._descriptors: dict[tuple[int, int], tuple[int, str]] = {}

    def hold(self) -> None:
        """Lock the files, which one more store has opened."""
        for suffix in _BYTES:
            file = Path(self._path + suffix)
            found = file.stat()
            if (found.st_dev, found.st_ino) not in self._descriptors:
                descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                self._descriptors[found.st_dev, found.st_ino] = descriptor, suffix
                _set_lock(descriptor, fcntl.F_RDLCK, suffix)
        self._users += 1

    @contextmanager
    def let_go(self) -> Generator[None, None, None]:
        """Unlock the files where no other store uses them; the store closes them inside."""
        self._users -= 1
        if self._users:
            yield
            return
        for descriptor, suffix in self._descriptors.values():
            _set_lock(descriptor, fcntl.F_UNLCK, suffix)
        try:
            yield
        finally:
            self.drop()

    def drop(self) -> None:
        """Close the descriptors."""
        for descriptor, _ in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


_guards: dict[str, Guard] = {}


def guard_of(path: str) -> Guard:
    """Return the guard of a path, the same for every store of this process."""
    return _guards.setdefault(path, Guard(path))


def _set_lock(descriptor: int, kind: int, suffix: str) -> None:
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return
    start, length = _BYTES[suffix]
    # Some file systems have no such locks.
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0))


def _after_fork_in_child() -> None:
    # The locks stay with the parent's descriptors; a thread of the parent may hold a guard's own lock.
    for guard in _guards.values():
        guard.drop()
    _guards.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
