"""Opens a SQLite file: refuses what cannot be a safe store, sets what makes it one, and reads that back."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import apsw

from persistasaurus.errors import StoreError

Durability = Literal["full", "may-lose-last-commits-on-power-loss"]

MEMORY = ":memory:"
# SQLite waits this long at a time for another process's lock, which it tries each millisecond.
BUSY_TIMEOUT_MS = 1000
# 3.7.0 to 3.51.2 can lose a commit when a WAL is reset (https://sqlite.org/wal.html#walresetbug).
OLDEST_SQLITE = (3, 51, 3)

_SYNCHRONOUS = {"full": 2, "may-lose-last-commits-on-power-loss": 1}


def connect(path: str, *, durability: Durability, writing: bool, vfs: str | None = None) -> apsw.Connection:
    """Return a connection with every setting made; the file exists. `vfs` names what it goes through."""
    connection = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW, vfs)
    with ExitStack() as undo:
        undo.enter_context(closing(connection))
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("synchronous", _SYNCHRONOUS[durability])
        connection.pragma("fullfsync", 1)  # macOS only: its fsync does not reach the platter
        connection.pragma("checkpoint_fullfsync", 1)
        connection.pragma("trusted_schema", 0)
        connection.pragma("temp_store", 2)
        connection.pragma("cache_size", -16_000 if writing else -4_000)
        connection.pragma("query_only", 0 if writing else 1)
        if connection.pragma("synchronous") != _SYNCHRONOUS[durability]:
            raise StoreError(
                f"SQLite did not take durability={durability!r} for '{path}'. Install an unmodified apsw."
            )
        undo.pop_all()
    return connection


def switch_to_wal(connection: apsw.Connection, path: str) -> None:
    """Turn the write-ahead log on, for this and every later connection."""
    if path == MEMORY:
        return
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreError(
            f"The write-ahead log could not be switched on for '{path}' (its journal mode is '{mode}'). The "
            "file system does not support shared memory, or another program uses the file. Move it to a "
            "local disk."
        )


def create_private(path: str) -> None:
    """Create an empty file of mode 0600 where there is none; SQLite gives -wal and -shm the same mode.

    The caller keeps other stores from opening it meanwhile: closing the descriptor drops the POSIX locks
    that this process has on the file.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"The database '{path}' cannot be created: {error.strerror}. Make its directory writable for "
            "this user, free some space, or give another path."
        ) from error


def check_library(version: str) -> None:
    """Raise StoreError where SQLite is too old to be trusted with a write-ahead log."""
    if tuple(int(part) for part in version.split(".")[:3]) < OLDEST_SQLITE:
        raise StoreError(
            f"SQLite {version} can lose a commit when its write-ahead log is reset. "
            f"Install an apsw with SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer: pip install -U apsw"
        )


def resolve(path: str | Path) -> str:
    """Return the absolute path without symbolic links, so that every process locks the same files.

    Raises:
        StoreError: no database can be there, or none that is safe; the message has the cure.
    """
    if str(path) == MEMORY:
        return MEMORY
    try:
        real = Path(path).resolve()
        mode = real.stat().st_mode if real.exists() else None
        has_parent = real.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(
            f"The database path {str(path)!r} cannot be used: {error}. Give another path."
        ) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise StoreError(f"The database path '{real}' is a directory. Give the path of a file in it.")
    if mode is not None and not stat.S_ISREG(mode):
        raise StoreError(
            f"The database path '{real}' is no regular file. Give the path of a file on a local disk."
        )
    if not has_parent:
        raise StoreError(
            f"There is no directory '{real.parent}' for the database. Create it, or give another path."
        )
    _check_writable(real, exists=mode is not None)
    _check_local(str(real))
    return str(real)


def network_file_system(path: str, mountinfo: str | None = None) -> str | None:
    """Return the type of the network file system that holds an absolute path, None where it is local.

    `mountinfo` is the text of /proc/self/mountinfo (see proc(5)), by default the real one; where a system
    has none, nothing is found. A `9p` mount is refused only over tcp or rdma: gVisor, WSL and virtual
    machines share a disk of the same machine by it, and whether that can hold a write-ahead log is seen
    when it is switched on.
    """
    best, kind = "", None
    for line in (_mounts() if mountinfo is None else mountinfo).splitlines():
        left, _, right = line.partition(" - ")
        place, (fs_type, _, options) = _unescaped(left.split(" ")[4]), right.split(" ", 2)
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        # A later line for the same place hides the earlier one.
        if inside and len(place) >= len(best):
            best, kind = place, fs_type if _is_remote(fs_type, options) else None
    return kind


_REMOTE = frozenset(
    """
    nfs nfs4 cifs smb smb2 smb3 smbfs ncpfs afs kafs coda ceph glusterfs lustre gpfs beegfs pvfs2 orangefs
    panfs acfs davfs davfs2
    """.split()  # noqa: SIM905
)
_REMOTE_FUSE = re.compile(
    # From a word's start: unionfs and ntfs3 are none.
    r"(?<![a-z])(?:"
    r"sshfs|s3|gcsfuse|goofys|rclone|ceph|gluster|juicefs|davfs|webdav|curlftpfs|ftpfs|fusesmb|smb|nfs|afp|blobfuse|"
    r"seaweedfs|weed|moosefs|mfs|lizardfs|saunafs|beegfs|alluxio|hdfs|google-drive|dropbox|onedrive|objectivefs)"
)


def _is_remote(fs_type: str, options: str) -> bool:
    if fs_type == "9p":
        return bool({"trans=tcp", "trans=rdma"} & set(options.split(",")))
    if fs_type.startswith("fuse."):
        return _REMOTE_FUSE.search(fs_type[5:]) is not None
    return fs_type in _REMOTE


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _check_local(path: str) -> None:
    if kind := network_file_system(path):
        raise StoreError(
            f"The database path '{path}' is on a network file system ({kind}), where SQLite's locks and "
            "shared memory do not work between machines. Give a path on a local disk, or use PostgreSQL."
        )


def _check_writable(path: Path, *, exists: bool) -> None:
    effective = os.access in os.supports_effective_ids
    if exists and not os.access(path, os.R_OK | os.W_OK, effective_ids=effective):
        raise StoreError(
            f"The database file '{path}' is read-only for this user. Make it readable and writable."
        )
    # Also for an existing file: the -wal and -shm files are created beside it.
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=effective):
        raise StoreError(
            f"The directory '{path.parent}' of the database is read-only for this user. SQLite creates its "
            "log beside the database: make the directory writable, or give another path."
        )
