"""Puts the parts together for one app: the flows in memory, the threads, the host's loop, the store."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persistasaurus._engine import driving
from persistasaurus._engine.async_run import AsyncRun
from persistasaurus._engine.children import begin_child, child_cancelled, on_child
from persistasaurus._engine.commit import Committer, Order, Progress
from persistasaurus._engine.delays import TimerQueue, begin_timer, on_due
from persistasaurus._engine.history import Event, Replay, verify
from persistasaurus._engine.pool import Pool
from persistasaurus._engine.registry import Registry, Target
from persistasaurus._engine.results import Outcome, Results
from persistasaurus._engine.run import Run
from persistasaurus._engine.signals import Signal, begin_wait, hand_out, on_wait_due
from persistasaurus._engine.steps import begin_step, start_attempt
from persistasaurus._engine.thread import SyncRun
from persistasaurus._engine.worker import Worker
from persistasaurus._events import Event as Fact
from persistasaurus._events import Happening, Observer
from persistasaurus._failure import rebuild_failure
from persistasaurus._model import CANCELLED, FAILED, PENDING, FlowStatus, Kind
from persistasaurus._store.base import ChildOutcome, FlowRow, History, Mailbox, NewFlow, StartedFlow, Store
from persistasaurus._store.checksum import flow_checksum
from persistasaurus.errors import AppNotRunningError, FlowFailed, FlowParked, StepFailed, StoreError, UnknownFlowError

if TYPE_CHECKING:
    from persistasaurus._clock import Clock
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.registry import StepDefinition
    from persistasaurus._store.base import Committed

log = logging.getLogger("persistasaurus")

NOTHING_RECORDED = Replay({}, [], 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can set; see `Persistasaurus`."""

    worker: bool
    max_payload: int
    drain_s: float
    lease_s: float
    crash_limit: int
    flow_threads: int
    step_threads: int
    capacity: int
    residents: int


class Engine:
    """Everything of one entered app that is not a user's word for it."""

    host: asyncio.AbstractEventLoop
    worker_id: int | None = None

    def __init__(self, store: Store, registry: Registry, clock: Clock, settings: Settings, observer: Observer | None):
        self.store = store
        self.store_number = id(store)
        self.registry = registry
        self.clock = clock
        self.settings = settings
        self.observer = observer
        self.observed = observer is not None
        self.now_ms = clock.now_ms
        self.runs: dict[int, Run] = {}
        self.results = Results()
        self.stopping = False
        self.gone: StoreError | None = None
        self.host_tasks: set[asyncio.Task[Any]] = set()
        self.flow_pool = Pool("flow", settings.flow_threads)
        self.step_pool = Pool("step", settings.step_threads)
        self.committer = Committer(
            store, acknowledge=self._acknowledge, lease_lost=self._lease_lost, store_gone=self._store_gone
        )
        self.worker = Worker(self)
        self.timers = TimerQueue(self.worker.ring)
        self._names: dict[tuple[str, str], int] = {}
        self._names_by_id: dict[int, tuple[str, str]] = {}
        self._held: list[tuple[Run, Operation]] = []
        self._host_thread: int | None = None
        self._ring_is_due = False

    # Life.

    def start(self, host: asyncio.AbstractEventLoop, host_thread: int) -> None:
        """Begin to drive flows; async ones, and async steps, on `host`."""
        self.host = host
        self._host_thread = host_thread
        self.timer_name_id = self.intern(("", "timer"))
        self.sleep_name_id = self.intern(("", "sleep"))
        self.committer.start()
        self.worker.start()

    def stop(self, drain_s: float) -> None:
        """Start no more steps, give running ones up to `drain_s` seconds, and let go of every flow."""
        self.stopping = True
        until = time.monotonic() + drain_s
        while time.monotonic() < until and any(run.active or run.in_flight for run in list(self.runs.values())):
            time.sleep(0.002)
        for run in list(self.runs.values()):
            run.abandon_soon()
        self.on_host(self._cancel_tasks)
        self.committer.close(give_up_after=5.0)
        self.worker.stop()
        self.flow_pool.close()
        self.step_pool.close()
        self.results.close(AppNotRunningError("The app was left while this flow had not ended. It goes on at the next start."))

    def _cancel_tasks(self) -> None:
        for task in list(self.host_tasks):
            task.cancel()

    def on_host(self, call: Callable[..., None], *args: Any) -> None:
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
        return not self.stopping and self.worker.holds_lease()

    def hold(self, run: Run, operation: Operation) -> None:
        """Keep an attempt back until the lease is renewed."""
        self._held.append((run, operation))

    def release_held(self) -> None:
        """Go on with what was held back while the lease was in doubt."""
        held, self._held = self._held, []
        for run, operation in held:
            self._post_start(run, operation)

    def _post_start(self, run: Run, operation: Operation) -> None:
        run.post(lambda: start_attempt(self, run, operation))

    # The commit path.

    def put(self, report: Progress) -> None:
        """Queue a flow's write; on the host's thread the writer is woken once per turn of its loop."""
        if threading.get_ident() != self._host_thread:
            self.committer.put(report)
            return
        self.committer.put_quietly(report)
        if not self._ring_is_due:
            self._ring_is_due = True
            self.host.call_soon(self._ring)

    def _ring(self) -> None:
        self._ring_is_due = False
        self.committer.ring()

    def _acknowledge(self, reports: list[Progress], committed: Committed) -> None:
        children = iter(committed.starts)
        for_host: list[tuple[Progress, Any]] = []
        for report in reports:
            answer = next(children) if report.child is not None else None
            if isinstance(report.run, AsyncRun):
                for_host.append((report, answer))
            else:
                _tell(report, answer)
        if for_host:
            self.on_host(_tell_all, for_host)

    def _lease_lost(self, worker_id: int) -> None:
        """Drop every flow: another worker drives them now."""
        if self.worker_id != worker_id:
            return
        log.error("lease lost, every flow of this worker is dropped")
        self.tell_fact(Fact(happening=Happening.LEASE_LOST, at_ms=self.now_ms()))
        self.worker.lost()
        self._drop_all()

    def _drop_all(self) -> None:
        runs = list(self.runs.values())
        self.runs.clear()
        self._held.clear()
        for run in runs:
            run.abandon_soon()

    def _store_gone(self, error: StoreError) -> None:
        """Stop for good: the database file is not the one that was opened."""
        self.gone = error
        log.critical("%s", error)
        self.stopping = True
        self._drop_all()
        self.results.close(error)

    # Names.

    def intern(self, name: tuple[str, str]) -> int:
        """Return the number of a name in the store."""
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = self.store.intern(*name)
            self._names_by_id[found] = name
        return found

    def name_of(self, name_id: int) -> tuple[str, str]:
        """Return the name that a number in the store stands for."""
        if name_id not in self._names_by_id:
            self._names_by_id.update(self.store.names())
        return self._names_by_id.get(name_id, ("", f"name {name_id}"))

    # Flows come into memory.

    def new_flow(self, flow_id: str, target: Target, text: str, parent: tuple[int, int] | None = None) -> NewFlow:
        """Return the row of a new flow."""
        name_id = self.intern(target.name)
        seed = random.getrandbits(62)  # noqa: S311 - recorded, so that the flow's own randomness is replayed
        now_ms = self.now_ms()
        return NewFlow(
            flow_id=flow_id,
            name_id=name_id,
            created_at_ms=now_ms,
            seed=seed,
            input=text,
            parent_key=parent[0] if parent else None,
            parent_step=parent[1] if parent else None,
            checksum=flow_checksum(flow_id, name_id, now_ms, seed, text),
            claim=self.has_room() and self.registry.is_known(target.owner),
        )

    def has_room(self) -> bool:
        """Whether this worker takes on another flow."""
        return self.worker_id is not None and not self.stopping and len(self.runs) < self.settings.capacity

    def start_flow(self, new: NewFlow, target: Target, bound: dict[str, Any]) -> Future[StartedFlow]:
        """Start a flow; the answer comes once it is durable, and by then the flow is being driven."""
        order = Order(new)
        order.answer.add_done_callback(lambda done: self._started(done, new, target, bound))
        self.committer.put(order)
        return order.answer

    def _started(self, done: Future[StartedFlow], new: NewFlow, target: Target, bound: dict[str, Any]) -> None:
        if done.exception() is None:
            self.drive_new(new, done.result(), target, bound)

    def drive_new(self, new: NewFlow, answer: StartedFlow, target: Target, bound: dict[str, Any]) -> None:
        """Drive a flow that was just started here; one that this worker does not own waits for a claim."""
        if not answer.created or answer.owner is None or answer.owner != self.worker_id:
            if answer.created:
                self.kick()
            return
        flow = _fresh_row(new, answer, target)
        self._drive(flow, target, NOTHING_RECORDED, bound)

    def _drive(self, flow: FlowRow, target: Target, replay: Replay, bound: dict[str, Any]) -> Run:
        run = self._new_run(flow, target, replay, bound)
        self.runs[flow.flow_key] = run
        if self.observed:
            happening = Happening.FLOW_RECOVERED if replay.events or flow.lost_claims else Happening.FLOW_STARTED
            self.tell(happening, run)
        run.start()
        return run

    def _new_run(self, flow: FlowRow, target: Target, replay: Replay, bound: dict[str, Any]) -> Run:
        kind = AsyncRun if target.definition.is_async else SyncRun
        return kind(self, flow, target, replay, bound)

    def adopt(self, history: History, targets: dict[tuple[str, str], Target]) -> None:
        """Drive a claimed flow from its history; one that cannot be driven is parked."""
        flow = history.flow
        target = targets.get((flow.class_name, flow.method_name))
        try:
            if target is None:
                raise UnknownFlowError(f"No flow named {flow.method_name!r} is known here any more.")
            if flow.crashes >= self.settings.crash_limit:
                raise _crash_loop(flow)
            replay = verify(history, self.intern((flow.class_name, flow.method_name)))
            bound = target.definition.arguments.decode(flow.input)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this flow's and parks only it
            target = target or next(iter(targets.values()))
            run = self._new_run(flow, target, NOTHING_RECORDED, {})
            self.runs[flow.flow_key] = run
            driving.park(self, run, error)
            return
        run = self._new_run(flow, target, replay, bound)
        self.runs[flow.flow_key] = run
        run.has_children = any(row.kind == Kind.CHILD for row in history.steps)
        run.mail = history.mailbox
        if self.observed:
            self.tell(Happening.FLOW_RECOVERED, run)
        run.start()

    def make_instance(self, target: Target) -> Any:
        """Return the object that a flow's methods are called on, None for a function."""
        return self.registry.make(target.owner) if target.owner is not None else None

    def drop(self, run: Run) -> None:
        """Forget a flow that this worker has let go of."""
        if self.runs.get(run.key) is run:
            del self.runs[run.key]
        run.abandon()

    def kick(self) -> None:
        """Have the worker look for flows to claim."""
        self.worker.look()

    # What the drivers ask for.

    def begin(self, run: Run, operation: Operation) -> None:
        """Begin an operation that is not recorded as ended."""
        match operation.kind:
            case Kind.STEP:
                begin_step(self, run, operation)
            case Kind.SLEEP | Kind.TIMER:
                begin_timer(self, run, operation)
            case Kind.SIGNAL | Kind.WAIT_FOR:
                begin_wait(self, run, operation)
            case Kind.CHILD:
                begin_child(self, run, operation)

    def write_start(self, run: Run, operation: Operation, status: int) -> None:
        """Have the start of an operation written with the flow's next commit, or alone soon."""
        with run.guard:
            run.unwritten[operation.number] = operation.parts(run.key, status)
        self.committer.note_start(run, operation.number)

    def ask_signal(self, run: Run, signal: Signal[Any], timeout_ms: int | None) -> Operation:
        """Ask for a wait for a signal."""
        operation = run.ask(Kind.SIGNAL, self.intern(("", signal.name)), ("", signal.name))
        operation.codec = signal.codec
        operation.arguments = signal.name
        if operation.row is None:
            operation.delay_ms = timeout_ms
        return operation

    def ask_resume(
        self, run: Run, definition: StepDefinition, instance: Any, timeout_ms: int | None
    ) -> Operation:
        """Ask for a wait for a step's resume."""
        operation = run.ask(Kind.WAIT_FOR, run.name_id(definition), definition.log_name)
        operation.definition = definition
        operation.instance = instance
        operation.codec = definition.result
        operation.arguments = definition.signal_name
        if operation.row is None:
            operation.delay_ms = timeout_ms
        return operation

    def decode_recorded(self, run: Run, operation: Operation) -> None:
        """Set what a recorded row says: the value, or the error through the same conversion as live."""
        row = operation.row
        if row is None:
            return
        if row.status == FAILED:
            missing = FlowFailed if operation.kind == Kind.CHILD else StepFailed
            operation.error = rebuild_failure(row.error or "{}", missing=missing)
        elif row.status == CANCELLED:
            operation.error = child_cancelled(f"{run.flow_id}/{operation.number}")
        elif operation.codec is not None:
            operation.value = operation.codec.decode(row.return_value or "null")

    def on_wait_due(self, run: Run, operation: Operation) -> None:
        """End a wait whose timeout is over."""
        on_wait_due(self, run, operation)

    def on_due(self, run: Run, operation: Operation) -> None:
        """Have a flow's driver go on with an operation whose time has come."""
        run.post(lambda: on_due(self, run, operation))

    def read_mail(self, run: Run) -> None:
        """Look for signals now."""
        mail = self.store.mailbox(run.key)
        if mail is not None:
            run.read_mail(mail)

    def hand_out(self, run: Run, mail: Mailbox) -> None:
        """Give a flow its signals and its children's outcomes."""
        if run.signals:
            hand_out(self, run)
        for child in mail.children:
            on_child(self, run, child)

    def child_ended(self, run: Run, outcome: Outcome) -> None:
        """Tell a parent in this process how its child ended; elsewhere the store's poke does."""
        parent = self.runs.get(run.flow.parent_key or 0)
        if parent is None or run.flow.parent_step is None:
            return
        flow, step = run.flow, run.flow.parent_step
        told = ChildOutcome(step, flow.flow_key, flow.flow_id, outcome.status, outcome.result, outcome.error, None, None)
        parent.post(lambda: on_child(self, parent, told))

    def rest(self, run: Run) -> None:
        """Write what a flow waits for; keep it in memory where there is room and it is async."""
        crowded = len(self.runs) > self.settings.residents
        driving.rest(self, run, release=crowded or isinstance(run, SyncRun))

    def end_complete(self, run: Run, result: Any) -> None:
        """Record a flow's result."""
        driving.end_complete(self, run, result)

    def end_cancelled(self, run: Run) -> None:
        """Record that a flow ended by its cancel."""
        driving.end_cancelled(self, run)

    def fail_flow(self, run: Run, error: BaseException) -> None:
        """Record the exception that a flow did not catch."""
        driving.fail(self, run, error)

    def halt_flow(self, run: Run, reason: BaseException) -> None:
        """Stop driving a flow that does not follow its log."""
        driving.halt(self, run, reason)

    def events_of(self, history: History) -> list[Event]:
        """Return the recorded events of a flow."""
        name = (history.flow.class_name, history.flow.method_name)
        return verify(history, self.intern(name)).events

    # Telling observers.

    def tell(
        self, happening: Happening, run: Run, operation: Operation | None = None, status: FlowStatus | None = None
    ) -> None:
        """Tell the observer a fact about a flow or step."""
        self.tell_fact(
            Fact(
                happening=happening,
                at_ms=self.now_ms(),
                flow_id=run.flow_id,
                flow_name=run.target.name[1],
                step=operation.number if operation is not None else 0,
                step_name=self.name_of(operation.name_id)[1] if operation is not None else "",
                attempt=operation.attempt if operation is not None else 0,
                status=status.value if status is not None else "",
            )
        )

    def tell_fact(self, fact: Fact) -> None:
        """Call the observer; what it raises is logged and changes nothing."""
        if self.observer is None:
            return
        try:
            self.observer(fact)
        except Exception:
            log.exception("an observer raised on %r", fact.happening.value)


def _tell(report: Progress, answer: Any) -> None:
    if report.update is not None and report.update.release:
        if report.then is not None:
            report.then(answer)
        return
    report.run.committed(report, answer)


def _tell_all(reports: list[tuple[Progress, Any]]) -> None:
    for report, answer in reports:
        _tell(report, answer)


def _crash_loop(flow: FlowRow) -> FlowParked:
    return FlowParked(
        f"Flow {flow.flow_id!r} was running each time its process ended {flow.crashes} times in a row, and recorded "
        "nothing between. It probably crashes the process (out of memory, a native library). Correct the cause, "
        "then retry the flow."
    )


def _fresh_row(new: NewFlow, answer: StartedFlow, target: Target) -> FlowRow:
    class_name, method_name = target.name
    return FlowRow(
        flow_key=answer.flow_key,
        flow_id=new.flow_id,
        class_name=class_name,
        method_name=method_name,
        status=PENDING,
        created_at_ms=new.created_at_ms,
        updated_at_ms=new.created_at_ms,
        seed=new.seed,
        input=new.input,
        result=None,
        error=None,
        reason=None,
        owner=answer.owner,
        idle=0,
        due_at_ms=None,
        pokes=0,
        crashes=0,
        lost_claims=0,
        parent_key=new.parent_key,
        parent_step=new.parent_step,
        cancel_requested_at_ms=None,
        cancel_event=None,
        cancel_event_at_ms=None,
        checksum=new.checksum,
        outcome_checksum=None,
    )
