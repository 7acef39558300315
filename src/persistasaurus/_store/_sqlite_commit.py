"""The group commit: steps, updates and starts of many flows in few statements."""

from __future__ import annotations

import json
from collections.abc import Sequence

import apsw

from persistasaurus._model import PENDING
from persistasaurus._store import _sqlite_cancel as cancel
from persistasaurus._store import _sqlite_signals as signals
from persistasaurus._store._sqlite_rows import read_rows, rows_at_once, write_rows
from persistasaurus._store.base import Batch, Committed, FlowUpdate, NewFlow, StartedFlow, StepRow
from persistasaurus._store.rules import holds_owners_writes, holds_steps_alone, update_values
from persistasaurus.errors import LeaseLost

NOTHING = Committed((), (), ())

_STEPS = "INSERT OR REPLACE INTO step VALUES {rows}"
_STEP = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_LAST_STEP = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,(SELECT ? FROM worker WHERE worker_id=?))"
STEPS_AT_ONCE = rows_at_once(_STEPS, _STEP, _LAST_STEP)


def is_one_statement(batch: Batch) -> bool:
    """Return whether the batch holds steps alone, and so few that one statement writes them."""
    return len(batch.steps) <= STEPS_AT_ONCE and holds_steps_alone(batch)


def apply(connection: apsw.Connection, batch: Batch, *, now_ms: int) -> Committed:
    """Write a batch inside the caller's transaction.

    Steps and updates are fenced by their own statements; only a batch without either asks first.
    """
    fenced = False
    if batch.steps:
        write_steps(connection, batch.steps, batch.worker_id)
        fenced = True
    if batch.updates:
        _write_updates(connection, batch.updates, batch.worker_id)
        fenced = True
    if not fenced and holds_owners_writes(batch):
        check_worker(connection, batch.worker_id)
    started = _start(connection, batch.starts, batch.worker_id) if batch.starts else ()
    if batch.consumed:
        signals.consume(connection, batch.consumed)
    if batch.rejected:
        signals.reject(connection, batch.rejected)
    if batch.poke:
        # The end of a child is the reason of a poke: its time is the time to wake the parent.
        at = max((update.updated_at_ms for update in batch.updates), default=now_ms)
        signals.poke(connection, dict.fromkeys(batch.poke, at))
    if batch.cancel_children:
        cancel.cancel_children(connection, batch.cancel_children, now_ms)
    sent = signals.send(connection, batch.signals) if batch.signals else ()
    cancelled = cancel.cancel(connection, batch.cancels, now_ms) if batch.cancels else ()
    return Committed(started, sent, cancelled)


def write_steps(connection: apsw.Connection, steps: Sequence[StepRow], worker_id: int | None) -> None:
    """Write steps as their flows' owner, by one statement for each `STEPS_AT_ONCE`.

    The fence is in the statement: where the worker is dead, the last row's checksum is NULL and refused.
    """
    try:
        write_rows(connection, _STEPS, _STEP, steps, last_row=_LAST_STEP, extra=(worker_id,))
    except apsw.ConstraintError as error:
        if "NOT NULL constraint failed: step.checksum" in str(error):
            raise lease_lost(worker_id) from error
        raise


def check_worker(connection: apsw.Connection, worker_id: int | None) -> None:
    """Raise LeaseLost where the worker is not alive."""
    if not read_rows(connection, "SELECT 1 FROM worker WHERE worker_id = ?", (worker_id,)):
        raise lease_lost(worker_id)


def lease_lost(worker_id: int | None) -> LeaseLost:
    return LeaseLost(
        f"Worker {worker_id} is not alive in the database any more: its lease ended, and its flows were "
        "released or taken over by another worker. Nothing was written. The flows go on where they are now."
    )


def _write_updates(connection: apsw.Connection, updates: Sequence[FlowUpdate], worker_id: int | None) -> None:
    rows = update_values(updates, worker_id)
    changed = write_rows(
        connection,
        """
        UPDATE flow SET
            status = v.column2,
            updated_at_ms = v.column3,
            result = v.column4,
            error = v.column5,
            reason = v.column6,
            owner = v.column7,
            idle = v.column8,
            due_at_ms = CASE
                WHEN flow.pokes <= v.column10 OR v.column11 = 'settled' THEN v.column9
                WHEN v.column11 = 'resting' THEN v.column3
                ELSE min(coalesce(flow.due_at_ms, v.column9), coalesce(v.column9, flow.due_at_ms))
            END,
            crashes = v.column12,
            lost_claims = v.column13,
            cancel_event = v.column14,
            cancel_event_at_ms = v.column15,
            outcome_checksum = v.column16
        FROM (VALUES {rows}) AS v
        WHERE flow.flow_key = v.column1 AND +flow.owner = ?
        """,
        "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        rows,
        extra=(worker_id,),
    )
    if changed != len(rows):
        raise lease_lost(worker_id)


def _start(
    connection: apsw.Connection, new: Sequence[NewFlow], worker_id: int | None
) -> Sequence[StartedFlow]:
    # The keys are chosen here, under the write lock, so that no row has to be read back.
    found = read_rows(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'flow'")
    first_key = found[0][0] + 1 if found else 1
    created = write_rows(
        connection,
        """
        INSERT INTO flow (
            flow_key, flow_id, name_id, created_at_ms, updated_at_ms, seed, input, parent_key, parent_step,
            checksum, owner, due_at_ms, trace, status, idle, pokes, crashes, lost_claims
        ) VALUES {rows} ON CONFLICT DO NOTHING
        """,
        "(?,?,?,?,?,?,?,?,?,?,?,?,?,0,0,0,0,0)",
        [_start_values(flow, first_key + index, worker_id) for index, flow in enumerate(new)],
    )
    if created == len(new):
        return [
            StartedFlow(
                flow_key=first_key + index,
                created=True,
                name_id=flow.name_id,
                input=flow.input,
                status=PENDING,
                owner=worker_id if flow.claim else None,
            )
            for index, flow in enumerate(new)
        ]
    return _read_started(connection, new, first_key)


def _read_started(
    connection: apsw.Connection, new: Sequence[NewFlow], first_key: int
) -> Sequence[StartedFlow]:
    rows = read_rows(
        connection,
        """
        SELECT flow_id, flow_key, name_id, input, status, owner FROM flow
        WHERE flow_id IN (SELECT value FROM json_each(?))
        """,
        (json.dumps([flow.flow_id for flow in new]),),
    )
    found = {row[0]: row[1:] for row in rows}
    answers: list[StartedFlow] = []
    for index, flow in enumerate(new):
        key, *rest = found[flow.flow_id]
        # A new flow has the key that was chosen for it; one that existed has a lower one.
        answers.append(StartedFlow(key, key == first_key + index, *rest))
    return answers


def _start_values(flow: NewFlow, flow_key: int, worker_id: int | None) -> tuple[object, ...]:
    return (
        flow_key,
        flow.flow_id,
        flow.name_id,
        flow.created_at_ms,
        flow.created_at_ms,
        flow.seed,
        flow.input,
        flow.parent_key,
        flow.parent_step,
        flow.checksum,
        worker_id if flow.claim else None,
        None if flow.claim else flow.created_at_ms,
        flow.trace,
    )
