"""What is stored and shown: statuses, kinds and the frozen records that a user reads."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


class FlowStatus(enum.StrEnum):
    """Where a flow instance, or one of its steps, stands."""

    PENDING = "PENDING"
    """It runs, is due, sleeps, or waits for a child flow."""
    WAITING_FOR_SIGNAL = "WAITING_FOR_SIGNAL"
    """It can go on only by a signal."""
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    """It raised; it runs again only when someone retries it."""
    CANCELLED = "CANCELLED"
    PARKED = "PARKED"
    """It is not driven until someone acts; the record's `reason` says why."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself and an outcome is recorded."""
        return self in _ENDED


_ENDED = frozenset({FlowStatus.COMPLETE, FlowStatus.FAILED, FlowStatus.CANCELLED})

# The stored codes. 0 and 1 take no byte in a SQLite row, so the two usual ones have them.
PENDING, COMPLETE, WAITING, FAILED, CANCELLED, PARKED = range(6)
STATUS_BY_CODE = (
    FlowStatus.PENDING,
    FlowStatus.COMPLETE,
    FlowStatus.WAITING_FOR_SIGNAL,
    FlowStatus.FAILED,
    FlowStatus.CANCELLED,
    FlowStatus.PARKED,
)
CODE_BY_STATUS = {status: code for code, status in enumerate(STATUS_BY_CODE)}


class Kind(enum.IntEnum):
    """The durable operations; each takes one step number."""

    SLEEP = 0
    STEP = 1
    TIMER = 2
    SIGNAL = 3
    WAIT_FOR = 4
    CHILD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord:
    """One flow instance as the store holds it.

    `created_at` and `updated_at` are aware UTC datetimes. `input` is the arguments by name, `result`
    the returned value, both as plain JSON values. `error` is the failure as a dictionary (type,
    message, traceback, ...) and `reason` says why the flow is parked or not driven.
    """

    flow_id: str
    name: str
    status: FlowStatus
    created_at: datetime
    updated_at: datetime
    input: dict[str, Any]
    result: Any
    error: dict[str, Any] | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One row of a flow's execution log; step 0 is the flow itself.

    `timestamp` is the aware UTC datetime at which the step was asked for, `delay` the time it waits
    before it runs. `parameters` and `return_value` are plain JSON values, `error` is the failure as
    a dictionary.
    """

    step: int
    class_name: str
    method_name: str
    status: FlowStatus
    attempts: int
    delay: timedelta | None
    timestamp: datetime
    parameters: dict[str, Any] | None
    return_value: Any
    error: dict[str, Any] | None
