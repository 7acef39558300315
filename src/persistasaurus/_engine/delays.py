"""Durable time: sleeps, timers, delays and the waits between attempts.

A due time is fixed when it is first recorded and is a time of the wall clock; after a restart only the
rest is waited. The queue never trusts one long wait: it looks at the clock again and again, so that a
clock that is set forward or back neither ends a delay early nor loses it.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from persistasaurus._engine.outbox import put_end
from persistasaurus._engine.signals import on_wait_due
from persistasaurus._engine.steps import start_attempt
from persistasaurus._model import COMPLETE, PENDING, Kind

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run


class TimerQueue:
    """The due times of the flows in memory; the store has those of all others."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._heap: list[tuple[int, int, Run, Operation]] = []
        self._lock = threading.Lock()
        self._count = 0
        self._prune_at = 1_000

    def arm(self, due_at_ms: int, run: Run, operation: Operation) -> None:
        """Wake an operation when its time has come; from any thread."""
        with self._lock:
            self._count += 1
            heapq.heappush(self._heap, (due_at_ms, self._count, run, operation))
            first = self._heap[0][3] is operation
            if len(self._heap) > self._prune_at:
                self._prune()
        if first:
            self._ring()

    def next_due_ms(self) -> int | None:
        """Return the earliest due time that a flow still waits for."""
        with self._lock:
            while self._heap and _is_over(*self._heap[0][2:]):
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int) -> list[tuple[Run, Operation]]:
        """Take out everything that is due."""
        due: list[tuple[Run, Operation]] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now_ms:
                _, _, run, operation = heapq.heappop(self._heap)
                due.append((run, operation))
        return [(run, operation) for run, operation in due if not _is_over(run, operation)]

    def _prune(self) -> None:
        """Forget timers that nobody waits for any more, and with them their flows."""
        self._heap = [entry for entry in self._heap if not _is_over(entry[2], entry[3])]
        heapq.heapify(self._heap)
        self._prune_at = max(1_000, 2 * len(self._heap))


def _is_over(run: Run, operation: Operation) -> bool:
    return operation.done or operation.abandoned or run.finished


def begin_timer(engine: Engine, run: Run, operation: Operation) -> None:
    """Fix a sleep's or timer's due time, where no earlier claim has, and wait for it."""
    if operation.row is None:
        operation.started_at_ms = engine.now_ms()
        operation.due_at_ms = operation.started_at_ms + (operation.delay_ms or 0)
        engine.write_start(run, operation, PENDING)
    engine.timers.arm(operation.due_at_ms or 0, run, operation)


def take_due(engine: Engine, run: Run) -> bool:
    """Go on with what was due before the flow came into memory; false where nothing was.

    In the order of the due times, whatever was asked for first: of an hour's timeout around a sleep of
    two it is the timeout that has come, however late someone looks.
    """
    now_ms = engine.now_ms()
    due = [o for o in run.open.values() if o.due_at_ms is not None and o.due_at_ms <= now_ms]
    for operation in sorted(due, key=lambda o: (o.due_at_ms, o.number)):
        on_due(engine, run, operation)
    return bool(due) and not run.nothing_runs()


def wake(engine: Engine, run: Run, operation: Operation) -> None:
    """Have a flow's driver go on with an operation whose time has come; from any thread."""
    run.post(lambda: on_due(engine, run, operation))


def on_due(engine: Engine, run: Run, operation: Operation) -> None:
    """Go on with an operation whose time has come."""
    due = operation.due_at_ms
    if operation.done or operation.abandoned or operation.commits or operation.running or due is None:
        return
    if due > engine.now_ms():
        engine.timers.arm(due, run, operation)
        return
    match operation.kind:
        case Kind.SLEEP | Kind.TIMER:
            put_end(run, operation, COMPLETE)
        case Kind.STEP:
            start_attempt(engine, run, operation)
        case Kind.SIGNAL | Kind.WAIT_FOR:
            on_wait_due(engine, run, operation)
        case Kind.CHILD:
            return
