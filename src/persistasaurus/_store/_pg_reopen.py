"""Makes a failed or parked flow due again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from persistasaurus._store._pg_commit import begin
from persistasaurus._store._pg_rows import Session, numbers
from persistasaurus._store._pg_steps import write
from persistasaurus._store._pg_writer import Mark
from persistasaurus._store.base import FlowRow, StepRow


class Reopening(NamedTuple):
    """What `Store.reopen` is asked for."""

    expected: FlowRow
    steps: Sequence[StepRow]
    dropped: Sequence[int]
    now_ms: int


def reopen(session: Session, which: Reopening, mark: Mark) -> bool:
    """Make the flow due again in one transaction; false where somebody else has done so since."""
    expected = which.expected
    with session.transaction():
        begin(session, mark, fence=None)
        changed = session.rows(
            """
            UPDATE {schema}.flow SET
                status = 0, updated_at_ms = $1, due_at_ms = $1, result = NULL, error = NULL, reason = NULL,
                outcome_checksum = NULL, idle = 0, crashes = 0, pokes = pokes + 1,
                cancel_requested_at_ms = CASE WHEN status = 5 THEN cancel_requested_at_ms END,
                cancel_event = CASE WHEN status = 5 THEN cancel_event END,
                cancel_event_at_ms = CASE WHEN status = 5 THEN cancel_event_at_ms END
            WHERE flow_key = $2 AND status = $3 AND pokes = $4 AND owner IS NULL
            RETURNING 1
            """,
            (which.now_ms, expected.flow_key, expected.status, expected.pokes),
        )
        if changed and which.dropped:
            session.send(
                "DELETE FROM {schema}.step WHERE flow_key = $1 AND step = ANY ($2::integer[])",
                (expected.flow_key, numbers(which.dropped)),
            )
        if changed and which.steps:
            write(session, which.steps)
    return bool(changed)
