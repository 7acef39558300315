"""Puts the parts together for one app: the flows in memory, the threads, the host's loop, the store."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from persistasaurus._codec import load_pydantic
from persistasaurus._engine.async_run import AsyncRun
from persistasaurus._engine.commit import Committer
from persistasaurus._engine.delays import TimerQueue
from persistasaurus._engine.facts import Facts
from persistasaurus._engine.host import Host
from persistasaurus._engine.memory import Memory
from persistasaurus._engine.names import Names
from persistasaurus._engine.pool import Pool
from persistasaurus._engine.progress import Order, Progress
from persistasaurus._engine.registry import Registry
from persistasaurus._engine.results import Outcome, Results
from persistasaurus._engine.retention import Retention
from persistasaurus._engine.run import Run
from persistasaurus._engine.runners import Runners
from persistasaurus._engine.settings import Settings
from persistasaurus._engine.shown import Shown
from persistasaurus._engine.steps import begin_async, fail_async, finish, start_attempt
from persistasaurus._engine.texts import Texts
from persistasaurus._engine.worker import Worker
from persistasaurus._events import Happening, Observer
from persistasaurus._store.base import Store
from persistasaurus.errors import (
    AppNotRunningError,
    DamagedRecordError,
    StoreError,
)

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._store.base import Committed

log = logging.getLogger("persistasaurus")

TOLD_AT_ONCE = 128
"""Completions in one turn of the host's loop: what they make run is still in the processor's cache."""

GIVE_UP_S = 5.0
"""How long an app that is left tries to write on a store that fails."""

GIVE_WAY_S = 0.000_01
"""Long enough that the writer gets the interpreter's lock, for which it would else wait 5 ms each time."""

# Not the identity of the store: that is used again once it is gone, by one with other names.
_numbers = itertools.count()


class Engine:
    """Everything of one entered app that is not a user's word for it."""

    host: asyncio.AbstractEventLoop
    worker_id: int | None = None
    owns_host = False
    _telling = False
    _host_thread: int | None = None

    def __init__(
        self, store: Store, registry: Registry, settings: Settings, observer: Observer | None
    ) -> None:
        self.store = store
        self.store_number = next(_numbers)
        self.registry = registry
        self.clock = store.clock
        self.settings = settings
        self.certain_length = settings.max_payload // 4
        """Characters of a text that is no larger than allowed, whatever they are."""
        self.texts = Texts(settings.cipher)
        self.shown = Shown(self.texts, settings.redact)
        self.now_ms = store.clock.now_ms
        self._steady = store.clock.steady
        self.names = Names(store)
        self.facts = Facts(observer, self.now_ms, self.names)
        self.memory = Memory(self)
        self.runs: dict[int, Run] = {}
        self.results = Results(self.on_host)
        self.stopping = False
        self.gone: StoreError | None = None
        self._held_lock, self._leaving = threading.Lock(), threading.Lock()
        self._cancelled_tasks: set[asyncio.Task[Any]] = set()
        self.flow_pool = Pool("flow", settings.flow_threads)
        self.step_pool = Pool("step", settings.step_threads)
        self.runners = Runners(partial(begin_async, self), partial(finish, self), partial(fail_async, self))
        self.committer = Committer(
            store,
            texts=self.texts,
            acknowledge=self._acknowledge,
            lease_lost=self._lease_lost,
            store_gone=self._store_gone,
            on_host=self.on_host,
        )
        self.worker = Worker(self)
        self.retention = Retention(store, store.clock, settings.keep_ms if settings.worker else None)
        self.timers = TimerQueue(self.worker.ring)
        self._held: list[tuple[Run, Operation]] = []
        self._untold: deque[Progress | Order] = deque()
        """What is durable, for the host's thread, which has not come to it yet."""

    # Life.

    def start(self, host: Host) -> None:
        """Begin to drive flows; async ones, and async steps, on `host`."""
        self.host = host.loop
        self._host_thread = host.thread_id
        self.owns_host = host.is_own
        if self.settings.worker:
            load_pydantic()
        self.timer_name_id, self.sleep_name_id = self.names.intern_all([("", "timer"), ("", "sleep")])
        self.committer.start()
        self.worker.start()
        self.retention.start()

    def begin_leaving(self) -> bool:
        """Take on the leaving of the app; false where somebody else has."""
        return self._leaving.acquire(blocking=False)

    def drain(self, drain_s: float) -> None:
        """Start no more steps, and give running ones up to `drain_s` seconds."""
        self.stopping = True
        self.retention.stop()
        until = time.monotonic() + drain_s
        while time.monotonic() < until and any(run.is_busy() for run in list(self.runs.values())):
            time.sleep(0.002)

    def stop(self) -> None:
        """Let go of every flow, and end every thread."""
        for run in list(self.runs.values()):
            run.abandon_soon()
        self.on_host(self._cancel_tasks)
        self.committer.close(give_up_after=GIVE_UP_S)
        self.worker.stop()
        self.facts.tell(Happening.APP_LEFT)
        self.flow_pool.close()
        self.step_pool.close()
        self.results.close(
            AppNotRunningError(
                "The app was left while this flow had not ended. It goes on at the next start."
            )
        )

    def _cancel_tasks(self) -> None:
        for task in list(self._cancelled_tasks):
            task.cancel()

    def cancel_task(self, task: asyncio.Task[Any]) -> None:
        """Cancel the attempt of an async step that nobody waits for, and hold it until it has ended."""
        self.on_host(self._cancel_task, task)

    def _cancel_task(self, task: asyncio.Task[Any]) -> None:
        if not task.done():
            self._cancelled_tasks.add(task)
            task.add_done_callback(self._cancelled_tasks.discard)
            task.cancel()

    def on_host(self, call: Callable[..., object], *args: Any) -> None:
        """Call a function on the host's loop: at once where this is its thread, else soon."""
        if threading.get_ident() == self._host_thread:
            call(*args)
            return
        try:
            self.host.call_soon_threadsafe(call, *args)
        except RuntimeError:
            log.debug("the host's event loop is closed")

    def may_start(self) -> bool:
        """Whether a step may start: the app is not being left and the lease is certainly held."""
        return not self.stopping and self._steady() < self.worker.lease_until

    def is_host_thread(self) -> bool:
        """Whether the calling thread is that of the host's loop."""
        return threading.get_ident() == self._host_thread

    def is_on_host(self) -> bool:
        """Whether the calling code runs on the host's loop itself."""
        return asyncio._get_running_loop() is self.host

    def is_alone(self, run: Run) -> bool:
        """Whether a commit keeps nobody waiting: here, on a loop of the app's own, the one flow waits."""
        if run.active or len(self.runs) - len(self.memory.resting) > 1:
            return False
        return threading.get_ident() == self._host_thread

    def has_held(self) -> bool:
        """Whether attempts are kept back."""
        return bool(self._held)

    def hold(self, run: Run, operation: Operation) -> None:
        """Keep an attempt back until the lease is renewed; its flow is not idle meanwhile."""
        with run.guard:
            run.held += 1
            if operation.running:  # before anybody lets it go on
                operation.running = False
                run.active -= 1
        with self._held_lock:
            self._held.append((run, operation))
        if self.may_start():
            self.release_held()  # the lease was renewed meanwhile, and what was held back by then let go

    def release_held(self) -> None:
        """Go on with what was held back while the lease was in doubt."""
        with self._held_lock:
            held, self._held = self._held, []
        for run, operation in held:
            self._post_start(run, operation)

    def _post_start(self, run: Run, operation: Operation) -> None:
        def start() -> None:
            with run.guard:
                run.held -= 1
            start_attempt(self, run, operation)

        run.post(start)

    # The commit path.

    def _acknowledge(self, reports: list[Progress], orders: list[Order], committed: Committed) -> None:
        children = iter(committed.starts)
        if self.facts.observed:
            self.facts.tell_commit(reports)
        for_host: list[Progress | Order] = []
        for report in reports:
            if report.child is not None:
                report.answer = next(children)
            if isinstance(report.run, AsyncRun):
                for_host.append(report)
            else:
                _tell_safely(report)
        for order in orders:
            if order.is_host:
                for_host.append(order)
            else:
                order.tell()
        if for_host:
            # Here, by whoever writes: in the order of the commits.
            self._untold.extend(for_host)
            self.on_host(self._tell_on_host)

    def _tell_on_host(self) -> None:
        """Show the flows what was committed, a few at a turn of the loop, which others use too."""
        if not self._telling:
            self._tell_some()

    def _tell_some(self) -> None:
        untold = self._untold
        self._telling = True
        try:
            for _ in range(min(len(untold), TOLD_AT_ONCE)):
                each = untold.popleft()
                try:
                    if isinstance(each, Order):
                        each.tell()
                    elif each.update is None:
                        each.run.committed(each)
                    else:
                        _tell(each)
                except Exception:  # one flow's trouble is not that of whoever writes, here on the same thread
                    log.exception("unexpected error after a commit")
        finally:
            self._telling = bool(untold)
            if untold:
                self.host.call_soon(self._tell_some)
                if self.committer.is_busy():
                    time.sleep(GIVE_WAY_S)

    def has_untold(self) -> bool:
        """Whether something is durable of which its flow does not know yet."""
        return bool(self._untold)

    def _lease_lost(self, worker_id: int) -> None:
        """Drop every flow: another worker drives them now."""
        if not self.worker.lost(worker_id):
            return
        log.error("lease lost, every flow of this worker is dropped")
        self.facts.tell(Happening.LEASE_LOST)
        self._drop_all(worker_id)

    def _drop_all(self, worker_id: int | None = None) -> None:
        """Drop every flow, or those of a worker that lost its lease: its successor may have claimed some."""
        for run in list(self.runs.values()):
            if worker_id is None or run.worker_id == worker_id:
                self.runs.pop(run.key, None)
                self.memory.resting.discard(run.key)
                run.abandon_soon()
        with self._held_lock:
            self._held = [held for held in self._held if held[0].key in self.runs]

    def _store_gone(self, error: StoreError) -> None:
        """Stop for good: the database file is not the one that was opened."""
        self.gone = error
        log.critical("%s", error)
        self.stopping = True
        self._drop_all()
        self.results.close(error)

    def is_crowded(self) -> bool:
        """Whether flows that only wait should leave the memory."""
        # Those that only wait leave room for those that could run.
        return len(self.runs) > min(self.settings.residents, self.settings.capacity // 2)

    def kick(self) -> None:
        """Have the worker look for flows to claim."""
        self.worker.look()

    def mail_sent(self, key: int | None) -> None:
        """Have a flow of this worker's memory read what was sent to it; any other is looked for."""
        run = self.runs.get(key) if key is not None else None
        if run is None:
            self.kick()
        elif self.store.one_machine:  # where a read is a look into a file, which an event loop may take
            self.worker.look_later()
            run.post(partial(self.memory.read_mail, run))
        else:
            self.worker.poke(run.key)

    def tell(self, flow_id: str, outcome: Outcome) -> None:
        """Tell those who wait for a flow that has ended, or is parked, and is no longer driven here."""
        if not self.results.tell(flow_id, outcome):
            self.worker.ring()

    def write_start(self, run: Run, operation: Operation, status: int) -> None:
        """Have the start of an operation written with the flow's next commit, or alone soon."""
        with run.guard:
            operation.status = status
            run.unwritten[operation.number] = operation.parts(run.key, status)
        self.committer.note_start(run, operation.number)
        if self.facts.observed:
            self.facts.tell(Happening.WAIT_STARTED, run, operation, count=operation.delay_ms or 0)

    def read_mail(self, run: Run) -> bool:
        """Look for signals now; false where the store fails, and the worker looks for them soon."""
        try:
            mail = self.store.mailbox(run.key)
        except DamagedRecordError:
            raise
        except StoreError as error:
            log.warning("signals cannot be read, trying again: %s", error, extra={"flow_id": run.flow_id})
            self.worker.poke(run.key)
            return False
        if mail is not None:
            run.read_mail(mail)
        return True


def _tell_safely(report: Progress) -> None:
    try:
        _tell(report)
    except Exception:  # one flow's trouble is not that of whoever writes
        log.exception("unexpected error after a commit", extra={"flow_id": report.run.flow_id})


def _tell(report: Progress) -> None:
    if report.update is not None and report.update.release:
        if report.then is not None:
            report.then(report.answer)
        return
    report.run.committed(report)
