"""Pages of flows, newest first: walks backwards through the index that knows most of what is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from persistasaurus._model import COMPLETE, STATUS_BY_CODE
from persistasaurus._store._sqlite_read import SELECT_FLOW
from persistasaurus._store._sqlite_rows import read_rows
from persistasaurus._store.base import FlowFilter, FlowRow
from persistasaurus._store.rules import after_prefix

# More parts than this make the statement longer to prepare than all flows are to walk.
_MOST_WALKS = 100


_PAGE = SELECT_FLOW.replace("{more}", "") + (
    "WHERE flow.flow_key IN ({keys}) ORDER BY flow.flow_key DESC LIMIT :limit"
)


def list_flows(
    connection: apsw.Connection, which: FlowFilter, *, before_key: int | None, limit: int
) -> Sequence[FlowRow]:
    """Return a page of flows with keys below `before_key`."""
    name_ids = _name_ids(connection, which.names) if which.names is not None else None
    conditions, values = _conditions(which, name_ids, before_key)
    walks = _walks(which, name_ids)
    if not walks:
        return []
    keys = " UNION ALL ".join(_walk_sql([*walk, *conditions]) for walk in walks)
    rows = read_rows(connection, _PAGE.replace("{keys}", keys), {**values, "limit": limit})
    return [FlowRow(*row) for row in rows]


def _walk_sql(conditions: Sequence[str]) -> str:
    # The conditions are texts of this file with numbers of our own; what the user gave is bound.
    walk = "SELECT * FROM (SELECT flow_key FROM flow WHERE {where} ORDER BY flow_key DESC LIMIT :limit)"
    return walk.replace("{where}", " AND ".join(conditions))


def _walks(which: FlowFilter, name_ids: Sequence[int] | None) -> Sequence[Sequence[str]]:
    """Return the parts that together hold every flow asked for, each a range of one index."""
    statuses = range(len(STATUS_BY_CODE)) if which.statuses is None else sorted(set(map(int, which.statuses)))
    if not statuses or (name_ids is not None and not name_ids):
        return []
    if which.parent_key is not None:
        return [["parent_key = :parent_key"]]
    if which.id_prefix:
        return [["flow_id >= :prefix"]]
    if name_ids is not None and len(name_ids) * len(statuses) <= _MOST_WALKS:
        return [[f"name_id = {name_id}", f"status = {status}"] for name_id in name_ids for status in statuses]
    if COMPLETE not in statuses:
        # `<> 1` shows SQLite that the index without complete flows will do.
        return [[f"status = {status}", "status <> 1"] for status in statuses]
    return [[]]


def _conditions(
    which: FlowFilter, name_ids: Sequence[int] | None, before_key: int | None
) -> tuple[list[str], dict[str, Any]]:
    """Return what each row of a walk must fulfil besides, with the values to bind."""
    given = {
        "flow_key < :before_key": before_key,
        "+parent_key = :parent_key": which.parent_key,
        "flow_id >= :prefix": which.id_prefix or None,
        "flow_id < :after_prefix": after_prefix(which.id_prefix or ""),
        "+name_id IN (SELECT value FROM json_each(:names))": None
        if name_ids is None
        else json.dumps(name_ids),
        "+status IN (SELECT value FROM json_each(:statuses))": (
            None if which.statuses is None else json.dumps(list(map(int, which.statuses)))
        ),
        "created_at_ms >= :created_from": which.created_from_ms,
        "created_at_ms < :created_before": which.created_before_ms,
    }
    asked = {condition: value for condition, value in given.items() if value is not None}
    names = {condition: condition.rpartition(":")[2].rstrip(")") for condition in asked}
    values = {names[condition]: value for condition, value in asked.items()}
    if which.parent_key is not None:
        values["parent_key"] = which.parent_key
    return list(asked) or ["TRUE"], values


def _name_ids(connection: apsw.Connection, names: Sequence[tuple[str, str]]) -> Sequence[int]:
    rows = read_rows(
        connection,
        """
        SELECT name_id FROM name
        WHERE (class_name, method_name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))
        """,
        (json.dumps(list(names)),),
    )
    return [row[0] for row in rows]
