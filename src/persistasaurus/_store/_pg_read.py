"""What is read: a flow's history and mailbox, single flows, names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from persistasaurus._store._pg_rows import SNAPSHOT, Session, numbers
from persistasaurus._store.base import SHORT, ChildOutcome, FlowRow, History, Mailbox, SignalRow, StepRow

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
_STEPS_OF_SOME = f"""
    SELECT few.* FROM unnest($1::bigint[]) AS wanted (flow_key) CROSS JOIN LATERAL (
        SELECT * FROM {{schema}}.step WHERE step.flow_key = wanted.flow_key ORDER BY step LIMIT {SHORT + 1}
    ) AS few
"""  # noqa: S608
_SIGNALS_OF_SOME = """
    SELECT
        flow.flow_key, signal_id, signal.flow_id, signal.name, payload, sent_at_ms, rejected, signal.checksum
    FROM {schema}.flow JOIN {schema}.signal USING (flow_id)
    WHERE flow_key = ANY ($1::bigint[]) AND rejected IS NULL ORDER BY signal_id
"""
_CHILDREN_OF_SOME = """
    SELECT parent_key, parent_step, flow_key, flow_id, status, result, error, reason, outcome_checksum
    FROM {schema}.flow WHERE parent_key = ANY ($1::bigint[]) AND status IN (1, 3, 4, 5)
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


def load_short(session: Session, flow_keys: Sequence[int]) -> Sequence[History]:
    """Return those of some flows whose steps are few, of one moment."""
    keys = (numbers(flow_keys),)
    with session.transaction(SNAPSHOT):
        flows = session.send(SELECT_FLOW + "WHERE flow_key = ANY ($1::bigint[])", keys)
        steps = session.send(_STEPS_OF_SOME, keys)
        letters = session.send(_SIGNALS_OF_SOME, keys)
        children = session.send(_CHILDREN_OF_SOME, keys)
    steps_of = _by_flow(steps, keep_key=True)
    letters_of, children_of = _by_flow(letters), _by_flow(children)
    found: list[History] = []
    for flow in map(FlowRow._make, flows):
        key = flow.flow_key
        if len(steps_of[key]) <= SHORT:
            mailbox = _mailbox(flow.pokes, flow.cancel_requested_at_ms, letters_of[key], children_of[key])
            found.append(History(flow, sorted(map(StepRow._make, steps_of[key])), mailbox))
    return found


def _by_flow(
    rows: Iterable[Sequence[Any]], *, keep_key: bool = False
) -> defaultdict[int, list[Sequence[Any]]]:
    found: defaultdict[int, list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        found[row[0]].append(row if keep_key else row[1:])
    return found


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
