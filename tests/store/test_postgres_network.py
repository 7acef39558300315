"""What becomes of a commit whose connection is lost: it is found out, and made or answered once."""

from __future__ import annotations

import random
import signal as signals
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from persistasaurus._model import COMPLETE, PENDING
from persistasaurus._store import _pg_writer
from persistasaurus._store.base import Batch, Committed
from persistasaurus._store.postgres import PostgresStore
from persistasaurus.errors import LeaseLost, OutcomeUnknownError, StoreError
from tests import postgres
from tests.proxy import Place, Proxy, proxied
from tests.store.rows import FAR, LEASE_MS, T0, FixedClock, new_flow, signal, start_one, step, update, worker


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.new_schema() as url:
        yield url


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    """Between `store` and the server."""
    with proxied(url) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: Proxy) -> Iterator[PostgresStore]:
    """A store whose connections the proxy can lose; nothing else uses the schema."""
    with closing(PostgresStore(proxy.url, clock=FixedClock())) as store:
        store.open()
        store.intern("", "hello")
        yield store


@pytest.fixture
def me(store: PostgresStore) -> int:
    return store.register_worker(worker(), lease_ms=LEASE_MS)


def mixed(me: int, key: int, number: int) -> Batch:
    """One of everything that must be there once."""
    return Batch(
        worker_id=me,
        starts=[new_flow(f"child-{number}", seed=number), new_flow("known", seed=-number)],
        steps=[step(key, number)],
        updates=[update(key, result=str(number))],
        signals=[signal("inbox", payload=str(number))],
        cancels=["known", "unknown"],
    )


PLACES: list[Place] = ["before", "amid", "after"]


@pytest.mark.parametrize("place", PLACES)
def test_a_commit_whose_connection_is_lost_happens_once_and_is_answered(
    store: PostgresStore, proxy: Proxy, me: int, place: Place
) -> None:
    """The answers are those of a commit that nothing has disturbed."""
    key = start_one(store, me)
    known = start_one(store, me, "known")

    for number in range(1, 21):
        proxy.cut(place)
        answer = store.commit(mixed(me, key, number))
        _check_answer(store, answer, known, number)

    assert proxy.cuts == 20
    history = store.load(key)
    assert history is not None
    assert [row.step for row in history.steps] == list(range(1, 21))
    assert [letter.payload for letter in store.signals("inbox")] == [str(n) for n in range(1, 21)]


def _check_answer(store: PostgresStore, answer: Committed, known: int, number: int) -> None:
    child = store.find(f"child-{number}")
    assert child is not None
    assert [(one.created, one.flow_key) for one in answer.starts] == [(True, child.flow_key), (False, known)]
    assert answer.starts[0].owner == child.owner
    assert list(answer.signals) == [None]
    assert list(answer.cancels) == [(known, 0), None]


@pytest.mark.parametrize("place", PLACES)
def test_steps_alone_are_written_once_as_well(
    store: PostgresStore, proxy: Proxy, me: int, place: Place
) -> None:
    """By one statement without BEGIN and COMMIT."""
    key = start_one(store, me)

    for number in range(1, 21):
        proxy.cut(place)
        store.commit(Batch(worker_id=me, steps=[step(key, number)]))

    history = store.load(key)
    assert history is not None
    assert [row.step for row in history.steps] == list(range(1, 21))


@pytest.mark.parametrize("place", PLACES)
def test_what_a_lost_claim_took_is_its_answer(
    store: PostgresStore, proxy: Proxy, me: int, place: Place
) -> None:
    """Else nobody would ever drive those flows: they are owned, by a worker that does not know of them."""
    free = [start_one(store, None, f"free-{number}", claim=False) for number in range(5)]
    own = start_one(store, me, "own")
    store.commit(Batch(worker_id=me, updates=[update(own, idle=True, due_at_ms=T0)]))

    proxy.cut(place, after=1)  # the look is the first
    claim = store.claim(me, [1], now_ms=FAR, limit=10)

    assert proxy.cuts == 1
    assert sorted(claim.flow_keys) == sorted(free)
    assert list(claim.poked) == [own]


@pytest.mark.parametrize("place", PLACES)
def test_other_writes_survive_a_lost_connection(
    store: PostgresStore, proxy: Proxy, me: int, place: Place
) -> None:
    """A take-over, a release and a reopening."""
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, updates=[update(key, status=3, error="{}")]))
    other = store.register_worker(worker(), lease_ms=LEASE_MS)
    theirs = start_one(store, other, "theirs")
    failed = store.find("f")
    assert failed is not None

    proxy.cut(place)
    assert store.reopen(failed, steps=[step(key)], dropped=[], now_ms=T0)
    proxy.cut(place)
    store.take_over(other, now_ms=T0, only_expired=False)
    proxy.cut(place)
    store.release_worker(me, now_ms=T0)

    assert proxy.cuts == 3
    assert store.workers() == []
    history = store.load(theirs)
    assert history is not None
    assert (history.flow.owner, history.flow.crashes) == (None, 1)


def test_reads_go_on_by_a_fresh_connection(store: PostgresStore, proxy: Proxy, me: int) -> None:
    """Nobody hears of it."""
    key = start_one(store, me)
    for place in PLACES:
        for read in (
            lambda: store.load(key),
            lambda: store.mailbox(key),
            lambda: store.find("f"),
            store.names,
            store.changes,
            lambda: store.intern("", f"hello-{place}"),  # noqa: B023
        ):
            proxy.cut(place)
            assert read()
    assert proxy.cuts == 18


@pytest.mark.parametrize("place", PLACES)
def test_an_answer_is_read_back_however_often_that_is_interrupted(
    store: PostgresStore, proxy: Proxy, me: int, place: Place
) -> None:
    """Told that it is not known, a client would send its signal again: it would be there twice."""
    known = start_one(store, me, "known")
    key = start_one(store, me)

    # The commit, and after a look at what became of it, each reading of its answer but the last.
    proxy.cut(place, then=[1, 0, 0, 0])
    answer = store.commit(mixed(me, key, 1))

    assert proxy.cuts >= 4
    _check_answer(store, answer, known, 1)
    assert len(store.signals("inbox")) == 1


def test_every_connection_that_broke_at_once_is_replaced(store: PostgresStore, proxy: Proxy, me: int) -> None:
    """As after a restart of the server, when all that were idle are dead."""
    barrier = threading.Barrier(4)

    def read() -> None:
        barrier.wait()
        store.names()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proxy.drop_all()

    key = start_one(store, me)
    proxy.drop_all()
    assert store.load(key) is not None


# --- when the server stays away ------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that do not look for an outcome for long."""
    monkeypatch.setattr(_pg_writer, "PATIENCE_S", 0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("place", PLACES)
def test_an_outcome_that_is_not_known_is_found_out_by_the_same_batch_again(
    store: PostgresStore, proxy: Proxy, me: int, place: Place
) -> None:
    """However often it is asked for, and it happens once."""
    key = start_one(store, me)
    known = start_one(store, me, "known")
    batch = mixed(me, key, 1)
    _lose_the_server(proxy, place)

    for _ in range(3):
        with pytest.raises(OutcomeUnknownError, match=r"may be there already.*look whether it arrived"):
            store.commit(batch)
    proxy.refusing = False
    answer = store.commit(batch)

    _check_answer(store, answer, known, 1)
    history = store.load(key)
    assert history is not None
    assert len(history.steps) == 1
    assert len(store.signals("inbox")) == 1


def _lose_the_server(proxy: Proxy, place: Place) -> None:
    proxy.cut(place)
    proxy.refuse_after_cut = True


@pytest.mark.usefixtures("hasty")
def test_another_batch_does_not_hide_the_outcome_of_the_one_before(
    store: PostgresStore, proxy: Proxy, me: int
) -> None:
    """It is found out first; until it can be, nothing else is written."""
    key = start_one(store, me)
    lost, other = Batch(signals=[signal(payload="1")]), Batch(worker_id=me, steps=[step(key)])
    _lose_the_server(proxy, "after")
    with pytest.raises(OutcomeUnknownError):
        store.commit(lost)

    with pytest.raises(StoreError, match="Nothing of this was written"):
        store.commit(other)
    proxy.refusing = False
    store.commit(other)
    store.commit(lost)

    assert [letter.payload for letter in store.signals("f")] == ["1"]


@pytest.mark.usefixtures("hasty")
def test_what_a_claim_took_is_answered_once_the_server_is_back(
    store: PostgresStore, proxy: Proxy, me: int
) -> None:
    """By the next claim; also where something else was written in between."""
    keys = [start_one(store, None, f"free-{number}", claim=False) for number in range(3)]
    proxy.refuse_after_cut = True
    proxy.cut("after", after=1)
    with pytest.raises(OutcomeUnknownError):
        store.claim(me, [1], now_ms=FAR, limit=10)
    proxy.refusing = False
    store.take_over(me + 1000, now_ms=T0, only_expired=False)

    assert sorted(store.claim(me, [1], now_ms=FAR, limit=10).flow_keys) == keys
    assert store.claim(me, [1], now_ms=FAR, limit=10).flow_keys == ()


@pytest.mark.usefixtures("hasty")
def test_a_lost_claim_of_a_worker_that_was_taken_over_is_nobodys(
    store: PostgresStore, proxy: Proxy, me: int
) -> None:
    """Its flows were freed with it."""
    key = start_one(store, None, claim=False)
    proxy.refuse_after_cut = True
    proxy.cut("after", after=1)
    with pytest.raises(OutcomeUnknownError):
        store.claim(me, [1], now_ms=FAR, limit=10)
    proxy.refusing = False
    store.take_over(me, now_ms=T0, only_expired=False)
    other = store.register_worker(worker(), lease_ms=LEASE_MS)

    assert list(store.claim(other, [1], now_ms=FAR, limit=10).flow_keys) == [key]
    with pytest.raises(LeaseLost):
        store.claim(me, [1], now_ms=FAR, limit=10)


@pytest.mark.usefixtures("hasty")
def test_what_was_not_sent_has_not_happened(store: PostgresStore, proxy: Proxy, me: int) -> None:
    """No connection, no doubt: the caller may do as it likes."""
    key = start_one(store, me)
    proxy.refusing = True
    proxy.drop_all()
    batch = Batch(worker_id=me, steps=[step(key)])
    with pytest.raises(OutcomeUnknownError):  # the idle connection looked alive
        store.commit(batch)

    with pytest.raises(OutcomeUnknownError):
        store.commit(batch)
    with pytest.raises(StoreError) as caught:
        store.find("f")

    assert not isinstance(caught.value, OutcomeUnknownError)


def test_what_arrives_late_is_refused(store: PostgresStore, proxy: Proxy, me: int) -> None:
    """A box on the way tells the client that the connection is gone, and gives the server its bytes later."""
    key = start_one(store, me)
    pending = step(key, status=PENDING, event=None, return_value=None)
    proxy.cut("late")
    store.commit(Batch(worker_id=me, steps=[pending], signals=[signal()]))
    store.commit(Batch(worker_id=me, steps=[step(key)]))

    proxy.deliver()

    history = store.load(key)
    assert history is not None
    assert history.steps == [step(key)]
    assert len(store.signals("f")) == 1


# --- the server's own doing ----------------------------------------------------------------------------


def test_a_terminated_backend_is_no_loss(store: PostgresStore, me: int, url: str) -> None:
    """An administrator ends every connection, again and again, with time for a commit in between."""
    key = start_one(store, me)
    done = threading.Event()
    pauses = random.Random(1)

    def terminate() -> None:
        while not done.wait(pauses.uniform(0, 0.1)):
            postgres.by_sql(
                url.partition("?")[0],
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'persistasaurus'",
            )

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        for number in range(1, 101):
            batch = Batch(worker_id=me, steps=[step(key, number)], signals=[signal("inbox", str(number))])
            while True:
                try:
                    store.commit(batch)
                    break
                except StoreError:
                    continue
    finally:
        done.set()
        thread.join()

    history = store.load(key)
    assert history is not None
    assert [row.step for row in history.steps] == list(range(1, 101))
    assert [letter.payload for letter in store.signals("inbox")] == [str(n) for n in range(1, 101)]


def test_a_server_that_crashes_and_comes_back_has_lost_nothing() -> None:
    """What was acknowledged is there, and the store goes on with connections of its own making."""
    server = postgres.Server().start()
    try:
        with closing(PostgresStore(server.url, clock=FixedClock())) as store:
            store.open()
            store.intern("", "hello")
            me = store.register_worker(worker(), lease_ms=LEASE_MS)
            key = start_one(store, me)
            for number in range(1, 4):
                store.commit(Batch(worker_id=me, steps=[step(key, number)]))
                server.stop(signals.SIGQUIT)
                with pytest.raises(StoreError, match="cannot be reached"):
                    for _ in range(2):
                        store.find("f")
                server.start()
            store.commit(Batch(worker_id=me, updates=[update(key, status=COMPLETE, result="1")]))

            history = store.load(key)
            assert history is not None
            assert [row.step for row in history.steps] == [1, 2, 3]
    finally:
        server.remove()
