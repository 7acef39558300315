"""What ended long ago is removed whole, and nothing else is; the same on every store."""

from __future__ import annotations

import os
import re
import signal as signals
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from persistasaurus._clock import SystemClock
from persistasaurus._model import CANCELLED, COMPLETE, FAILED, PARKED, PENDING, WAITING
from persistasaurus._store import _pg_commit, _pg_prune, _sqlite_prune
from persistasaurus._store._pg_rows import Session
from persistasaurus._store.base import Batch, FlowRow, Store
from persistasaurus._store.postgres import PostgresStore
from persistasaurus._store.pruning import MOST_ROWS, Family, Pruned, portion
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus._store.urls import make_store, whole_store
from persistasaurus._store.verification import Verification
from tests import postgres
from tests.store import moving, racing
from tests.store.rows import FAR, LEASE_MS, T0, new_flow, signal, start, start_one, step, update, worker

Connect = Callable[[], Store]
LATER = T0 + 1_000


def ended(store: Store, me: int, flow_id: str, at_ms: int = T0, status: int = COMPLETE, **new: Any) -> int:
    """Write a flow with two steps that ended at a time."""
    key = start_one(store, me, flow_id, **new)
    store.commit(Batch(worker_id=me, steps=[step(key, 1), step(key, 2)]))
    end(store, me, key, at_ms, status)
    return key


def end(store: Store, me: int, key: int, at_ms: int = T0, status: int = COMPLETE) -> None:
    store.commit(Batch(worker_id=me, updates=[update(key, status=status, updated_at_ms=at_ms, release=True)]))


def keys_of(store: Store, sql: str) -> list[Any]:
    """Ask a store's tables, behind its methods."""
    if isinstance(store, SqliteStore):
        return [row[0] for row in store._file.read(lambda db: db.execute(sql).fetchall())]
    assert isinstance(store, PostgresStore)
    return [row[0] for row in store._pool.read(lambda db: db.rows(sql.replace("FROM ", "FROM {schema}.")))]


def left(store: Store) -> tuple[list[int], list[int], list[str]]:
    """Return the keys of the flows and those that the steps name, and the ids that the signals name."""
    return (
        keys_of(store, "SELECT flow_key FROM flow ORDER BY 1"),
        keys_of(store, "SELECT DISTINCT flow_key FROM step ORDER BY 1"),
        keys_of(store, "SELECT flow_id FROM signal ORDER BY 1"),
    )


def ids_left(store: Store) -> list[str]:
    return keys_of(store, "SELECT flow_id FROM flow ORDER BY 1")


def found(store: Store, flow_id: str) -> FlowRow:
    row = store.find(flow_id)
    assert row is not None
    return row


def prune_all(store: Store, before_ms: int = FAR, limit: int = 100) -> int:
    gone = 0
    while removed := store.prune(before_ms, limit=limit).flows:
        gone += removed
    return gone


# --- what goes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [COMPLETE, FAILED, CANCELLED])
def test_a_flow_that_ended_goes_with_all_that_is_its_own(store: Store, me: int, status: int) -> None:
    """Steps, and signals that are pending or rejected; those of others stay."""
    ended(store, me, "old", status=status)
    other = ended(store, me, "young", at_ms=LATER + 1)
    store.commit(
        Batch(signals=[signal("old"), signal("old", payload="2"), signal("young"), signal("nobody")])
    )
    store.commit(Batch(worker_id=me, rejected=[(store.signals("old")[0].signal_id, "no number")]))

    assert store.prune(LATER, limit=100) == Pruned(1, LATER + 1)

    assert left(store) == ([other], [other], ["nobody", "young"])
    assert store.find("old") is None
    assert store.names() == {1: ("", "hello")}


def test_the_end_counts_and_not_the_start(store: Store, me: int) -> None:
    """One that ended at the very millisecond goes, the next one stays, however long ago both were started."""
    ended(store, me, "at", at_ms=LATER)
    ended(store, me, "after", at_ms=LATER + 1)

    assert prune_all(store, LATER) == 1
    assert ids_left(store) == ["after"]
    assert store.prune(LATER, limit=9) == Pruned(0, LATER + 1)
    assert store.prune(LATER + 1, limit=9).flows == 1
    assert store.prune(LATER + 1, limit=9) == Pruned(0, None)


def test_a_flow_that_may_go_on_stays_however_old_it_is(store: Store, me: int) -> None:
    """Running, asleep, waiting, parked, not begun, and a failed one that was retried."""
    old = {"updated_at_ms": T0, "release": True}
    keys = {name: start_one(store, me, name) for name in ("running", "asleep", "waiting", "parked")}
    start(store, None, new_flow("not begun", claim=False))
    store.commit(
        Batch(
            worker_id=me,
            updates=[
                update(keys["asleep"], status=PENDING, due_at_ms=FAR, idle=True, **old),
                update(keys["waiting"], status=WAITING, idle=True, **old),
                update(keys["parked"], status=PARKED, reason="{}", **old),
            ],
        )
    )
    ended(store, me, "retried", status=FAILED)
    assert store.reopen(found(store, "retried"), steps=(), dropped=(), now_ms=T0)
    before = left(store)

    assert store.prune(FAR, limit=100) == Pruned(0, None)
    assert store.prunable(FAR) == 0

    assert left(store) == before
    assert ids_left(store) == sorted([*keys, "not begun", "retried"])


# --- families ------------------------------------------------------------------------------------------


def test_a_child_stays_for_as_long_as_its_parent(store: Store, me: int) -> None:
    """The parent may not have recorded its result yet, or may be retried and ask for it again."""
    parent = start_one(store, me, "p")
    child = ended(store, me, "p/1", parent_key=parent, parent_step=1)
    ended(store, me, "p/1/1", parent_key=child, parent_step=1)
    assert prune_all(store) == 0

    end(store, me, parent, LATER)

    assert prune_all(store, LATER - 1) == 0
    assert store.prunable(LATER) == 3
    assert store.prune(LATER, limit=1) == Pruned(3, None)
    assert left(store) == ([], [], [])


@pytest.mark.parametrize("status", [PENDING, WAITING, PARKED])
def test_a_parent_stays_while_a_flow_below_it_may_go_on(store: Store, me: int, status: int) -> None:
    """A failed parent leaves its children running, and is retried with them."""
    parent = ended(store, me, "p", status=FAILED)
    child = ended(store, me, "p/1", parent_key=parent, parent_step=1)
    last = start_one(store, me, "p/1/1", parent_key=child, parent_step=1)
    store.commit(Batch(worker_id=me, updates=[update(last, status=status, idle=True, updated_at_ms=T0)]))
    ended(store, me, "other", at_ms=LATER)

    assert prune_all(store) == 1
    assert ids_left(store) == ["p", "p/1", "p/1/1"]

    end(store, me, last, FAR) if status != PARKED else store.commit(Batch(cancels=["p/1/1"]))
    ends = store.find("p/1/1")
    assert ends is not None
    assert prune_all(store, ends.updated_at_ms - 1) == 0
    assert prune_all(store, ends.updated_at_ms) == 3


# --- how much at a time --------------------------------------------------------------------------------


def test_those_that_ended_first_go_first_and_no_more_than_the_limit(store: Store, me: int) -> None:
    """In the order of their ends, whatever the order of their starts."""
    for index, at_ms in enumerate([5, 3, 1, 4, 2]):
        ended(store, me, f"f{index}", at_ms=T0 + at_ms)

    assert store.prune(FAR, limit=2) == Pruned(2, None)
    assert ids_left(store) == ["f0", "f1", "f3"]
    assert store.prune(FAR, limit=2).flows == 2
    assert ids_left(store) == ["f0"]
    assert store.prune(FAR, limit=2).flows == 1


def test_a_family_is_never_parted_by_the_limit(store: Store, me: int) -> None:
    """It goes alone where it has more flows than that, and waits where it does not fit any more."""
    ended(store, me, "single")
    parent = ended(store, me, "p", at_ms=T0 + 1)
    for number in range(1, 6):
        ended(store, me, f"p/{number}", parent_key=parent, parent_step=number)

    assert [store.prune(FAR, limit=3).flows for _ in range(3)] == [1, 6, 0]


def test_a_flow_of_many_steps_goes_whole_and_alone(store: Store, me: int) -> None:
    """However many rows that is."""
    ended(store, me, "first")
    long = start_one(store, me, "long")
    store.commit(Batch(worker_id=me, steps=[step(long, number) for number in range(1, MOST_ROWS + 2)]))
    end(store, me, long, T0 + 1)
    ended(store, me, "last", at_ms=T0 + 2)

    assert [store.prune(FAR, limit=100).flows for _ in range(4)] == [1, 1, 1, 0]
    assert left(store) == ([], [], [])


def test_a_portion_is_the_first_family_and_what_is_small_beside_it() -> None:
    """By flows and by rows."""
    small = [Family(key, 1, 11) for key in range(1, 500)]

    assert portion(small, 100) == list(range(1, 101))
    assert portion(small, 1) == [1]
    assert len(portion(small, 10_000)) == MOST_ROWS // 11
    assert portion([Family(7, 300, 90_000), *small], 100) == [7]
    assert portion([small[0], Family(7, 1, MOST_ROWS), small[1]], 100) == [1]
    assert portion([], 100) == []


# --- afterwards ----------------------------------------------------------------------------------------


def test_a_pruned_id_is_started_afresh(store: Store, me: int) -> None:
    """With a key that nobody had, and nothing of the one before."""
    before = ended(store, me, "f")
    store.commit(Batch(signals=[signal("f")]))
    assert prune_all(store) == 1

    (again,) = start(store, me, new_flow("f", input='{"name":"other"}'))

    assert again.created
    assert again.flow_key > before
    history = store.load(again.flow_key)
    assert history is not None
    assert (history.steps, history.mailbox.signals) == ([], [])
    assert store.load(before) is None


def test_a_pruned_flow_is_not_reopened(store: Store, me: int) -> None:
    """Not a row of it comes back."""
    key = ended(store, me, "f", status=FAILED)
    seen = found(store, "f")
    assert prune_all(store) == 1

    assert not store.reopen(seen, steps=[step(key, 2)], dropped=(), now_ms=T0)
    assert left(store) == ([], [], [])


# --- several at once -----------------------------------------------------------------------------------


def test_pruners_in_several_processes_remove_each_flow_once(connect: Connect, kind: str, place: str) -> None:
    """No call fails, and what they say they removed is what is gone."""
    store = connect()
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    for index in range(60):
        parent = ended(store, me, f"f{index}", at_ms=T0 + index)
        ended(store, me, f"f{index}/1", parent_key=parent, parent_step=1)
    stays = ended(store, me, "young", at_ms=FAR + 1)

    removed = racing.race(racing.prune_all, *[(kind, place, FAR, 6)] * 4)

    prune_all(store)  # one of which each believed that another has it
    assert sum(removed) <= 120
    assert left(store) == ([stays], [stays], [])


def test_either_a_retry_or_the_pruner_gets_a_failed_flow_and_gets_it_whole(
    connect: Connect, kind: str, place: str
) -> None:
    """What was reopened has all its rows, and of what was not there is none."""
    store = connect()
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    ids = [f"f{index}" for index in range(80)]
    keys = [ended(store, me, each, at_ms=T0 + index, status=FAILED) for index, each in enumerate(ids)]

    # From the other end, so that they meet.
    both = [racing.reopen_all, racing.prune_all]
    reopened, removed = racing.race_of(both, (kind, place, ids[::-1], 3), (kind, place, FAR, 1))

    kept = sorted(key for key, done in zip(keys[::-1], reopened, strict=True) if done)
    assert removed + len(kept) == len(ids)
    assert left(store)[:2] == (kept, kept)
    assert len(keys_of(store, "SELECT step FROM step")) == 3 * len(kept)


def test_a_flow_that_is_retried_after_the_pruner_has_chosen_it_stays(
    connect: Connect, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again once nobody else can write it; a young child counts as well."""
    store, other = connect(), connect()
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    ended(store, me, "retried", status=FAILED)
    parent = ended(store, me, "p", status=FAILED)
    ended(store, me, "p/1", status=FAILED, parent_key=parent, parent_step=1)
    ended(store, me, "goes")
    failed = [found(store, "retried"), found(store, "p/1")]
    module: Any = _sqlite_prune if kind == "sqlite" else _pg_prune
    look = module.look

    def look_then_retry(*arguments: Any) -> Any:
        chosen = look(*arguments)
        for seen in failed:
            other.reopen(seen, steps=(), dropped=(), now_ms=T0)
        return chosen

    monkeypatch.setattr(module, "look", look_then_retry)

    assert store.prune(FAR, limit=100).flows == 1
    assert ids_left(store) == ["p", "p/1", "retried"]
    assert len(keys_of(store, "SELECT step FROM step")) == 6


def test_a_start_of_an_old_id_beside_the_pruner_finds_it_or_starts_it_anew(
    connect: Connect, kind: str, place: str
) -> None:
    """Whoever is told that the flow is new finds it there."""
    store = connect()
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    ids = [f"f{index}" for index in range(80)]
    for index, each in enumerate(ids):
        ended(store, me, each, at_ms=T0 + index)

    both = [racing.start_ids, racing.prune_all]
    started, removed = racing.race_of(both, (kind, place, ids[::-1]), (kind, place, FAR, 1))

    anew = sorted(key for key, created in started if created)
    assert removed == len(ids)
    assert left(store)[:2] == (anew, [])


@pytest.mark.parametrize("kind", ["postgres"])
def test_an_old_id_that_is_pruned_just_after_its_start_found_it_is_started_anew(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL what an id holds is read after the commit; here the pruner comes between the two."""
    store, other = connect(), connect()
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    ended(store, me, "f")
    read = _pg_commit._read_started

    def prune_then_read(session: Session, flow_ids: Any) -> Any:
        prune_all(other)
        return read(session, flow_ids)

    monkeypatch.setattr(_pg_commit, "_read_started", prune_then_read)

    old, again = start(store, me, new_flow("f"), new_flow("f"))

    assert (old.created, old.status, old.owner, again.created) == (True, PENDING, None, False)
    assert old.flow_key == again.flow_key
    assert left(store)[0] == [old.flow_key]
    assert store.claim(me, [1], now_ms=FAR, limit=9).flow_keys == [old.flow_key]


# --- crashes -------------------------------------------------------------------------------------------


@pytest.fixture
def filled(kind: str, place: str) -> str:
    """The address of a store of 200 sound flows, half of them complete, with signals for some."""
    url = f"{place}/flows.db" if kind == "sqlite" else place
    moving.fill(url, 200)
    return url


def findings(url: str) -> list[str]:
    """Return what `db verify` would say."""
    with closing(whole_store(url)) as store:
        store.open()
        with store.snapshot() as snapshot:
            return [found.problem for found in Verification(snapshot).findings(lambda: None)]


def opened(url: str) -> Store:
    store = make_store(url, durability="full", clock=SystemClock())
    store.open()
    return store


def check_each_is_whole(store: Store) -> None:
    """Every flow that is there has its two steps, and every tenth its signal."""
    flows, _, letters = left(store)
    assert len(keys_of(store, "SELECT step FROM step")) == 2 * len(flows)
    assert len(letters) == len([key for key in flows if key % 10 == 0])


def prune_one_by_one(url: str) -> None:
    with closing(opened(url)) as store:
        prune_all(store, limit=1)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_pruner_that_is_killed_between_two_statements_has_removed_nothing_of_that_flow(
    filled: str, at: int
) -> None:
    """Signals, steps, the flow's row: it dies before each of them, of its third flow."""

    def dies(calls: Iterator[int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def wrapped(act: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **named: Any) -> Any:
                is_delete = any("DELETE" in str(each) for each in arguments)
                if is_delete and next(calls) == 2 * 3 + at:
                    os.kill(os.getpid(), signals.SIGKILL)
                return act(*arguments, **named)

            return counted

        return wrapped

    def prune_and_die() -> None:
        wrap = dies(iter(range(1_000)))
        _sqlite_prune.write = wrap(_sqlite_prune.write)  # type: ignore[assignment]
        Session.send = wrap(Session.send)  # type: ignore[method-assign]
        prune_one_by_one(filled)

    _, status = os.waitpid(moving.in_a_child(prune_and_die), 0)

    assert os.WTERMSIG(status) == signals.SIGKILL
    assert findings(filled) == []
    with closing(opened(filled)) as store:
        check_each_is_whole(store)
        assert store.prunable(FAR) == 98
        assert prune_all(store) == 98
    assert findings(filled) == []


def test_a_pruner_that_is_killed_at_any_moment_leaves_no_part_of_a_flow(filled: str) -> None:
    """Again and again, each time somewhere else."""
    with closing(opened(filled)) as store:
        for _ in range(5):
            before = store.prunable(FAR)
            pid = moving.in_a_child(lambda: prune_one_by_one(filled))
            while store.prunable(FAR) > max(0, before - 8):
                time.sleep(0.001)
            moving.kill(pid)

            assert findings(filled) == []
            check_each_is_whole(store)
            assert store.prunable(FAR) < before
        prune_all(store)
        assert len(left(store)[0]) == 100
    assert findings(filled) == []


# --- how they are found --------------------------------------------------------------------------------


def test_a_file_is_asked_by_indexes_alone(tmp_path: Path) -> None:
    """One of a million flows is not walked through for the ten that are due."""
    with closing(SqliteStore(tmp_path / "flows.db")) as store:
        store.open()
        sql, values = "EXPLAIN QUERY PLAN " + _sqlite_prune._LOOK, {"before": T0, "limit": 9}
        plan = store._file.read(lambda db: db.execute(sql, values).fetchall())

    lines = [str(line[3]) for line in plan]
    assert "SEARCH root USING INDEX flow_ended (updated_at_ms<?)" in lines
    assert "SEARCH child USING COVERING INDEX flow_parent (parent_key=? AND rowid>?)" in lines
    assert "SEARCH step USING PRIMARY KEY (flow_key=?)" in lines
    assert not [line for line in lines if line.startswith(("SCAN flow", "SCAN child", "SCAN root"))]
    # The one sort is that of the families which are to go.
    assert len([line for line in lines if "B-TREE FOR ORDER BY" in line]) == 1


def test_a_schema_is_asked_by_indexes_alone() -> None:
    """As the server plans it for 5,000 flows, ten of which are due, with statistics and without."""
    with postgres.new_schema() as url, closing(PostgresStore(url)) as store:
        store.open()
        moving.fill(url, 5_000)
        postgres.in_schema(url, "UPDATE flow SET updated_at_ms = flow_key WHERE status = 1")
        sql = "EXPLAIN " + _pg_prune._LOOK.replace("$1", "20").replace("$2", "100")
        plans = [store._pool.read(lambda db: db.rows(sql))]
        postgres.in_schema(url, "ANALYZE")
        plans.append(store._pool.read(lambda db: db.rows(sql)))

    for lines in [[line for (line,) in plan] for plan in plans]:
        assert any("using flow_ended" in line for line in lines)
        assert any(re.search("(using|on) flow_parent", line) for line in lines)
        assert not [line for line in lines if "Seq Scan" in line]
