"""What every store promises to the engine; see `persistasaurus._store.base`."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistasaurus._model import CANCELLED, COMPLETE, FAILED, PARKED, PENDING, WAITING
from persistasaurus._store.base import SHORT, Batch, FlowFilter, FlowRow, SignalRow, Store
from persistasaurus._store.checksum import outcome_checksum
from persistasaurus.errors import LeaseLost, StoreError
from tests.store import racing
from tests.store.rows import (
    FAR,
    LEASE_MS,
    T0,
    FixedClock,
    new_flow,
    signal,
    start,
    start_one,
    step,
    update,
    worker,
)

Connect = Callable[[], Store]


def flow(store: Store, flow_id: str = "f") -> FlowRow:
    found = store.find(flow_id)
    assert found is not None
    return found


def listed(store: Store, before_key: int | None = None, limit: int = 100, **which: object) -> list[str]:
    rows = store.list_flows(FlowFilter(**which), before_key=before_key, limit=limit)  # type: ignore[arg-type]
    return [row.flow_id for row in rows]


def die(store: Store, worker_id: int) -> None:
    store.take_over(worker_id, now_ms=T0, only_expired=False)


# --- opening, names, changes ---------------------------------------------------------------------------


def test_a_store_that_is_not_open_says_so(store: Store) -> None:
    """Before open() and after close(), which may be called twice."""
    store.close()
    store.close()

    with pytest.raises(StoreError, match="closed"):
        store.names()
    with pytest.raises(StoreError, match="closed"):
        store.commit(Batch())
    with pytest.raises(StoreError, match="closed"):
        store.changes()
    with pytest.raises(StoreError, match="closed"):
        store.check()


def test_everything_is_there_after_opening_again(connect: Connect, kind: str) -> None:
    """What one connection committed, a later one reads."""
    first = connect()
    me = first.register_worker(worker(), lease_ms=LEASE_MS)
    key = start_one(first, me)
    first.commit(Batch(worker_id=me, steps=[step(key)], signals=[signal()]))
    first.close()

    second = connect()

    history = second.load(key)
    assert history is not None
    assert history.steps == [step(key)]
    assert [each.payload for each in history.mailbox.signals] == ['"yes"']


def test_a_name_has_one_number_for_ever(store: Store) -> None:
    """Class and method together make the name; the empty class name is a function's."""
    first = store.intern("Signup", "run")

    assert store.intern("Signup", "run") == first
    assert store.intern("", "Signup.run") != first
    assert store.names()[first] == ("Signup", "run")


def test_many_names_have_the_numbers_that_each_of_them_has(connect: Connect) -> None:
    """In the order in which they were asked for, new ones and old ones, and one twice."""
    one, two = connect(), connect()
    old = one.intern("", "run")
    names = [("B", "run"), ("", "run"), ("A", "run"), ("B", "run")]

    numbers = two.intern_all(names)

    assert numbers[1] == old
    assert numbers == [one.intern(*name) for name in names] == one.intern_all(names)
    assert len(set(numbers)) == 3
    assert one.intern_all([]) == []


def test_many_names_that_two_ask_for_at_once_are_numbered_once(connect: Connect) -> None:
    """Each in an order of its own."""
    names = [("", f"flow {number}") for number in range(200)]
    asked = [random.Random(seed).sample(names, 200) for seed in range(4)]

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda each: connect().intern_all(each), asked))

    numbers = [dict(zip(each, answer, strict=True)) for each, answer in zip(asked, answers, strict=True)]
    assert all(each == numbers[0] for each in numbers)
    assert len(set(numbers[0].values())) == 200


def test_two_connections_agree_on_names(connect: Connect) -> None:
    """A number from one process means the same in another."""
    one, two = connect(), connect()

    assert one.intern("A", "b") == two.intern("A", "b")
    assert one.names() == two.names()


def test_processes_that_open_a_new_database_at_once_all_succeed(kind: str, place: str) -> None:
    """The first one migrates it, the others wait and find it done."""
    answers = racing.race(racing.open_and_name, *[(kind, place)] * racing.PROCESSES)

    assert len(set(answers)) == 1


def test_changes_differs_after_a_commit_and_only_then(store: Store) -> None:
    """An idle poller reads nothing else."""
    before = store.changes()
    store.find("f")
    assert store.changes() == before

    store.commit(Batch(signals=[signal()]))

    assert store.changes() != before


def test_changes_sees_the_commits_of_others(connect: Connect) -> None:
    """Each commit of another connection makes a new number."""
    mine, other = connect(), connect()
    seen = {mine.changes()}

    for _ in range(5):
        other.commit(Batch(signals=[signal()]))
        seen.add(mine.changes())

    assert len(seen) == 6


def test_check_passes_on_a_sound_store(store: Store) -> None:
    """It answers nothing where there is nothing to say."""
    store.check()


# --- starts --------------------------------------------------------------------------------------------


def test_a_claimed_start_belongs_to_the_worker_and_runs(store: Store, me: int) -> None:
    """It is in nobody else's claims."""
    (started,) = start(store, me, new_flow("f", seed=-5, checksum=77))

    assert started.created
    assert (started.status, started.owner, started.input) == (PENDING, me, '{"name":"World"}')
    row = flow(store)
    assert row.flow_key == started.flow_key
    assert (row.class_name, row.method_name) == ("", "hello")
    assert (row.owner, row.idle, row.due_at_ms, row.status) == (me, 0, None, PENDING)
    assert (row.created_at_ms, row.updated_at_ms, row.seed, row.checksum) == (T0, T0, -5, 77)
    assert (row.pokes, row.crashes, row.lost_claims) == (0, 0, 0)
    assert (
        store.claim(store.register_worker(worker(), lease_ms=LEASE_MS), [1], now_ms=FAR, limit=10).flow_keys
        == ()
    )


def test_an_unclaimed_start_is_due_at_once_and_needs_no_worker(store: Store) -> None:
    """A client without a worker may start flows."""
    start(store, None, new_flow("f", claim=False))

    row = flow(store)
    assert (row.owner, row.idle, row.due_at_ms) == (None, 0, T0)


def test_a_second_start_of_an_id_answers_what_it_holds(store: Store, me: int) -> None:
    """The first one's name, input, status and owner; nothing of the second is written."""
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, updates=[update(key, status=COMPLETE, result="1")]))
    other = store.intern("", "other")

    (again,) = start(store, me, new_flow("f", name_id=other, input="{}"))

    assert not again.created
    assert (again.flow_key, again.name_id, again.input) == (key, 1, '{"name":"World"}')
    assert (again.status, again.owner) == (COMPLETE, None)
    assert flow(store).input == '{"name":"World"}'


def test_starts_answer_in_their_order_whether_new_or_not(store: Store, me: int) -> None:
    """Also where one batch holds an id twice."""
    (old,) = start(store, me, new_flow("old"))

    answers = start(store, me, *[new_flow(each) for each in ["a", "old", "b", "a"]])

    assert [each.created for each in answers] == [True, False, True, False]
    assert answers[1].flow_key == old.flow_key
    assert answers[3].flow_key == answers[0].flow_key
    assert [flow(store, each).flow_key for each in "ab"] == [answers[0].flow_key, answers[2].flow_key]


@pytest.mark.parametrize("count", [1, 2, 5, 33, 255, 256, 257, 700])
def test_batches_of_any_size_are_written_whole(store: Store, me: int, count: int) -> None:
    """The number of rows in a statement is the store's own affair."""
    answers = start(store, me, *[new_flow(f"f{index}") for index in range(count)])
    keys = [answer.flow_key for answer in answers]
    rows = [step(keys[0], index + 1, return_value=str(index)) for index in range(count)]
    store.commit(Batch(worker_id=me, steps=rows))
    store.commit(Batch(worker_id=me, updates=[update(key, result=str(key), idle=True) for key in keys]))

    history = store.load(keys[0])
    assert history is not None
    assert history.steps == rows
    assert [flow(store, f"f{index}").result for index in range(count)] == [str(key) for key in keys]


def test_a_child_that_is_asked_for_again_is_answered_with_its_key(store: Store, me: int) -> None:
    """Recovery asks again for children that the crash left behind."""
    parent = start_one(store, me)
    child = new_flow("f.1", parent_key=parent, parent_step=1)
    (first,) = start(store, me, child)

    (again,) = start(store, me, child)

    assert (again.created, again.flow_key) == (False, first.flow_key)
    row = flow(store, "f.1")
    assert (row.parent_key, row.parent_step) == (parent, 1)


def test_racing_processes_start_an_id_once(kind: str, place: str) -> None:
    """200 starts of each id: one creates it, and all answer the same key."""
    ids = [f"f{index}" for index in range(25)]

    answers = racing.race(racing.start_ids, *[(kind, place, ids)] * racing.PROCESSES)

    for each in zip(*answers, strict=True):
        assert sum(created for _, created in each) == 1
        assert len({key for key, _ in each}) == 1


# --- steps and updates ---------------------------------------------------------------------------------


def test_a_step_is_replaced_by_its_later_state(store: Store, me: int) -> None:
    """First pending, then complete: one row."""
    key = start_one(store, me)
    pending = step(key, status=PENDING, event=None, ended_after_ms=None, return_value=None, due_at_ms=FAR)
    store.commit(Batch(worker_id=me, steps=[pending]))
    store.commit(Batch(worker_id=me, steps=[step(key)]))

    history = store.load(key)
    assert history is not None
    assert history.steps == [step(key)]


def test_histories_that_are_read_together_are_those_that_are_read_alone(store: Store, me: int) -> None:
    """With their steps in order, signals, children and cancels; those of many steps are left out."""
    keys = [answer.flow_key for answer in start(store, me, *[new_flow(f) for f in ("a", "b", "long", "ü")])]
    a, b, long, other = keys
    store.commit(Batch(worker_id=me, steps=[step(a, number) for number in range(SHORT, 0, -1)]))
    store.commit(Batch(worker_id=me, steps=[step(long, number) for number in range(1, SHORT + 2)]))
    store.commit(Batch(worker_id=me, steps=[step(b, return_value='"\\u0000\\ud800 ü\\n"', error="e'\"\\")]))
    start(
        store, me, new_flow("b.1", parent_key=b, parent_step=1), new_flow("b.2", parent_key=b, parent_step=2)
    )
    store.commit(
        Batch(worker_id=me, updates=[update(flow(store, "b.2").flow_key, status=COMPLETE, result="2")])
    )
    store.commit(Batch(signals=[signal("b", payload="1"), signal("b", payload='"two"'), signal("a")]))
    store.commit(Batch(cancels=["ü"]))

    found = {history.flow.flow_key: history for history in store.load_short([b, long, a, other, 999])}

    assert found == {key: store.load(key) for key in (a, b, other)}
    assert len(found[b].mailbox.signals) == 2
    assert len(found[b].mailbox.children) == 1
    assert store.load_short([]) == []


def test_a_batch_that_is_written_again_changes_nothing(store: Store, me: int) -> None:
    """The engine repeats a batch whose commit failed: rows by key, starts by id, updates in full."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))
    (letter,) = store.signals("f")
    batch = Batch(
        worker_id=me,
        starts=[new_flow("child", parent_key=key, parent_step=2)],
        steps=[step(key), step(key, 2)],
        updates=[update(key, idle=True, due_at_ms=FAR, seen_pokes=1)],
        consumed=[letter.signal_id],
    )

    store.commit(batch)
    before = (store.load(key), store.find("child"), store.signals("f"))
    store.commit(batch)

    assert (store.load(key), store.find("child"), store.signals("f")) == before


def test_an_update_sets_every_column_that_it_names(store: Store, me: int) -> None:
    """And no other."""
    key = start_one(store, me)
    store.commit(
        Batch(
            worker_id=me,
            updates=[
                update(
                    key,
                    status=WAITING,
                    reason="why",
                    idle=True,
                    due_at_ms=FAR,
                    crashes=1,
                    lost_claims=2,
                    cancel_event=4,
                    cancel_event_at_ms=T0 + 4,
                )
            ],
        )
    )

    row = flow(store)
    assert (row.status, row.updated_at_ms, row.reason, row.owner) == (WAITING, T0 + 100, "why", me)
    assert (row.idle, row.due_at_ms, row.crashes, row.lost_claims) == (1, FAR, 1, 2)
    assert (row.cancel_event, row.cancel_event_at_ms, row.outcome_checksum) == (4, T0 + 4, None)
    assert (row.input, row.seed, row.pokes) == ('{"name":"World"}', 42, 0)


@pytest.mark.parametrize("status", [COMPLETE, FAILED, CANCELLED])
def test_an_ended_flow_belongs_to_nobody_and_is_never_due(store: Store, me: int, status: int) -> None:
    """Whatever the update says, and whatever pokes come before and after."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))
    ended = update(key, status=status, result="1", error="{}", idle=True, due_at_ms=5, outcome_checksum=8)
    store.commit(Batch(worker_id=me, updates=[ended]))

    sent = store.commit(Batch(signals=[signal()], cancels=["f"]))

    row = flow(store)
    assert (row.owner, row.idle, row.due_at_ms, row.status) == (None, 0, None, status)
    assert (row.result, row.error, row.outcome_checksum, row.pokes) == ("1", "{}", 8, 1)
    assert sent.signals == [None]
    assert sent.cancels == [(key, status)]
    assert row.cancel_requested_at_ms is None
    assert store.claim(me, [1], now_ms=FAR, limit=10) == ((), (), None)


def test_a_parked_flow_is_not_due_until_it_is_reopened(store: Store, me: int) -> None:
    """A signal is kept for it, but does not wake it."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))
    parked = update(key, status=PARKED, reason="changed", release=True, due_at_ms=T0, seen_pokes=0)
    store.commit(Batch(worker_id=me, updates=[parked]))

    sent = store.commit(Batch(signals=[signal()]))

    assert sent.signals == [None]
    assert len(store.signals("f")) == 2
    row = flow(store)
    assert (row.owner, row.due_at_ms, row.reason) == (None, None, "changed")
    assert store.claim(me, [1], now_ms=FAR, limit=10).flow_keys == ()


def test_a_released_flow_is_free_and_due_when_it_says(store: Store, me: int) -> None:
    """Another worker takes it then."""
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, updates=[update(key, release=True, idle=True, due_at_ms=FAR)]))
    other = store.register_worker(worker(), lease_ms=LEASE_MS)

    early = store.claim(other, [1], now_ms=FAR - 1, limit=10)
    late = store.claim(other, [1], now_ms=FAR, limit=10)

    assert (early.flow_keys, early.next_due_at_ms) == ((), FAR)
    assert (list(late.flow_keys), late.next_due_at_ms) == ([key], None)


# --- fencing -------------------------------------------------------------------------------------------


def owners_writes(key: int) -> dict[str, Batch]:
    return {
        "steps": Batch(steps=[step(key)]),
        "many steps": Batch(steps=[step(key, number) for number in range(1, 600)]),
        "updates": Batch(updates=[update(key)]),
        "consumed": Batch(consumed=[1]),
        "rejected": Batch(rejected=[(1, "no")]),
        "poke": Batch(poke=[key]),
        "cancel_children": Batch(cancel_children=[key]),
        "claimed starts": Batch(starts=[new_flow("other", claim=False), new_flow("new")]),
        "steps among others": Batch(
            steps=[step(key)], signals=[signal()], starts=[new_flow("x", claim=False)]
        ),
    }


@pytest.mark.peer("a rescuer overwrites a completed flow")
@pytest.mark.parametrize("which", owners_writes(0))
@pytest.mark.parametrize("dead", ["taken over", "never alive", "none given"])
def test_a_dead_worker_writes_nothing(store: Store, me: int, which: str, dead: str) -> None:
    """Each of an owner's writes is fenced, and nothing else of its batch is applied."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))
    if dead == "taken over":
        die(store, me)
    batch = owners_writes(key)[which]
    batch.worker_id = {"taken over": me, "never alive": me + 1000, "none given": None}[dead]
    before = (store.load(key), listed(store), store.signals("f"))

    with pytest.raises(LeaseLost, match="not alive"):
        store.commit(batch)

    assert (store.load(key), listed(store), store.signals("f")) == before


def test_writes_that_are_nobodys_need_no_worker(store: Store, me: int) -> None:
    """Clients start, signal and cancel; also with the number of a worker that is dead."""
    start_one(store, me)
    die(store, me)

    answer = store.commit(
        Batch(worker_id=me, starts=[new_flow("new", claim=False)], signals=[signal()], cancels=["f"])
    )

    assert answer.starts[0].created


def test_a_flow_that_is_not_owned_any_more_fails_the_whole_batch(store: Store, me: int) -> None:
    """A living worker that writes to another's flow has lost it: nothing is applied."""
    mine, lost = start_one(store, me, "mine"), start_one(store, me, "lost")
    store.commit(Batch(worker_id=me, updates=[update(lost, release=True, due_at_ms=T0)]))
    other = store.register_worker(worker(), lease_ms=LEASE_MS)
    store.claim(other, [1], now_ms=T0, limit=1)

    with pytest.raises(LeaseLost):
        store.commit(
            Batch(
                worker_id=me, updates=[update(mine, reason="x"), update(lost, reason="x")], steps=[step(mine)]
            )
        )

    assert flow(store, "mine").reason is None
    history = store.load(mine)
    assert history is not None
    assert history.steps == []


def test_two_workers_write_side_by_side(connect: Connect) -> None:
    """Each its own flows, through its own connection."""
    one, two = connect(), connect()
    for index, each in enumerate([one, two]):
        me = each.register_worker(worker(), lease_ms=LEASE_MS)
        key = start_one(each, me, f"f{index}")
        each.commit(Batch(worker_id=me, steps=[step(key)], updates=[update(key, reason=str(index))]))

    assert [flow(one, f"f{index}").reason for index in range(2)] == ["0", "1"]
    assert [flow(two, f"f{index}").reason for index in range(2)] == ["0", "1"]


def test_an_error_in_the_middle_undoes_the_batch_and_the_store_goes_on(store: Store, me: int) -> None:
    """All or nothing, whatever was written before the row that failed."""
    key = start_one(store, me)
    bad = step(key, 3)._replace(asked=None)  # type: ignore[arg-type]

    with pytest.raises(StoreError):
        store.commit(
            Batch(
                worker_id=me,
                steps=[step(key, 1), step(key, 2), bad, step(key, 4)],
                starts=[new_flow("new")],
            )
        )
    with pytest.raises(StoreError):
        store.commit(Batch(worker_id=me, steps=[step(key, 1), bad]))

    assert store.find("new") is None
    store.commit(Batch(worker_id=me, steps=[step(key, 5)]))
    history = store.load(key)
    assert history is not None
    assert [each.step for each in history.steps] == [5]


# --- pokes ---------------------------------------------------------------------------------------------


def test_a_poke_that_comes_while_a_flow_goes_idle_is_not_lost(store: Store, me: int) -> None:
    """The owner saw no poke, so the flow is due again at once."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))

    store.commit(Batch(worker_id=me, updates=[update(key, idle=True, due_at_ms=FAR, seen_pokes=0)]))

    assert flow(store).due_at_ms == T0 + 100
    assert list(store.claim(me, [1], now_ms=T0 + 100, limit=1).poked) == [key]


def test_a_poke_that_was_seen_does_not_wake_again(store: Store, me: int) -> None:
    """The flow sleeps until its own due time."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))

    store.commit(Batch(worker_id=me, updates=[update(key, idle=True, due_at_ms=FAR, seen_pokes=1)]))

    assert flow(store).due_at_ms == FAR
    assert store.claim(me, [1], now_ms=T0 + 100, limit=1).poked == ()


def test_a_poke_while_a_flow_is_released_makes_it_due(store: Store, me: int) -> None:
    """Also one that would have waited for a signal for ever."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))

    store.commit(Batch(worker_id=me, updates=[update(key, status=WAITING, release=True, seen_pokes=0)]))

    assert list(store.claim(me, [1], now_ms=T0 + 100, limit=1).flow_keys) == [key]


def test_a_running_flows_owner_is_told_of_a_poke_once(store: Store, me: int) -> None:
    """Also when the flow writes its state in between; then it is for the flow to say when it is due."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal()]))
    store.commit(Batch(worker_id=me, updates=[update(key, seen_pokes=0)]))

    first = store.claim(me, [1], now_ms=T0 + 50, limit=1)
    second = store.claim(me, [1], now_ms=FAR, limit=1)

    assert (list(first.poked), second.poked) == ([key], ())
    store.commit(Batch(worker_id=me, updates=[update(key, idle=True, seen_pokes=0)]))
    assert list(store.claim(me, [1], now_ms=T0 + 100, limit=1).poked) == [key]


def test_a_poke_of_an_idle_flow_brings_its_due_time_forward(store: Store, me: int) -> None:
    """To the time when the first signal was sent, never back."""
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, updates=[update(key, idle=True, due_at_ms=FAR)]))

    answer = store.commit(Batch(signals=[signal(sent_at_ms=T0 + 70), signal(sent_at_ms=T0 + 60)]))
    store.commit(Batch(signals=[signal(sent_at_ms=T0 + 80)]))

    assert answer.signals == [key, key]
    row = flow(store)
    assert (row.due_at_ms, row.pokes) == (T0 + 60, 2)


def test_the_end_of_a_child_pokes_its_parent(store: Store, me: int) -> None:
    """In the same commit, so that neither is there without the other."""
    parent = start_one(store, me, "p")
    child = start_one(store, me, "p.1", parent_key=parent, parent_step=1)
    store.commit(Batch(worker_id=me, updates=[update(parent, idle=True)]))

    store.commit(
        Batch(
            worker_id=me,
            updates=[update(child, status=COMPLETE, result="5", outcome_checksum=6)],
            poke=[parent],
        )
    )

    assert list(store.claim(me, [1], now_ms=T0 + 100, limit=1).poked) == [parent]
    mailbox = store.mailbox(parent)
    assert mailbox is not None
    assert mailbox.pokes == 1
    assert mailbox.children == [(1, child, "p.1", COMPLETE, "5", None, None, 6)]


def test_a_parent_that_goes_idle_in_the_commit_of_its_childs_end_wakes(store: Store, me: int) -> None:
    """The order inside a group commit does not lose the poke."""
    parent = start_one(store, me, "p")
    child = start_one(store, me, "p.1", parent_key=parent, parent_step=1)

    store.commit(
        Batch(
            worker_id=me,
            poke=[parent],
            updates=[update(child, status=COMPLETE), update(parent, idle=True, due_at_ms=FAR)],
        )
    )

    assert list(store.claim(me, [1], now_ms=T0 + 100, limit=1).poked) == [parent]


# --- signals -------------------------------------------------------------------------------------------


def test_a_signal_may_come_before_its_flow(store: Store, me: int) -> None:
    """It is in the flow's first mailbox."""
    answer = store.commit(Batch(signals=[signal(payload='"early"')]))
    key = start_one(store, me)

    assert answer.signals == [None]
    history = store.load(key)
    assert history is not None
    (letter,) = history.mailbox.signals
    assert letter == SignalRow(letter.signal_id, "f", "approval", '"early"', T0 + 50, None, 9)


def test_signals_keep_their_order_and_are_consumed_once(store: Store, me: int) -> None:
    """A consumed one is gone, the others stay."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal(payload=str(index)) for index in range(40)]))
    letters = store.signals("f")
    assert [each.payload for each in letters] == [str(index) for index in range(40)]

    store.commit(Batch(worker_id=me, consumed=[letters[1].signal_id, letters[3].signal_id]))

    mailbox = store.mailbox(key)
    assert mailbox is not None
    assert [each.payload for each in mailbox.signals] == ["0", "2", *map(str, range(4, 40))]


def test_a_rejected_signal_is_shown_but_not_pending(store: Store, me: int) -> None:
    """With the reason."""
    key = start_one(store, me)
    store.commit(Batch(signals=[signal(), signal()]))
    first, second = store.signals("f")

    store.commit(Batch(worker_id=me, rejected=[(first.signal_id, "not an Approval: 'é\"")]))

    mailbox = store.mailbox(key)
    assert mailbox is not None
    assert mailbox.signals == [second]
    assert store.signals("f") == [first._replace(rejected="not an Approval: 'é\""), second]


def test_signals_of_racing_processes_are_each_there_once(kind: str, place: str, connect: Connect) -> None:
    """In the order in which each sender sent them; and every step is there too."""
    store = connect()
    keys = racing.race(
        racing.write_steps_and_signals, *[(kind, place, number, 30) for number in range(racing.PROCESSES)]
    )

    letters = [json.loads(each.payload).split("/") for each in store.signals("inbox")]
    for number, key in enumerate(keys):
        assert [int(index) for sender, index in letters if sender == str(number)] == list(range(1, 31))
        history = store.load(key)
        assert history is not None
        assert [each.step for each in history.steps] == list(range(1, 31))
    assert len(letters) == 30 * racing.PROCESSES


# --- cancels -------------------------------------------------------------------------------------------


def test_a_cancel_of_a_running_flow_asks_its_owner(store: Store, me: int, clock: FixedClock) -> None:
    """The time of the first request stands; each one pokes."""
    key = start_one(store, me)
    first = store.commit(Batch(cancels=["f"]))
    clock.ms += 5
    store.commit(Batch(cancels=["f"]))

    assert first.cancels == [(key, PENDING)]
    row = flow(store)
    assert (row.status, row.cancel_requested_at_ms, row.due_at_ms, row.pokes) == (PENDING, T0, T0, 2)
    mailbox = store.mailbox(key)
    assert mailbox is not None
    assert mailbox.cancel_requested_at_ms == T0
    assert list(store.claim(me, [1], now_ms=T0, limit=1).poked) == [key]


def test_a_cancel_of_an_unknown_id_answers_none(store: Store, me: int) -> None:
    """In its place among the others."""
    key = start_one(store, me)

    assert store.commit(Batch(cancels=["no", "f", "no"])).cancels == [None, (key, PENDING), None]


def test_a_flow_that_never_ran_is_cancelled_at_once(store: Store, me: int, clock: FixedClock) -> None:
    """With an outcome that its checksum fits, and its parent is told."""
    parent = start_one(store, me, "p")
    key = start_one(store, me, "f", claim=False, parent_key=parent, parent_step=1)
    clock.ms += 7

    answer = store.commit(Batch(cancels=["f"]))

    assert answer.cancels == [(key, CANCELLED)]
    row = flow(store)
    assert (row.status, row.updated_at_ms, row.due_at_ms, row.owner) == (CANCELLED, T0 + 7, None, None)
    assert row.error is not None
    assert json.loads(row.error) == {
        "type": "FlowCancelled",
        "module": "persistasaurus.errors",
        "message": "The flow was cancelled before it ran.",
    }
    assert row.outcome_checksum == outcome_checksum("f", CANCELLED, None, row.error)
    assert list(store.claim(me, [1], now_ms=T0 + 7, limit=1).poked) == [parent]


def test_a_flow_that_ran_before_is_asked_though_nobody_owns_it(store: Store, me: int) -> None:
    """Its cleanup steps still have to run: released with a step, crashed without one, resting, or waiting."""
    released, crashed = start_one(store, me, "released"), start_one(store, me, "crashed")
    waiting, resting = start_one(store, me, "waiting"), start_one(store, me, "resting")
    store.commit(
        Batch(
            worker_id=me,
            steps=[step(released)],
            updates=[
                update(released, release=True, due_at_ms=FAR),
                update(resting, release=True, idle=True, due_at_ms=FAR),
                update(waiting, status=WAITING, idle=True),
            ],
        )
    )
    die(store, me)

    answer = store.commit(Batch(cancels=["released", "crashed", "waiting", "resting"]))

    keys = [released, crashed, waiting, resting]
    assert answer.cancels == list(zip(keys, [PENDING, PENDING, WAITING, PENDING], strict=True))
    other = store.register_worker(worker(), lease_ms=LEASE_MS)
    taken = store.claim(other, [1], now_ms=T0, limit=9).flow_keys
    assert sorted(taken) == sorted(keys)


def test_a_parked_flow_is_cancelled_at_once_with_its_children(store: Store, me: int) -> None:
    """Those that run are asked, those that never ran end."""
    parent = start_one(store, me, "p")
    running = start_one(store, me, "p.1", parent_key=parent, parent_step=1)
    start_one(store, me, "p.2", parent_key=parent, parent_step=2, claim=False)
    ended = start_one(store, me, "p.3", parent_key=parent, parent_step=3)
    store.commit(
        Batch(
            worker_id=me,
            updates=[
                update(parent, status=PARKED, reason="changed", release=True),
                update(ended, status=COMPLETE, result="3"),
            ],
        )
    )

    assert store.commit(Batch(cancels=["p"])).cancels == [(parent, CANCELLED)]

    assert (flow(store, "p").status, flow(store, "p").reason) == (CANCELLED, None)
    assert (flow(store, "p.1").status, flow(store, "p.1").cancel_requested_at_ms) == (PENDING, T0)
    assert flow(store, "p.2").status == CANCELLED
    assert (flow(store, "p.3").status, flow(store, "p.3").result) == (COMPLETE, "3")
    assert list(store.claim(me, [1], now_ms=T0, limit=1).poked) == [running]


def test_cancel_children_leaves_the_flow_itself_alone(store: Store, me: int) -> None:
    """And its grandchildren to their own parents."""
    parent = start_one(store, me, "p")
    child = start_one(store, me, "c", parent_key=parent, parent_step=1)
    start_one(store, me, "g", parent_key=child, parent_step=1)

    store.commit(Batch(worker_id=me, cancel_children=[parent]))

    requested = {each: flow(store, each).cancel_requested_at_ms for each in "pcg"}
    assert requested == {"p": None, "c": T0, "g": None}


# --- workers and claims --------------------------------------------------------------------------------


def test_a_workers_number_is_never_used_again(store: Store) -> None:
    """A zombie can never pass for a later worker."""
    first = store.register_worker(worker(), lease_ms=LEASE_MS)
    die(store, first)

    assert store.register_worker(worker(), lease_ms=LEASE_MS) > first


def test_registering_an_incarnation_again_keeps_its_number(store: Store) -> None:
    """A worker whose registration was answered by an error may repeat it."""
    row = worker("same")

    assert store.register_worker(row, lease_ms=LEASE_MS) == store.register_worker(row, lease_ms=LEASE_MS)


def test_workers_are_listed_with_their_lease(store: Store) -> None:
    """Oldest first, as they were recorded and renewed."""
    rows = [worker(f"w{index}", pid=index) for index in range(3)]
    ids = [store.register_worker(row, lease_ms=LEASE_MS) for row in rows]

    store.renew_lease(ids[1], lease_ms=0, names='["other"]')

    expected = [row._replace(worker_id=number) for row, number in zip(rows, ids, strict=True)]
    expected[1] = expected[1]._replace(expired=True, names='["other"]')
    assert store.workers() == expected
    store.renew_lease(ids[1], lease_ms=LEASE_MS, names='["other"]')
    assert not any(each.expired for each in store.workers())


def test_a_dead_worker_cannot_renew_or_claim(store: Store, me: int) -> None:
    """Also where nothing is due."""
    die(store, me)

    with pytest.raises(LeaseLost):
        store.renew_lease(me, lease_ms=LEASE_MS, names="[]")
    with pytest.raises(LeaseLost):
        store.claim(me, [1], now_ms=T0, limit=1)


def test_a_claim_takes_the_oldest_first(store: Store, me: int) -> None:
    """Up to the limit, and says when to ask again."""
    for index, due in enumerate([30, 10, 20, 40]):
        start_one(store, None, f"f{index}", claim=False, created_at_ms=T0 + due)

    first = store.claim(me, [1], now_ms=T0 + 30, limit=2)
    second = store.claim(me, [1], now_ms=T0 + 30, limit=2)

    names = {flow(store, f"f{index}").flow_key: index for index in range(4)}
    assert [names[key] for key in first.flow_keys] == [1, 2]
    assert first.next_due_at_ms is not None
    assert first.next_due_at_ms <= T0 + 30
    assert [names[key] for key in second.flow_keys] == [0]
    assert second.next_due_at_ms == T0 + 40
    assert [flow(store, f"f{index}").owner for index in range(4)] == [me, me, me, None]


def test_a_claim_gives_each_name_its_share(store: Store, me: int) -> None:
    """Many old flows of one name do not keep those of another waiting."""
    other = store.intern("", "other")
    for index in range(20):
        start_one(store, None, f"old{index}", claim=False, created_at_ms=T0)
    for index in range(3):
        start_one(store, None, f"new{index}", claim=False, created_at_ms=T0 + 5, name_id=other)

    taken = store.claim(me, [1, other], now_ms=FAR, limit=8)

    shown = [row.flow_id for row in store.list_flows(FlowFilter(), before_key=None, limit=99) if row.owner]
    assert len(taken.flow_keys) == 8
    assert sorted(each for each in shown if each.startswith("new")) == ["new0", "new1", "new2"]


def test_flows_of_other_names_are_left_alone(store: Store, me: int) -> None:
    """They stay pending for a worker that knows them, and do not say when to ask."""
    other = store.intern("", "other")
    start_one(store, None, claim=False, name_id=other)

    assert store.claim(me, [1], now_ms=T0 - 1, limit=9) == ((), (), None)
    assert store.claim(me, [], now_ms=FAR, limit=9) == ((), (), None)
    assert flow(store).owner is None


def test_next_due_is_the_earliest_of_free_and_own_flows(store: Store, me: int) -> None:
    """Other workers' flows are their own affair."""
    theirs = store.register_worker(worker(), lease_ms=LEASE_MS)
    for each, owner, due in [("a", me, 300), ("b", me, 200), ("c", theirs, 100)]:
        key = start_one(store, owner, each)
        store.commit(Batch(worker_id=owner, updates=[update(key, idle=True, due_at_ms=T0 + due)]))

    assert store.claim(me, [1], now_ms=T0, limit=9).next_due_at_ms == T0 + 200

    start_one(store, None, "d", claim=False, created_at_ms=T0 + 150)
    assert store.claim(me, [1], now_ms=T0, limit=9).next_due_at_ms == T0 + 150


def test_a_due_flow_of_ones_own_is_reported_once_and_then_runs(store: Store, me: int) -> None:
    """Should its owner crash now, it is due at once: a due time that was reported is not lost."""
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, updates=[update(key, idle=True, due_at_ms=T0 + 5)]))

    assert list(store.claim(me, [1], now_ms=T0 + 5, limit=0).poked) == [key]
    assert store.claim(me, [1], now_ms=T0 + 5, limit=0).poked == ()
    die(store, me)

    row = flow(store)
    assert (row.due_at_ms, row.crashes, row.owner) == (T0, 1, None)


@pytest.mark.peer("double dequeue on SQLite")
def test_claims_of_racing_processes_never_overlap(kind: str, place: str, connect: Connect) -> None:
    """Every flow is taken by one of them."""
    store = connect()
    started = start(store, None, *[new_flow(f"f{index}", claim=False) for index in range(1000)])

    shares = racing.race(racing.claim_all, *[(kind, place, number) for number in range(racing.PROCESSES)])

    taken = [key for share in shares for key in share]
    assert sorted(taken) == [each.flow_key for each in started]


@pytest.mark.peer("double dequeue on SQLite")
def test_claims_of_racing_threads_never_overlap(store: Store) -> None:
    """One store may be used from any thread."""
    started = start(store, None, *[new_flow(f"f{index}", claim=False) for index in range(300)])
    barrier = threading.Barrier(4)

    def claim_all() -> list[int]:
        mine, taken = store.register_worker(worker(), lease_ms=LEASE_MS), []
        barrier.wait()
        while some := store.claim(mine, [1], now_ms=T0, limit=7).flow_keys:
            taken.extend(some)
        return taken

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(lambda _: claim_all(), range(4)))

    assert sorted(key for share in shares for key in share) == [each.flow_key for each in started]


def make_suspects(store: Store, count: int, crashes: int = 2) -> list[int]:
    """Flows that ran in a process that died, as often as said."""
    keys = [start_one(store, None, f"suspect{index}", claim=False) for index in range(count)]
    for _ in range(crashes):
        victim = store.register_worker(worker(), lease_ms=LEASE_MS)
        assert len(store.claim(victim, [1], now_ms=T0, limit=count).flow_keys) == count
        die(store, victim)
    return keys


def test_suspects_of_a_crash_loop_are_driven_one_at_a_time(store: Store, me: int) -> None:
    """The next one only when the one before has gone idle, was released, or died."""
    keys = make_suspects(store, 3)
    innocent = start_one(store, None, "innocent", claim=False, created_at_ms=T0 + 1)

    first = store.claim(me, [1], now_ms=FAR, limit=9)
    assert list(first.flow_keys) == [keys[0], innocent]
    other = store.register_worker(worker(), lease_ms=LEASE_MS)
    assert store.claim(other, [1], now_ms=FAR, limit=9).flow_keys == ()

    idle = update(keys[0], idle=True, due_at_ms=FAR + 1, crashes=2)
    store.commit(Batch(worker_id=me, updates=[idle]))
    assert list(store.claim(other, [1], now_ms=FAR, limit=9).flow_keys) == [keys[1]]

    die(store, other)
    assert flow(store, "suspect1").crashes == 3
    assert len(store.claim(me, [1], now_ms=FAR, limit=9).flow_keys) == 1


def test_a_flow_that_recorded_something_is_no_suspect_any_more(store: Store, me: int) -> None:
    """Its owner writes a crash count of zero, and the next suspect may run beside it."""
    keys = make_suspects(store, 2)
    store.claim(me, [1], now_ms=FAR, limit=9)

    store.commit(Batch(worker_id=me, updates=[update(keys[0], crashes=0)]))

    assert list(store.claim(me, [1], now_ms=FAR, limit=9).flow_keys) == [keys[1]]


def test_one_crash_makes_no_suspect(store: Store, me: int) -> None:
    """All of them are driven again at once."""
    keys = make_suspects(store, 3, crashes=1)

    assert list(store.claim(me, [1], now_ms=FAR, limit=9).flow_keys) == keys


# --- take-over and release -----------------------------------------------------------------------------


def test_take_over_counts_a_crash_for_what_ran_and_none_for_what_waited(store: Store, me: int) -> None:
    """What ran is due at once; what was idle keeps its due time."""
    running, idle, waiting = (start_one(store, me, each) for each in ["running", "idle", "waiting"])
    store.commit(
        Batch(
            worker_id=me,
            updates=[
                update(running, crashes=1, lost_claims=2, seen_pokes=1),
                update(idle, idle=True, due_at_ms=FAR, crashes=1),
                update(waiting, status=WAITING, idle=True),
            ],
        )
    )

    assert store.take_over(me, now_ms=T0 + 500, only_expired=False) == 3

    rows = {each: flow(store, each) for each in ["running", "idle", "waiting"]}
    assert [(row.owner, row.due_at_ms, row.crashes, row.lost_claims) for row in rows.values()] == [
        (None, T0 + 500, 2, 3),
        (None, FAR, 1, 0),
        (None, None, 0, 0),
    ]
    assert store.workers() == []
    assert store.take_over(me, now_ms=T0 + 500, only_expired=False) == 0


def test_take_over_leaves_a_renewed_lease_alone(store: Store, me: int) -> None:
    """The check and the take-over are one transaction."""
    start_one(store, me)
    store.renew_lease(me, lease_ms=0, names="[]")
    store.renew_lease(me, lease_ms=LEASE_MS, names="[]")

    assert store.take_over(me, now_ms=T0 + 2000, only_expired=True) == 0
    assert flow(store).owner == me
    store.renew_lease(me, lease_ms=0, names="[]")
    assert store.take_over(me, now_ms=T0 + 2000, only_expired=True) == 1
    assert flow(store).owner is None


def test_take_over_does_not_touch_other_workers(store: Store, me: int) -> None:
    """Nor flows that have ended."""
    other = store.register_worker(worker(), lease_ms=LEASE_MS)
    theirs = start_one(store, other, "theirs")
    done = start_one(store, me, "done")
    store.commit(Batch(worker_id=me, updates=[update(done, status=COMPLETE)]))

    assert store.take_over(me, now_ms=T0, only_expired=False) == 0

    assert (flow(store, "theirs").flow_key, flow(store, "theirs").owner) == (theirs, other)
    assert (flow(store, "done").status, flow(store, "done").due_at_ms) == (COMPLETE, None)


def test_a_worker_that_leaves_in_order_counts_no_crash(store: Store, me: int) -> None:
    """Its flows are free; leaving again after a take-over is harmless."""
    running, idle = start_one(store, me, "running"), start_one(store, me, "idle")
    store.commit(Batch(worker_id=me, updates=[update(idle, idle=True, due_at_ms=FAR)]))

    store.release_worker(me, now_ms=T0 + 9)
    store.release_worker(me, now_ms=T0 + 99)

    assert [
        (row.owner, row.due_at_ms, row.crashes) for row in [flow(store, "running"), flow(store, "idle")]
    ] == [
        (None, T0 + 9, 0),
        (None, FAR, 0),
    ]
    assert store.workers() == []
    with pytest.raises(LeaseLost):
        store.commit(Batch(worker_id=me, steps=[step(running)]))


# --- reading -------------------------------------------------------------------------------------------


def test_unknown_flows_are_none(store: Store) -> None:
    """By key and by id."""
    assert store.load(999) is None
    assert store.mailbox(999) is None
    assert store.find("999") is None
    assert store.signals("999") == []


def test_load_is_one_snapshot(connect: Connect) -> None:
    """A writer adds a step and its count in each commit: no reader sees one without the other."""
    reader, writer = connect(), connect()
    me = writer.register_worker(worker(), lease_ms=LEASE_MS)
    key = start_one(writer, me)
    done = threading.Event()

    def write() -> None:
        for count in range(1, 3_000):
            batch = Batch(worker_id=me, steps=[step(key, count)], updates=[update(key, reason=str(count))])
            writer.commit(batch)
            if done.is_set():
                return

    seen: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            while len(seen) < 20 and not writing.done():
                history = reader.load(key)
                assert history is not None
                assert str(len(history.steps)) == (history.flow.reason or "0")
                seen.add(len(history.steps))
        finally:
            done.set()
        writing.result()

    assert len(seen) > 5


def test_steps_are_loaded_in_the_order_of_their_numbers(store: Store, me: int) -> None:
    """However they were written, and none of another flow."""
    key, other = start_one(store, me), start_one(store, me, "g")
    store.commit(Batch(worker_id=me, steps=[step(key, 10), step(other, 5), step(key, 2), step(key, 300)]))

    history = store.load(key)
    assert history is not None
    assert [each.step for each in history.steps] == [2, 10, 300]


def test_pages_go_backwards_and_miss_nothing(store: Store, me: int) -> None:
    """Newest first, by key."""
    start(store, me, *[new_flow(f"f{index}") for index in range(25)])

    pages, before = [], None
    while page := store.list_flows(FlowFilter(), before_key=before, limit=10):
        pages.append([row.flow_id for row in page])
        before = page[-1].flow_key

    assert [len(page) for page in pages] == [10, 10, 5]
    assert [each for page in pages for each in page] == [f"f{index}" for index in reversed(range(25))]
    assert store.list_flows(FlowFilter(), before_key=None, limit=1)[0] == flow(store, "f24")


def test_lists_are_restricted_by_each_filter_and_all_together(store: Store, me: int) -> None:
    """Against a plain loop over all flows."""
    names = [("", "hello"), ("Signup", "run"), ("", "unused")]
    numbers = [store.intern(*name) for name in names]
    parent = start_one(store, me, "parent")
    for index in range(60):
        key = start_one(
            store,
            me,
            f"{'ab'[index % 2]}-{index}",
            name_id=numbers[index % 2],
            created_at_ms=T0 + index * 10,
            parent_key=parent if index % 5 == 0 else None,
        )
        status = [PENDING, COMPLETE, WAITING, FAILED, CANCELLED, PARKED][index % 6]
        store.commit(Batch(worker_id=me, updates=[update(key, status=status)]))
    everything = store.list_flows(FlowFilter(), before_key=None, limit=1000)

    for which in [
        FlowFilter(statuses=[FAILED]),
        FlowFilter(statuses=[COMPLETE]),
        FlowFilter(statuses=[PENDING, COMPLETE, PARKED]),
        FlowFilter(statuses=[FAILED, PARKED, CANCELLED]),
        FlowFilter(statuses=[]),
        FlowFilter(names=[names[1]]),
        FlowFilter(names=[names[0], names[1]], statuses=[WAITING, CANCELLED]),
        FlowFilter(names=[names[2]]),
        FlowFilter(names=[("No", "such")]),
        FlowFilter(names=[]),
        FlowFilter(id_prefix="a-"),
        FlowFilter(id_prefix="b-1", statuses=[COMPLETE, FAILED]),
        FlowFilter(id_prefix=""),
        FlowFilter(parent_key=parent),
        FlowFilter(parent_key=parent, statuses=[FAILED, COMPLETE], names=[names[1]]),
        FlowFilter(created_from_ms=T0 + 200, created_before_ms=T0 + 300),
        FlowFilter(created_before_ms=T0 + 300, statuses=[FAILED, PENDING], names=[names[0]], id_prefix="a"),
    ]:
        expected = [row for row in everything if fits(row, which)]
        assert store.list_flows(which, before_key=None, limit=1000) == expected, which
        middle = everything[30].flow_key
        page = [row for row in expected if row.flow_key < middle][:4]
        assert store.list_flows(which, before_key=middle, limit=4) == page, which


def fits(row: FlowRow, which: FlowFilter) -> bool:
    return (
        (which.statuses is None or row.status in which.statuses)
        and (which.names is None or (row.class_name, row.method_name) in which.names)
        and row.flow_id.startswith(which.id_prefix or "")
        and which.parent_key in {None, row.parent_key}
        and row.created_at_ms >= (which.created_from_ms or 0)
        and row.created_at_ms < (which.created_before_ms or FAR)
    )


@pytest.mark.parametrize(
    "prefix", ["%", "_", "a%", "'", '"', "é", "\ud7ff", "\U0010ffff", "x\U0010ffff", "\\"]
)
def test_a_prefix_is_taken_literally(store: Store, me: int, prefix: str) -> None:
    """No character means anything but itself."""
    start(
        store, me, *[new_flow(each) for each in [prefix, prefix + "1", prefix + "\U0010ffff", "other", "A%"]]
    )

    assert listed(store, id_prefix=prefix) == [prefix + "\U0010ffff", prefix + "1", prefix]


# --- reopen --------------------------------------------------------------------------------------------


def test_reopen_makes_a_failed_flow_due_with_its_steps_rewritten(store: Store, me: int) -> None:
    """The outcome and the crashes are cleared, not the attempts lost; some steps go, others are pending."""
    key = start_one(store, me)
    store.commit(
        Batch(
            worker_id=me,
            steps=[step(key, 1), step(key, 2, status=FAILED), step(key, 3)],
            updates=[
                update(
                    key,
                    status=FAILED,
                    error="{}",
                    result="1",
                    reason="r",
                    crashes=3,
                    lost_claims=4,
                    outcome_checksum=5,
                )
            ],
        )
    )
    again = step(key, 2, status=PENDING, event=None, attempts=1, attempts_before=1)

    assert store.reopen(flow(store), steps=[again], dropped=[3], now_ms=T0 + 900)

    history = store.load(key)
    assert history is not None
    assert history.steps == [step(key, 1), again]
    row = history.flow
    assert (row.status, row.updated_at_ms, row.due_at_ms) == (PENDING, T0 + 900, T0 + 900)
    assert (row.result, row.error, row.reason, row.outcome_checksum) == (None, None, None, None)
    assert (row.crashes, row.lost_claims, row.owner) == (0, 4, None)
    assert list(store.claim(me, [1], now_ms=T0 + 900, limit=1).flow_keys) == [key]


def test_reopen_does_nothing_where_the_status_has_changed(store: Store, me: int) -> None:
    """Of two that retry at once, one wins."""
    key = start_one(store, me)
    store.commit(
        Batch(worker_id=me, steps=[step(key)], updates=[update(key, status=PARKED, reason="r", release=True)])
    )

    seen = flow(store)
    assert not store.reopen(seen._replace(status=FAILED), steps=[], dropped=[1], now_ms=FAR)
    assert store.reopen(seen, steps=[], dropped=[], now_ms=FAR)
    assert not store.reopen(seen, steps=[], dropped=[1], now_ms=FAR)
    assert not store.reopen(seen._replace(flow_key=999), steps=[], dropped=[], now_ms=FAR)

    history = store.load(key)
    assert history is not None
    assert history.steps == [step(key)]


def test_a_reopening_of_what_was_seen_before_another_does_nothing(store: Store, me: int) -> None:
    """The flow was retried by somebody else, went on, and has failed again in the same millisecond."""
    key = start_one(store, me)
    failed = Batch(worker_id=me, updates=[update(key, status=FAILED, error="{}")])
    store.commit(failed)
    seen = flow(store)
    assert store.reopen(seen, steps=[], dropped=[], now_ms=T0 + 100)
    store.claim(me, [1], now_ms=T0 + 100, limit=1)
    store.commit(Batch(worker_id=me, steps=[step(key)]))
    store.commit(failed)

    assert not store.reopen(seen, steps=[step(key, status=PENDING, event=None)], dropped=[], now_ms=FAR)

    history = store.load(key)
    assert history is not None
    assert history.steps == [step(key)]
    assert history.flow.status == FAILED


# --- hostile text --------------------------------------------------------------------------------------


HOSTILE = [
    "\\u0000",
    json.dumps({"a": "\x00\x1f", "b": "😀é"}),
    "Robert'); DROP TABLE flow;--",
    "\"quoted\" 'single' `back` [brackets]",
    "x" * 100_000,
    "ｆｕｌｌ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 \u202e\ufeff",
    ":name ? ?1 {rows}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_was(store: Store, me: int, text: str) -> None:
    """In every column that holds text."""
    flow_id = text[:512]
    key = start_one(store, me, flow_id, input=text)
    store.commit(Batch(signals=[signal(flow_id, payload=text, name=text)]))
    row = step(key, parameters=text, return_value=text, error=text)
    child = start_one(store, me, "child", parent_key=key, parent_step=1)
    ended = update(child, status=FAILED, result=text, error=text, reason=text)
    store.commit(Batch(worker_id=me, steps=[row], updates=[ended, update(key, reason=text)]))
    name = store.intern(text, text)

    history = store.load(key)
    assert history is not None
    assert history.steps == [row]
    assert (history.flow.flow_id, history.flow.input, history.flow.reason) == (flow_id, text, text)
    (letter,) = history.mailbox.signals
    assert (letter.flow_id, letter.name, letter.payload) == (flow_id, text, text)
    (outcome,) = history.mailbox.children
    assert (outcome.result, outcome.error, outcome.reason) == (text, text, text)
    assert flow(store, flow_id).flow_key == key
    assert store.names()[name] == (text, text)
    assert listed(store, names=[(text, text)]) == []


any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
whole = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60)
@given(texts=st.lists(any_text, min_size=4, max_size=4), numbers=st.lists(whole, min_size=6, max_size=6))
def test_any_row_comes_back_as_it_was(texts: list[str], numbers: list[int]) -> None:
    """Texts without NUL and surrogates, numbers of 64 bits; on a new store of each kind in memory."""
    from tests.store import factories

    for name, factory in factories.ALL.items():
        if name in factories.SHARED:
            continue
        store = factory("", FixedClock())
        store.open()
        store.intern("", "hello")
        me = store.register_worker(worker(), lease_ms=LEASE_MS)
        key = start_one(store, me, "f" + texts[0], input=texts[1], seed=numbers[0])
        row = step(
            key,
            parameters=texts[2],
            return_value=texts[3],
            started_at_ms=numbers[1],
            delay_ms=numbers[2],
            checksum=numbers[3],
        )
        store.commit(
            Batch(worker_id=me, steps=[row], signals=[signal("f" + texts[0], texts[3], checksum=numbers[4])])
        )

        history = store.load(key)
        assert history is not None
        assert history.steps == [row]
        assert (history.flow.input, history.flow.seed) == (texts[1], numbers[0])
        assert (history.mailbox.signals[0].payload, history.mailbox.signals[0].checksum) == (
            texts[3],
            numbers[4],
        )
        store.close()


def test_the_size_grows_with_what_is_written(store: Store) -> None:
    """As far as it can be told: a store in memory takes no bytes of a disk."""
    before = store.size()

    # Random, for a database may compress.
    store.commit(Batch(signals=[signal(payload=f'"{os.urandom(100_000).hex()}"')]))

    assert store.size() >= before
    assert store.size() - before >= 100_000 or before == 0


def test_where_a_start_came_from_is_kept(store: Store) -> None:
    """It comes back with the flow, and with its history."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    key = store.commit(Batch(starts=[new_flow(claim=False, trace=trace)])).starts[0].flow_key

    found, history = store.find("f"), store.load(key)

    assert found is not None
    assert found.trace == trace
    assert history is not None
    assert history.flow.trace == trace
