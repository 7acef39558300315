"""Signals, and the pokes by which a flow notices them; inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg

from persistasaurus._store._pg_rows import Session, numbers, texts
from persistasaurus._store.base import NewSignal

# Two transactions that do not see each other yet, one that starts a flow and one that sends it a signal,
# would leave a signal of which the flow never hears. Starts share this lock; whoever signals an unknown id
# has it alone.
_STARTS = "hashtextextended('persistasaurus starts {schema}', 0)"
SHARE_STARTS = f"SELECT pg_advisory_xact_lock_shared({_STARTS})"
_STOP_STARTS = (
    f"SELECT pg_advisory_xact_lock({_STARTS})"  # noqa: S608 - a text of this file
    " WHERE EXISTS (SELECT FROM unnest($1::text[]) AS given (flow_id)"
    " WHERE NOT EXISTS (SELECT FROM {schema}.flow WHERE flow.flow_id = given.flow_id))"
)


def wait_for_starts(session: Session, new: Sequence[NewSignal]) -> None:
    """Wait for starts under way, where one of these flows is not there yet; before anything is locked."""
    session.send(_STOP_STARTS, (texts([signal.flow_id for signal in new]),))


def send(session: Session, new: Sequence[NewSignal]) -> psycopg.Cursor[tuple[str, int]]:
    """Add signals and poke their flows; the answer is each id with the key of the flow that was poked."""
    return session.send(
        """
        WITH sent AS (
            INSERT INTO {schema}.signal (flow_id, name, payload, sent_at_ms, checksum)
            SELECT given.flow_id, given.name, given.payload, given.sent_at_ms, given.checksum
            FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
                WITH ORDINALITY AS given (flow_id, name, payload, sent_at_ms, checksum, place)
            ORDER BY given.place
            RETURNING flow_id, sent_at_ms
        ),
        poked AS (
            SELECT flow_id, min(sent_at_ms) AS at_ms FROM sent GROUP BY flow_id
        )
        UPDATE {schema}.flow SET pokes = flow.pokes + 1, due_at_ms = least(flow.due_at_ms, poked.at_ms)
        FROM poked
        WHERE flow.flow_id = poked.flow_id AND flow.status IN (0, 2)
        RETURNING flow.flow_id, flow.flow_key
        """,
        (
            texts([signal.flow_id for signal in new]),
            texts([signal.name for signal in new]),
            texts([signal.payload for signal in new]),
            numbers([signal.sent_at_ms for signal in new]),
            numbers([signal.checksum for signal in new]),
        ),
    )


def find_poked(session: Session, new: Sequence[NewSignal]) -> Sequence[tuple[str, int]]:
    """Return what `send` answers, later."""
    return session.rows(
        "SELECT flow_id, flow_key FROM {schema}.flow WHERE flow_id = ANY ($1::text[]) AND status IN (0, 2)",
        (texts([signal.flow_id for signal in new]),),
    )


def poke(session: Session, due: Mapping[int, int]) -> None:
    """Make each flow key due at its time, unless the flow has ended or is parked."""
    session.send(
        """
        UPDATE {schema}.flow SET pokes = flow.pokes + 1, due_at_ms = least(flow.due_at_ms, poked.at_ms)
        FROM unnest($1::bigint[], $2::bigint[]) AS poked (flow_key, at_ms)
        WHERE flow.flow_key = poked.flow_key AND flow.status IN (0, 2)
        """,
        (numbers(due), numbers(due.values())),
    )


def consume(session: Session, signal_ids: Sequence[int]) -> None:
    """Delete signals that a flow has taken."""
    session.send("DELETE FROM {schema}.signal WHERE signal_id = ANY ($1::bigint[])", (numbers(signal_ids),))


def reject(session: Session, rejected: Sequence[tuple[int, str]]) -> None:
    """Set signals aside with the reason."""
    session.send(
        """
        UPDATE {schema}.signal SET rejected = given.reason
        FROM unnest($1::bigint[], $2::text[]) AS given (signal_id, reason)
        WHERE signal.signal_id = given.signal_id
        """,
        (numbers([signal_id for signal_id, _ in rejected]), texts([reason for _, reason in rejected])),
    )
