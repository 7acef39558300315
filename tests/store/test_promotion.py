"""A store is promoted: everything in it goes on in another one, and at no moment in both."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from persistasaurus import FlowParked, FlowStatus, Persistasaurus, StoreError, StoreMovedError
from persistasaurus._clock import SystemClock
from persistasaurus._engine.promotion import Promotion
from persistasaurus._store.base import Batch
from persistasaurus._store.digest import readable
from persistasaurus._store.urls import make_store
from persistasaurus._store.verification import Verification
from persistasaurus._store.whole import FLOW
from persistasaurus.testing import MovableClock
from tests import postgres
from tests.store import moving
from tests.store.moving import DiesAfter, World, digest_of, fill, in_service, opened, promote
from tests.store.rows import new_flow, signal, worker

DIRECTIONS = ("sqlite to postgres", "postgres to sqlite", "sqlite to sqlite")


@pytest.fixture(params=DIRECTIONS)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a source and a target that do not exist yet."""
    moving.ran.clear()
    World.broken, World.changed = True, False
    kinds = request.param.split(" to ")
    if "postgres" not in kinds:
        yield str(tmp_path / "source.db"), str(tmp_path / "target.db")
        return
    with postgres.new_schema() as url:
        file = str(tmp_path / "flows.db")
        yield (file, url) if kinds[0] == "sqlite" else (url, file)


def test_flows_in_every_state_go_on_in_the_target(places: tuple[str, str], tmp_path: Path) -> None:
    """Asleep, waiting, sent to before they exist, interrupted in a step, failed, parked and complete."""
    source, target = places
    clock = MovableClock()
    interrupt(source, str(tmp_path / "marker"))
    with Persistasaurus(source, clock=clock) as app:
        app.run(moving.complete.options(flow_id="complete"))
        app.start(moving.asleep.options(flow_id="asleep"))
        app.start(moving.waiting.options(flow_id="waiting"))
        app.handle("early").send(moving.approval, 7)
        with pytest.raises(ValueError, match="not today"):
            app.run(moving.failed.options(flow_id="failed"))
        app.start(moving.parked.options(flow_id="parked"))
        clock.advance_sync(60)
    World.changed = True
    with Persistasaurus(source, clock=clock) as app:
        app.handle("parked").send(moving.approval, 5)
        with pytest.raises(FlowParked):
            app.handle("parked").result(timeout=20)
    interrupt(source, str(tmp_path / "marker2"), "interrupted again")
    flows, World.broken, World.changed = flows_in(source), False, False
    moving.ran.clear()

    promoted = promote(source, target)

    assert promoted.digest == digest_of(target) == digest_of(source)
    assert promoted.flows == flows
    with Persistasaurus(target, clock=clock) as app:
        assert app.handle("complete").result(timeout=20) == "ab"
        assert app.handle("interrupted again").result(timeout=20) == "survived"
        assert app.run(moving.waiting.options(flow_id="early")) == 7
        app.handle("waiting").send(moving.approval, 3)
        assert app.handle("waiting").result(timeout=20) == 3
        app.handle("failed").retry()
        assert app.handle("failed").result(timeout=20) == "firstmended"
        app.handle("parked").retry()
        assert app.handle("parked").result(timeout=20) == 5
        clock.advance_sync(3539)
        assert app.handle("asleep").status() == FlowStatus.PENDING
        clock.advance_sync(1)
        assert app.handle("asleep").result(timeout=20) == "morning"
        assert app.run(moving.complete.options(flow_id="new")) == "ab"
    assert moving.ran == ["killed 2", "morning 1", "a 1", "b 1"]


def interrupt(source: str, marker: str, flow_id: str = "interrupted") -> None:
    """Kill a process in the middle of a step."""

    def run() -> None:
        with Persistasaurus(source) as app:
            app.start(moving.interrupted.options(flow_id=flow_id), marker)
            time.sleep(60)

    pid = moving.in_a_child(run)
    until = time.monotonic() + 20
    while not Path(marker).exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    moving.kill(pid)


def flows_in(url: str) -> int:
    """Return how many flows there are."""
    with opened(url) as store, store.snapshot() as snapshot:
        return snapshot.count(FLOW)


def test_the_source_says_where_its_flows_went(places: tuple[str, str]) -> None:
    """To whoever opens it, and to whoever has it open already."""
    source, target = places
    fill(source, 3)
    client = make_store(source, durability="full", clock=SystemClock())
    client.open()
    with closing(client):
        promote(source, target)

        acts = [
            lambda: client.commit(Batch(starts=[new_flow(claim=False)])),
            lambda: client.commit(Batch(signals=[signal("many-1")])),
            lambda: client.commit(Batch(cancels=["many-0"])),
            lambda: client.register_worker(worker(), lease_ms=1000),
            lambda: client.intern("", "another"),
        ]
        for act in acts:
            with pytest.raises(StoreMovedError, match=r"were promoted to .* and go on there"):
                act()
    with pytest.raises(StoreMovedError, match=r"were promoted to .* and go on there"):
        Persistasaurus(source).__enter__()
    assert in_service(target)
    assert promote(source, target).flows == 3
    assert digest_of(source) == digest_of(target)


def test_numbers_that_were_given_are_not_given_again(places: tuple[str, str]) -> None:
    """Also of flows and signals that are gone by now."""
    source, target = places
    fill(source, 30)
    with opened(source) as store, store.snapshot() as snapshot:
        given = dict(snapshot.sequences())

    promote(source, target)

    with closing(make_store(target, durability="full", clock=SystemClock())) as store:
        store.open()
        assert store.register_worker(worker(), lease_ms=1000) == given["worker"] + 1
        (started,) = store.commit(Batch(starts=[new_flow("one more", claim=False)])).starts
        assert started.flow_key == given["flow"] + 1
        store.commit(Batch(signals=[signal("one more")]))
        assert store.signals("one more")[0].signal_id == given["signal"] + 1
        assert store.intern("", "one more") not in (0, store.intern("", "moving_many"))


def test_living_workers_are_named_and_nothing_is_changed(places: tuple[str, str]) -> None:
    """They would go on driving flows that are elsewhere."""
    source, target = places
    with Persistasaurus(source) as app:
        with pytest.raises(StoreError, match=f"1 workers are on .*: process {os.getpid()} on .*Stop them"):
            promote(source, target)

        assert app.run(moving.complete.options(flow_id="c")) == "ab"
    promote(source, target)


def test_the_target_has_to_be_empty(places: tuple[str, str]) -> None:
    """And the source stays in service where it is not."""
    source, target = places
    fill(source, 3)
    fill(target, 1)

    with pytest.raises(StoreError, match="is not empty"):
        promote(source, target)

    assert in_service(source)
    assert in_service(target)


def test_neither_store_is_in_service_while_rows_are_copied(places: tuple[str, str]) -> None:
    """Workers that start too early on the target are told what to wait for."""
    source, target = places
    fill(source, 3)
    seen: list[tuple[bool, bool]] = []

    def look(*_: object) -> None:
        seen.append((in_service(source), in_service(target)))

    with moving.promotion(source, target, look) as begun:
        begun.run()

    assert seen
    assert set(seen) == {(False, False)}


def test_an_unfinished_promotion_can_be_given_up(places: tuple[str, str], tmp_path: Path) -> None:
    """The source goes on as if nothing had been, and a later promotion begins anew."""
    source, target = places
    fill(source, 5)
    die(source, target, at=9)
    with pytest.raises(StoreError, match=r"being promoted to .* already"):
        promote(source, str(tmp_path / "another.db"))

    with moving.promotion(source, target) as begun:
        begun.abandon()

    assert in_service(source)
    with Persistasaurus(source) as app:
        app.run(moving.complete.options(flow_id="meanwhile"))
    promote(source, target)
    assert digest_of(source) == digest_of(target)
    with moving.promotion(source, target) as begun, pytest.raises(StoreError, match="have left for"):
        begun.abandon()


def die(source: str, target: str, *, at: int) -> bool:
    """Promote in a process that ends before its `at`-th call of a store; whether it got so far."""

    def run() -> None:
        driven = make_store(source, durability="full", clock=SystemClock())
        calls = itertools.count()
        with opened(source) as old, opened(target, create=True) as new:
            stores = [DiesAfter(store, calls, at) for store in (old, new)]
            Promotion(stores[0], stores[1], driven, progress=lambda *_: None).run()

    _, status = os.waitpid(moving.in_a_child(run), 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return os.waitstatus_to_exitcode(status) == 9


def test_a_promotion_that_dies_before_any_of_its_calls_is_gone_on_with(places: tuple[str, str]) -> None:
    """One process after the other dies, each one call later; at no moment are both stores in service."""
    source, target = places
    fill(source, 5)
    with Persistasaurus(source, worker=False) as app:
        app.handle("early").send(moving.approval, 7)
    before = digest_of(source)

    for at in itertools.count():
        died = die(source, target, at=at)
        assert not (in_service(source) and in_service(target) and at > 3)
        if not died:
            break

    assert at > 10
    assert (in_service(source), in_service(target)) == (False, True)
    assert before == digest_of(source) == digest_of(target)


def test_a_promotion_that_died_at_any_of_its_calls_can_be_given_up(places: tuple[str, str]) -> None:
    """Up to the moment at which the source says that its flows have left; from then on it can be finished."""
    source, target = places
    fill(source, 5)
    before, given_up = digest_of(source), 0

    for at in itertools.count():
        assert die(source, target, at=at)
        if not in_service(source):
            try:
                with moving.promotion(source, target) as begun:
                    begun.abandon()
            except StoreError:
                break
            given_up += 1
        assert (in_service(source), in_service(target)) == (True, True)
        assert digest_of(source) == before != digest_of(target)
    promote(source, target)

    assert given_up > 5
    assert (in_service(source), in_service(target)) == (False, True)
    assert before == digest_of(source) == digest_of(target)


@pytest.mark.parametrize("moment", ["flows copied", "signals copied", "source compared", "target compared"])
def test_a_promotion_that_is_given_up_beside_it_comes_to_an_end(places: tuple[str, str], moment: str) -> None:
    """Also one that was stopped and is continued a day later: the source has gone on since."""
    source, target = places
    fill(source, 1100)

    def give_up(what: str, *_: object) -> None:
        if what == moment and not in_service(source):
            with moving.promotion(source, target) as another:
                another.abandon()
            with Persistasaurus(source) as app:
                app.run(moving.complete.options(flow_id="meanwhile"))

    with moving.promotion(source, target, give_up) as begun, pytest.raises(StoreError, match="given"):
        begun.run()

    assert in_service(source)
    promote(source, target)
    with Persistasaurus(target, worker=False) as app:
        assert app.handle("meanwhile").result(timeout=5) == "ab"


def test_rows_are_added_where_the_table_ends(places: tuple[str, str]) -> None:
    """Else two processes would fill one table."""
    source, target = places
    fill(source, 3)
    fill(target, 3)
    with opened(source) as old, opened(target) as new, old.snapshot() as snapshot:
        rows = [readable(FLOW, row, "") for row in snapshot.rows(FLOW)]

        with pytest.raises(StoreError, match="Another process is filling"):
            new.receive(FLOW, rows, after=(2,), token=None)


def test_two_promotions_at_once_do_no_harm(places: tuple[str, str]) -> None:
    """One of them may be told that another process is filling the target."""
    source, target = places
    fill(source, 3000)

    both = [moving.in_a_child(lambda: promote(source, target)) for _ in range(2)]
    for pid in both:
        os.waitpid(pid, 0)
    promoted = promote(source, target)

    assert promoted.flows == 3000
    assert digest_of(source) == digest_of(target)


def test_a_promotion_is_killed_at_random_moments(places: tuple[str, str]) -> None:
    """And run again until it is through: nothing is lost, doubled or half believed."""
    source, target = places
    fill(source, 3000)
    before = digest_of(source)
    chance = random.Random(7)

    for _ in range(8):
        pid = moving.in_a_child(lambda: promote(source, target))
        time.sleep(chance.uniform(0.02, 0.4))
        moving.kill(pid)
    promoted = promote(source, target)

    assert promoted.flows == 3000
    assert before == digest_of(source) == digest_of(target)
    with opened(target) as store, store.snapshot() as snapshot:
        assert list(Verification(snapshot).findings(lambda: None)) == []


def test_a_copy_that_differs_is_never_in_service(places: tuple[str, str]) -> None:
    """Somebody who writes past all guards is found by the digest."""
    source, target = places
    fill(source, 5)

    def meddle(what: str, *_: object) -> None:
        if what == "steps copied":
            edit(target, "UPDATE step SET return_value = '0' WHERE flow_key = 1 AND step = 1")

    with moving.promotion(source, target, meddle) as begun, pytest.raises(StoreError, match="tables step:"):
        begun.run()

    assert (in_service(source), in_service(target)) == (False, False)


def edit(url: str, sql: str) -> None:
    """Change rows as an administrator can, past the triggers."""

    if url.startswith("postgresql"):
        postgres.in_schema(url, "ALTER TABLE step DISABLE TRIGGER USER")
        postgres.in_schema(url, sql)
        return
    connection = apsw.Connection(url)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.execute(sql)
    connection.close()
