"""Flows and steps as the JSON that commands print; the keys stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import instant
from persistasaurus._engine.registry import display_name
from persistasaurus._model import STATUS_BY_CODE, FlowRecord, StepRecord
from persistasaurus._store.base import FlowFilter, FlowRow, SignalRow
from persistasaurus.errors import DamagedRecordError

PAGE = 200


def utc(at: datetime) -> str:
    """Return an instant as text, in UTC and with milliseconds."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flow_json(record: FlowRecord) -> dict[str, Any]:
    """Return a flow; `damaged` is None, or says which row cannot be believed."""
    return {
        "flow_id": record.flow_id,
        "name": record.name,
        "status": str(record.status),
        "created_at": utc(record.created_at),
        "updated_at": utc(record.updated_at),
        "input": record.input,
        "result": record.result,
        "error": record.error,
        "reason": record.reason,
        "damaged": None,
    }


def step_json(record: StepRecord) -> dict[str, Any]:
    """Return a step; `delay` is in seconds."""
    return {
        "step": record.step,
        "class_name": record.class_name,
        "method_name": record.method_name,
        "status": str(record.status),
        "attempts": record.attempts,
        "delay": None if record.delay is None else record.delay.total_seconds(),
        "timestamp": utc(record.timestamp),
        "parameters": record.parameters,
        "return_value": record.return_value,
        "error": record.error,
    }


def signal_json(row: SignalRow) -> dict[str, Any]:
    """Return a signal that nobody has consumed; `rejected` says why where it did not fit."""
    return {"name": row.name, "sent_at": utc(instant(row.sent_at_ms)), "rejected": row.rejected}


def flows_json(app: Persistasaurus, which: FlowFilter) -> Iterator[dict[str, Any]]:
    """Yield the flows that fit, newest first, a page at a time; a damaged one hides no other."""
    store = app._engine_here("app.flows()").store
    before: int | None = None
    while True:
        page = store.list_flows(which, before_key=before, limit=PAGE)
        for row in page:
            yield row_json(app, row)
        if len(page) < PAGE:
            return
        before = page[-1].flow_key


def row_json(app: Persistasaurus, row: FlowRow) -> dict[str, Any]:
    """Return the flow of a stored row, without its values where they are damaged."""
    try:
        return flow_json(app._record(row))
    except (DamagedRecordError, ValueError) as error:
        return {
            "flow_id": row.flow_id,
            "name": display_name((row.class_name, row.method_name)),
            "status": str(STATUS_BY_CODE[row.status]),
            "created_at": utc(instant(row.created_at_ms)),
            "updated_at": utc(instant(row.updated_at_ms)),
            "input": None,
            "result": None,
            "error": None,
            "reason": None,
            "damaged": str(error),
        }
