"""How flows come into this worker's memory, hear of each other there, and leave it."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from persistasaurus._engine import driving
from persistasaurus._engine.async_run import AsyncRun
from persistasaurus._engine.children import on_child
from persistasaurus._engine.history import Replay, verify
from persistasaurus._engine.progress import Order
from persistasaurus._engine.texts import INPUT
from persistasaurus._engine.thread import SyncRun
from persistasaurus._events import Happening
from persistasaurus._model import COMPLETE, PENDING, Kind
from persistasaurus._store.base import ChildOutcome, FlowRow, History, Mailbox, NewFlow, StartedFlow
from persistasaurus._store.checksum import flow_checksum
from persistasaurus.errors import DamagedRecordError, FlowParked, StoreError, UnknownFlowError

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.registry import Target
    from persistasaurus._engine.results import Outcome
    from persistasaurus._engine.run import Run

NOTHING_RECORDED = Replay({}, [], 0)


class Memory:
    """Starts flows, adopts claimed ones and drops those that the worker lets go of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._poked_early: set[int] = set()
        self.resting: set[int] = set()
        """The keys of flows in memory that only wait: for time, a signal or another flow."""

    def new_flow(
        self, flow_id: str, target: Target, text: str, parent: tuple[int, int] | None = None
    ) -> NewFlow:
        """Return the row of a new flow."""
        name_id = self._engine.names.intern(target.name)
        seed = random.getrandbits(62)  # recorded, so that the flow's own randomness is replayed
        now_ms = self._engine.now_ms()
        return NewFlow(
            flow_id=flow_id,
            name_id=name_id,
            created_at_ms=now_ms,
            seed=seed,
            input=text,
            parent_key=parent[0] if parent else None,
            parent_step=parent[1] if parent else None,
            checksum=flow_checksum(flow_id, name_id, now_ms, seed, text),
            claim=self.has_room() and self._engine.registry.is_known(target.owner),
            trace=self._engine.facts.capture(),
        )

    def has_room(self) -> bool:
        """Whether this worker takes on another flow."""
        return (
            self._engine.worker_id is not None
            and not self._engine.stopping
            and len(self._engine.runs) < self._engine.settings.capacity
        )

    def start_flow(
        self, new: NewFlow, target: Target, bound: dict[str, Any], answer: asyncio.Future[StartedFlow] | None
    ) -> Future[StartedFlow] | asyncio.Future[StartedFlow]:
        """Start a flow; the answer comes once it is durable, and by then the flow is being driven."""
        order = Order(new, answer=answer, then=partial(self.drive_new, new, target, bound))
        self._engine.committer.put(order)
        return order.answer

    def drive_new(self, new: NewFlow, target: Target, bound: dict[str, Any], answer: StartedFlow) -> None:
        """Drive a flow that was just started here; one that this worker does not own waits for a claim."""
        if not answer.created or answer.owner is None or answer.owner != self._engine.worker_id:
            if answer.created:
                self._engine.kick()
            return
        flow = _fresh_row(new, answer, target)
        self._drive(flow, self._new_run(flow, target, NOTHING_RECORDED, bound))
        if flow.flow_key in self._poked_early:
            self.poked(flow.flow_key)

    def poked(self, key: int) -> None:
        """Give a flow of this worker what others have left for it."""
        self._poked_early.add(key)
        run = self._engine.runs.get(key)
        if run is None:
            return  # it was started just now: whoever drives it first looks here
        self._poked_early.discard(key)
        try:
            mail = self._engine.store.mailbox(key)
        except DamagedRecordError as error:
            run.post(partial(_halt, run, error))
            return
        if mail is not None and not run.finished:
            run.post(lambda: self._take_in(run, mail))

    def read_mail(self, run: Run) -> None:
        """Have a flow take in what was sent to it, in its driver's own thread."""
        try:
            if not run.finished and self._engine.read_mail(run):
                self._rest_again(run)
        except DamagedRecordError as error:
            _halt(run, error)

    def _take_in(self, run: Run, mail: Mailbox) -> None:
        run.read_mail(mail)
        self._rest_again(run)

    def _rest_again(self, run: Run) -> None:
        # Still as idle as it was: the claim that saw the poke may have come before the flow went idle, and
        # whatever is written now has to say that it runs again.
        if run.idle and run.nothing_runs() and not run.finished:
            driving.rest(self._engine, run, release=False)  # nothing came of it

    def _drive(self, flow: FlowRow, run: Run) -> None:
        run.live = True  # nothing is recorded, and nobody has left anything
        if not self._keep(run):
            return
        if self._engine.facts.observed:
            self._engine.facts.tell(Happening.FLOW_STARTED, run)
        run.start()

    def _keep(self, run: Run) -> bool:
        """Have a flow in memory; false where its worker has lost its lease meanwhile: others drive it."""
        self._engine.runs[run.key] = run
        # After it is there: whoever loses the lease first says so and then drops what is there.
        if run.worker_id is not None and run.worker_id == self._engine.worker_id:
            return True
        self.drop(run)
        return False

    def _new_run(self, flow: FlowRow, target: Target, replay: Replay, bound: dict[str, Any]) -> Run:
        kind = AsyncRun if target.definition.is_async else SyncRun
        return kind(self._engine, flow, target, replay, bound)

    def adopt(self, history: History, targets: dict[tuple[str, str], Target]) -> None:
        """Drive a claimed flow from its history; one that cannot be driven is parked."""
        flow = history.flow
        target = targets.get((flow.class_name, flow.method_name))
        try:
            target, replay, bound = self._read(history, target)
        except Exception as error:
            if isinstance(error, StoreError) and not isinstance(error, DamagedRecordError):
                raise  # the store's trouble: the worker tries again. All else parks only this flow.
            target = target or next(iter(targets.values()))
            run = self._new_run(flow, target, NOTHING_RECORDED, {})
            if self._keep(run):
                driving.park(self._engine, run, error)
            return
        run = self._new_run(flow, target, replay, bound)
        if not self._keep(run):
            return
        run.has_children = any(row.kind == Kind.CHILD for row in history.steps)
        run.mail = history.mailbox
        if self._engine.facts.observed:
            late_ms = max(0, self._engine.now_ms() - flow.due_at_ms) if flow.due_at_ms else 0
            self._engine.facts.tell(Happening.FLOW_RECOVERED, run, count=late_ms)
        run.start()

    def park_unread(self, key: int, target: Target, error: DamagedRecordError) -> None:
        """Park a claimed flow whose record cannot even be read; no more of it is known than its key."""
        now_ms, owner = self._engine.now_ms(), self._engine.worker_id
        new = NewFlow("", 0, now_ms, 0, "{}", None, None, 0, claim=True)
        answer = StartedFlow(key, created=True, name_id=0, input="{}", status=PENDING, owner=owner)
        run = self._new_run(_fresh_row(new, answer, target), target, NOTHING_RECORDED, {})
        if self._keep(run):
            driving.park(self._engine, run, error)

    def _read(self, history: History, target: Target | None) -> tuple[Target, Replay, dict[str, Any]]:
        """Return what to drive a flow with; whatever speaks against it is raised."""
        flow = history.flow
        if target is None:
            raise UnknownFlowError(f"No flow named {flow.method_name!r} is known here any more.")
        if flow.crashes >= self._engine.settings.crash_limit:
            raise _crash_loop(flow)
        replay = verify(history, self._engine.names.intern((flow.class_name, flow.method_name)))
        texts = self._engine.texts
        replay = replay._replace(rows=texts.open_steps(flow.flow_id, replay.rows))
        return target, replay, target.definition.arguments.decode(texts.open(flow.input, flow.flow_id, INPUT))

    def make_instance(self, target: Target) -> Any:
        """Return the object that a flow's methods are called on, None for a function."""
        return self._engine.registry.make(target.owner) if target.owner is not None else None

    def drop(self, run: Run) -> None:
        """Forget a flow that this worker has let go of."""
        if self._engine.runs.get(run.key) is run:
            del self._engine.runs[run.key]
            self.resting.discard(run.key)
        run.abandon()

    def child_ended(self, run: Run, outcome: Outcome) -> None:
        """Tell a parent in this process how its child ended; elsewhere the store's poke does."""
        parent = self._engine.runs.get(run.flow.parent_key or 0)
        if parent is None or run.flow.parent_step is None:
            return
        if outcome.status != COMPLETE:
            # Anything else may have been reopened meanwhile, and the parent too: the store knows.
            self._engine.mail_sent(parent.key)
            return
        flow, step = run.flow, run.flow.parent_step
        told = ChildOutcome(
            step, flow.flow_key, flow.flow_id, outcome.status, outcome.result, outcome.error, None, None
        )
        parent.post(lambda: on_child(parent, told))


def _halt(run: Run, error: DamagedRecordError) -> None:
    """Have a flow be parked of which something cannot be read; in its driver."""
    run.halted = run.halted or error
    run.nudge()


def _crash_loop(flow: FlowRow) -> FlowParked:
    return FlowParked(
        f"Flow {flow.flow_id!r} was running each time its process ended {flow.crashes} times in a row, and "
        "recorded "
        "nothing between. It probably crashes the process (out of memory, a native library). Correct the "
        "cause, "
        "then retry the flow."
    )


def _fresh_row(new: NewFlow, answer: StartedFlow, target: Target) -> FlowRow:
    flow_id, _, created_at_ms, seed, text, parent_key, parent_step, checksum, _, trace = new
    outcome = (None, None, None)
    cancel = (None, None, None)
    due = None
    return FlowRow(
        answer.flow_key,
        flow_id,
        *target.name,
        PENDING,
        created_at_ms,
        created_at_ms,
        seed,
        text,
        *outcome,
        answer.owner,
        0,
        due,
        0,
        0,
        0,
        parent_key,
        parent_step,
        *cancel,
        checksum,
        None,
        trace,
    )
