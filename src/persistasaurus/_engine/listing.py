"""What a listing of flows may ask for, checked before the store is asked, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from persistasaurus._clock import instant
from persistasaurus._engine.history import verify_outcome
from persistasaurus._engine.registry import display_name
from persistasaurus._ids import is_storable
from persistasaurus._model import CODE_BY_STATUS, PENDING, STATUS_BY_CODE, WAITING, FlowRecord, FlowStatus
from persistasaurus._store.base import FlowRow

if TYPE_CHECKING:
    from persistasaurus._engine.engine import Engine


def status_codes(status: Any) -> list[int] | None:
    """Return the stored codes of one status or several, given as such or by name.

    Raises:
        ValueError: there is no such status.
    """
    if status is None:
        return None
    several = isinstance(status, Iterable) and not isinstance(status, str)
    given: list[Any] = list(cast("Iterable[Any]", status)) if several else [status]
    try:
        return [CODE_BY_STATUS[FlowStatus(one)] for one in given]
    except ValueError as error:
        known = ", ".join(FlowStatus)
        raise ValueError(f"status={status!r:.60}: there is no such status. Give some of {known}.") from error


def instant_ms(value: Any, what: str) -> int | None:
    """Return an aware datetime in milliseconds since 1970.

    Raises:
        ValueError: it is naive.
        TypeError: it is no datetime.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise TypeError(f"{what}={value!r:.60} is no datetime. Give an aware one, as datetime.now(UTC).")
    if value.utcoffset() is None:
        raise ValueError(
            f"{what}={value!r} is naive: it names no instant. Give an aware datetime, as datetime.now(UTC)."
        )
    return round(value.timestamp() * 1000)


def checked_prefix(value: Any) -> str | None:
    """Return the beginning of flow ids.

    Raises:
        ValueError: no flow id begins so.
        TypeError: it is no text.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"id_prefix={value!r:.60} is no text. Give the first characters of the ids.")
    if not is_storable(value):
        raise ValueError(
            f"id_prefix={value!r:.60} holds a NUL or a lone surrogate, which no flow id does. Give the first "
            "characters of the ids."
        )
    return value


def record_of(engine: Engine, row: FlowRow) -> FlowRecord:
    """Return what users see of a flow.

    Raises:
        DamagedRecordError: its outcome does not match its checksum.
    """
    if STATUS_BY_CODE[row.status].ended:
        verify_outcome(row)
    row = engine.shown.flow(row)
    return FlowRecord(
        flow_id=row.flow_id,
        name=display_name((row.class_name, row.method_name)),
        status=STATUS_BY_CODE[row.status],
        created_at=instant(row.created_at_ms),
        updated_at=instant(row.updated_at_ms),
        input=json.loads(row.input),
        result=None if row.result is None else json.loads(row.result),
        error=None if row.error is None else json.loads(row.error),
        reason=reason_of(engine, row),
    )


def reason_of(engine: Engine, row: FlowRow) -> str | None:
    """Return why a flow is parked, or is due and driven by nobody."""
    if row.reason is not None:
        return str(json.loads(row.reason).get("message", ""))
    if row.status not in (PENDING, WAITING) or row.owner is not None or row.due_at_ms is None:
        return None
    if row.due_at_ms > engine.now_ms():
        return None
    name = display_name((row.class_name, row.method_name))
    if any(name in json.loads(worker.names) for worker in engine.store.workers()):
        return None
    return f"No living worker knows the flow {name!r}. Start one that imports and registers it."
