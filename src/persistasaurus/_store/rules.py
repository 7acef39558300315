"""What every store does alike, whatever its SQL: plain functions of the rows that it is given."""

from __future__ import annotations

from collections.abc import Sequence

from persistasaurus._model import PENDING, WAITING
from persistasaurus._store.base import Batch, FlowUpdate

# The minimal form of a recorded failure.
NEVER_RAN = (
    '{"type":"FlowCancelled","module":"persistasaurus.errors",'
    '"message":"The flow was cancelled before it ran."}'
)


def holds_steps_alone(batch: Batch) -> bool:
    """Return whether the batch holds steps and nothing else."""
    return bool(batch.steps) and not (
        batch.starts
        or batch.updates
        or batch.consumed
        or batch.rejected
        or batch.poke
        or batch.cancel_children
        or batch.signals
        or batch.cancels
    )


def holds_owners_writes(batch: Batch) -> bool:
    """Return whether only a living worker may write the batch."""
    return bool(
        batch.steps
        or batch.updates
        or batch.consumed
        or batch.rejected
        or batch.poke
        or batch.cancel_children
        or any(new.claim for new in batch.starts)
    )


def update_values(updates: Sequence[FlowUpdate], worker_id: int | None) -> list[tuple[object, ...]]:
    """Return what to write for each flow: the key, then the columns, the pokes seen and the mode.

    Each update is the full state: of several for one flow the last one stands. The mode says what becomes
    of pokes that were not seen: a flow that is "settled" is never due, one that is "resting" is due at
    once, and one that is "running" at the earlier of both times.
    """
    latest = {update.flow_key: update for update in updates}
    return [_values(update, worker_id) for update in latest.values()]


def _values(update: FlowUpdate, worker_id: int | None) -> tuple[object, ...]:
    # A flow that has ended or is parked belongs to nobody and is never due, whatever pokes came.
    settled = update.status not in (PENDING, WAITING)
    if settled:
        mode = "settled"
    elif update.idle or update.release:
        mode = "resting"
    else:
        mode = "running"
    return (
        update.flow_key,
        update.status,
        update.updated_at_ms,
        update.result,
        update.error,
        update.reason,
        None if settled or update.release else worker_id,
        0 if settled else int(update.idle),
        None if settled else update.due_at_ms,
        update.seen_pokes,
        mode,
        update.crashes,
        update.lost_claims,
        update.cancel_event,
        update.cancel_event_at_ms,
        update.outcome_checksum,
    )


def after_prefix(prefix: str) -> str | None:
    """Return the first text after all that begin with `prefix`, None where there is none."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return None
    # Texts are compared by code points; surrogates are none.
    following = 0xE000 if prefix[-1] == "\ud7ff" else ord(prefix[-1]) + 1
    return prefix[:-1] + chr(following)
