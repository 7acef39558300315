"""Removes flows that ended long ago, each with all that is its own."""

from __future__ import annotations

from collections.abc import Sequence

from persistasaurus._store._pg_rows import Session, numbers
from persistasaurus._store.pruning import Family

# OFFSET 0: planned for each parent by itself, by index, also on a server that has no statistics yet. A child
# has the higher key, so that this ends whatever the rows say.
_CHILDREN_OF = """
    LATERAL (
        SELECT flow_key FROM {schema}.flow AS below
        WHERE below.parent_key = {parent}.flow_key AND below.flow_key > {parent}.flow_key OFFSET 0
    )
"""
# Neither it nor any flow below it goes on, or has ended too late.
_IS_OVER = """
    root.status IN (1, 3, 4) AND root.parent_key IS NULL AND root.updated_at_ms <= $1::bigint
    AND NOT EXISTS (
        WITH RECURSIVE member (flow_key) AS (
            SELECT root.flow_key
            UNION ALL
            SELECT child.flow_key FROM member CROSS JOIN {children_of_member} AS child
        )
        SELECT FROM member JOIN {schema}.flow USING (flow_key)
        WHERE flow.status NOT IN (1, 3, 4) OR flow.updated_at_ms > $1
    )
"""
_FAMILIES = """
    WITH RECURSIVE
        chosen AS MATERIALIZED ({roots}),
        member (root_key, flow_key) AS (
            SELECT flow_key, flow_key FROM chosen
            UNION ALL
            SELECT member.root_key, child.flow_key FROM member CROSS JOIN {children_of_member} AS child
        )
    {question}
"""
_OLDEST = """
    SELECT flow_key, updated_at_ms FROM {schema}.flow AS root WHERE {is_over}
    ORDER BY updated_at_ms, flow_key LIMIT $2::bigint
"""
_THESE = "SELECT flow_key FROM {schema}.flow AS root WHERE flow_key = ANY ($2::bigint[]) AND {is_over}"


def _sql(roots: str, question: str) -> str:
    # All of these are texts of this file; what a caller gave is bound.
    sql = _FAMILIES.replace("{roots}", roots).replace("{question}", question).replace("{is_over}", _IS_OVER)
    return sql.replace("{children_of_member}", _CHILDREN_OF.replace("{parent}", "member"))


_LOOK = _sql(
    _OLDEST,
    """
    SELECT root_key, count(*), sum(
        1 + (SELECT coalesce(max(step), 0) FROM {schema}.step WHERE step.flow_key = member.flow_key)
    )::bigint
    FROM member JOIN chosen ON chosen.flow_key = root_key
    GROUP BY updated_at_ms, root_key ORDER BY updated_at_ms, root_key
    """,
)
_COUNT = _sql(_OLDEST, "SELECT count(*) FROM member")
_LOCK = """
    WITH RECURSIVE member (flow_key) AS (
        SELECT unnest($1::bigint[])
        UNION ALL
        SELECT child.flow_key FROM member CROSS JOIN {children_of_member} AS child
    )
    SELECT flow_key FROM {schema}.flow WHERE flow_key IN (SELECT flow_key FROM member)
    ORDER BY flow_key FOR UPDATE SKIP LOCKED
""".replace("{children_of_member}", _CHILDREN_OF.replace("{parent}", "member"))
_GOING = _sql(
    _THESE,
    """
    SELECT flow_key FROM member WHERE root_key NOT IN (
        SELECT root_key FROM member WHERE flow_key NOT IN (SELECT unnest($3::bigint[]))
    )
    """,
)


def look(session: Session, before_ms: int, limit: int) -> Sequence[Family]:
    """Return the families that ended first, at most `limit` of them, by index alone and without a lock."""
    return [Family(*row) for row in session.rows(_LOOK, (before_ms, limit))]


def next_end_ms(session: Session, before_ms: int) -> int | None:
    """Return the first end after `before_ms`."""
    ((found,),) = session.rows(
        """
        SELECT min(updated_at_ms) FROM {schema}.flow
        WHERE status IN (1, 3, 4) AND parent_key IS NULL AND updated_at_ms > $1
        """,
        (before_ms,),
    )
    return found  # type: ignore[no-any-return]


def count(session: Session, before_ms: int) -> int:
    """Return how many flows there are to remove."""
    ((found,),) = session.rows(_COUNT, (before_ms, None))
    return int(found)


def prune(session: Session, roots: Sequence[int], before_ms: int) -> int:
    """Remove these families in one transaction, where they are still there and still over.

    One of which somebody else has a row in hand is left to the next call, so that nobody waits. Returns how
    many flows went.
    """
    with session.transaction():
        session.send("SELECT set_config('idle_in_transaction_session_timeout', '15s', true)")
        locked = session.rows(_LOCK, (numbers(roots),))
        # By a statement of its own: it sees what others did before the rows were ours.
        going = session.rows(_GOING, (before_ms, numbers(roots), numbers([key for (key,) in locked])))
        keys = (numbers([key for (key,) in going]),)
        session.send(
            """
            DELETE FROM {schema}.signal
            WHERE flow_id IN (SELECT flow_id FROM {schema}.flow WHERE flow_key = ANY ($1::bigint[]))
            """,
            keys,
        )
        session.send("DELETE FROM {schema}.step WHERE flow_key = ANY ($1::bigint[])", keys)
        session.send("DELETE FROM {schema}.flow WHERE flow_key = ANY ($1::bigint[])", keys)
    return len(going)
