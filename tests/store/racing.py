"""What child processes do to one database at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Any

from persistasaurus._store.base import Batch, Store
from tests.store import factories
from tests.store.rows import LEASE_MS, T0, FixedClock, new_flow, signal, step, worker

PROCESSES = 8


def race(act: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """Run `act` with each tuple of arguments in a process of its own, all released at once."""
    return race_of([act] * len(arguments), *arguments)


def race_of(acts: Sequence[Callable[..., Any]], *arguments: Sequence[Any]) -> list[Any]:
    """Run each act with its arguments in a process of its own, all released at once."""
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.store.racing", act.__name__, json.dumps(each)],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for act, each in zip(acts, arguments, strict=True)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.close()
        return [json.loads(racer.stdout.read()) for racer in racers if racer.stdout]


def wait_for_the_others() -> None:
    print("ready", flush=True)
    sys.stdin.read()


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


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))), flush=True)
