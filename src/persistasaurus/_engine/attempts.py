"""Which attempt of a step is next: none is ever counted twice, whatever was lost in a crash.

The start of an attempt is not made durable before it runs, but where the log could not tell of it, so a
claim that was lost may have run one attempt more of each step than the log says. Flow rows count such
claims as `lost_claims`. While there are any, the flow's first steps are counted one higher, and their
starts are made durable before they run: of them the log then says all. The claims are forgotten once each
of those steps has such a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run
    from persistasaurus._store.base import StepRow


def in_doubt(run: Run, operation: Operation) -> bool:
    """Whether a claim that was lost may have run more attempts of it than are recorded."""
    return run.lost_before > 0 and operation.asked <= run.replayed


def next_attempt(run: Run, operation: Operation) -> int:
    """Return the number of an operation's next attempt, higher than that of any that may have run."""
    lost = int(run.lost_before > 0 and in_doubt(run, operation))
    row = operation.row
    if row is None:
        return operation.attempt + 1 + (lost if operation.attempt == 0 else 0)
    # Where none has begun since the step was reopened or failed, a lost claim's is not in the row.
    return row.attempts + 1 + (0 if _has_begun(row) else lost)


def starts_durably(run: Run, operation: Operation) -> bool:
    """Whether the start of an operation's next attempt has to be in the log before it runs.

    So it is behind a lost claim, and behind an attempt that a claim which ended in good order has cut off:
    that one is in the row already, so the row would not tell whether another had begun.
    """
    return in_doubt(run, operation) or (operation.row is not None and _has_begun(operation.row))


def _has_begun(row: StepRow) -> bool:
    """Whether a row says of its last attempt that it began, and not that it failed."""
    return row.attempts > row.attempts_before and row.due_at_ms is None


def is_settled(run: Run) -> bool:
    """Whether every step that a lost claim may have run is recorded by a start in this claim."""
    if run.seen <= run.replayed:
        return False  # the flow may still ask for one
    return are_settled(run)


def are_settled(run: Run) -> bool:
    """Whether that is so of the steps that the flow has asked for: all, where it only waits."""
    return not any(_is_unsettled(run, operation) for operation in list(run.open.values()))


def _is_unsettled(run: Run, operation: Operation) -> bool:
    is_step = operation.definition is not None and operation.parameters is not None
    begun = operation.row is None and operation.attempt > 0
    return is_step and not begun and not operation.abandoned and in_doubt(run, operation)
