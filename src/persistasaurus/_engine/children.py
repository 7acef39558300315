"""Flows called by flows: a child is a flow instance of its own, started once for one step number."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from persistasaurus._codec import check_size
from persistasaurus._engine.outbox import put_end
from persistasaurus._engine.progress import Order, Progress
from persistasaurus._engine.recorded import child_cancelled
from persistasaurus._engine.texts import ERROR, RESULT
from persistasaurus._failure import convert, rebuild_failure
from persistasaurus._model import CANCELLED, COMPLETE, FAILED, PENDING, Kind
from persistasaurus.errors import CipherError, FlowConflict, FlowFailed

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.registry import Target
    from persistasaurus._engine.run import Run
    from persistasaurus._store.base import ChildOutcome, NewFlow, StartedFlow

LONGEST_ID = 512


def ask_child(run: Run, target: Target, args: Any, kwargs: Any) -> Operation:
    """Ask for a child flow."""
    # Before it gets a number: a call that is refused has not happened, live and on every replay alike.
    codec = target.definition.arguments
    what = f"The input of flow {target.name[1]!r}"
    parameters, bound = codec.accept(args, kwargs, what=what)
    check_size(parameters, limit=run.engine.settings.max_payload, what=what)
    operation = run.ask(Kind.CHILD, run.intern(target.name))
    operation.codec = target.definition.result
    operation.parameters = parameters
    operation.arguments = target
    operation.bound = bound
    run.has_children = True
    return operation


def child_id(flow_id: str, step: int) -> str:
    """Return the flow id of the child that a flow's step starts."""
    plain = f"{flow_id}/{step}"
    if len(plain) <= LONGEST_ID:
        return plain
    return f"{hashlib.sha256(flow_id.encode()).hexdigest()}/{step}"


def begin_child(engine: Engine, run: Run, operation: Operation) -> None:
    """Start the child in the same commit as the row that says so."""
    if operation.row is not None:
        return
    operation.started_at_ms = engine.now_ms()
    target: Target = operation.arguments
    report = Progress(run)
    report.child = engine.memory.new_flow(
        child_id(run.flow_id, operation.number),
        target,
        operation.parameters or "{}",
        parent=(run.key, operation.number),
    )
    report.rows = [operation.parts(run.key, PENDING)]
    new, bound = report.child, operation.bound

    def started(answer: StartedFlow) -> None:
        if answer.created or _is_own(engine, new):
            engine.memory.drive_new(new, target, bound, answer)
        else:
            _refuse(run, operation, new.flow_id)

    report.then = started
    run.put(report)


def _is_own(engine: Engine, new: NewFlow) -> bool:
    found = engine.store.find(new.flow_id)
    return found is not None and (found.parent_key, found.parent_step) == (new.parent_key, new.parent_step)


def _refuse(run: Run, operation: Operation, flow_id: str) -> None:
    """Fail a call whose child cannot be: nobody would ever tell how another's flow has ended."""
    taken = FlowConflict(
        f"The flow id {flow_id!r} of this child belongs to a flow that was started by itself. Ids like "
        "'parent/1' are those of child flows: start the parent with an id whose children's ids are free."
    )
    text, operation.error = convert(taken, FlowFailed)
    put_end(run, operation, FAILED, error=text)


def on_child(run: Run, child: ChildOutcome) -> None:
    """Show a flow how its child has ended."""
    operation = run.open.get(child.parent_step)
    if operation is None or operation.kind != Kind.CHILD or operation.commits or operation.abandoned:
        return
    texts = run.engine.texts
    try:
        result = texts.open(child.result or "null", child.flow_id, RESULT)
        error = texts.open(child.error or "{}", child.flow_id, ERROR)
    except CipherError as unreadable:
        run.halted = unreadable
        return
    if child.status == COMPLETE:
        operation.value = operation.codec.decode(result)
        put_end(run, operation, COMPLETE, return_value=result)
        return
    if child.status == FAILED:
        operation.error = rebuild_failure(error, missing=FlowFailed)
        put_end(run, operation, FAILED, error=error)
        return
    if child.status == CANCELLED:
        operation.error = child_cancelled(child.flow_id)
        put_end(run, operation, CANCELLED)


def cancel_child(engine: Engine, run: Run, operation: Operation) -> None:
    """Cancel a child that its flow does not wait for any more."""
    # It may be driven here, and hears of it at the worker's next look.
    order = Order(child_id(run.flow_id, operation.number), then=lambda _: engine.kick(), lasts=True)
    engine.committer.put(order)
