"""A role that owns nothing, or may have fewer connections than its workers would take."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from persistasaurus import FlowStatus, Persistasaurus, Signal, StoreError, flow, step
from persistasaurus._store import _pg_pool
from persistasaurus._store.postgres import PostgresStore
from tests import postgres
from tests.flows.kit import eventually
from tests.store.rows import FixedClock


@step
async def limited_step(number: int) -> int:
    await asyncio.sleep(0.002)
    return number


@flow
async def limited_flow(count: int) -> int:
    return sum(await asyncio.gather(*[limited_step(number) for number in range(count)]))


granted = Signal("postgres-granted", int)


@step
def granted_step(number: int) -> int:
    return number + 1


@flow
def granted_child(number: int) -> int:
    return granted_step(number)


@flow
def granted_parent() -> int:
    return granted_child.submit(granted.wait()).result()


def test_a_user_with_the_documented_rights_can_do_everything_but_migrate() -> None:
    """The schema is another's; these are the statements of docs/postgresql.md."""
    page = Path("docs/postgresql.md").read_text("utf-8")
    (grants,) = re.findall(r"```sql\n *(GRANT .*?)```", page, flags=re.DOTALL)
    with postgres.new_schema() as url:
        server, _, name = url.partition("?schema=")
        role = f"r_{name}"
        with closing(PostgresStore(url)) as store:
            store.open()
        postgres.by_sql(server, f"CREATE ROLE {role} LOGIN")
        try:
            mine = grants.replace("SCHEMA persistasaurus", f"SCHEMA {name}").replace("TO app", f"TO {role}")
            postgres.by_sql(server, mine)
            with Persistasaurus(url.replace("postgres@", f"{role}@")) as app:
                handle = app.start(granted_parent)
                handle.send(granted, 1)
                assert handle.result(10) == 2
                cancelled = app.start(granted_parent)
                cancelled.cancel()
                eventually(lambda: cancelled.status() == FlowStatus.CANCELLED)
                app._engine_here("a test").store.prune(10**15, limit=100)
                assert list(app.flows()) == []
        finally:
            postgres.by_sql(server, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.fixture
def role() -> Iterator[str]:
    """The URL of a role of this test's own, and with its own schema."""
    with postgres.new_schema() as url:
        server, _, name = url.partition("?schema=")
        role = f"r_{name}"
        postgres.by_sql(server, f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {name} AUTHORIZATION {role}")
        try:
            yield url.replace("postgres@", f"{role}@")
        finally:
            postgres.by_sql(server, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def limit(role_url: str, connections: int) -> None:
    server, _, name = role_url.partition("?schema=")
    postgres.by_sql(
        server.replace(f"r_{name}@", "postgres@"), f"ALTER ROLE r_{name} CONNECTION LIMIT {connections}"
    )


def test_threads_that_want_more_connections_than_there_are_wait_for_one(role: str) -> None:
    with closing(PostgresStore(role, clock=FixedClock())) as store:
        store.open()
        # given one connection in the pool, and no room for another
        limit(role, 1)
        refused: list[BaseException] = []

        def use() -> None:
            for _ in range(20):
                try:
                    store._pool.read(lambda db: db.rows("SELECT pg_sleep(0.002)"))
                except StoreError as error:
                    refused.append(error)

        # when five threads use it
        threads = [threading.Thread(target=use) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        # then each is served
        assert not refused


def test_a_connection_that_is_open_is_taken_before_another_is_tried(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that could not be made once does not hide those that nobody uses."""
    monkeypatch.setattr(_pg_pool, "FULL_PATIENCE_S", 0.05)
    with closing(PostgresStore(role, clock=FixedClock())) as store:
        store.open()
        limit(role, 1)
        with store._pool._session() as first:
            assert first.rows("SELECT 1") == [(1,)]
            with pytest.raises(StoreError, match="no connection left"):
                store.names()
        assert store.names() is not None


def test_without_any_connection_a_store_says_so(role: str) -> None:
    limit(role, 0)
    with pytest.raises(StoreError, match=r"no connection left .*role"):
        PostgresStore(role).open()


def test_an_app_goes_on_with_the_connections_that_there_are(
    role: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost, no lease, and nobody is told that the store cannot be reached."""
    with Persistasaurus(role) as app:
        taken = len(_connections(role))
        limit(role, taken)
        handles = [app.start(limited_flow, 5) for _ in range(40)]
        assert [handle.result(60) for handle in handles] == [10] * 40
        assert len(_connections(role)) <= taken
        attempts = {s.attempts for handle in handles for s in handle.steps()}
    assert attempts == {1}
    assert "lease" not in caplog.text
    assert "cannot be reached" not in caplog.text


def _connections(role: str) -> list[tuple[int]]:
    server, _, name = role.partition("?schema=")
    sql = f"SELECT pid FROM pg_stat_activity WHERE usename = 'r_{name}'"
    return postgres.by_sql(server.replace(f"r_{name}@", "postgres@"), sql)
