"""A backup: a consistent copy of a store as one SQLite file, verified before it has its name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from persistasaurus._store._sqlite_open import create_private, resolve
from persistasaurus._store._sqlite_whole import SqliteWhole
from persistasaurus._store.digest import readable
from persistasaurus._store.verification import Finding, Verification
from persistasaurus._store.whole import FLOW, TABLES, Snapshot, WholeStore, batches
from persistasaurus.errors import StoreError

_BESIDE = ("-wal", "-shm", "-journal")


class Progress(Protocol):
    """Is told how far a long piece of work is, in whatever it counts."""

    def __call__(self, what: str, done: int, total: int) -> object: ...


class Backup(NamedTuple):
    """What a backup holds."""

    path: str
    size: int
    flows: int
    digest: str | None
    findings: list[Finding]


def back_up(
    source: WholeStore, target: str | Path, *, force: bool, now_ms: Callable[[], int], progress: Progress
) -> Backup:
    """Copy an open store into a SQLite file of mode 0600, while it is used.

    The file is made beside its place, verified, written to the disk and only then given its name. Flows that
    run at that moment belong to nobody in it. A crash leaves at most a file that ends in `.partial`.

    Raises:
        StoreError: the file exists and `force` is false, or it cannot be written.
    """
    place = resolve(target)
    _check_free(place, source, force=force)
    with _beside(place) as partial:
        copy = SqliteWhole(partial)
        _copy(source, copy, progress)
        try:
            copy.open()
            copy.free_flows(now_ms())
            with copy.snapshot() as snapshot:
                total = snapshot.count(FLOW)
                verification = Verification(snapshot)
                findings = list(
                    verification.findings(lambda: progress("verified", verification.checked, total))
                )
        finally:
            copy.close()
        _give_name(partial, place, force=force)
    return Backup(place, Path(place).stat().st_size, verification.checked, verification.digest, findings)


def _check_free(place: str, source: WholeStore, *, force: bool) -> None:
    if isinstance(source, SqliteWhole) and source.path == place:
        raise StoreError(f"The database '{place}' cannot be backed up into itself. Give another file.")
    if Path(place).exists() and not force:
        raise StoreError(f"The file '{place}' exists. Give another name, or --force to replace it.")
    for suffix in _BESIDE:
        # It would be taken for the new file's own.
        if Path(place + suffix).exists():
            raise StoreError(
                f"Beside the backup there would be '{place + suffix}', the log of another database of this "
                "name. A process has that one open, or was killed. Give another name."
            )


def _copy(source: WholeStore, copy: SqliteWhole, progress: Progress) -> None:
    if isinstance(source, SqliteWhole):
        source.copy_pages(copy.path, lambda done, total: progress("copied", done, total))
        return
    copy.open(create=True)
    try:
        with source.snapshot() as snapshot:
            _copy_rows(snapshot, source, copy, progress)
    finally:
        copy.close()


def _copy_rows(snapshot: Snapshot, source: WholeStore, copy: SqliteWhole, progress: Progress) -> None:
    total = sum(snapshot.count(table) for table in TABLES)
    done = 0
    for table in TABLES:
        last = None
        for rows in batches(readable(table, row, source.shown) for row in snapshot.rows(table)):
            copy.receive(table, rows, after=last, token=None)
            last = table.key_of(rows[-1])
            done += len(rows)
            progress("copied", done, total)
    copy.receive_sequences(snapshot.sequences(), token=None)


@contextmanager
def _beside(place: str) -> Generator[str, None, None]:
    partial = f"{place}.{secrets.token_hex(4)}.partial"
    create_private(partial)
    try:
        yield partial
    finally:
        for suffix in ("", *_BESIDE):
            with suppress(OSError):
                Path(partial + suffix).unlink()


def _give_name(partial: str, place: str, *, force: bool) -> None:
    try:
        _to_disk(partial, os.O_RDWR)
        if force:
            Path(partial).replace(place)
        else:
            # Unlike a rename, a link replaces nothing.
            os.link(partial, place)
        _to_disk(str(Path(place).parent), os.O_RDONLY)
    except FileExistsError as error:
        raise StoreError(f"The file '{place}' exists by now. Give another name, or --force.") from error
    except OSError as error:
        raise StoreError(
            f"The backup '{place}' could not be written: {error.strerror}. Free some space, or give another "
            "place."
        ) from error


def _to_disk(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
