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
from contextlib import suppress
from typing import TYPE_CHECKING

from persistasaurus._engine.progress import Order, Progress, batch_of
from persistasaurus._store.base import Batch, Committed, NewFlow, NewSignal, Store
from persistasaurus.errors import AppNotRunningError, LeaseLost, OutcomeUnknownError, StoreError

if TYPE_CHECKING:
    from persistasaurus._engine.run import Run
    from persistasaurus._engine.texts import Texts

log = logging.getLogger("persistasaurus.store")

START_DELAY_S = 0.010
"""How long the start of a step may wait for company before it is written alone."""
UNKNOWN_PAUSE_S = 0.1
"""Between two questions for the outcome of a commit, each of which takes its own time."""


class Committer:
    """The writer thread of one app."""

    def __init__(
        self,
        store: Store,
        *,
        texts: Texts,
        acknowledge: Callable[[list[Progress], list[Order], Committed], None],
        lease_lost: Callable[[int], None],
        store_gone: Callable[[StoreError], None],
        on_host: Callable[..., None],
    ) -> None:
        self._store = store
        self._texts = texts
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
        self._over = False
        self._broken: StoreError | None = None
        self._busy = False
        self._host_helps = False
        self.written = 0
        """How many writes were ever taken from the queue."""
        self.has_lost = False
        """Whether the app was left with something unwritten of what its flows have done."""
        self._thread = threading.Thread(target=self._work, name="persistasaurus-writer", daemon=True)
        self.worker_id: int | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: Progress | Order) -> None:
        """Queue a write and wake the thread; from any thread."""
        self._queue.append(item)
        if self._over:
            self._refuse_rest()
        # In this order: a thread that is busy looks into the queue after it says that it is not.
        if not self._busy:
            self.ring()

    def put_quietly(self, item: Progress) -> None:
        """Queue a write without waking the thread: the caller goes straight to `help_out`."""
        self._queue.append(item)

    def put_for_host(self, item: Progress, host: asyncio.AbstractEventLoop) -> None:
        """Queue a write of the one flow that runs on the app's own loop, which then writes it."""
        self._queue.append(item)
        if not self._host_helps:
            self._host_helps = True
            host.call_soon(self._help_as_host)

    def _help_as_host(self) -> None:
        self._host_helps = False
        self.help_out()

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
        if self._queue and not self._host_helps:
            self.ring()

    def ring(self) -> None:
        """Wake the thread."""
        if not self._bell.locked():
            return  # it rings already
        with suppress(RuntimeError):  # another thread was faster
            self._bell.release()

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
        self.has_lost |= self._thread.is_alive() or any(isinstance(item, Progress) for item in self._queue)
        self._over = True
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Tell the clients that came when the app was left already; nothing of theirs has happened."""
        left = AppNotRunningError(
            "The app was left before this could be written: nothing of it has happened."
        )
        with suppress(IndexError):
            while True:
                item = self._queue.popleft()
                if isinstance(item, Order):
                    self._refuse([item], left)

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
        items: list[Progress | Order] = []
        try:
            # In this order: what ends from here on is written after its start, in the next batch.
            items = self._taken()
            if late is not None:
                items.extend(late())
            self.written += len(items)
            if self._broken is not None:
                self._refuse(_orders(items), self._broken)  # what was lost is missing before the rest
            elif items:
                self._commit(items)
        except Exception as error:
            log.critical("unexpected error in the writer", exc_info=True)
            self._break_down(items, error)
        finally:
            self._busy = False
        return bool(items)

    def _break_down(self, items: Sequence[Progress | Order], error: Exception) -> None:
        """Stop for good: whoever waits for the writer would else wait for ever."""
        self.has_lost = True
        self._broken = StoreError(
            f"Nothing can be written any more, by an unexpected error: {error!r:.300}. Start the process "
            "again: every flow goes on from its log. Please report this."
        )
        self._refuse(_orders(items), self._broken)
        self._store_gone(self._broken)

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
        """Write the starts that are late: called after the turn of the host's loop in which they were."""
        # Unasked, each of a thousand short steps that a busy loop is late for would be written alone.
        self._late_until = until
        self._asked = False
        self.ring()

    def _taken(self) -> list[Progress | Order]:
        return [self._queue.popleft() for _ in range(min(len(self._queue), self._store.longest_batch))]

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
            worker_id = self.worker_id  # another thread may register anew while this one writes
            progress, orders = _sorted(items, worker_id)
            if not progress and not orders:
                return
            try:
                committed = self._write(batch_of(progress, orders, worker_id, self._texts), orders)
            except LeaseLost:
                self._lease_lost(worker_id or 0)
                items = orders
                continue
            except StoreError as error:
                lasting = [order for order in orders if order.lasts]
                self._refuse([order for order in orders if not order.lasts], error)
                if self._is_final():
                    self.has_lost |= bool(progress)
                    return
                if not progress and not lasting:
                    return
                if not failing:
                    log.error("cannot write, trying again: %s", error)  # noqa: TRY400 - a state, not a bug
                failing = True
                time.sleep(pause)
                pause = min(pause * 2, 1.0)
                items = [*progress, *lasting, *self._taken()]
                continue
            self._answer(progress, orders, committed)
            return

    def _write(self, batch: Batch, orders: Sequence[Order]) -> Committed:
        """Commit a batch; one whose outcome is not known again as it is, until it is known."""
        while True:
            try:
                return self._store.commit(batch)
            except OutcomeUnknownError as error:
                log.error("not known whether a commit was written, asking again: %s", error)  # noqa: TRY400
                # Nobody who waits is left without an answer for longer.
                self._refuse(orders, error)
                if self._is_final():
                    raise
                time.sleep(UNKNOWN_PAUSE_S)

    def _refuse(self, orders: Sequence[Order], error: Exception) -> None:
        """Tell the clients of a failed commit."""
        for order in orders:
            if order.is_host:
                self._on_host(order.refuse, error)
            else:
                order.refuse(error)

    def _is_final(self) -> bool:
        """Whether nothing is tried again: the store is gone, or the app was left."""
        try:
            self._store.check()
        except StoreError as gone:
            self._store_gone(gone)
            return True
        return self._give_up

    def _answer(self, progress: list[Progress], orders: list[Order], committed: Committed) -> None:
        # Those of children come first.
        first = len(committed.starts) - sum(isinstance(order.write, NewFlow) for order in orders)
        starts = iter(committed.starts[first:])
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


def _orders(items: Sequence[Progress | Order]) -> list[Order]:
    return [item for item in items if isinstance(item, Order)]


def _sorted(items: Sequence[Progress | Order], worker_id: int | None) -> tuple[list[Progress], list[Order]]:
    """Return what flows of this worker want written, and what clients do."""
    progress: list[Progress] = []
    orders: list[Order] = []
    for item in items:
        if isinstance(item, Order):
            orders.append(item)
        elif item.run.worker_id == worker_id:
            progress.append(item)
    return progress, orders
