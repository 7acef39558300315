"""Steps: the rows that nearly all commits are made of."""

from __future__ import annotations

from collections.abc import Sequence

from persistasaurus._store._pg_errors import WRITER_GONE, lease_lost
from persistasaurus._store._pg_rows import Session, numbers, texts
from persistasaurus._store._pg_writer import Mark
from persistasaurus._store.base import StepRow

_INSERT = """
    INSERT INTO {schema}.step SELECT given.* FROM unnest(
        $1::bigint[], $2::integer[], $3::smallint[], $4::bigint[], $5::smallint[], $6::integer[],
        $7::integer[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::integer[],
        $13::integer[], $14::text[], $15::text[], $16::text[], $17::bigint[]
    ) AS given
    {only_if}
    ON CONFLICT (flow_key, step) DO UPDATE SET
        kind = excluded.kind, name_id = excluded.name_id, status = excluded.status,
        attempts = excluded.attempts, asked = excluded.asked, started_at_ms = excluded.started_at_ms,
        ended_after_ms = excluded.ended_after_ms, delay_ms = excluded.delay_ms,
        due_at_ms = excluded.due_at_ms, event = excluded.event, attempts_before = excluded.attempts_before,
        parameters = excluded.parameters, return_value = excluded.return_value, error = excluded.error,
        checksum = excluded.checksum
"""
_WRITE = _INSERT.replace("{only_if}", "WHERE TRUE")
# One statement is a transaction by itself. The fence as in `begin`: without a living worker there is no mark,
# and without a mark there are no rows.
_WRITE_ALONE = """
    WITH alive AS (SELECT FROM {schema}.worker WHERE worker_id = $18 FOR KEY SHARE),
        marked AS (
            UPDATE {schema}.writer SET mark = $20 WHERE writer_id = $19 AND EXISTS (SELECT FROM alive)
            RETURNING
                set_config('synchronous_commit', coalesce($21, current_setting('synchronous_commit')), true)
        )
    {insert}
""".replace("{insert}", _INSERT.replace("{only_if}", "WHERE EXISTS (SELECT FROM marked)"))


def write(session: Session, steps: Sequence[StepRow]) -> None:
    """Write steps inside the caller's transaction, which is fenced."""
    session.send(_WRITE, _columns(steps))


def write_alone(
    session: Session, steps: Sequence[StepRow], worker_id: int | None, mark: Mark, synchronous: str | None
) -> None:
    """Write steps by one statement, fenced by their owner, with the mark.

    Raises:
        LeaseLost: the worker is not alive.
    """
    values = (*_columns(steps), worker_id, mark.writer_id, mark.number, synchronous)
    if session.send(_WRITE_ALONE, values).rowcount:
        return
    found = session.rows("SELECT FROM {schema}.writer WHERE writer_id = $1", (mark.writer_id,))
    if found:
        raise lease_lost(worker_id)
    session.send("SELECT {schema}.ensure(false, $1)", (WRITER_GONE,))


def _columns(steps: Sequence[StepRow]) -> tuple[str, ...]:
    # The last of several states of one step stands; a statement cannot write a row twice.
    # By place: the engine hands in plain tuples.
    latest = {(row[0], row[1]): row for row in steps}
    columns = zip(*latest.values(), strict=True)
    return tuple(
        texts(column) if index in _TEXTS else numbers(column) for index, column in enumerate(columns)
    )


_TEXTS = {13, 14, 15}
