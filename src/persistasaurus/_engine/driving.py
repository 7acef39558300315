"""How a flow rests, ends or is parked: the last write of a claim."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from persistasaurus._codec import check_size
from persistasaurus._engine.attempts import are_settled
from persistasaurus._engine.progress import Progress
from persistasaurus._engine.registry import display_name
from persistasaurus._engine.results import Outcome
from persistasaurus._engine.retried import pass_by_unasked
from persistasaurus._engine.run import Halt, Run, StoreTrouble
from persistasaurus._events import Happening
from persistasaurus._failure import record_failure
from persistasaurus._model import CANCELLED, COMPLETE, FAILED, PARKED, PENDING, STATUS_BY_CODE, WAITING, Kind
from persistasaurus._store.checksum import outcome_checksum
from persistasaurus.errors import SerializationError

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine

log = logging.getLogger("persistasaurus.flow")

_FOR_SOMEBODY = ({Kind.SIGNAL}, {Kind.WAIT_FOR}, {Kind.SIGNAL, Kind.WAIT_FOR})
"""What a flow waits for that waits for a person or another program alone."""
SOON_MS = 20
"""A flow that is due so soon is not written as idle: its next commit says more."""


def rest(engine: Engine, run: Run, *, release: bool) -> None:
    """Write what a flow waits for, and let it go where memory or its thread is needed."""
    waits = [operation for operation in run.open.values() if not operation.abandoned]
    due = min((o.due_at_ms for o in waits if o.due_at_ms is not None), default=None)
    if not release and due is not None and due <= engine.now_ms() + SOON_MS:
        return
    report = Progress(run)
    run.idle = True
    engine.memory.resting.add(run.key)
    if run.lost_claims and are_settled(run):
        run.lost_claims = 0  # else a delayed step of which a lost claim may have run an attempt still waits
    for_others = due is None and {o.kind for o in waits} in _FOR_SOMEBODY
    status = WAITING if for_others else PENDING
    report.update = run.update(status, idle=True, due_at_ms=due, release=release)
    if release:
        run.finished = True
        report.then = lambda _: engine.memory.drop(run)
    run.put(report)
    if engine.facts.observed:
        engine.facts.tell(Happening.FLOW_IDLE, run)


def end_complete(engine: Engine, run: Run, result: Any) -> None:
    """Record a flow's result; one that JSON cannot carry fails the flow."""
    definition = run.target.definition
    what = f"The result of flow {run.target.name[1]!r}"
    try:
        text, _ = definition.result.record(result, what=what)
        check_size(text, limit=engine.settings.max_payload, what=what)
    except SerializationError as error:
        fail(engine, run, error)
        return
    _end(engine, run, COMPLETE, result=text)


def end_cancelled(engine: Engine, run: Run) -> None:
    """Record that the flow ended by its cancel."""
    _end(engine, run, CANCELLED)


def fail(engine: Engine, run: Run, error: BaseException) -> None:
    """Record the exception that the flow did not catch, with the steps that it came from."""
    steps = failing_steps(run, error)
    record = {**json.loads(record_failure(error)), "flow": display_name(run.target.name)}
    if steps:
        record["steps"] = list(steps)
        record["step_names"] = [engine.names.of(name_id)[1] for name_id in steps.values()]
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    _end(engine, run, FAILED, error=text)


def failing_steps(run: Run, error: BaseException) -> dict[int, int]:
    """Return the steps whose failures are in an exception's chain, lowest first, with their names' ids."""
    found: dict[int, int] = {}
    failures = run.failures or {}
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        known = failures.get(id(one))
        if known is not None and known[0] is one:
            found[known[1]] = known[2]
        # The context counts also where `from None` hides it from the reader.
        todo += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            todo += cast("tuple[BaseException, ...]", one.exceptions)
    return dict(sorted(found.items()))


def _end(
    engine: Engine, run: Run, status: int, *, result: str | None = None, error: str | None = None
) -> None:
    _abandon_running(engine, run)
    if status != FAILED:
        pass_by_unasked(run)
    report = Progress(run)
    checksum = outcome_checksum(run.flow_id, status, result, error)
    run.crashes = run.lost_claims = 0
    report.update = run.update(status, result=result, error=error, release=True, outcome_checksum=checksum)
    report.poke = run.flow.parent_key
    # A failed flow may be retried: its children go on, so that they are there then.
    report.cancel_children = run.has_children and status != FAILED
    outcome = Outcome(status, result, error, None)
    report.then = partial(_ended, engine, run, outcome)
    run.put(report)


def _abandon_running(engine: Engine, run: Run) -> None:
    run.finished = True
    for operation in list(run.open.values()):
        if operation.running:
            operation.abandoned = True
            if operation.task is not None:
                engine.cancel_task(operation.task)


def _ended(engine: Engine, run: Run, outcome: Outcome, _: object) -> None:
    engine.memory.drop(run)
    extra = {"flow_id": run.flow_id, "flow": run.target.name[1]}
    status = STATUS_BY_CODE[outcome.status]
    level = logging.WARNING if outcome.status == FAILED else logging.INFO
    log.log(level, "flow %s", status.lower(), extra=extra)
    if engine.facts.observed:
        engine.facts.tell(Happening.FLOW_ENDED, run, status=status)
    engine.tell(run.flow_id, outcome)
    engine.memory.child_ended(run, outcome)


def halt(engine: Engine, run: Run, reason: BaseException) -> None:
    """Stop driving a flow that was halted, and park it where there is a reason."""
    if isinstance(reason, StoreTrouble):
        _let_go(engine, run, reason)
    elif not isinstance(reason, Halt):
        park(engine, run, reason)


def _let_go(engine: Engine, run: Run, reason: StoreTrouble) -> None:
    """Have the flow claimed again once the store can be written to, here or elsewhere."""
    log.warning("flow interrupted, it goes on from its log: %s", reason, extra={"flow_id": run.flow_id})
    run.lost_claims += bool(run.active)  # what runs now is not waited for, and counts as an attempt
    _abandon_running(engine, run)
    report = Progress(run)
    report.update = run.update(PENDING, due_at_ms=engine.now_ms(), release=True)

    def released(_: Any) -> None:
        engine.memory.drop(run)
        engine.kick()

    report.then = released
    run.put(report)


def park(engine: Engine, run: Run, reason: BaseException) -> None:
    """Do not drive the flow any more until someone acts; every other flow goes on."""
    run.finished = True
    message = str(reason)
    kind = type(reason).__qualname__
    text = json.dumps({"type": kind, "message": message}, separators=(",", ":"), ensure_ascii=False)
    report = Progress(run)
    report.update = run.update(PARKED, reason=text, release=True)
    outcome = Outcome(PARKED, None, None, text)
    extra = {"flow_id": run.flow_id, "flow": run.target.name[1]}

    def parked(_: Any) -> None:
        engine.memory.drop(run)
        log.error("flow parked: %s", message, extra=extra)
        if engine.facts.observed:
            engine.facts.tell(Happening.FLOW_PARKED, run, status=STATUS_BY_CODE[PARKED])
        engine.tell(run.flow_id, outcome)

    report.then = parked
    run.put(report)
