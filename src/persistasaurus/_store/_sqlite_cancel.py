"""Cancelling: a request to the owner, or an end at once where nothing of the flow can run its cleanup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import apsw

from persistasaurus._model import CANCELLED
from persistasaurus._store._sqlite_rows import read_rows, write
from persistasaurus._store._sqlite_signals import poke
from persistasaurus._store.checksum import outcome_checksum
from persistasaurus._store.rules import NEVER_RAN


class _Target(NamedTuple):
    flow_key: int
    flow_id: str
    parent_key: int | None
    ends_at_once: int


def cancel(
    connection: apsw.Connection, flow_ids: Sequence[str], now_ms: int
) -> Sequence[tuple[int, int] | None]:
    """Cancel flows by id; return for each its key and its status after it, None for an unknown id."""
    rows = read_rows(
        connection,
        """
        SELECT flow_id, flow_key, status FROM flow WHERE flow_id IN (SELECT value FROM json_each(?))
        """,
        (json.dumps(flow_ids),),
    )
    found = {flow_id: (key, status) for flow_id, key, status in rows}
    ended = _cancel_keys(connection, [key for key, _ in found.values()], now_ms)
    answers = {
        flow_id: (key, CANCELLED if key in ended else status) for flow_id, (key, status) in found.items()
    }
    return [answers.get(flow_id) for flow_id in flow_ids]


def cancel_children(connection: apsw.Connection, parent_keys: Sequence[int], now_ms: int) -> None:
    """Cancel every child of these flows that has not ended; those that run cancel theirs in turn."""
    rows = read_rows(
        connection,
        """
        SELECT flow_key FROM flow
        WHERE parent_key IN (SELECT value FROM json_each(?)) AND +status IN (0, 2, 5)
        """,
        (json.dumps(parent_keys),),
    )
    if rows:
        _cancel_keys(connection, [row[0] for row in rows], now_ms)


def _cancel_keys(connection: apsw.Connection, flow_keys: Sequence[int], now_ms: int) -> set[int]:
    """Cancel flows that have not ended, and return the keys of those that ended at once."""
    rows = read_rows(
        connection,
        """
        SELECT flow_key, flow_id, parent_key,
            status = 5 OR (
                status = 0 AND owner IS NULL AND NOT idle AND lost_claims = 0
                AND NOT EXISTS (SELECT 1 FROM step WHERE step.flow_key = flow.flow_key)
            )
        FROM flow
        WHERE flow_key IN (SELECT value FROM json_each(?)) AND +status IN (0, 2, 5)
        """,
        (json.dumps(flow_keys),),
    )
    targets = [_Target(*row) for row in rows]
    ending = [target for target in targets if target.ends_at_once]
    asked = {target.flow_key: now_ms for target in targets if not target.ends_at_once}
    if asked:
        write(
            connection,
            """
            UPDATE flow SET cancel_requested_at_ms = ?
            WHERE flow_key IN (SELECT value FROM json_each(?)) AND cancel_requested_at_ms IS NULL
            """,
            (now_ms, json.dumps(list(asked))),
        )
        poke(connection, asked)
    if ending:
        _end(connection, ending, now_ms)
    return {target.flow_key for target in ending}


def _end(connection: apsw.Connection, ending: Sequence[_Target], now_ms: int) -> None:
    outcomes = [
        (target.flow_key, outcome_checksum(target.flow_id, CANCELLED, None, NEVER_RAN)) for target in ending
    ]
    write(
        connection,
        """
        UPDATE flow SET
            status = 4, updated_at_ms = ?, result = NULL, error = ?, reason = NULL, owner = NULL, idle = 0,
            due_at_ms = NULL, cancel_requested_at_ms = coalesce(cancel_requested_at_ms, ?),
            outcome_checksum = ended.value ->> 1
        FROM json_each(?) AS ended
        WHERE flow.flow_key = ended.value ->> 0
        """,
        (now_ms, NEVER_RAN, now_ms, json.dumps(outcomes)),
    )
    parents = {target.parent_key: now_ms for target in ending if target.parent_key is not None}
    if parents:
        poke(connection, parents)
    # Parked ones may have children.
    cancel_children(connection, [target.flow_key for target in ending], now_ms)
