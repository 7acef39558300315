"""The rows of a retried flow from after its failure: asked for again, or passed by.

A step that was recorded after the failure is not run again where the flow asks for it again. Where the flow
now takes another way, it stays in the log as it is, and no other step ever has its number: else the refund
of yesterday and the shipment of today would share an idempotency key, or a child flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persistasaurus._engine.history import AFTER_REOPENED, PASSED_BY, differs
from persistasaurus._model import CANCELLED, COMPLETE, FAILED, Kind

if TYPE_CHECKING:
    from persistasaurus._engine.operation import Operation
    from persistasaurus._engine.run import Run
    from persistasaurus._store.base import StepRow


def is_kept(row: StepRow) -> bool:
    """Whether a row keeps an outcome from before a retry, to be used where the flow asks for it again."""
    return row[6] == AFTER_REOPENED and row[4] in (COMPLETE, FAILED)


def is_asked_again(row: StepRow, kind: int, name_id: int) -> bool:
    """Whether an operation is the one that a row from before a retry stands for; a delay starts over."""
    return not differs(row, kind, name_id) and kind not in (Kind.SLEEP, Kind.TIMER)


def next_number(run: Run) -> int:
    """Return the number of the flow's next operation."""
    number = run.number + 1
    while (row := run.rows.get(number)) is not None and row[6] == PASSED_BY:
        number += 1
    return number


def take_another_way(run: Run, step: int) -> int:
    """Pass by what was recorded from `step` on before a retry, and return the next free number."""
    for row in [row for row in run.rows.values() if row.step >= step and row.asked == AFTER_REOPENED]:
        status = row.status if row.status in (COMPLETE, FAILED) else CANCELLED
        passed = run.rows[row.step] = row._replace(asked=PASSED_BY, status=status, due_at_ms=None)
        with run.guard:
            run.unwritten[row.step] = (tuple(passed[:11]), tuple(passed[12:16]))
    return max(run.rows) + 1


def renumber(run: Run, operation: Operation) -> None:
    """Take another way than the one whose row an operation was given: its arguments are others."""
    del run.open[operation.number]
    run.number = operation.number = take_another_way(run, operation.number)
    run.open[operation.number] = operation
    operation.forget()


def pass_by_unasked(run: Run) -> None:
    """Pass by what was recorded before a retry and was not asked for any more by the flow's end."""
    if run.rows and any(number > run.number for number in run.rows):
        take_another_way(run, run.number + 1)
