"""Who drives what: workers, their leases, and the claims of due flows; inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import apsw

from persistasaurus._store._sqlite_commit import lease_lost
from persistasaurus._store._sqlite_rows import read_rows, write
from persistasaurus._store.base import Claim, WorkerRow


class Due(NamedTuple):
    """What a worker could take now."""

    poked: Sequence[int]
    flow_keys: Sequence[int]
    next_due_at_ms: int | None


def look(
    connection: apsw.Connection, worker_id: int, name_ids: Sequence[int], *, now_ms: int, limit: int
) -> Due:
    """Return what is due for a worker, by one statement and index ranges alone.

    A suspect of a crash loop is among it only while no other suspect runs.

    Raises:
        LeaseLost: the worker is not alive.
    """
    # One more than can be taken shows that there is more; a worker that has no room does not ask.
    share = limit + 1 if limit else 0
    values = {"worker": worker_id, "now": now_ms, "names": json.dumps(name_ids), "share": share}
    ((alive, poked, free, suspect, next_due),) = read_rows(connection, _LOOK, values)
    if not alive:
        raise lease_lost(worker_id)
    candidates: list[list[int]] = json.loads(free)
    if suspect is not None:
        candidates.append(json.loads(suspect))
    taken = _fair_share(candidates, limit)
    if len(taken) < len(candidates):
        next_due = now_ms
    return Due(json.loads(poked), taken, next_due)


_LOOK = """
    SELECT
        EXISTS (SELECT 1 FROM worker WHERE worker_id = :worker),
        (SELECT json_group_array(flow_key) FROM flow WHERE owner = :worker AND due_at_ms <= :now),
        (
            SELECT json_group_array(json_array(flow.due_at_ms, flow.flow_key, flow.name_id))
            FROM json_each(:names) AS wanted
            CROSS JOIN flow ON flow.flow_key IN (
                SELECT free.flow_key FROM flow AS free
                WHERE free.name_id = wanted.value AND free.due_at_ms <= :now
                    AND free.owner IS NULL AND free.crashes < 2
                ORDER BY free.due_at_ms LIMIT :share
            )
        ),
        (
            SELECT json_array(due_at_ms, flow_key, name_id) FROM flow
            WHERE crashes >= 2 AND owner IS NULL AND due_at_ms <= :now
                AND name_id IN (SELECT value FROM json_each(:names))
                AND NOT EXISTS (
                    SELECT 1 FROM flow AS other INDEXED BY flow_suspect
                    WHERE other.crashes >= 2 AND other.owner > 0 AND NOT other.idle
                )
            ORDER BY due_at_ms LIMIT min(:share, 1)
        ),
        (
            SELECT min(due_at_ms) FROM (
                SELECT (
                    SELECT free.due_at_ms FROM flow AS free
                    WHERE free.name_id = wanted.value AND free.due_at_ms > :now
                        AND free.owner IS NULL AND free.crashes < 2
                    ORDER BY free.due_at_ms LIMIT 1
                ) AS due_at_ms
                FROM json_each(:names) AS wanted
                UNION ALL
                SELECT * FROM (
                    SELECT due_at_ms FROM flow WHERE owner = :worker AND due_at_ms > :now
                    ORDER BY due_at_ms LIMIT 1
                )
                UNION ALL
                SELECT min(due_at_ms) FROM flow
                WHERE crashes >= 2 AND owner IS NULL AND due_at_ms > :now
                    AND name_id IN (SELECT value FROM json_each(:names))
            )
        )
"""


def _fair_share(candidates: Sequence[list[int]], limit: int) -> list[int]:
    """Return up to `limit` keys of (due, key, name) triples, oldest first, no name crowding out another."""
    ordered = sorted(candidates)
    if len(ordered) > limit:
        taken_of: dict[int, int] = {}
        ranked: list[list[int]] = []
        for due, key, name in ordered:
            taken_of[name] = taken_of.get(name, 0) + 1
            ranked.append([taken_of[name], due, key])
        ordered = sorted([due, key] for _, due, key in sorted(ranked)[:limit])
    return [triple[1] for triple in ordered]


def claim(
    connection: apsw.Connection, worker_id: int, name_ids: Sequence[int], *, now_ms: int, limit: int
) -> Claim:
    """Take what is due now, seen again under the write lock."""
    due = look(connection, worker_id, name_ids, now_ms=now_ms, limit=limit)
    # A poked flow runs from here on: should its owner die before it says so, it is due again at once.
    write(
        connection,
        """
        UPDATE flow SET owner = ?, idle = 0, due_at_ms = NULL
        WHERE flow_key IN (SELECT value FROM json_each(?))
        """,
        (worker_id, json.dumps([*due.flow_keys, *due.poked])),
    )
    return Claim(due.flow_keys, due.poked, due.next_due_at_ms)


def register_worker(connection: apsw.Connection, worker: WorkerRow, lease_expires_at_ms: int) -> int:
    """Record a worker and return its number; the same incarnation again keeps its number."""
    ((worker_id,),) = read_rows(
        connection,
        """
        INSERT INTO worker (incarnation, host, pid, process_started, names, lease_expires_at_ms)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (incarnation) DO UPDATE SET
            lease_expires_at_ms = excluded.lease_expires_at_ms, names = excluded.names
        RETURNING worker_id
        """,
        (
            worker.incarnation,
            worker.host,
            worker.pid,
            worker.process_started,
            worker.names,
            lease_expires_at_ms,
        ),
    )
    return int(worker_id)


def renew_lease(connection: apsw.Connection, worker_id: int, lease_expires_at_ms: int, names: str) -> None:
    """Extend a worker's lease.

    Raises:
        LeaseLost: the worker is not alive.
    """
    changed = write(
        connection,
        "UPDATE worker SET lease_expires_at_ms = ?, names = ? WHERE worker_id = ?",
        (lease_expires_at_ms, names, worker_id),
    )
    if not changed:
        raise lease_lost(worker_id)


def take_over(connection: apsw.Connection, worker_id: int, *, now_ms: int, expired_at_ms: int | None) -> int:
    """Mark a worker dead and free its flows, counting a crash for those that ran."""
    changed = write(
        connection,
        "DELETE FROM worker WHERE worker_id = ?1 AND (?2 IS NULL OR lease_expires_at_ms <= ?2)",
        (worker_id, expired_at_ms),
    )
    if not changed:
        return 0
    return write(
        connection,
        """
        UPDATE flow SET
            owner = NULL, crashes = crashes + (NOT idle), lost_claims = lost_claims + (NOT idle),
            due_at_ms = CASE WHEN idle THEN due_at_ms ELSE ? END
        WHERE owner = ?
        """,
        (now_ms, worker_id),
    )


def release_worker(connection: apsw.Connection, worker_id: int, *, now_ms: int) -> None:
    """End a worker in good order and free its flows."""
    write(connection, "DELETE FROM worker WHERE worker_id = ?", (worker_id,))
    write(
        connection,
        """
        UPDATE flow SET owner = NULL, due_at_ms = CASE WHEN idle THEN due_at_ms ELSE ? END WHERE owner = ?
        """,
        (now_ms, worker_id),
    )
