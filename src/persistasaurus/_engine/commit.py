"""Group commit: every write of an app goes through one thread, which shares one fsync among them.

Whatever is queued becomes one transaction; while it is written, the next one gathers. Alone, a step
costs one commit; a thousand at once cost one commit too. Nothing is acknowledged before it is durable.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from persistasaurus._engine.operation import RowParts
from persistasaurus._store.base import (
    Batch,
    Committed,
    FlowUpdate,
    NewFlow,
    NewSignal,
    StartedFlow,
    StepRow,
    Store,
)
from persistasaurus._store.checksum import step_checksum
from persistasaurus.errors import LeaseLost, StoreError

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run

log = logging.getLogger("persistasaurus.store")

START_DELAY_S = 0.010
"""How long the start of a step may wait for company before it is written alone."""
LONGEST_BATCH = 4_096
"""Progress reports in one transaction: bounds its memory and how long others wait for the lock."""


class Progress:
    """What one flow wants written together, and what it does once that is durable."""

    completes: Operation | None = None
    """What ends with the flow's next event number."""
    update: FlowUpdate | None = None
    cancels = False
    """Whether this is the event of the flow's cancel."""
    consumed: int | None = None
    rejected: tuple[int, str] | None = None
    child: NewFlow | None = None
    poke: int | None = None
    cancel_children = False
    then: Callable[[Any], None] | None = None
    """Called by the flow's driver after the commit, with the started child if there is one."""
    answer: StartedFlow | None = None
    """The started child, once the write is durable."""
    rows: Sequence[RowParts] = ()
    """Of operations that begin or go on, before the one that ends."""
    sealed: list[StepRow] | None = None

    def __init__(self, run: Run) -> None:
        self.run = run

    def seal(self) -> list[StepRow]:
        """Give the rows their event numbers and checksums; once, however often the commit is tried."""
        if self.sealed is None:
            run = self.run
            sealed: list[Any] = []
            for head, tail in self.rows:
                row: Any = (*head, None, *tail)
                sealed.append((*row, step_checksum(row, 0)))
            if self.completes is not None:
                run.events += 1
                row = self.completes.ended_row(run.key, run.events)
                run.chain = step_checksum(row, run.chain)
                sealed.append((*row, run.chain))
            elif self.cancels:
                run.events += 1
                run.cancel_event = run.events
            if self.update is not None and run.cancel_event is not None:
                self.update = self.update._replace(cancel_event=run.cancel_event)
            self.sealed = sealed
        return self.sealed


class Order:
    """A client's write: a start, a signal or a cancel; `answer` gets the store's, after `then` was told.

    A coroutine on the app's own loop hands in a future of that loop, which is answered there.
    """

    __slots__ = ("answer", "result", "then", "write")

    def __init__(
        self,
        write: NewFlow | NewSignal | str,
        *,
        answer: asyncio.Future[Any] | None = None,
        then: Callable[[Any], None] | None = None,
    ) -> None:
        self.write = write
        self.then = then
        self.answer: Future[Any] | asyncio.Future[Any] = Future() if answer is None else answer
        self.result: Any = None

    @property
    def is_host(self) -> bool:
        """Whether it is answered on the app's own loop."""
        return isinstance(self.answer, asyncio.Future)

    def tell(self) -> None:
        """Give the result, which is durable now, to whoever waits for it."""
        if self.then is not None:
            try:
                self.then(self.result)
            except Exception:  # the writer must outlive it
                log.exception("unexpected error after a commit")
        if not self.answer.done():
            self.answer.set_result(self.result)

    def refuse(self, error: BaseException) -> None:
        """Tell whoever waits that nothing of it was written."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Committer:
    """The writer thread of one app."""

    def __init__(
        self,
        store: Store,
        *,
        acknowledge: Callable[[list[Progress], list[Order], Committed], None],
        lease_lost: Callable[[int], None],
        store_gone: Callable[[StoreError], None],
        on_host: Callable[..., None],
    ) -> None:
        self._store = store
        self._acknowledge = acknowledge
        self._lease_lost = lease_lost
        self._store_gone = store_gone
        self._on_host = on_host
        self._queue: deque[Progress | Order] = deque()
        self._starts: deque[tuple[float, Run, int]] = deque()
        self._role = threading.Lock()
        """Held by whoever takes from the queue and writes."""
        self._context = contextvars.Context()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._late_until = 0.0
        self._asked = False
        self._closing = False
        self._give_up = False
        self._busy = False
        self.written = 0
        """How many writes were ever taken from the queue."""
        self._thread = threading.Thread(target=self._work, name="persistasaurus-writer", daemon=True)
        self.worker_id: int | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: Progress | Order) -> None:
        """Queue a write and wake the thread; from any thread."""
        self._queue.append(item)
        # In this order: a thread that is busy looks into the queue after it says that it is not.
        if not self._busy:
            self.ring()

    def put_quietly(self, item: Progress) -> None:
        """Queue a write without waking the thread: the caller goes straight to `help_out`."""
        self._queue.append(item)

    def help_out(self) -> None:
        """Write what is queued in the calling thread, which waits for it, unless somebody writes already.

        A lone sync flow is spared two changes of threads for each of its steps, which take longer than
        the commit.
        """
        if not self._queue:
            return
        if not self._role.acquire(blocking=False):
            self.ring()
            return
        try:
            # The calling flow's context is not that of whoever is told.
            self._context.run(self._write_queue, None)
        finally:
            self._role.release()
        if self._queue:
            self.ring()

    def ring(self) -> None:
        """Wake the thread."""
        try:
            self._bell.release()
        except RuntimeError:
            return  # it rings already

    def note_start(self, run: Run, number: int) -> None:
        """Write the start of a step in a while, unless it travels with something else before."""
        # Without waking the thread: most steps end sooner, and their outcome wakes it.
        self._starts.append((time.monotonic() + START_DELAY_S, run, number))

    def remind(self) -> None:
        """Wake the thread where a start is late, or a write is queued that nobody came to help with.

        Called some forty times a second.
        """
        if self._queue and not self._busy:
            self.ring()
        with suppress(IndexError):
            if self._starts[0][0] <= time.monotonic():
                self.ring()

    def is_busy(self) -> bool:
        """Whether the thread is writing, or was woken to."""
        return self._busy or not self._bell.locked()

    def is_idle(self) -> bool:
        """Whether nothing is queued or being written."""
        # In this order: the thread says that it is busy before it empties the queue.
        return not self._queue and not self._busy

    def close(self, *, give_up_after: float) -> None:
        """Write what is queued and end the thread; on a store that fails give up after some seconds."""
        self._closing = True
        self.ring()
        self._thread.join(give_up_after)
        self._give_up = True
        self.ring()
        self._thread.join(5)

    def _work(self) -> None:
        while True:
            self._wait()
            with self._role:
                wrote = self._write_queue(self._late_starts)
            if not wrote and self._closing and not self._queue:
                return

    def _write_queue(self, late: Callable[[], list[Progress]] | None) -> bool:
        """Commit what is queued and these late starts; the caller has the writer's role."""
        self._busy = True
        try:
            # In this order: what ends from here on is written after its start, in the next batch.
            items = self._taken()
            if late is not None:
                items.extend(late())
            self.written += len(items)
            if items:
                self._commit(items)
        finally:
            self._busy = False
        return bool(items)

    def _wait(self) -> None:
        self._ask_for_starts()
        if self._queue or self._closing:
            return
        if not self._starts or self._asked:
            self._bell.acquire()
            return
        timeout = self._starts[0][0] - time.monotonic()
        if timeout > 0:
            self._bell.acquire(timeout=timeout)

    def _ask_for_starts(self) -> None:
        """Forget the starts that have travelled, and ask to write the late ones; under load too."""
        starts = self._starts
        while starts and starts[0][2] not in starts[0][1].unwritten:
            starts.popleft()
        now = time.monotonic()
        if starts and not self._asked and self._late_until < starts[0][0] <= now:
            self._asked = True
            self._on_host(self._let_starts_go, now)

    def _let_starts_go(self, until: float) -> None:
        """Write the starts that are late: called after the turn of the host's loop in which they were.

        A busy loop may take longer than the delay to come to a thousand short steps; without asking it
        first, the start of each would be written alone and cost as much as its outcome.
        """
        self._late_until = until
        self._asked = False
        self.ring()

    def _taken(self) -> list[Progress | Order]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), LONGEST_BATCH))]

    def _late_starts(self) -> list[Progress]:
        starts = self._starts
        if not starts:
            return []
        late: dict[Run, Progress] = {}
        while starts and (starts[0][0] <= self._late_until or self._closing):
            _, run, number = starts.popleft()
            if number in run.unwritten:
                run.write_starts(late.setdefault(run, Progress(run)))
        return [report for report in late.values() if report.rows]

    def _commit(self, items: Sequence[Progress | Order]) -> None:
        pause = 0.02
        failing = False
        while True:
            orders = [o for o in items if isinstance(o, Order)]
            worker_id = self.worker_id
            progress = [p for p in items if isinstance(p, Progress) and p.run.worker_id == worker_id]
            if not progress and not orders:
                return
            try:
                committed = self._write(progress, orders)
            except LeaseLost:
                self._lease_lost(self.worker_id or 0)
                items = orders
                continue
            except StoreError as error:
                if self._is_final(error, progress, orders):
                    return
                if not failing:
                    log.error("cannot write, trying again: %s", error)  # noqa: TRY400 - a state, not a bug
                failing = True
                time.sleep(pause)
                pause = min(pause * 2, 1.0)
                items = [*progress, *self._taken()]
                continue
            self._answer(progress, orders, committed)
            return

    def _is_final(self, error: StoreError, progress: list[Progress], orders: list[Order]) -> bool:
        """Tell the clients of a failed commit, and decide whether the flows' part is tried again."""
        for order in orders:
            if order.is_host:
                self._on_host(order.refuse, error)
            else:
                order.refuse(error)
        try:
            self._store.check()
        except StoreError as gone:
            self._store_gone(gone)
            return True
        return self._give_up or not progress

    def _write(self, progress: list[Progress], orders: list[Order]) -> Committed:
        batch = Batch(worker_id=self.worker_id)
        updates: dict[int, FlowUpdate] = {}
        for report in progress:
            _add(batch, report)
            if report.update is not None:
                updates[report.run.key] = report.update
        batch.updates.extend(updates.values())
        for order in orders:
            write = order.write
            if isinstance(write, NewFlow):
                if write.claim and self.worker_id is None:
                    write = write._replace(claim=False)
                batch.starts.append(write)
            elif isinstance(write, NewSignal):
                batch.signals.append(write)
            else:
                batch.cancels.append(write)
        return self._store.commit(batch)

    def _answer(self, progress: list[Progress], orders: list[Order], committed: Committed) -> None:
        children = sum(1 for report in progress if report.child is not None)
        starts = iter(committed.starts[children:])
        signals = iter(committed.signals)
        cancels = iter(committed.cancels)
        for order in orders:
            if isinstance(order.write, NewFlow):
                order.result = next(starts)
            elif isinstance(order.write, NewSignal):
                order.result = next(signals)
            else:
                order.result = next(cancels)
        self._acknowledge(progress, orders, committed)


def _add(batch: Batch, report: Progress) -> None:
    batch.steps.extend(report.seal())
    if report.consumed is not None:
        batch.consumed.append(report.consumed)
    if report.rejected is not None:
        batch.rejected.append(report.rejected)
    if report.child is not None:
        batch.starts.append(report.child)
    if report.poke is not None:
        batch.poke.append(report.poke)
    if report.cancel_children:
        batch.cancel_children.append(report.run.key)
