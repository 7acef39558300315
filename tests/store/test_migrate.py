"""How a SQLite file comes to its schema, and what is refused."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from persistasaurus._store import migrate
from persistasaurus._store.base import Batch
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import StoreError, StoreVersionError
from tests.store.rows import new_flow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.db"


def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    store.open()
    return store


def by_sql(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(apsw.Connection(str(path))) as connection:
        return connection.execute(sql).fetchall()


def test_a_new_file_is_marked_and_numbered(path: Path) -> None:
    """`file flows.db` shows the mark, and the version is that of the last migration."""
    opened(path).close()

    assert by_sql(path, "PRAGMA application_id") == [(migrate.APPLICATION_ID,)]
    assert migrate.APPLICATION_ID.to_bytes(4, "big") == b"PERS"
    assert by_sql(path, "PRAGMA user_version") == [(4,)]
    assert by_sql(path, "SELECT version, needs_library FROM migration") == [
        (1, "0.1.0"),
        (2, "0.1.0"),
        (3, "0.1.0"),
        (4, "0.1.0"),
    ]


def test_opening_again_keeps_everything(path: Path) -> None:
    """Migrations run once."""
    with closing(opened(path)) as store:
        store.intern("", "hello")
        store.commit(Batch(starts=[new_flow(claim=False)]))

    with closing(opened(path)) as store:
        assert store.find("f") is not None


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_file_that_another_process_migrates_meanwhile_is_not_taken_for_a_strangers(
    path: Path, before: int
) -> None:
    """What is asked about the file is one snapshot: no mark from before, and tables from after."""
    by_sql(path, "PRAGMA journal_mode = wal")
    asked: list[str] = []

    def migrate_before_that_question(_: object, sql: str, __: object) -> bool:
        asked.append(sql)
        if len(asked) == before:
            opened(path).close()
        return True

    with closing(apsw.Connection(str(path))) as connection:
        connection.exec_trace = migrate_before_that_question

        assert migrate.is_current(connection, str(path)) == (before == 1)


def test_an_older_library_refuses_a_newer_file_and_names_the_library_it_needs(path: Path) -> None:
    """Nothing of the file is changed."""
    opened(path).close()
    by_sql(path, "INSERT INTO migration VALUES (7, '3.1.4'); PRAGMA user_version = 7")
    before = path.read_bytes()

    with pytest.raises(StoreVersionError, match=r"version 7.*Install persistasaurus 3\.1\.4 or newer"):
        opened(path)

    assert path.read_bytes() == before


def test_a_newer_file_without_that_note_is_refused_as_well(path: Path) -> None:
    """The message is less precise, the refusal is not."""
    opened(path).close()
    by_sql(path, "PRAGMA user_version = 8")

    with pytest.raises(StoreVersionError, match="Install a newer persistasaurus"):
        opened(path)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE theirs (id INTEGER)",
        "CREATE TABLE flow (flow_key INTEGER); PRAGMA user_version = 1",
        "PRAGMA user_version = 4",
        "PRAGMA application_id = 252006673",
        "CREATE TABLE theirs (id INTEGER); PRAGMA application_id = 252006673",
    ],
)
def test_another_programs_database_is_refused_and_left_as_it_is(path: Path, sql: str) -> None:
    """Not even its journal mode is changed."""
    by_sql(path, sql)
    before = path.read_bytes()

    with pytest.raises(StoreError, match="another program"):
        opened(path)

    assert path.read_bytes() == before
    assert by_sql(path, "PRAGMA journal_mode") == [("delete",)]


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """As one that was made by tempfile."""
    path.touch()

    with closing(opened(path)) as store:
        assert store.names() == {}


def test_a_migration_that_fails_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next opening starts from the beginning, or from the last whole version."""
    sound = migrate._migrations()
    with monkeypatch.context() as broken:
        broken.setattr(migrate, "_migrations", lambda: {**sound, 5: "CREATE TABLE extra (a); NO SQL"})
        with pytest.raises(StoreError, match="NO"):
            opened(path)
    assert by_sql(path, "SELECT count(*) FROM sqlite_schema") == [(0,)]

    opened(path).close()

    assert by_sql(path, "PRAGMA user_version") == [(4,)]


def test_a_later_migration_is_applied_to_an_older_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the missing ones, with the rows kept."""
    with closing(opened(path)) as store:
        store.intern("", "hello")
    later = {**migrate._migrations(), 5: "CREATE TABLE extra (a); INSERT INTO migration VALUES (5, '0.2.0')"}
    monkeypatch.setattr(migrate, "_migrations", lambda: later)

    with closing(opened(path)) as store:
        assert store.names() == {1: ("", "hello")}

    assert by_sql(path, "PRAGMA user_version") == [(5,)]
    assert by_sql(path, "SELECT count(*) FROM extra") == [(0,)]


def test_opening_a_current_file_needs_no_write_lock(path: Path) -> None:
    """A process may start while another one holds the lock for a minute."""
    opened(path).close()
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")

        with closing(SqliteStore(path, busy_timeout_s=0)) as store:
            store.open()
            assert store.names() == {}


def test_threads_that_open_a_new_file_at_once_all_succeed(path: Path) -> None:
    """Several apps may share a process and a file."""
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def open_and_close() -> None:
        barrier.wait()
        try:
            with closing(opened(path)) as store:
                store.intern("", "hello")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert by_sql(path, "SELECT count(*) FROM name") == [(1,)]
