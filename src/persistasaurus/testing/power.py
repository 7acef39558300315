"""A disk that forgets what was not synced, as a real one does when the power fails."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownParameterType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeArgument=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import apsw

from persistasaurus._store._sqlite_open import MEMORY, resolve
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import UsageError
from persistasaurus.testing.crash import EXIT_STATUS

if TYPE_CHECKING:
    from persistasaurus._app import Persistasaurus
    from persistasaurus._store.base import Store

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""

# How much of what was not synced reaches the disk all the same: nothing, all, or something between.
_CHANCES = (0.0, 0.1, 0.5, 0.9, 1.0)


class PowerLoss:
    """Takes the power from an app's SQLite file, at a moment of your choice or at the `at`-th write.

    What SQLite writes for the app is written as ever; what it has synced is kept apart. When the power
    goes, the file and its log become what a disk may hold then: all that was synced, and of the rest any
    part, down to single sectors and names in the directory, drawn by `seed`.

        power = PowerLoss(seed=7)
        app = Persistasaurus("flows.db")
        power.arm(app)
        with app:
            app.run(fulfil, "o-1")
            power.cut()
        with Persistasaurus("flows.db") as app:  # the same machine, switched on again
            assert app.run(fulfil, "o-1") == "shipped"

    After a cut the app has no disk any more: every write of it fails, and nothing is acknowledged. Leave
    it, and enter another one. With `at` the process dies too, by `os._exit(137)`, before the write, sync
    or deletion of that number; use it in a child process of the test, as `CrashAt`. All processes that
    use the file must be this one: writes of others are not seen.

    A commit is durable where SQLite has synced it (https://sqlite.org/atomiccommit.html); whether a disk
    keeps what it says is synced is another question, which this does not answer.

    Raises:
        UsageError: `at` is less than 1.
    """

    def __init__(self, seed: int = 0, *, at: int | None = None) -> None:
        if at is not None and at < 1:
            raise UsageError(f"at={at}: the first write is 1.")
        self.seed = seed
        self.operations = 0
        """How many writes, syncs and deletions there were so far."""
        self._at = at
        self._disk: _Disk | None = None
        self._lock = threading.RLock()
        self._vfs: _Vfs | None = None
        self._off = False

    def __repr__(self) -> str:
        return f"<PowerLoss seed={self.seed}, {'off' if self._off else 'on'}>"

    def arm(self, app: Persistasaurus) -> None:
        """Put the disk below an app that is not entered yet; for one entering of one app.

        Raises:
            UsageError: the app was entered already, is not on a SQLite file, or this was armed before.
        """
        if app._engine is not None:
            raise UsageError("Arm a power loss before the app is entered: its store is in use already.")
        if self._vfs is not None:
            raise UsageError("This power loss is armed already. Make another one for another app.")
        plain = app._new_store
        path = _path_of(plain())
        self._disk = _Disk(path)
        self._vfs = vfs = _Vfs(f"power-loss-{id(self):x}", self)

        def new_store() -> Store:
            store = plain()
            cast("SqliteStore", store)._file.vfs = vfs.name
            return store

        setattr(app, "_new_store", new_store)  # noqa: B010 - one instance only

    def cut(self) -> None:
        """Take the power: what is not on the disk now is lost, and the app's disk is gone.

        Raises:
            UsageError: nothing was armed, or the power is off already.
        """
        with self._lock:
            if self._disk is None or self._off:
                raise UsageError("There is no power to take: arm an app first, and cut once.")
            self._off = True
            self._disk.lose_power(self._rng())

    def _before(self) -> None:
        """Count an operation that changes the disk; the caller holds the lock."""
        self._alive()
        self.operations += 1
        if self.operations == self._at and self._disk is not None:
            # Not off yet, so that no other thread sees a disk that fails before the process is gone.
            self._disk.lose_power(self._rng())
            os._exit(EXIT_STATUS)

    def _rng(self) -> random.Random:
        return random.Random(self.seed)  # noqa: S311 - a fault, not a secret

    def _alive(self) -> None:
        if self._off:
            _no_power()


def _no_power() -> NoReturn:
    raise apsw.IOError("the power is off")


def _path_of(store: object) -> str:
    path = resolve(store._file._given_path) if isinstance(store, SqliteStore) else MEMORY
    if path == MEMORY:
        raise UsageError("A power loss needs an app on a SQLite file: give it a path in the test's folder.")
    return path


@dataclass(slots=True)
class _File:
    """What a file holds for certain, and what was written since."""

    synced: bytearray
    waiting: list[tuple[int, bytes | None]] = field(default_factory=list[tuple[int, bytes | None]])
    """Bytes at an offset; None cuts the file there."""
    named: bool = False
    """Whether its name in the directory is synced."""
    former: bytes | None = None
    """What had the name before, and may have it again."""

    def sync(self) -> None:
        for change in self.waiting:
            _apply(self.synced, *change)
        self.waiting.clear()

    def after_power_loss(self, rng: random.Random) -> bytes | None:
        """Return what is found under the name, None where nothing is."""
        if not self.named and rng.random() < 0.5:  # noqa: PLR2004
            return self.former
        left = bytearray(self.synced)
        chance = rng.choice(_CHANCES)
        for offset, data in self.waiting:
            for part in _sectors(offset, data):
                if rng.random() < chance:
                    _apply(left, *part)
        return bytes(left)


def _sectors(offset: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + SECTOR - (offset + begin) % SECTOR)
        yield offset + begin, data[begin:end]
        begin = end


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


class _Disk:
    """The files of one database by their paths."""

    def __init__(self, path: str) -> None:
        self._index = Path(f"{path}-shm")
        self._folder = Path(path).parent
        self._old = {str(file) for file in self._folder.iterdir()}
        self._files: dict[str, _File] = {}
        self._deleted: dict[str, bytes] = {}

    def open(self, path: str) -> _File:
        """Return a file that SQLite has just opened or made."""
        if path not in self._files:
            self._files[path] = _File(
                bytearray(Path(path).read_bytes()),
                named=path in self._old and path not in self._deleted,
                former=self._deleted.pop(path, None),
            )
        return self._files[path]

    def sync(self, file: _File) -> None:
        """Keep a file's content; SQLite syncs the directory with a log or journal that it has made."""
        file.sync()
        if not file.named:
            self._sync_folder()

    def delete(self, path: str, *, synced: bool) -> None:
        """Forget a file that was deleted; where the directory is not synced, it may come back."""
        file = self._files.pop(path, None)
        if synced:
            self._sync_folder()
        elif file is not None and (file.named or file.former is not None):
            self._deleted[path] = bytes(file.synced) if file.named else file.former or b""

    def _sync_folder(self) -> None:
        self._deleted.clear()
        for file in self._files.values():
            file.named, file.former = True, None

    def lose_power(self, rng: random.Random) -> None:
        """Put in place what a disk may hold now; the files that are open stay as they are, without a name."""
        found = {path: file.after_power_loss(rng) for path, file in sorted(self._files.items())}
        back = {path: old for path, old in sorted(self._deleted.items()) if rng.random() < 0.5}  # noqa: PLR2004
        for path, content in {**back, **found}.items():
            _put(Path(path), content)
        # Shared memory; what a file system kept of it is made anew by whoever opens the database first.
        self._index.unlink(missing_ok=True)


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    other = path.with_name(f"{path.name}.left")
    other.touch(mode=0o600)
    other.write_bytes(content)
    other.replace(path)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, power: PowerLoss) -> None:
        self.name = name
        self._power = power
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's names
        power = self._power
        with power._lock:
            power._alive()
            return _VfsFile(power, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001
        power = self._power
        with power._lock:
            power._before()
            super().xDelete(filename, syncdir)
            if power._disk is not None:
                power._disk.delete(filename, synced=syncdir)


class _VfsFile(apsw.VFSFile):
    def __init__(self, power: PowerLoss, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._power = power
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._file = power._disk.open(path) if path and power._disk is not None else _File(bytearray())

    def xRead(self, amount: int, offset: int) -> Any:  # noqa: N802
        self._power._alive()
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        with self._power._lock:
            self._power._before()
            super().xWrite(data, offset)
            self._file.waiting.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        with self._power._lock:
            self._power._before()
            super().xTruncate(newsize)
            self._file.waiting.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        with self._power._lock:
            self._power._before()
            super().xSync(flags)
            if self._power._disk is not None:
                self._power._disk.sync(self._file)
