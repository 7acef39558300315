"""What is read: a flow's history and mailbox, single flows, and pages of them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing

import apsw

from persistasaurus._store._sqlite_rows import read_rows
from persistasaurus._store.base import (
    ChildOutcome,
    FlowRow,
    History,
    Mailbox,
    SignalRow,
    StepRow,
    WorkerRow,
)

SELECT_FLOW = """
    SELECT
        flow.flow_key, flow.flow_id, name.class_name, name.method_name, flow.status, flow.created_at_ms,
        flow.updated_at_ms, flow.seed, flow.input, flow.result, flow.error, flow.reason, flow.owner,
        flow.idle, flow.due_at_ms, flow.pokes, flow.crashes, flow.lost_claims, flow.parent_key,
        flow.parent_step, flow.cancel_requested_at_ms, flow.cancel_event, flow.cancel_event_at_ms,
        flow.checksum, flow.outcome_checksum, flow.trace {more}
    FROM flow JOIN name USING (name_id)
"""
# As JSON in a column: one statement is one consistent read, and costs the interpreter's lock once.
_SIGNALS_AND_CHILDREN = """
    (
        SELECT json_group_array(json_array(signal_id, flow_id, name, payload, sent_at_ms, rejected, checksum))
        FROM signal WHERE signal.flow_id = flow.flow_id AND rejected IS NULL
    ),
    (
        SELECT json_group_array(json_array(
            child.parent_step, child.flow_key, child.flow_id, child.status, child.result, child.error,
            child.reason, child.outcome_checksum
        ))
        FROM flow AS child WHERE child.parent_key = flow.flow_key AND +child.status IN (1, 3, 4, 5)
    )
"""
_LOAD = SELECT_FLOW.replace("{more}", "," + _SIGNALS_AND_CHILDREN) + "WHERE flow.flow_key = ?"
_FIND = SELECT_FLOW.replace("{more}", "") + "WHERE flow.flow_id = ?"
_MAILBOX = f"SELECT pokes, cancel_requested_at_ms, {_SIGNALS_AND_CHILDREN} FROM flow WHERE flow_key = ?"  # noqa: S608


def load(connection: apsw.Connection, flow_key: int) -> History | None:
    """Return a flow with its steps and its mailbox."""
    with closing(connection.execute(_LOAD, (flow_key,))) as cursor:
        row = next(cursor, None)
        if row is None:
            return None
        # The first statement is not at its end while the second is read: both see one snapshot.
        steps = read_rows(connection, "SELECT * FROM step WHERE flow_key = ? ORDER BY step", (flow_key,))
    *columns, signals, children = row
    flow = FlowRow(*columns)
    mailbox = _mailbox(flow.pokes, flow.cancel_requested_at_ms, signals, children)
    return History(flow, list(map(StepRow._make, steps)), mailbox)


def mailbox(connection: apsw.Connection, flow_key: int) -> Mailbox | None:
    """Return what others have left for a flow."""
    rows = read_rows(connection, _MAILBOX, (flow_key,))
    return _mailbox(*rows[0]) if rows else None


def _mailbox(pokes: int, cancel_requested_at_ms: int | None, signals: str, children: str) -> Mailbox:
    return Mailbox(
        pokes,
        cancel_requested_at_ms,
        sorted(SignalRow(*row) for row in json.loads(signals)),
        [ChildOutcome(*row) for row in json.loads(children)],
    )


def find(connection: apsw.Connection, flow_id: str) -> FlowRow | None:
    """Return a flow by its id."""
    rows = read_rows(connection, _FIND, (flow_id,))
    return next((FlowRow(*row) for row in rows), None)


def signals(connection: apsw.Connection, flow_id: str) -> Sequence[SignalRow]:
    """Return a flow id's pending and rejected signals, oldest first."""
    rows = read_rows(
        connection,
        """
        SELECT signal_id, flow_id, name, payload, sent_at_ms, rejected, checksum FROM signal
        WHERE flow_id = ? ORDER BY signal_id
        """,
        (flow_id,),
    )
    return [SignalRow(*row) for row in rows]


def names(connection: apsw.Connection) -> dict[int, tuple[str, str]]:
    """Return every interned name."""
    rows = read_rows(connection, "SELECT name_id, class_name, method_name FROM name")
    return {name_id: (class_name, method_name) for name_id, class_name, method_name in rows}


def workers(connection: apsw.Connection, steady_ms: int) -> Sequence[WorkerRow]:
    """Return the living workers, oldest first, with whose lease is over."""
    rows = read_rows(
        connection,
        """
        SELECT worker_id, incarnation, host, pid, process_started, names, lease_expires_at_ms <= ? FROM worker
        ORDER BY worker_id
        """,
        (steady_ms,),
    )
    return [WorkerRow(*row)._replace(expired=bool(row[-1])) for row in rows]
