"""What is read: a flow's history and mailbox, single flows, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persistasaurus._store._pg_rows import SNAPSHOT, Session
from persistasaurus._store.base import ChildOutcome, FlowRow, History, Mailbox, SignalRow, StepRow

SELECT_FLOW = """
    SELECT
        flow.flow_key, flow.flow_id, name.class_name, name.method_name, flow.status, flow.created_at_ms,
        flow.updated_at_ms, flow.seed, flow.input, flow.result, flow.error, flow.reason, flow.owner,
        flow.idle, flow.due_at_ms, flow.pokes, flow.crashes, flow.lost_claims, flow.parent_key,
        flow.parent_step, flow.cancel_requested_at_ms, flow.cancel_event, flow.cancel_event_at_ms,
        flow.checksum, flow.outcome_checksum, flow.trace
    FROM {schema}.flow JOIN {schema}.name USING (name_id)
"""
_SIGNALS = """
    SELECT signal_id, signal.flow_id, signal.name, payload, sent_at_ms, rejected, signal.checksum
    FROM {schema}.flow JOIN {schema}.signal USING (flow_id)
    WHERE flow_key = $1 AND rejected IS NULL ORDER BY signal_id
"""
_CHILDREN = """
    SELECT parent_step, flow_key, flow_id, status, result, error, reason, outcome_checksum
    FROM {schema}.flow WHERE parent_key = $1 AND status IN (1, 3, 4, 5)
"""


def load(session: Session, flow_key: int) -> History | None:
    """Return a flow with its steps and its mailbox, of one moment."""
    key = (flow_key,)
    with session.transaction(SNAPSHOT):
        flows = session.send(SELECT_FLOW + "WHERE flow_key = $1", key)
        steps = session.send("SELECT * FROM {schema}.step WHERE flow_key = $1 ORDER BY step", key)
        letters = session.send(_SIGNALS, key)
        children = session.send(_CHILDREN, key)
    row = flows.fetchone()
    if row is None:
        return None
    flow = FlowRow(*row)
    mailbox = _mailbox(flow.pokes, flow.cancel_requested_at_ms, letters.fetchall(), children.fetchall())
    return History(flow, list(map(StepRow._make, steps.fetchall())), mailbox)


def mailbox(session: Session, flow_key: int) -> Mailbox | None:
    """Return what others have left for a flow, of one moment."""
    key = (flow_key,)
    with session.transaction(SNAPSHOT):
        flows = session.send(
            "SELECT pokes, cancel_requested_at_ms FROM {schema}.flow WHERE flow_key = $1", key
        )
        letters = session.send(_SIGNALS, key)
        children = session.send(_CHILDREN, key)
    row = flows.fetchone()
    return None if row is None else _mailbox(row[0], row[1], letters.fetchall(), children.fetchall())


def _mailbox(
    pokes: int, cancel_requested_at_ms: int | None, letters: Sequence[Any], children: Sequence[Any]
) -> Mailbox:
    return Mailbox(
        pokes,
        cancel_requested_at_ms,
        list(map(SignalRow._make, letters)),
        list(map(ChildOutcome._make, children)),
    )


def find(session: Session, flow_id: str) -> FlowRow | None:
    """Return a flow by its id."""
    rows = session.rows(SELECT_FLOW + "WHERE flow_id = $1", (flow_id,))
    return next((FlowRow(*row) for row in rows), None)


def signals(session: Session, flow_id: str) -> Sequence[SignalRow]:
    """Return a flow id's pending and rejected signals, oldest first."""
    rows = session.rows(
        """
        SELECT signal_id, flow_id, name, payload, sent_at_ms, rejected, checksum FROM {schema}.signal
        WHERE flow_id = $1 ORDER BY signal_id
        """,
        (flow_id,),
    )
    return [SignalRow(*row) for row in rows]


def names(session: Session) -> dict[int, tuple[str, str]]:
    """Return every interned name."""
    rows = session.rows("SELECT name_id, class_name, method_name FROM {schema}.name")
    return {name_id: (class_name, method_name) for name_id, class_name, method_name in rows}


def size(session: Session) -> int:
    """Return the bytes of the tables, their indexes and their large values."""
    ((found,),) = session.rows(
        """
        SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::bigint
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
        WHERE nspname = $1 AND relkind = 'r'
        """,
        (session.schema,),
    )
    return int(found)


def changes(session: Session) -> tuple[int, int]:
    """Return a number that differs after each commit that others care about, and how many write marks."""
    ((marks, writers),) = session.rows("SELECT sum(mark)::bigint, count(*) FROM {schema}.writer")
    return marks, writers


def exists(session: Session) -> bool:
    """Whether the schema is still there."""
    ((found,),) = session.rows("SELECT to_regclass($1) IS NOT NULL", (f'"{session.schema}".migration',))
    return bool(found)
