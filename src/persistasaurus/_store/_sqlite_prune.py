"""Removes flows that ended long ago, each with all that is its own; inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence

import apsw

from persistasaurus._store._sqlite_rows import read_rows, write
from persistasaurus._store.pruning import Family

# A child has the higher key, so that this ends whatever the rows say.
_CHILDREN_OF_MEMBER = (
    "flow AS child ON child.parent_key = member.flow_key AND child.flow_key > member.flow_key"
)
# Neither it nor any flow below it goes on, or has ended too late.
_IS_OVER = """
    root.status IN (1, 3, 4) AND root.parent_key IS NULL AND root.updated_at_ms <= :before
    AND NOT EXISTS (
        WITH RECURSIVE member (flow_key) AS (
            SELECT root.flow_key
            UNION ALL
            SELECT child.flow_key FROM member JOIN {children_of_member}
        )
        SELECT 1 FROM member CROSS JOIN flow USING (flow_key)
        WHERE flow.status NOT IN (1, 3, 4) OR flow.updated_at_ms > :before
    )
"""
_FAMILIES = """
    WITH RECURSIVE
        chosen AS MATERIALIZED ({roots}),
        member (root_key, flow_key) AS (
            SELECT flow_key, flow_key FROM chosen
            UNION ALL
            SELECT member.root_key, child.flow_key FROM member JOIN {children_of_member}
        )
    {question}
"""
_OLDEST = """
    SELECT flow_key, updated_at_ms FROM flow AS root INDEXED BY flow_ended WHERE {is_over}
    ORDER BY updated_at_ms, flow_key LIMIT :limit
"""
_THESE = """
    SELECT flow_key FROM flow AS root WHERE flow_key IN (SELECT value FROM json_each(:roots)) AND {is_over}
"""


def _sql(roots: str, question: str) -> str:
    # All of these are texts of this file; what a caller gave is bound.
    sql = _FAMILIES.replace("{roots}", roots).replace("{question}", question).replace("{is_over}", _IS_OVER)
    return sql.replace("{children_of_member}", _CHILDREN_OF_MEMBER)


_LOOK = _sql(
    _OLDEST,
    """
    SELECT root_key, count(*), sum(
        1 + (SELECT coalesce(max(step), 0) FROM step WHERE step.flow_key = member.flow_key)
    )
    FROM member JOIN chosen ON chosen.flow_key = root_key
    GROUP BY root_key ORDER BY updated_at_ms, root_key
    """,
)
_COUNT = _sql(_OLDEST, "SELECT count(*) FROM member")
_GOING = _sql(_THESE, "SELECT flow_key FROM member")


def look(connection: apsw.Connection, before_ms: int, limit: int) -> Sequence[Family]:
    """Return the families that ended first, at most `limit` of them, by index alone."""
    rows = read_rows(connection, _LOOK, {"before": before_ms, "limit": limit})
    return [Family(*row) for row in rows]


def next_end_ms(connection: apsw.Connection, before_ms: int) -> int | None:
    """Return the first end after `before_ms`."""
    ((found,),) = read_rows(
        connection,
        """
        SELECT min(updated_at_ms) FROM flow INDEXED BY flow_ended
        WHERE status IN (1, 3, 4) AND parent_key IS NULL AND updated_at_ms > ?
        """,
        (before_ms,),
    )
    return found  # type: ignore[no-any-return]


def count(connection: apsw.Connection, before_ms: int) -> int:
    """Return how many flows there are to remove."""
    ((found,),) = read_rows(connection, _COUNT, {"before": before_ms, "limit": -1})
    return int(found)


def prune(connection: apsw.Connection, roots: Sequence[int], before_ms: int) -> int:
    """Remove these families, where they are still there and still over; returns how many flows went."""
    going = read_rows(connection, _GOING, {"before": before_ms, "roots": json.dumps(roots)})
    keys = (json.dumps([key for (key,) in going]),)
    write(
        connection,
        """
        DELETE FROM signal WHERE flow_id IN (
            SELECT flow_id FROM flow WHERE flow_key IN (SELECT value FROM json_each(?))
        )
        """,
        keys,
    )
    write(connection, "DELETE FROM step WHERE flow_key IN (SELECT value FROM json_each(?))", keys)
    write(connection, "DELETE FROM flow WHERE flow_key IN (SELECT value FROM json_each(?))", keys)
    return len(going)
