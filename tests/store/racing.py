"""What child processes do to one database at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from persistasaurus._store.base import Batch, Store
from tests.forks import FORKS
from tests.store import factories
from tests.store.rows import LEASE_MS, T0, FixedClock, new_flow, signal, step, worker

PROCESSES = 8
PATIENCE_S = 60

_start: list[Barrier] = []


def race(act: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """Run `act` with each tuple of arguments in a process of its own, all released at once."""
    return race_of([act] * len(arguments), *arguments)


def race_of(acts: Sequence[Callable[..., Any]], *arguments: Sequence[Any]) -> list[Any]:
    """Run each act with its arguments in a process of its own, all released at once."""
    start = FORKS.Barrier(len(acts))
    pipes = [FORKS.Pipe(duplex=False) for _ in acts]
    racers = [
        FORKS.Process(target=_run, args=(act, each, start, answer))
        for act, each, (_, answer) in zip(acts, arguments, pipes, strict=True)
    ]
    for racer in racers:
        racer.start()
    for _, answer in pipes:
        answer.close()
    answers = [reading.recv() for reading, _ in pipes]
    for racer in racers:
        racer.join()
    return answers


def _run(act: Callable[..., Any], arguments: Sequence[Any], start: Barrier, answer: Connection) -> None:
    _start.append(start)
    answer.send(act(*arguments))


def wait_for_the_others() -> object:
    """Return once all are here."""
    return _start[0].wait(PATIENCE_S)


def opened(kind: str, place: str) -> Store:
    store = factories.SHARED[kind](place, FixedClock())
    store.open()
    return store


def open_and_name(kind: str, place: str) -> int:
    wait_for_the_others()
    with closing(opened(kind, place)) as store:
        return store.intern("", "hello")


def start_ids(kind: str, place: str, flow_ids: list[str]) -> list[tuple[int, bool]]:
    with closing(opened(kind, place)) as store:
        wait_for_the_others()
        answers = [store.commit(Batch(starts=[new_flow(each, claim=False)])).starts[0] for each in flow_ids]
    return [(answer.flow_key, answer.created) for answer in answers]


def claim_all(kind: str, place: str, share: int) -> list[int]:
    with closing(opened(kind, place)) as store:
        me = store.register_worker(worker(f"claimer-{share}"), lease_ms=LEASE_MS)
        wait_for_the_others()
        mine: list[int] = []
        while taken := store.claim(me, [1], now_ms=T0, limit=7).flow_keys:
            mine.extend(taken)
    return mine


def write_steps_and_signals(kind: str, place: str, number: int, count: int) -> int:
    with closing(opened(kind, place)) as store:
        me = store.register_worker(worker(f"writer-{number}"), lease_ms=LEASE_MS)
        key = store.commit(Batch(worker_id=me, starts=[new_flow(f"race-{number}")])).starts[0].flow_key
        wait_for_the_others()
        for index in range(1, count + 1):
            store.commit(Batch(worker_id=me, steps=[step(key, index)]))
            store.commit(Batch(signals=[signal("inbox", payload=f'"{number}/{index}"')]))
    return key


def prune_all(kind: str, place: str, before_ms: int, limit: int) -> int:
    with closing(opened(kind, place)) as store:
        wait_for_the_others()
        gone = 0
        while removed := store.prune(before_ms, limit=limit).flows:
            gone += removed
    return gone


def reopen_all(kind: str, place: str, flow_ids: list[str], steps: int) -> list[bool]:
    with closing(opened(kind, place)) as store:
        seen = [found for each in flow_ids if (found := store.find(each)) is not None]
        wait_for_the_others()
        return [
            store.reopen(each, steps=[step(each.flow_key, steps)], dropped=(), now_ms=T0) for each in seen
        ]
