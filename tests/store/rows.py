"""Rows for the store's tests: the shortest ones that say something, to be changed by keyword."""

from __future__ import annotations

import itertools
from typing import Any

from persistasaurus._model import COMPLETE, PENDING, Kind
from persistasaurus._store.base import (
    Batch,
    FlowUpdate,
    NewFlow,
    NewSignal,
    StartedFlow,
    StepRow,
    Store,
    WorkerRow,
)

T0 = 1_790_000_000_000
FAR = T0 + 86_400_000
LEASE_MS = 600_000
"""Longer than any test."""
_incarnations = itertools.count()


class FixedClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = T0

    def now_ms(self) -> int:
        return self.ms

    def steady(self) -> float:
        return self.ms / 1000


def worker(incarnation: str | None = None, **changes: Any) -> WorkerRow:
    row = WorkerRow(
        worker_id=0,
        incarnation=incarnation or f"incarnation-{next(_incarnations)}",
        host="host",
        pid=1,
        process_started="1",
        names='["hello"]',
    )
    return row._replace(**changes)


def new_flow(flow_id: str = "f", **changes: Any) -> NewFlow:
    row = NewFlow(
        flow_id=flow_id,
        name_id=1,
        created_at_ms=T0,
        seed=42,
        input='{"name":"World"}',
        parent_key=None,
        parent_step=None,
        checksum=-7,
        claim=True,
    )
    return row._replace(**changes)


def step(flow_key: int, number: int = 1, **changes: Any) -> StepRow:
    row = StepRow(
        flow_key=flow_key,
        step=number,
        kind=Kind.STEP,
        name_id=1,
        status=COMPLETE,
        attempts=1,
        asked=number - 1,
        started_at_ms=T0,
        ended_after_ms=3,
        delay_ms=None,
        due_at_ms=None,
        event=number,
        attempts_before=0,
        parameters='{"count":3}',
        return_value="3",
        error=None,
        checksum=123_456_789,
    )
    return row._replace(**changes)


def update(flow_key: int, **changes: Any) -> FlowUpdate:
    row = FlowUpdate(
        flow_key=flow_key,
        status=PENDING,
        updated_at_ms=T0 + 100,
        result=None,
        error=None,
        reason=None,
        release=False,
        idle=False,
        due_at_ms=None,
        seen_pokes=0,
        crashes=0,
        lost_claims=0,
        cancel_event=None,
        cancel_event_at_ms=None,
        outcome_checksum=None,
    )
    return row._replace(**changes)


def signal(flow_id: str = "f", payload: str = '"yes"', **changes: Any) -> NewSignal:
    row = NewSignal(flow_id=flow_id, name="approval", payload=payload, sent_at_ms=T0 + 50, checksum=9)
    return row._replace(**changes)


def start(store: Store, worker_id: int | None, *flows: NewFlow) -> list[StartedFlow]:
    return list(store.commit(Batch(worker_id=worker_id, starts=list(flows))).starts)


def start_one(store: Store, worker_id: int | None, flow_id: str = "f", **changes: Any) -> int:
    return start(store, worker_id, new_flow(flow_id, **changes))[0].flow_key
