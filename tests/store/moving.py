"""Stores to copy: one with flows in every state, one with many flows, and what happens at a chosen moment."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from persistasaurus import Signal, StoreMovedError, current, flow, sleep, step
from persistasaurus._clock import SystemClock
from persistasaurus._engine.promotion import Promoted, Promotion
from persistasaurus._model import COMPLETE, PENDING, Kind
from persistasaurus._store.base import Batch, FlowUpdate, NewFlow, NewSignal, StepRow
from persistasaurus._store.checksum import flow_checksum, outcome_checksum, signal_checksum, step_checksum
from persistasaurus._store.digest import Digest, readable
from persistasaurus._store.urls import make_store, whole_store
from persistasaurus._store.whole import TABLES, WholeStore
from tests.store.rows import worker as worker_row

T0 = 1_790_000_000_000
approval = Signal("moving_approval", int)
ran: list[str] = []
"""The effects of this process's steps, with their attempts."""


class World:
    """What the flows see outside of themselves."""

    broken = True
    changed = False


@step
def effect(name: str) -> str:
    ran.append(f"{name} {current().attempt}")
    return name


@flow(name="moving_complete")
def complete() -> str:
    return effect("a") + effect("b")


@flow(name="moving_asleep")
def asleep() -> str:
    effect("evening")
    sleep(3600)
    return effect("morning")


@flow(name="moving_waiting")
def waiting() -> int:
    return approval.wait()


@step
def fragile() -> str:
    if World.broken:
        raise ValueError("not today")
    return "mended"


@flow(name="moving_failed")
def failed() -> str:
    return effect("first") + fragile()


@flow(name="moving_parked")
def parked() -> int:
    if World.changed:
        fragile()
    effect("as ever")
    return approval.wait()


@step
def killed(marker: str) -> str:
    ran.append(f"killed {current().attempt}")
    if not Path(marker).exists():
        Path(marker).touch()
        time.sleep(60)
    return "survived"


@flow(name="moving_interrupted")
def interrupted(marker: str) -> str:
    return killed(marker)


def promote(source: str, target: str) -> Promoted:
    """Move a store as the command does."""
    with promotion(source, target) as begun:
        return begun.run()


@contextmanager
def promotion(
    source: str, target: str, progress: Callable[[str, int, int], object] = lambda *_: None
) -> Iterator[Promotion]:
    """Give a promotion that is not begun."""
    driven = make_store(source, durability="full", clock=SystemClock())
    with opened(source) as old, opened(target, create=True) as new:
        yield Promotion(old, new, driven, progress=progress)


@contextmanager
def opened(url: str, *, create: bool = False) -> Iterator[WholeStore]:
    """Open a store as a whole."""
    with closing(whole_store(url)) as store:
        store.open(create=create)
        yield store


def digest_of(url: str) -> str:
    """Return the digest over all rows of a store."""
    digest = Digest()
    with opened(url) as store, store.snapshot() as snapshot:
        for table in TABLES:
            for row in snapshot.rows(table):
                digest.add(table, readable(table, row, store.shown))
    return str(digest)


def fill(url: str, count: int, *, steps: int = 2) -> None:
    """Write many flows, each asleep or complete, with right checksums, and a signal for every tenth."""
    with closing(make_store(url, durability="full", clock=SystemClock())) as store:
        store.open()
        name_id = store.intern("", "moving_many")
        number = store.register_worker(worker_row(), lease_ms=60_000)
        for first in range(0, count, 1000):
            _fill(store, number, name_id, range(first, min(first + 1000, count)), steps)
        store.release_worker(number, now_ms=T0)


def _fill(store: Any, worker: int, name_id: int, numbers: range, steps: int) -> None:
    new = [
        NewFlow(
            flow_id=f"many-{n}",
            name_id=name_id,
            created_at_ms=T0 + n,
            seed=n,
            input='{"n":1}',
            parent_key=None,
            parent_step=None,
            checksum=flow_checksum(f"many-{n}", name_id, T0 + n, n, '{"n":1}'),
            claim=True,
        )
        for n in numbers
    ]
    started = store.commit(Batch(worker_id=worker, starts=new)).starts
    batch = Batch(worker_id=worker)
    for flow_, row in zip(new, started, strict=True):
        chain = 0
        for number in range(1, steps + 1):
            made = _step(row.flow_key, number, name_id)
            chain = step_checksum(made, chain)
            batch.steps.append(made._replace(checksum=chain))
        batch.updates.append(_update(flow_.flow_id, row.flow_key))
        if row.flow_key % 10 == 0:
            batch.signals.append(_signal(flow_.flow_id))
    store.commit(batch)


def _step(flow_key: int, number: int, name_id: int) -> StepRow:
    return StepRow(
        flow_key=flow_key,
        step=number,
        kind=Kind.STEP,
        name_id=name_id,
        status=COMPLETE,
        attempts=1,
        asked=number - 1,
        started_at_ms=T0,
        ended_after_ms=3,
        delay_ms=None,
        due_at_ms=None,
        event=number,
        attempts_before=0,
        parameters='{"text":"größer \\u0000 and so on"}',
        return_value='"' + "x" * 60 + '"',
        error=None,
        checksum=0,
    )


def _update(flow_id: str, flow_key: int) -> FlowUpdate:
    done = flow_key % 2 == 0
    return FlowUpdate(
        flow_key=flow_key,
        status=COMPLETE if done else PENDING,
        updated_at_ms=T0 + 100,
        result="3" if done else None,
        error=None,
        reason=None,
        release=True,
        idle=not done,
        due_at_ms=None if done else T0 * 2,
        seen_pokes=0,
        crashes=0,
        lost_claims=0,
        cancel_event=None,
        cancel_event_at_ms=None,
        outcome_checksum=outcome_checksum(flow_id, COMPLETE, "3", None) if done else None,
    )


def _signal(flow_id: str) -> NewSignal:
    return NewSignal(flow_id, "later", "7", T0, signal_checksum(flow_id, "later", "7", T0))


def in_a_child(act: Callable[[], object]) -> int:
    """Run `act` in a forked process and return that process's id; it ends with 0, or 1 after an error."""
    pid = os.fork()
    if pid:
        return pid
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill(pid: int) -> None:
    """End a child with SIGKILL, wherever it is."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class DiesAfter:
    """A store as a whole that ends the process before the call of a given number."""

    def __init__(self, store: WholeStore, calls: Iterator[int], at: int) -> None:
        self._store = store
        self._calls = calls
        self._at = at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(self._calls) == self._at:
                os._exit(9)
            return found(*args, **kwargs)

        return counted


def in_service(url: str) -> bool:
    """Whether an app could be entered on a store."""
    with closing(make_store(url, durability="full", clock=SystemClock())) as store:
        try:
            store.open()
        except StoreMovedError:
            return False
    return True
