"""What PostgreSQL alone has to be asked: servers, schemas, passwords, poolers, clocks and other machines."""

from __future__ import annotations

import signal as signals
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from persistasaurus import Persistasaurus, StoreError, StoreVersionError, UsageError
from persistasaurus._clock import SystemClock
from persistasaurus._engine import engine
from persistasaurus._model import COMPLETE
from persistasaurus._store import _pg_migrate, _pg_open, _pg_pool, _pg_writer
from persistasaurus._store.base import Batch, Store
from persistasaurus._store.postgres import PostgresStore
from persistasaurus._store.urls import make_store, shown
from tests import postgres
from tests.pooler import pooled
from tests.store import racing
from tests.store.rows import FAR, LEASE_MS, T0, FixedClock, new_flow, signal, start, start_one, step, update
from tests.store.rows import worker as worker_row

YEAR_NS = 365 * 86_400 * 1_000_000_000


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.new_schema() as url:
        yield url


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """A server of this test's own, not started yet."""
    server = postgres.Server()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["read committed", "repeatable read", "serializable"])
def default_isolation(request: pytest.FixtureRequest, url: str) -> Iterator[None]:
    """What a transaction of the database is where it does not say itself."""
    server = url.partition("?schema=")[0]
    setting = "ALTER DATABASE postgres {} default_transaction_isolation {}"
    postgres.by_sql(server, setting.format("SET", f"= '{request.param}'"))
    yield
    postgres.by_sql(server, setting.format("RESET", ""))


Opened = Callable[..., PostgresStore]


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    """Open a store, closed after the test."""
    stores: list[PostgresStore] = []

    def open_one(url: str = url, **settings: Any) -> PostgresStore:
        store = PostgresStore(url, **{"clock": FixedClock(), **settings})
        store.open()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        store.close()


def worker(store: Store, **changes: Any) -> int:
    store.intern("", "hello")
    return store.register_worker(worker_row(**changes), lease_ms=LEASE_MS)


# --- addresses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url,schema,message",
    [
        ("postgresql://h/d", "a b", "no plain name"),
        ("postgresql://h/d", 'x"; DROP SCHEMA public; --', "no plain name"),
        ("postgresql://h/d", "", "no plain name"),
        ("postgresql://h/d", "x" * 64, "no plain name"),
        ("postgresql://h/d", "pg_mine", "no plain name"),
        ("postgresql://h/d?schema=1a", None, "no plain name"),
        ("postgresql://h/d?schema=a", "b", "says schema 'a' and the setting schema='b'"),
        ("postgresql://u:s3cret@[h/d", None, "special characters"),
        ("postgresql://u:s3cret@h/d?nonsense=1", None, "a parameter 'nonsense'"),
        ("postgresql://u:x@s3cret@h/d", None, "special characters"),
        ("postgresql://u:x/s3cret@h/d", None, "special characters"),
        ("postgresql://u:x?s3cret=1@h/d?a=1", None, "special characters"),
        ("postgresql+psycopg://u:s3cret@h/d", None, r"Write 'postgresql://u:\*\*\*@h/d'"),
        ("flows.db", "mine", "is for PostgreSQL"),
        (":memory:", "mine", "is for PostgreSQL"),
    ],
)
def test_an_address_that_cannot_be_is_refused_at_once(url: str, schema: str | None, message: str) -> None:
    """Without its password in the message, or in what was raised before."""
    with pytest.raises(UsageError, match=message) as caught:
        Persistasaurus(url, schema=schema)

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url,expected",
    [
        ("postgresql://u:s3cret@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u:a@b@h/d?x=1", "postgresql://u:***@h/d?x=1"),
        ("postgresql://h/d?user=u&password=s3cret", "postgresql://h/d?user=u&password=***"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("flows.db", "flows.db"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, expected: str) -> None:
    """Wherever the password stands."""
    assert shown(url) == expected


def test_the_password_is_in_no_message_and_no_repr(url: str) -> None:
    """Of a server that is not there, or a database that is not."""
    with_password = url.replace("postgres@", "postgres:s3cret@")
    lost = f"postgresql://postgres:s3cret@127.0.0.1:{postgres.free_port()}/postgres"
    nowhere = with_password.replace("/postgres?", "/no_such_database?")
    for address, why in [(lost, "cannot be reached"), (nowhere, "no such database")]:
        store = PostgresStore(address)
        with pytest.raises(StoreError, match=why) as caught:
            store.open()
        told = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in told
        assert "s3cret" not in repr(vars(store)) + repr(store._address) + repr(store._pool)


def test_a_missing_driver_names_the_extra(tmp_path: Path) -> None:
    """The library works without it until somebody gives such an address."""
    code = """
import sys
sys.modules["psycopg"] = None
from persistasaurus import Persistasaurus, UsageError
Persistasaurus(":memory:")
try:
    Persistasaurus("postgresql://h/d")
except UsageError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "pip install 'persistasaurus[postgres]'" in told


def test_importing_the_library_and_using_sqlite_loads_no_driver() -> None:
    """The extra costs nobody who does not use it anything."""
    code = """
import sys
from persistasaurus import Persistasaurus
with Persistasaurus(":memory:"):
    print(sorted(each for each in sys.modules if each.startswith("psycopg")))
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "[]"


# --- what a server must be -----------------------------------------------------------------------------


def test_an_unreachable_server_is_an_error_at_once(url: str) -> None:
    """Entering does not wait for it."""
    store = make_store(
        f"postgresql://postgres@127.0.0.1:{postgres.free_port()}/postgres",
        durability="full",
        clock=SystemClock(),
    )
    with pytest.raises(StoreError, match=r"cannot be reached.*Start the server"):
        store.open()
    with pytest.raises(StoreError, match="is closed"):
        store.names()


SERVER = _pg_open.Server(
    version=150003,
    encoding="UTF8",
    fsync="on",
    full_page_writes="on",
    synchronous_commit="on",
    synchronous_standbys="",
    is_replica=False,
    backend_pid=1,
)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"version": 130011}, "is PostgreSQL 13, and the library needs 14"),
        ({"encoding": "LATIN1"}, "encoding LATIN1.*ENCODING 'UTF8'"),
        ({"is_replica": True}, "replica.*primary"),
    ],
)
def test_a_server_that_cannot_hold_a_store_is_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything is created."""
    _pg_open.check(SERVER, "'x'")
    with pytest.raises(StoreError, match=message):
        _pg_open.check(SERVER._replace(**changes), "'x'")


def test_a_database_of_another_encoding_is_refused(url: str) -> None:
    """Asked of a real one."""
    server = postgres.server_url()
    name = f"latin_{time.time_ns()}"
    postgres.by_sql(server, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        store = PostgresStore(f"{server.rpartition('/')[0]}/{name}")
        with pytest.raises(StoreError, match="LATIN1"):
            store.open()
    finally:
        postgres.by_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def test_risky_settings_of_a_server_are_warned_of_and_commits_set_their_own(
    server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    """fsync=off cannot be helped; each commit sets synchronous_commit to what its durability needs."""
    server.settings |= {"fsync": "off", "full_page_writes": "on", "synchronous_commit": "off"}
    server.start()
    with closing(PostgresStore(server.url, clock=FixedClock())) as store:
        store.open()
        me = worker(store)
        key = start_one(store, me)
        assert "fsync=off: a power loss" in caplog.text
        assert "synchronous_commit=off: this app's commits set it" in caplog.text
        assert _waits_for_the_disk(store, me, key)

    caplog.clear()
    server.settings |= {"fsync": "on", "synchronous_commit": "on"}
    server.restart(signals.SIGINT)
    with closing(PostgresStore(server.url, durability="may-lose-last-commits-on-power-loss")) as store:
        store.open()
        me = worker(store)
        key = start_one(store, me, "g")
        assert caplog.text == ""
        assert not _waits_for_the_disk(store, me, key)


def _waits_for_the_disk(store: PostgresStore, me: int, key: int) -> bool:
    """Whether the log is on the disk as far as it was written, after commits of both kinds."""
    position = "SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()"
    for batch in (Batch(worker_id=me, steps=[step(key)]), Batch(worker_id=me, updates=[update(key)])):
        store.commit(batch)
        ((flushed,),) = store._pool.read(lambda db: db.rows(position))
        if not flushed:
            return False
    return True


def test_a_standby_that_commits_do_not_wait_for_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A failover would lose them."""
    risky = SERVER._replace(synchronous_standbys="other", synchronous_commit="local")
    assert _pg_open.synchronous_commit(risky, "full", "'x'") is None
    assert "synchronous_commit=local: a failover" in caplog.text


# --- schemas -------------------------------------------------------------------------------------------


def test_two_schemas_are_two_stores(url: str, opened: Opened) -> None:
    """In one database, at the same time; the setting names them as well as the URL."""
    server = postgres.server_url()
    with postgres.new_schema() as another:
        name = another.rpartition("schema=")[2]
        one, two = opened(), opened(server, schema=name)
        one.intern("", "hello")
        one.commit(Batch(starts=[new_flow(claim=False)]))

        assert two.find("f") is None
        assert two.names() == {}
        assert opened(another).changes() == two.changes()


def test_the_log_is_there_for_any_sql_tool(url: str, opened: Opened) -> None:
    """With the columns of the design, as plain text and numbers."""
    store = opened()
    me = worker(store)
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, steps=[step(key)]))

    log = postgres.in_schema(
        url,
        "SELECT flow_id, step, timestamp, class_name, method_name, delay, status, attempts, parameters, "
        "return_value, error FROM execution_log ORDER BY step",
    )

    assert log == [
        ("f", 0, T0, "", "hello", None, "PENDING", 1, '{"name":"World"}', None, None),
        ("f", 1, T0, "", "hello", None, "COMPLETE", 1, '{"count":3}', "3", None),
    ]


def test_a_schema_of_another_program_is_refused_and_left_as_it_is(url: str) -> None:
    """Also one that has a table named as ours."""
    server, _, name = url.partition("?schema=")
    for table in ("theirs (id int)", "migration (version int, needs_library text)"):
        postgres.by_sql(server, f"CREATE SCHEMA {name}; CREATE TABLE {name}.{table}")
        with pytest.raises(StoreError, match="another program"):
            PostgresStore(url).open()
        tables = postgres.by_sql(server, f"SELECT tablename FROM pg_tables WHERE schemaname = '{name}'")
        assert tables == [(table.partition(" ")[0],)]
        postgres.by_sql(server, f"DROP SCHEMA {name} CASCADE")


def test_an_empty_schema_becomes_a_store_without_the_right_to_create_one(url: str) -> None:
    """An administrator has made it, and nothing else is granted."""
    server, _, name = url.partition("?schema=")
    role = f"r_{name}"
    postgres.by_sql(server, f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {name} AUTHORIZATION {role}")
    try:
        with closing(PostgresStore(url.replace("postgres@", f"{role}@"))) as store:
            store.open()
            assert store.intern("", "hello") == 1
    finally:
        postgres.by_sql(server, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_a_user_without_rights_is_told_what_to_grant(url: str) -> None:
    """Nothing is half done."""
    server, _, name = url.partition("?schema=")
    role = f"r_{name}"
    postgres.by_sql(server, f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {name}")
    try:
        with pytest.raises(StoreError, match=r"lacks a privilege.*Grant it"):
            PostgresStore(url.replace("postgres@", f"{role}@")).open()
    finally:
        postgres.by_sql(server, f"DROP ROLE {role}")


def test_an_older_library_refuses_a_newer_schema_and_names_the_library_it_needs(
    url: str, opened: Opened
) -> None:
    """Nothing of it is changed."""
    opened().close()
    postgres.in_schema(url, "INSERT INTO migration VALUES (7, '3.1.4')")

    with pytest.raises(StoreVersionError, match=r"version 7.*Install persistasaurus 3\.1\.4 or newer"):
        PostgresStore(url).open()


def test_a_later_migration_is_applied_to_an_older_schema(
    url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the missing ones; one that fails leaves nothing behind."""
    opened().intern("", "hello")
    sound = _pg_migrate._migrations()
    good = "CREATE TABLE {schema}.extra (a int); INSERT INTO {schema}.migration VALUES (4, '0.2.0');"
    monkeypatch.setattr(_pg_migrate, "_migrations", lambda: {**sound, 4: good + "NO SQL"})
    with pytest.raises(StoreError, match="NO"):
        PostgresStore(url).open()
    assert postgres.in_schema(url, "SELECT to_regclass('extra')::text") == [(None,)]

    monkeypatch.setattr(_pg_migrate, "_migrations", lambda: {**sound, 4: good})

    assert opened().names() == {1: ("", "hello")}
    assert postgres.in_schema(url, "SELECT max(version) FROM migration") == [(4,)]


def test_opening_a_current_schema_takes_no_lock(url: str, opened: Opened) -> None:
    """A process may start while another one migrates a schema for a minute."""
    opened().close()
    server, _, name = url.partition("?schema=")
    with psycopg.connect(server) as other:
        other.execute(
            f"SELECT pg_advisory_xact_lock(hashtextextended('persistasaurus migration \"{name}\"', 0))"
        )
        opened()


def test_threads_that_open_a_new_schema_at_once_all_succeed(url: str, opened: Opened) -> None:
    """Several apps may share a process."""
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: opened().intern("", "hello"), range(8)))
    assert len(set(numbers)) == 1


def test_a_connection_that_an_interrupt_has_lost_does_not_keep_a_store_from_closing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the taking of one and the block that gives it back."""
    monkeypatch.setattr(_pg_pool, "CLOSE_PATIENCE_S", 0.2)
    store = opened()
    lost = store._pool._slots.take()

    store.close()

    assert lost is not None
    lost.close()
    with pytest.raises(StoreError, match="is closed"):
        store.check()


def test_a_store_whose_connections_are_all_lost_can_be_closed(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pg_pool, "CLOSE_PATIENCE_S", 0.1)
    store = opened()
    lost = [store._pool._slots.take() for _ in range(_pg_pool.CONNECTIONS)]

    store.close()

    assert len(lost) == _pg_pool.CONNECTIONS
    for connection in lost:
        if connection is not None:
            connection.close()


@pytest.mark.parametrize("table", ["worker", "flow"])
def test_an_app_is_left_although_another_session_holds_a_lock(
    url: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease runs out instead, and nothing waits for whoever looks into a table."""
    monkeypatch.setattr(_pg_writer, "LOCK_PATIENCE_MS", 100)
    monkeypatch.setattr(engine, "GIVE_UP_S", 0.1)
    with closing(postgres.connected(url)) as other:
        with Persistasaurus(url, drain=0.1):
            other.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        other.execute("ROLLBACK")


def test_marks_of_transactions_that_run_side_by_side_only_rise(url: str, opened: Opened) -> None:
    """Others look whether the sum has changed: one that falls back may hide a commit."""
    store = opened()
    me = worker(store)
    marks: list[int] = []
    over = threading.Event()

    def read() -> None:
        with closing(postgres.connected(url)) as other:
            while not over.is_set():
                ((mark,),) = other.execute(
                    "SELECT mark FROM writer WHERE writer_id = %s", (store._others.writer_id,)
                ).fetchall()
                marks.append(mark)

    def claim() -> None:
        while not over.is_set():
            start(store, None, new_flow(f"g-{time.monotonic_ns()}", claim=False))
            store.claim(me, [1], now_ms=FAR, limit=1)

    def release() -> None:
        while not over.is_set():
            store.take_over(me + 1_000, now_ms=T0, only_expired=False)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(act) for act in (read, claim, release, release)]
        time.sleep(1.5)
        over.set()
        for each in running:
            each.result(30)
    assert marks == sorted(marks)
    assert marks[-1] > marks[0]


def test_a_connection_that_comes_back_after_the_close_is_closed(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever uses it is not disturbed, and nothing is left open on the server."""
    monkeypatch.setattr(_pg_pool, "CLOSE_PATIENCE_S", 0.1)
    store = opened()
    with store._pool._session() as session:
        store.close()
        assert session.rows("SELECT 1") == [(1,)]
        connection = session.connection

    assert connection.closed


def test_a_dropped_schema_stops_the_app_for_good(url: str, opened: Opened) -> None:
    """What is written to one that somebody makes anew would be the work of nobody."""
    store = opened()
    me = worker(store)
    store.check()
    server, _, name = url.partition("?schema=")
    postgres.by_sql(server, f"SET client_min_messages = error; DROP SCHEMA {name} CASCADE")

    with pytest.raises(StoreError, match="missing"):
        store.commit(Batch(worker_id=me, signals=[signal()]))
    with pytest.raises(StoreError, match="was dropped while it was open"):
        store.check()


# --- leases and other machines -------------------------------------------------------------------------


def test_leases_go_by_the_servers_clock(opened: Opened) -> None:
    """Whatever the clocks of the machines say: here one stands still, in another year."""
    mine, theirs = opened(clock=FixedClock()), opened(clock=SystemClock())
    me = worker(mine)

    assert [row.expired for row in theirs.workers()] == [False]
    mine.renew_lease(me, lease_ms=0, names="[]")
    assert [row.expired for row in theirs.workers()] == [True]
    assert theirs.take_over(me, now_ms=T0, only_expired=True) == 0
    assert theirs.workers() == []


@pytest.mark.usefixtures("default_isolation")
def test_a_take_over_waits_for_a_commit_under_way_and_frees_what_it_claimed(url: str, opened: Opened) -> None:
    """The claim is not lost between the two, and nothing comes after."""
    store = opened()
    me = worker(store)
    key = start_one(store, None, claim=False)
    server, _, name = url.partition("?schema=")
    with psycopg.connect(server) as other, ThreadPoolExecutor(1) as pool:
        # As a claim does that has not committed yet.
        other.execute(f"SELECT FROM {name}.worker WHERE worker_id = {me} FOR KEY SHARE")
        other.execute(f"UPDATE {name}.flow SET owner = {me}, due_at_ms = NULL WHERE flow_key = {key}")
        taking = pool.submit(lambda: store.take_over(me, now_ms=T0, only_expired=False))
        until_blocked(server)
        other.commit()
        assert taking.result() == 1

    row = store.find("f")
    assert row is not None
    assert (row.owner, row.due_at_ms) == (None, T0)


@pytest.mark.usefixtures("default_isolation")
def test_a_commit_waits_for_a_take_over_under_way_and_writes_nothing(url: str, opened: Opened) -> None:
    """Of both kinds: the statement and the transaction."""
    store = opened()
    server, _, name = url.partition("?schema=")
    for batch in (lambda key: [step(key)], None):
        me = worker(store)
        key = start_one(store, me, f"f-{me}")
        written = (
            Batch(worker_id=me, steps=batch(key)) if batch else Batch(worker_id=me, updates=[update(key)])
        )
        with psycopg.connect(server) as other, ThreadPoolExecutor(1) as pool:
            other.execute(f"DELETE FROM {name}.worker WHERE worker_id = {me}")
            committing = pool.submit(store.commit, written)
            until_blocked(server)
            other.commit()
            with pytest.raises(Exception, match="not alive"):
                committing.result()
        history = store.load(key)
        assert history is not None
        assert history.steps == []


def until_blocked(server: str) -> None:
    """Wait until some connection waits for another one's lock."""
    until = time.monotonic() + 10
    while not postgres.by_sql(
        server, "SELECT 1 FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    ):
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.usefixtures("default_isolation")
def test_a_signal_to_a_flow_whose_start_is_under_way_is_not_lost(url: str, opened: Opened) -> None:
    """Neither sees the other, so the signal waits for the start: a flow hears of every signal."""
    store, clients = opened(), opened()
    me = worker(store)
    server, _, name = url.partition("?schema=")
    with psycopg.connect(server) as other, ThreadPoolExecutor(1) as pool:
        lock = f"hashtextextended('persistasaurus starts \"{name}\"', 0)"
        other.execute(f"SELECT pg_advisory_xact_lock_shared({lock})")
        other.execute(
            f"INSERT INTO {name}.flow (flow_id, name_id, status, created_at_ms, updated_at_ms, seed, input, "
            "owner, idle, pokes, crashes, lost_claims, checksum) "
            f"VALUES ('f', 1, 0, 1, 1, 1, '{{}}', {me}, 0, 0, 0, 0, 1)"
        )
        sending = pool.submit(clients.commit, Batch(signals=[signal()]))
        until_blocked(server)
        other.commit()
        assert sending.result().signals[0] is not None

    assert list(store.claim(me, [1], now_ms=FAR, limit=1).poked) == [start_key(store)]


def start_key(store: Store) -> int:
    row = store.find("f")
    assert row is not None
    return row.flow_key


def test_crowds_of_writers_never_stop_each_other_for_good(url: str, opened: Opened) -> None:
    """Signals, cancels, updates and claims of the same flows in every order: no deadlock reaches anybody."""
    store = opened()
    me = worker(store)
    keys = [start_one(store, me, f"f{number}") for number in range(30)]
    ids = [f"f{number}" for number in range(30)]
    until = time.monotonic() + 1.5
    before = deadlocks()

    def signals_(order: int) -> int:
        mine, count = opened(), 0
        while time.monotonic() < until:
            mine.commit(Batch(signals=[signal(each) for each in ids[::order]], cancels=ids[::-order][:3]))
            count += 1
        return count

    def updates(order: int) -> int:
        count = 0
        while time.monotonic() < until:
            store.commit(
                Batch(
                    worker_id=me,
                    updates=[update(key, idle=True) for key in keys[::order]],
                    steps=[step(key) for key in keys[::-order]],
                )
            )
            store.claim(me, [1], now_ms=FAR, limit=10)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(signals_, 1), pool.submit(signals_, -1), pool.submit(updates, 1)]
        counts = [each.result() for each in done]

    assert min(counts) > 5
    assert deadlocks() == before


def deadlocks() -> int:
    """Return how many the server has ever found in the database."""
    ((count,),) = postgres.by_sql(
        postgres.server_url(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(count)


# --- marks ---------------------------------------------------------------------------------------------


def test_a_store_that_is_closed_leaves_no_row_of_marks_and_the_sum_stays(url: str, opened: Opened) -> None:
    """So that nobody takes its going, or a later commit, for nothing."""
    first, second = opened(), opened()
    first.commit(Batch(signals=[signal()]))
    before = second.changes()
    first.close()

    assert second.changes() == before
    assert postgres.in_schema(url, "SELECT count(*) FROM writer") == [(3,)]


def test_rows_of_marks_of_killed_processes_are_removed(
    url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an hour; a store that was asleep for that long makes itself a new one."""
    asleep = opened()
    asleep.commit(Batch(signals=[signal()]))
    postgres.in_schema(url, "UPDATE writer SET seen_at_ms = seen_at_ms - 3600001")

    opened().changes()
    assert postgres.in_schema(url, "SELECT count(*) FROM writer WHERE writer_id > 0") == [(2,)]

    me = worker(asleep)
    key = start_one(asleep, me)
    asleep.commit(Batch(worker_id=me, steps=[step(key)]))
    history = asleep.load(key)
    assert history is not None
    assert len(history.steps) == 1
    assert len(asleep.signals("f")) == 1


# --- poolers -------------------------------------------------------------------------------------------


def test_a_pooler_is_noticed_and_nothing_is_kept_in_a_connection(url: str, opened: Opened) -> None:
    """Nothing is prepared, and nobody listens; the same statements work from connection to connection."""
    with pooled(url) as through:
        rang: list[None] = []
        store = PostgresStore(through, clock=FixedClock())
        store.open(lambda: rang.append(None))
        with closing(store):
            assert store._pool.pooled
            assert store._listener is None
            me = worker(store)
            _use_much(store, me)
        prepared = "SELECT count(*) FROM pg_prepared_statements"
        with psycopg.connect(through.partition("?")[0], autocommit=True, prepare_threshold=None) as any_one:
            for _ in range(5):
                assert any_one.execute(prepared).fetchone() == (0,)


def _use_much(store: PostgresStore, me: int) -> None:
    """From several threads, so that the connections change hands."""

    def drive(number: int) -> None:
        for index in range(20):
            key = start_one(store, me, f"f-{number}-{index}")
            store.commit(Batch(worker_id=me, steps=[step(key), step(key, 2)]))
            store.commit(
                Batch(
                    worker_id=me,
                    steps=[step(key, 3)],
                    signals=[signal(f"f-{number}-{index}")],
                    cancels=["no"],
                )
            )
            store.claim(me, [1], now_ms=FAR, limit=3)
            history = store.load(key)
            assert history is not None
            assert len(history.steps) == 3
            store.commit(Batch(worker_id=me, updates=[update(key, status=COMPLETE, result="1")]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(drive, range(4)))


def test_processes_share_a_store_through_a_pooler(url: str) -> None:
    """The first one migrates it, and claims do not overlap."""
    with pooled(url) as through:
        numbers = racing.race(racing.open_and_name, *[("postgres", through)] * racing.PROCESSES)
        assert len(set(numbers)) == 1
        with closing(PostgresStore(through, clock=FixedClock())) as store:
            store.open()
            store.intern("", "hello")
            started = start(store, None, *[new_flow(f"f{index}", claim=False) for index in range(300)])
            shares = racing.race(
                racing.claim_all, *[("postgres", through, number) for number in range(racing.PROCESSES)]
            )

    assert sorted(key for share in shares for key in share) == [each.flow_key for each in started]


# --- being told ----------------------------------------------------------------------------------------


def test_a_commit_of_another_store_rings(opened: Opened, url: str) -> None:
    """Within far less than a poll; what tells nothing to others does not ring."""
    rang = threading.Event()
    listening = PostgresStore(url, clock=FixedClock())
    with closing(listening):
        listening.open(rang.set)
        other = PostgresStore(url, clock=FixedClock())
        other.open(lambda: None)
        with closing(other):
            _until(lambda: listening._listener.hears and other._listener.hears)  # type: ignore[union-attr]
            assert listening.poll_s > 0.1
            me = worker(other)
            key = start_one(other, me)
            rang.wait(5)
            time.sleep(0.05)
            rang.clear()

            other.commit(Batch(worker_id=me, steps=[step(key)]))
            assert not rang.wait(0.1)
            other.commit(Batch(signals=[signal()]))
            assert rang.wait(5)


def test_a_listener_whose_connection_breaks_polls_until_it_hears_again(url: str) -> None:
    """And looks at once when it does: what was told meanwhile went to nobody."""
    rang = threading.Event()
    store = PostgresStore(url, clock=FixedClock())
    with closing(store):
        store.open(rang.set)
        listener = store._listener
        assert listener is not None
        _until(lambda: listener.hears)
        rang.clear()
        postgres.by_sql(
            url.partition("?")[0],
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_notify%' "
            "AND pid <> pg_backend_pid()",
        )
        _until(lambda: not listener.hears)
        assert store.poll_s <= 0.1
        _until(lambda: listener.hears)
        assert rang.wait(5)


def test_a_closed_store_leaves_no_thread_no_connection_and_no_file_descriptor(url: str) -> None:
    """However often it is opened."""
    fds = len(list(Path("/proc/self/fd").iterdir()))
    threads = threading.active_count()
    for _ in range(5):
        store = PostgresStore(url)
        store.open(lambda: None)
        store.names()
        store.close()
        store.close()

    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    assert threading.active_count() == threads


def _until(is_so: Callable[[], Any]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


# --- clocks --------------------------------------------------------------------------------------------


def test_a_machine_whose_calendar_is_a_year_off_writes_the_servers_time(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both directions."""
    real = time.time_ns
    for skew in (YEAR_NS, -YEAR_NS):
        monkeypatch.setattr(time, "time_ns", lambda skew=skew: real() + skew)
        store = opened(clock=SystemClock())

        ((now_ms,),) = store._pool.read(lambda db: db.rows("SELECT {schema}.clock_ms()"))

        assert abs(store.clock.now_ms() - now_ms) < 1000
        assert abs(store.clock.now_ms() - real() // 1_000_000) < 1000


def test_a_clock_that_a_test_gave_is_used_as_it_is(opened: Opened) -> None:
    """Its times are the test's."""
    clock = FixedClock()
    assert opened(clock=clock).clock is clock


# --- fork ----------------------------------------------------------------------------------------------

FORK = """
import gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from persistasaurus._store.postgres import PostgresStore
from persistasaurus._store.base import Batch
from persistasaurus.errors import StoreError
from tests.store.rows import LEASE_MS, signal as letter, start_one, step, worker
store = PostgresStore(sys.argv[1])
store.open(lambda: None)
store.intern("", "hello")
me = store.register_worker(worker(), lease_ms=LEASE_MS)
key = start_one(store, me)
pid = os.fork()
if pid == 0:
    calls = [lambda: store.commit(Batch(signals=[letter()])), store.changes, store.check, store.names,
             lambda: store.claim(me, [1], now_ms=1, limit=1), lambda: store.intern("", "x"), store.open]
    for call in calls:
        try:
            call()
        except StoreError as error:
            assert "opened before fork()" in str(error), error
        else:
            print("no error", flush=True)
    store.close()
    with_its_own = PostgresStore(sys.argv[1])
    with_its_own.open()
    with_its_own.commit(Batch(signals=[letter()]))
    with_its_own.close()
    del store
    gc.collect()
    sys.exit(0)
print(os.waitpid(pid, 0)[1], flush=True)
store.commit(Batch(worker_id=me, steps=[step(key)]))
print(len(store.load(key).steps), len(store.signals("f")))
store.close()
"""


def test_a_forked_child_refuses_the_store_and_leaves_the_parents_connections(url: str) -> None:
    """The child may open its own; whatever it closes and collects, the parent goes on."""
    told = subprocess.run(
        [sys.executable, "-c", FORK, url],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == ["0", "1", "1"], told.stderr
