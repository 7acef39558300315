"""What child processes do to one database at the same time; started by `multiprocessing` with spawn."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

from persistasaurus._store.base import Batch
from tests.store import factories
from tests.store.rows import T0, FixedClock, new_flow, signal, step, worker

PROCESSES = 8


def race(act: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """Run `act` with each tuple of arguments in a process of its own, all released at once."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier = manager.Barrier(len(arguments), timeout=60)
        with ProcessPoolExecutor(len(arguments), mp_context=context) as pool:
            running = [pool.submit(act, barrier, *each) for each in arguments]
            return [each.result() for each in running]


def open_and_name(barrier: Any, kind: str, place: str) -> int:
    store = factories.SHARED[kind](place, FixedClock())
    barrier.wait()
    store.open()
    with closing(store):
        return store.intern("", "hello")


def start_ids(barrier: Any, kind: str, place: str, flow_ids: list[str]) -> list[tuple[int, bool]]:
    store = factories.SHARED[kind](place, FixedClock())
    store.open()
    with closing(store):
        barrier.wait()
        answers = [store.commit(Batch(starts=[new_flow(each, claim=False)])).starts[0] for each in flow_ids]
    return [(answer.flow_key, answer.created) for answer in answers]


def claim_all(barrier: Any, kind: str, place: str, share: int) -> list[int]:
    store = factories.SHARED[kind](place, FixedClock())
    store.open()
    with closing(store):
        me = store.register_worker(worker(f"claimer-{share}"))
        barrier.wait()
        mine: list[int] = []
        while taken := store.claim(me, [1], now_ms=T0, limit=7).flow_keys:
            mine.extend(taken)
    return mine


def write_steps_and_signals(barrier: Any, kind: str, place: str, number: int, count: int) -> int:
    store = factories.SHARED[kind](place, FixedClock())
    store.open()
    with closing(store):
        me = store.register_worker(worker(f"writer-{number}"))
        key = store.commit(Batch(worker_id=me, starts=[new_flow(f"race-{number}")])).starts[0].flow_key
        barrier.wait()
        for index in range(1, count + 1):
            store.commit(Batch(worker_id=me, steps=[step(key, index)]))
            store.commit(Batch(signals=[signal("inbox", payload=f'"{number}/{index}"')]))
    return key
