"""Pages of flows, newest first: walks backwards through the index that knows most of what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persistasaurus._model import COMPLETE, STATUS_BY_CODE
from persistasaurus._store._pg_read import SELECT_FLOW
from persistasaurus._store._pg_rows import Session, numbers, texts
from persistasaurus._store.base import FlowFilter, FlowRow
from persistasaurus._store.rules import after_prefix

# More parts than this make the statement longer to plan than all flows are to walk.
_MOST_WALKS = 100

_PAGE = SELECT_FLOW + "WHERE flow.flow_key IN ({keys}) ORDER BY flow.flow_key DESC LIMIT $9"
_WALK = (
    "(SELECT flow_key FROM {schema}.flow WHERE {walk}"
    " AND ($1::bigint IS NULL OR flow_key < $1) AND ($2::bigint IS NULL OR parent_key = $2)"
    " AND ($3::text IS NULL OR flow_id >= $3) AND ($4::text IS NULL OR flow_id < $4)"
    " AND ($5::bigint[] IS NULL OR name_id = ANY ($5)) AND ($6::smallint[] IS NULL OR status = ANY ($6))"
    " AND ($7::bigint IS NULL OR created_at_ms >= $7) AND ($8::bigint IS NULL OR created_at_ms < $8)"
    " ORDER BY flow_key DESC LIMIT $9::bigint)"
)


def list_flows(
    session: Session, which: FlowFilter, *, before_key: int | None, limit: int
) -> Sequence[FlowRow]:
    """Return a page of flows with keys below `before_key`."""
    name_ids = _name_ids(session, which.names) if which.names is not None else None
    walks = _walks(which, name_ids)
    if not walks:
        return []
    keys = " UNION ALL ".join(_WALK.replace("{walk}", walk) for walk in walks)
    rows = session.rows(_PAGE.replace("{keys}", keys), _values(which, name_ids, before_key, limit))
    return [FlowRow(*row) for row in rows]


def _walks(which: FlowFilter, name_ids: Sequence[int] | None) -> Sequence[str]:
    """Return the parts that together hold every flow asked for, each a range of one index.

    They are texts of this file with numbers of our own; what the user gave is bound.
    """
    statuses = range(len(STATUS_BY_CODE)) if which.statuses is None else sorted(set(map(int, which.statuses)))
    if not statuses or (name_ids is not None and not name_ids):
        return []
    if which.parent_key is not None or which.id_prefix:
        return ["TRUE"]
    if name_ids is not None and len(name_ids) * len(statuses) <= _MOST_WALKS:
        return [f"name_id = {name_id} AND status = {status}" for name_id in name_ids for status in statuses]
    if COMPLETE not in statuses:
        # `<> 1` shows that the index without complete flows will do.
        return [f"status = {status} AND status <> 1" for status in statuses]
    return ["TRUE"]


def _values(
    which: FlowFilter, name_ids: Sequence[int] | None, before_key: int | None, limit: int
) -> tuple[Any, ...]:
    return (
        before_key,
        which.parent_key,
        which.id_prefix or None,
        after_prefix(which.id_prefix or ""),
        None if name_ids is None else numbers(name_ids),
        None if which.statuses is None else numbers(map(int, which.statuses)),
        which.created_from_ms,
        which.created_before_ms,
        limit,
    )


def _name_ids(session: Session, names: Sequence[tuple[str, str]]) -> Sequence[int]:
    rows = session.rows(
        """
        SELECT name_id FROM {schema}.name
        JOIN unnest($1::text[], $2::text[]) AS given (class_name, method_name) USING (class_name, method_name)
        """,
        (texts([name[0] for name in names]), texts([name[1] for name in names])),
    )
    return [row[0] for row in rows]
