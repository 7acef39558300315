"""Who drives what: workers, their leases, and the claims of due flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from persistasaurus._store._pg_commit import begin, fenced
from persistasaurus._store._pg_errors import lease_lost
from persistasaurus._store._pg_rows import Session, numbers
from persistasaurus._store._pg_writer import Mark, wait_briefly
from persistasaurus._store.base import Claim, WorkerRow


class Claiming(NamedTuple):
    """What `Store.claim` is asked for."""

    worker_id: int
    name_ids: Sequence[int]
    now_ms: int
    limit: int


class Due(NamedTuple):
    """What a worker could take now."""

    anything: bool
    suspect: bool
    next_due_at_ms: int | None


def look(session: Session, which: Claiming) -> Due:
    """Return what is due for a worker, by one statement and without a lock.

    Raises:
        LeaseLost: the worker is not alive.
    """
    worker_id, name_ids, now_ms, limit = which
    ((alive, own, free, suspect, next_due),) = session.rows(
        _LOOK, (worker_id, now_ms, numbers(name_ids), limit)
    )
    if not alive:
        raise lease_lost(worker_id)
    return Due(own or free or suspect, suspect, next_due)


_SUSPECT_DUE = """
    crashes >= 2 AND owner IS NULL AND due_at_ms <= $2 AND name_id = ANY ($3::bigint[])
    AND NOT EXISTS (
        SELECT FROM {schema}.flow AS other
        WHERE other.crashes >= 2 AND other.owner IS NOT NULL AND other.idle = 0
    )
"""
# What is due already is next where others hold it for the moment or one claim had not room for all; not where
# this worker has no room at all.
_NEXT_DUE = """
    (
        SELECT min(due_at_ms) FROM (
            SELECT (
                SELECT due_at_ms FROM {schema}.flow
                WHERE name_id = wanted.name_id AND owner IS NULL AND crashes < 2
                    AND due_at_ms > CASE WHEN $4 > 0 THEN -9223372036854775808 ELSE $2 END
                ORDER BY due_at_ms LIMIT 1
            ) AS due_at_ms
            FROM unnest($3::bigint[]) AS wanted (name_id)
            UNION ALL
            SELECT min(due_at_ms) FROM {schema}.flow WHERE owner = $1
            UNION ALL
            SELECT min(due_at_ms) FROM {schema}.flow
            WHERE crashes >= 2 AND owner IS NULL AND due_at_ms > $2 AND name_id = ANY ($3::bigint[])
        ) AS dues
    )
"""
_LOOK = """
    SELECT
        EXISTS (SELECT FROM {schema}.worker WHERE worker_id = $1::bigint),
        EXISTS (SELECT FROM {schema}.flow WHERE owner = $1 AND due_at_ms <= $2::bigint),
        $4::bigint > 0 AND EXISTS (
            SELECT FROM unnest($3::bigint[]) AS wanted (name_id) CROSS JOIN LATERAL (
                SELECT FROM {schema}.flow
                WHERE name_id = wanted.name_id AND owner IS NULL AND crashes < 2 AND due_at_ms <= $2
                LIMIT 1
            ) AS free
        ),
        $4 > 0 AND EXISTS (SELECT FROM {schema}.flow WHERE {suspect_due}),
        {next_due}
""".replace("{suspect_due}", _SUSPECT_DUE).replace("{next_due}", _NEXT_DUE)


def claim(session: Session, which: Claiming, mark: Mark, *, suspect: bool) -> Claim:
    """Take what is due now, in one transaction; what others take at this moment is left to them.

    A suspect of a crash loop is looked for only where the caller saw one.
    """
    worker_id, name_ids, now_ms, limit = which
    names = numbers(name_ids)
    with fenced(worker_id), session.transaction():
        begin(session, mark, fence=worker_id)
        poked = session.send(_TAKE_POKED, (worker_id, now_ms, mark.writer_id))
        suspects = 0
        if suspect:
            session.send(_ONE_AT_A_TIME)
            ((suspects,),) = session.rows(_TAKE_SUSPECT, (worker_id, now_ms, names, mark.writer_id))
        free = session.send(_TAKE_FREE, (worker_id, now_ms, names, limit - suspects, mark.writer_id))
        next_due = session.send("SELECT" + _NEXT_DUE, (worker_id, now_ms, names, limit))
    ((poked_keys,),) = poked.fetchall()
    ((free_keys,),) = free.fetchall()
    ((next_due_at_ms,),) = next_due.fetchall()
    return Claim(free_keys, poked_keys, next_due_at_ms)


def look_at_claim(session: Session, writer_id: int, now_ms: int) -> Claim:
    """Return what a claim took that is known to be committed; the next look says when more is due."""
    rows = session.rows("SELECT claimed, poked FROM {schema}.writer WHERE writer_id = $1", (writer_id,))
    ((claimed, poked),) = rows
    return Claim(claimed, poked, now_ms)


# What a claim takes is noted in its writer's row: should its answer be lost, it is read there.
# A poked flow runs from here on: should its owner die before it says so, it is due again at once.
_TAKE_POKED = """
    WITH due AS (
        SELECT flow_key FROM {schema}.flow WHERE owner = $1 AND due_at_ms <= $2
        ORDER BY flow_key FOR NO KEY UPDATE
    ),
    taken AS (
        UPDATE {schema}.flow SET idle = 0, due_at_ms = NULL FROM due
        WHERE flow.flow_key = due.flow_key RETURNING flow.flow_key
    )
    UPDATE {schema}.writer SET poked = ARRAY(SELECT flow_key FROM taken), claimed = '{}' WHERE writer_id = $3
    RETURNING poked
"""
# Two claims at once would each see no other suspect run.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('persistasaurus suspects {schema}', 0))"
_TAKE_SUSPECT = """
    WITH due AS (
        SELECT flow_key FROM {schema}.flow WHERE {suspect_due}
        ORDER BY due_at_ms, flow_key LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ),
    taken AS (
        UPDATE {schema}.flow SET owner = $1, idle = 0, due_at_ms = NULL FROM due
        WHERE flow.flow_key = due.flow_key RETURNING flow.flow_key
    ),
    noted AS (
        UPDATE {schema}.writer SET claimed = ARRAY(SELECT flow_key FROM taken) WHERE writer_id = $4
    )
    SELECT count(*) FROM taken
""".replace("{suspect_due}", _SUSPECT_DUE)
# Each name's oldest first, then the second of each name, and so on: no name crowds out another.
_TAKE_FREE = """
    WITH candidate AS MATERIALIZED (
        SELECT free.* FROM unnest($3::bigint[]) AS wanted (name_id) CROSS JOIN LATERAL (
            SELECT due_at_ms, flow_key, name_id FROM {schema}.flow
            WHERE name_id = wanted.name_id AND owner IS NULL AND crashes < 2 AND due_at_ms <= $2
            ORDER BY due_at_ms, flow_key LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
        ) AS free
    ),
    ranked AS (
        SELECT *, row_number() OVER (PARTITION BY name_id ORDER BY due_at_ms, flow_key) AS turn FROM candidate
    ),
    chosen AS (
        SELECT flow_key, due_at_ms FROM ranked ORDER BY turn, due_at_ms, flow_key LIMIT $4
    ),
    taken AS (
        UPDATE {schema}.flow SET owner = $1, idle = 0, due_at_ms = NULL FROM chosen
        WHERE flow.flow_key = chosen.flow_key RETURNING flow.flow_key, chosen.due_at_ms AS was_due
    )
    UPDATE {schema}.writer SET
        claimed = claimed || ARRAY(SELECT flow_key FROM taken ORDER BY was_due, flow_key)
    WHERE writer_id = $5
    RETURNING claimed
"""


def register_worker(session: Session, worker: WorkerRow, lease_ms: int) -> tuple[int, int]:
    """Record a worker and return its number and the server's time; an incarnation keeps its number."""
    ((worker_id, now_ms),) = session.rows(
        """
        INSERT INTO {schema}.worker (incarnation, host, pid, process_started, names, lease_expires_at_ms)
        VALUES ($1, $2, $3, $4, $5, {schema}.clock_ms() + $6)
        ON CONFLICT (incarnation) DO UPDATE SET
            lease_expires_at_ms = excluded.lease_expires_at_ms, names = excluded.names
        RETURNING worker_id, {schema}.clock_ms()
        """,
        (worker.incarnation, worker.host, worker.pid, worker.process_started, worker.names, lease_ms),
    )
    return worker_id, now_ms


def renew_lease(session: Session, worker_id: int, lease_ms: int, names: str) -> int:
    """Extend a worker's lease and return the server's time.

    Raises:
        LeaseLost: the worker is not alive.
    """
    rows = session.rows(
        """
        UPDATE {schema}.worker SET lease_expires_at_ms = {schema}.clock_ms() + $2, names = $3
        WHERE worker_id = $1
        RETURNING {schema}.clock_ms()
        """,
        (worker_id, lease_ms, names),
    )
    if not rows:
        raise lease_lost(worker_id)
    return int(rows[0][0])


def workers(session: Session) -> Sequence[WorkerRow]:
    """Return the living workers, oldest first, with whose lease is over."""
    rows = session.rows(
        """
        SELECT
            worker_id, incarnation, host, pid, process_started, names,
            lease_expires_at_ms <= {schema}.clock_ms()
        FROM {schema}.worker ORDER BY worker_id
        """
    )
    return [WorkerRow(*row) for row in rows]


def take_over(session: Session, worker_id: int, mark: Mark, *, now_ms: int, only_expired: bool) -> int:
    """Mark a worker dead and free its flows, counting a crash for those that ran.

    The flows are looked for by a statement of its own: it sees what the dead worker's last transaction did,
    for which the first one has waited.
    """
    with session.transaction():
        wait_briefly(session)
        begin(session, mark, fence=None)
        dead = session.send(
            """
            DELETE FROM {schema}.worker
            WHERE worker_id = $1 AND ($2::integer = 0 OR lease_expires_at_ms <= {schema}.clock_ms())
            """,
            (worker_id, int(only_expired)),
        )
        freed = session.send(
            """
            WITH freed AS (
                SELECT flow_key FROM {schema}.flow
                WHERE owner = $1 AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker_id = $1)
                ORDER BY flow_key FOR NO KEY UPDATE
            )
            UPDATE {schema}.flow SET
                owner = NULL, crashes = crashes + 1 - idle, lost_claims = lost_claims + 1 - idle,
                due_at_ms = CASE WHEN idle = 1 THEN due_at_ms ELSE $2 END
            FROM freed WHERE flow.flow_key = freed.flow_key
            """,
            (worker_id, now_ms),
        )
    return freed.rowcount if dead.rowcount else 0


def release_worker(session: Session, worker_id: int, mark: Mark, *, now_ms: int) -> None:
    """End a worker in good order and free its flows."""
    with session.transaction():
        wait_briefly(session)
        begin(session, mark, fence=None)
        session.send("DELETE FROM {schema}.worker WHERE worker_id = $1", (worker_id,))
        session.send(
            """
            WITH freed AS (
                SELECT flow_key FROM {schema}.flow WHERE owner = $1 ORDER BY flow_key FOR NO KEY UPDATE
            )
            UPDATE {schema}.flow SET owner = NULL, due_at_ms = CASE WHEN idle = 1 THEN due_at_ms ELSE $2 END
            FROM freed WHERE flow.flow_key = freed.flow_key
            """,
            (worker_id, now_ms),
        )
