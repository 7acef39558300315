"""What is read: a flow's history and mailbox, single flows, and pages of them."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# The stubs of apsw say Buffer, which typing knows from Python 3.12 on.

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import apsw

from persistasaurus._store._sqlite_rows import read_rows
from persistasaurus._store.base import (
    SHORT,
    ChildOutcome,
    FlowRow,
    History,
    Mailbox,
    SignalRow,
    StepRow,
    WorkerRow,
)

_FLOW = """
    flow.flow_key, flow.flow_id, name.class_name, name.method_name, flow.status, flow.created_at_ms,
    flow.updated_at_ms, flow.seed, flow.input, flow.result, flow.error, flow.reason, flow.owner,
    flow.idle, flow.due_at_ms, flow.pokes, flow.crashes, flow.lost_claims, flow.parent_key,
    flow.parent_step, flow.cancel_requested_at_ms, flow.cancel_event, flow.cancel_event_at_ms,
    flow.checksum, flow.outcome_checksum, flow.trace
"""
SELECT_FLOW = f"SELECT {_FLOW} {{more}} FROM flow JOIN name USING (name_id) "  # noqa: S608
# As JSON in a column: one statement is one consistent read, and costs the interpreter's lock once.
_SIGNALS_AND_CHILDREN = """
    json((
        SELECT json_group_array(json_array(signal_id, flow_id, name, payload, sent_at_ms, rejected, checksum))
        FROM signal WHERE signal.flow_id = flow.flow_id AND rejected IS NULL
    )),
    json((
        SELECT json_group_array(json_array(
            child.parent_step, child.flow_key, child.flow_id, child.status, child.result, child.error,
            child.reason, child.outcome_checksum
        ))
        FROM flow AS child WHERE child.parent_key = flow.flow_key AND +child.status IN (1, 3, 4, 5)
    ))
"""
_LOAD = SELECT_FLOW.replace("{more}", "," + _SIGNALS_AND_CHILDREN) + "WHERE flow.flow_key = ?"
# The whole as one value: rows of many flows cost the lock once, too.
_LOAD_SHORT = f"""
    SELECT json_group_array(json_array({_FLOW}, {_SIGNALS_AND_CHILDREN}, json((
        SELECT json_group_array(json_array({", ".join(StepRow._fields)}))
        FROM (SELECT * FROM step WHERE step.flow_key = flow.flow_key ORDER BY step LIMIT {SHORT + 1})
    ))))
    FROM json_each(?) AS wanted CROSS JOIN flow ON flow.flow_key = wanted.value JOIN name USING (name_id)
"""  # noqa: S608
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
    return _history(columns, json.loads(signals), json.loads(children), steps)


def load_short(connection: apsw.Connection, flow_keys: Sequence[int]) -> Sequence[History]:
    """Return those of some flows whose steps are few."""
    ((text,),) = read_rows(connection, _LOAD_SHORT, (json.dumps(flow_keys),))
    return [
        _history(columns, signals, children, sorted(steps))
        for *columns, signals, children, steps in json.loads(text)
        if len(steps) <= SHORT
    ]


def _history(
    columns: Sequence[Any], signals: Sequence[Any], children: Sequence[Any], steps: Sequence[Any]
) -> History:
    flow = FlowRow(*columns)
    mailbox = _mailbox(flow.pokes, flow.cancel_requested_at_ms, signals, children)
    return History(flow, list(map(StepRow._make, steps)), mailbox)


def mailbox(connection: apsw.Connection, flow_key: int) -> Mailbox | None:
    """Return what others have left for a flow."""
    rows = read_rows(connection, _MAILBOX, (flow_key,))
    for pokes, cancel_requested_at_ms, signals, children in rows:
        return _mailbox(pokes, cancel_requested_at_ms, json.loads(signals), json.loads(children))
    return None


def _mailbox(
    pokes: int, cancel_requested_at_ms: int | None, signals: Sequence[Any], children: Sequence[Any]
) -> Mailbox:
    return Mailbox(
        pokes,
        cancel_requested_at_ms,
        sorted(SignalRow(*row) for row in signals),
        [ChildOutcome(*row) for row in children],
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
