"""What a flow sends to the store: the ends of its operations, and the starts that travel with them.

Attempts end in any thread, so all of this holds the flow's guard for a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persistasaurus._engine.attempts import is_settled
from persistasaurus._engine.progress import Progress
from persistasaurus._model import PENDING

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation, RowParts
    from persistasaurus._engine.run import Run


def put_end(
    run: Run,
    operation: Operation,
    status: int,
    *,
    return_value: str | None = None,
    error: str | None = None,
    consumed: int | None = None,
) -> None:
    """Send an operation's end to the store, but where the flow has cancelled it meanwhile."""
    engine = run.engine
    report = Progress(run)
    report.completes = operation
    if consumed is not None:
        report.consumed = consumed
    ended_after_ms = engine.now_ms() - operation.started_at_ms
    with run.guard:
        heard = _is_heard(run, operation)
        if heard:
            operation.commits = True
            operation.status = status
            operation.ended_after_ms = max(0, ended_after_ms)
            operation.return_value = return_value
            operation.failure = error
            if run.unwritten or run.idle or run.crashes or run.lost_claims:
                _accompany(run, report)
            report.is_end_alone = consumed is None and report.update is None
            if engine.texts.plain:
                report.seal()
            # The flow waits for this in its own thread, and helps to write it.
            if operation.inline:
                run.in_flight += 1
                engine.committer.put_quietly(report)
            else:
                _queue(run, report)
    if not heard:
        run.nudge()


def put_failed_attempt(run: Run, operation: Operation, due_at_ms: int, error: str) -> bool:
    """Send the failure of an attempt that is not the last; false where nobody wants it any more."""
    report = Progress(run)

    def durable(_: object) -> None:
        operation.held_by_write = False
        run.engine.timers.arm(due_at_ms, run, operation)

    report.then = durable
    with run.guard:
        heard = _is_heard(run, operation)
        if heard:
            operation.held_by_write = True
            operation.due_at_ms = due_at_ms
            report.rows = [operation.parts(run.key, PENDING, None, None, error)]
            send(run, report)
    if not heard:
        run.nudge()
    return heard


def put_nothing(run: Run, operation: Operation) -> None:
    """Note that an attempt has ended of which nothing is recorded."""
    with run.guard:
        if operation.running:
            operation.running = False
            run.active -= 1
    run.nudge()


def write_starts(run: Run, report: Progress) -> None:
    """Have a write hold every start that is not written yet; called by the writer."""
    with run.guard:
        if not run.unwritten:
            return
        if not report.rows:
            run.in_flight += 1
        report.rows = [*report.rows, *_starts(run)]


def send(run: Run, report: Progress) -> None:
    """Queue a write, with the rows that wait for company; the caller holds the flow's guard."""
    _accompany(run, report)
    if run.engine.texts.plain:
        report.seal()
    _queue(run, report)


def _queue(run: Run, report: Progress) -> None:
    engine = run.engine
    run.in_flight += 1
    if engine.owns_host and engine.is_alone(run):
        engine.committer.put_for_host(report, engine.host)
    else:
        engine.committer.put(report)


def _accompany(run: Run, report: Progress) -> None:
    """Have a write say what else is to be said of the flow."""
    if run.unwritten:
        # Before its own rows, which are newer.
        report.rows = [*_starts(run), *report.rows]
    if report.update is None and (run.idle or run.crashes or run.lost_claims):
        crashed = run.crashes and report.completes is not None
        if run.idle or crashed or (run.lost_claims and is_settled(run)):
            run.running(report)


def _is_heard(run: Run, operation: Operation) -> bool:
    """Note that an attempt has ended, and whether its flow still wants to know how."""
    if operation.running:
        operation.running = False
        run.active -= 1
    # A step in another thread may outlive its flow's claim: what it says then is not this flow's.
    if operation.abandoned or run.finished:
        return False
    run.unwritten.pop(operation.number, None)
    return True


def _starts(run: Run) -> list[RowParts]:
    """Take the rows of what has begun and is not written yet."""
    rows = [
        found if isinstance(found, tuple) else found.parts(run.key, found.status)
        for found in run.unwritten.values()
    ]
    run.unwritten.clear()
    return rows
