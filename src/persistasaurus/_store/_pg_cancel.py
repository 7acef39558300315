"""Cancelling: a request to the owner, or an end at once where nothing of the flow can run its cleanup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from persistasaurus._model import CANCELLED
from persistasaurus._store._pg_rows import Session, numbers, texts
from persistasaurus._store._pg_signals import poke
from persistasaurus._store.checksum import outcome_checksum
from persistasaurus._store.rules import NEVER_RAN


class _Target(NamedTuple):
    flow_key: int
    flow_id: str
    parent_key: int | None
    ends_at_once: bool


def cancel(session: Session, flow_ids: Sequence[str], now_ms: int) -> Sequence[tuple[int, int] | None]:
    """Cancel flows by id; return for each its key and its status after it, None for an unknown id."""
    found = {flow_id: (key, status) for flow_id, key, status in find(session, flow_ids)}
    ended = _cancel_keys(session, [key for key, _ in found.values()], now_ms)
    answers = {
        flow_id: (key, CANCELLED if key in ended else status) for flow_id, (key, status) in found.items()
    }
    return [answers.get(flow_id) for flow_id in flow_ids]


def find(session: Session, flow_ids: Sequence[str]) -> Sequence[tuple[str, int, int]]:
    """Return the ids that are known, with key and status."""
    return session.rows(
        "SELECT flow_id, flow_key, status FROM {schema}.flow WHERE flow_id = ANY ($1::text[])",
        (texts(flow_ids),),
    )


def cancel_children(session: Session, parent_keys: Sequence[int], now_ms: int) -> None:
    """Cancel every child of these flows that has not ended; those that run cancel theirs in turn."""
    rows = session.rows(
        """
        SELECT flow_key FROM {schema}.flow WHERE parent_key = ANY ($1::bigint[]) AND status IN (0, 2, 5)
        """,
        (numbers(parent_keys),),
    )
    if rows:
        _cancel_keys(session, [row[0] for row in rows], now_ms)


def _cancel_keys(session: Session, flow_keys: Sequence[int], now_ms: int) -> set[int]:
    """Cancel flows that have not ended, and return the keys of those that ended at once."""
    if not flow_keys:
        return set()
    # Locked first, by a statement of its own: what is seen after it stays so.
    lock_flows(session, flow_keys)
    rows = session.rows(
        """
        SELECT flow_key, flow_id, parent_key,
            status = 5 OR (
                status = 0 AND owner IS NULL AND idle = 0 AND lost_claims = 0
                AND NOT EXISTS (SELECT FROM {schema}.step WHERE step.flow_key = flow.flow_key)
            )
        FROM {schema}.flow
        WHERE flow_key = ANY ($1::bigint[]) AND status IN (0, 2, 5)
        """,
        (numbers(flow_keys),),
    )
    targets = [_Target(*row) for row in rows]
    ending = [target for target in targets if target.ends_at_once]
    asked = {target.flow_key: now_ms for target in targets if not target.ends_at_once}
    if asked:
        session.send(
            """
            UPDATE {schema}.flow SET cancel_requested_at_ms = $1
            WHERE flow_key = ANY ($2::bigint[]) AND cancel_requested_at_ms IS NULL
            """,
            (now_ms, numbers(asked)),
        )
        poke(session, asked)
    if ending:
        _end(session, ending, now_ms)
    return {target.flow_key for target in ending}


def _end(session: Session, ending: Sequence[_Target], now_ms: int) -> None:
    session.send(
        """
        UPDATE {schema}.flow SET
            status = 4, updated_at_ms = $1, result = NULL, error = $2, reason = NULL, owner = NULL, idle = 0,
            due_at_ms = NULL, cancel_requested_at_ms = coalesce(cancel_requested_at_ms, $1),
            outcome_checksum = ended.outcome_checksum
        FROM unnest($3::bigint[], $4::bigint[]) AS ended (flow_key, outcome_checksum)
        WHERE flow.flow_key = ended.flow_key
        """,
        (
            now_ms,
            NEVER_RAN,
            numbers([target.flow_key for target in ending]),
            numbers([outcome_checksum(target.flow_id, CANCELLED, None, NEVER_RAN) for target in ending]),
        ),
    )
    parents = {target.parent_key: now_ms for target in ending if target.parent_key is not None}
    if parents:
        lock_flows(session, list(parents))
        poke(session, parents)
    # Parked ones may have children.
    cancel_children(session, [target.flow_key for target in ending], now_ms)


def lock_flows(session: Session, flow_keys: Sequence[int], flow_ids: Sequence[str] = ()) -> None:
    """Lock flows in the order of their keys, so that two transactions never wait for each other."""
    session.send(
        """
        SELECT count(*) FROM (
            SELECT FROM {schema}.flow
            WHERE flow_key IN (
                SELECT unnest($1::bigint[])
                UNION SELECT flow_key FROM {schema}.flow WHERE flow_id = ANY ($2::text[])
            )
            ORDER BY flow_key FOR NO KEY UPDATE
        ) AS locked
        """,
        (numbers(flow_keys), texts(flow_ids)),
    )
