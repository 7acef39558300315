"""The group commit: steps, updates and starts of many flows in few statements and one round trip."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from persistasaurus._model import PENDING
from persistasaurus._store import _pg_cancel as cancel
from persistasaurus._store import _pg_signals as signals
from persistasaurus._store import _pg_steps
from persistasaurus._store._pg_errors import LEASE_LOST, WRITER_GONE, ConnectionLost, lease_lost
from persistasaurus._store._pg_rows import Session, numbers, texts
from persistasaurus._store._pg_writer import Mark
from persistasaurus._store.base import (
    Batch,
    Committed,
    FlowUpdate,
    NewFlow,
    NewSignal,
    StartedFlow,
)
from persistasaurus._store.rules import holds_owners_writes, holds_steps_alone, update_values

NOTHING = Committed((), (), ())


def apply(session: Session, batch: Batch, mark: Mark, *, now_ms: int, synchronous: str | None) -> Committed:
    """Write a batch in one transaction, fenced by its worker."""
    with fenced(batch.worker_id):
        if holds_steps_alone(batch):
            _pg_steps.write_alone(session, batch.steps, batch.worker_id, mark, synchronous)
            return NOTHING
        cancelled: Sequence[tuple[int, int] | None] = ()
        with session.transaction():
            # No worker has the number 0: without one the owner's writes are refused.
            fence = (batch.worker_id or 0) if holds_owners_writes(batch) else None
            begin(session, mark, fence=fence, synchronous=synchronous)
            _lock(session, batch)
            if batch.steps:
                _pg_steps.write(session, batch.steps)
            if batch.updates:
                _write_updates(session, batch.updates, batch.worker_id)
            started = _start(session, batch.starts, batch.worker_id) if batch.starts else None
            _write_mail(session, batch, now_ms)
            sent = signals.send(session, batch.signals) if batch.signals else None
            if batch.cancels:
                cancelled = cancel.cancel(session, batch.cancels, now_ms)
    with answered():
        return Committed(
            _answer_starts(session, batch.starts, batch.worker_id, dict(started.fetchall()))
            if started
            else (),
            _answer_signals(batch.signals, sent.fetchall()) if sent else (),
            cancelled,
        )


def look(session: Session, batch: Batch) -> Committed:
    """Return the answers of a batch that is known to be committed."""
    found = {flow_id: (key, status) for flow_id, key, status in cancel.find(session, batch.cancels)}
    return Committed(
        _look_for_starts(session, batch.starts) if batch.starts else (),
        _answer_signals(batch.signals, signals.find_poked(session, batch.signals)),
        [found.get(flow_id) for flow_id in batch.cancels],
    )


@contextmanager
def answered() -> Generator[None, None, None]:
    """Raise whatever fails after the commit as a lost answer: it was written, and is read back."""
    try:
        yield
    except psycopg.Error as error:
        raise ConnectionLost(f"The answer of a commit could not be read: {error}", sent=True) from error


@contextmanager
def fenced(worker_id: int | None) -> Generator[None, None, None]:
    """Raise what the fence in the database refuses as a LeaseLost."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == LEASE_LOST:
            raise lease_lost(worker_id) from error
        raise


def begin(session: Session, mark: Mark, *, fence: int | None, synchronous: str | None = None) -> None:
    """Leave the mark, and go on only while the worker `fence` is alive.

    Its row is locked: whoever takes the worker over waits for this transaction, and one that comes after
    finds no row. A client that dies in the middle is given up after a while.
    """
    session.send(
        """
        WITH marked AS (UPDATE {schema}.writer SET mark = $2 WHERE writer_id = $1 RETURNING 1),
            alive AS (SELECT FROM {schema}.worker WHERE worker_id = $3 FOR KEY SHARE)
        SELECT
            set_config('idle_in_transaction_session_timeout', '15s', true),
            set_config('synchronous_commit', coalesce($4, current_setting('synchronous_commit')), true),
            {schema}.ensure(EXISTS (SELECT FROM marked), $5),
            {schema}.ensure($3::bigint IS NULL OR EXISTS (SELECT FROM alive), $6)
        """,
        (mark.writer_id, mark.number, fence, synchronous, WRITER_GONE, LEASE_LOST),
    )


def _lock(session: Session, batch: Batch) -> None:
    if batch.signals:
        signals.wait_for_starts(session, batch.signals)
    if batch.starts:
        session.send(signals.SHARE_STARTS)
    keys = {*[update.flow_key for update in batch.updates], *batch.poke}
    flow_ids = {*[signal.flow_id for signal in batch.signals], *batch.cancels}
    # One signal, too: the flow may be about to be reopened, and its row must not be passed by until then.
    if batch.signals or len(keys) + len(flow_ids) > 1:
        cancel.lock_flows(session, list(keys), list(flow_ids))


def _write_mail(session: Session, batch: Batch, now_ms: int) -> None:
    if batch.consumed:
        signals.consume(session, batch.consumed)
    if batch.rejected:
        signals.reject(session, batch.rejected)
    if batch.poke:
        # The end of a child is the reason of a poke: its time is the time to wake the parent.
        at = max((update.updated_at_ms for update in batch.updates), default=now_ms)
        signals.poke(session, dict.fromkeys(batch.poke, at))
    if batch.cancel_children:
        cancel.cancel_children(session, batch.cancel_children, now_ms)


def _write_updates(session: Session, updates: Sequence[FlowUpdate], worker_id: int | None) -> None:
    rows = update_values(updates, worker_id)
    columns: list[Any] = list(zip(*rows, strict=True))
    values = [texts(column) if index in _TEXTS else numbers(column) for index, column in enumerate(columns)]
    session.send(
        """
        WITH changed AS (
            UPDATE {schema}.flow SET
                status = v.status, updated_at_ms = v.updated_at_ms, result = v.result, error = v.error,
                reason = v.reason, owner = v.owner, idle = v.idle,
                due_at_ms = CASE
                    WHEN flow.pokes <= v.seen_pokes OR v.mode = 'settled' THEN v.due_at_ms
                    WHEN v.mode = 'resting' THEN v.updated_at_ms
                    ELSE least(flow.due_at_ms, v.due_at_ms)
                END,
                crashes = v.crashes, lost_claims = v.lost_claims, cancel_event = v.cancel_event,
                cancel_event_at_ms = v.cancel_event_at_ms, outcome_checksum = v.outcome_checksum
            FROM unnest(
                $1::bigint[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                $8::smallint[], $9::bigint[], $10::bigint[], $11::text[], $12::integer[], $13::integer[],
                $14::integer[], $15::bigint[], $16::bigint[]
            ) AS v (
                flow_key, status, updated_at_ms, result, error, reason, owner, idle, due_at_ms, seen_pokes,
                mode, crashes, lost_claims, cancel_event, cancel_event_at_ms, outcome_checksum
            )
            WHERE flow.flow_key = v.flow_key AND flow.owner = $17
            RETURNING 1
        )
        SELECT {schema}.ensure((SELECT count(*) FROM changed) = $18, $19)
        """,
        (*values, worker_id, len(rows), LEASE_LOST),
    )


_TEXTS = {3, 4, 5, 10}
_NEW, _OLD = True, False


def _start(
    session: Session, new: Sequence[NewFlow], worker_id: int | None
) -> psycopg.Cursor[tuple[str, int]]:
    """Insert flows; the answer is each id that is new, with its key."""
    # Keys in the order of the batch; rows in that of the ids, so that two batches never wait for each other.
    return session.send(
        """
        WITH given AS MATERIALIZED (
            SELECT nextval('{schema}.flow_flow_key_seq') AS flow_key, v.*
            FROM unnest(
                $1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::integer[],
                $8::bigint[], $9::bigint[], $10::text[]
            ) AS v (
                flow_id, name_id, created_at_ms, seed, input, parent_key, parent_step, checksum, owner, trace
            )
        )
        INSERT INTO {schema}.flow (
            flow_key, flow_id, name_id, created_at_ms, updated_at_ms, seed, input, parent_key, parent_step,
            checksum, owner, due_at_ms, trace, status, idle, pokes, crashes, lost_claims
        )
        SELECT
            flow_key, flow_id, name_id, created_at_ms, created_at_ms, seed, input, parent_key, parent_step,
            checksum, owner, CASE WHEN owner IS NULL THEN created_at_ms END, trace, 0, 0, 0, 0, 0
        FROM given ORDER BY flow_id COLLATE "C", flow_key
        ON CONFLICT (flow_id) DO NOTHING
        RETURNING flow_id, flow_key
        """,
        (
            texts([flow.flow_id for flow in new]),
            numbers([flow.name_id for flow in new]),
            numbers([flow.created_at_ms for flow in new]),
            numbers([flow.seed for flow in new]),
            texts([flow.input for flow in new]),
            numbers([flow.parent_key for flow in new]),
            numbers([flow.parent_step for flow in new]),
            numbers([flow.checksum for flow in new]),
            numbers([worker_id if flow.claim else None for flow in new]),
            texts([flow.trace for flow in new]),
        ),
    )


def _answer_starts(
    session: Session, new: Sequence[NewFlow], worker_id: int | None, created: dict[str, int]
) -> Sequence[StartedFlow]:
    answers: dict[int, StartedFlow] = {}
    for index, flow in enumerate(new):
        key = created.pop(flow.flow_id, None)
        if key is not None:
            owner = worker_id if flow.claim else None
            answers[index] = StartedFlow(key, _NEW, flow.name_id, flow.input, PENDING, owner)
    if len(answers) < len(new):
        found, anew = _find_or_start(session, new)
        for index, flow in enumerate(new):
            if index not in answers:
                answers[index] = found[flow.flow_id][0]._replace(created=flow.flow_id in anew)
                anew.discard(flow.flow_id)
    return [answers[index] for index in range(len(new))]


def _look_for_starts(session: Session, new: Sequence[NewFlow]) -> Sequence[StartedFlow]:
    """Answer starts that are known to be written: the new ones are those whose rows say what ours said."""
    found, _ = _find_or_start(session, new)
    answers: list[StartedFlow] = []
    seen: set[str] = set()
    for flow in new:
        answer, made = found[flow.flow_id]
        ours = made == (flow.seed, flow.created_at_ms, flow.checksum) and flow.flow_id not in seen
        seen.add(flow.flow_id)
        answers.append(answer._replace(created=ours))
    return answers


def _find_or_start(
    session: Session, new: Sequence[NewFlow]
) -> tuple[dict[str, tuple[StartedFlow, tuple[int, int, int]]], set[str]]:
    """Read what the ids hold after the commit; start those anew that were pruned since, and tell which."""
    anew: set[str] = set()
    while True:
        found = _read_started(session, [flow.flow_id for flow in new])
        gone = [flow for flow in new if flow.flow_id not in found]
        if not gone:
            return found, anew
        with session.transaction():
            session.send(_SYNCHRONOUS)
            # Nothing fences this one: whoever claims them first drives them.
            _start(session, [flow._replace(claim=False) for flow in gone], None)
        anew.update([flow.flow_id for flow in gone])


_SYNCHRONOUS = """
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'
"""


def _read_started(
    session: Session, flow_ids: Sequence[str]
) -> dict[str, tuple[StartedFlow, tuple[int, int, int]]]:
    rows = session.rows(
        """
        SELECT flow_id, flow_key, name_id, input, status, owner, seed, created_at_ms, checksum
        FROM {schema}.flow WHERE flow_id = ANY ($1::text[])
        """,
        (texts(flow_ids),),
    )
    return {
        flow_id: (StartedFlow(key, _OLD, name_id, text, status, owner), tuple(made))
        for flow_id, key, name_id, text, status, owner, *made in rows
    }


def _answer_signals(new: Sequence[NewSignal], poked: Sequence[tuple[str, int]]) -> Sequence[int | None]:
    keys = dict(poked)
    return [keys.get(signal.flow_id) for signal in new]
