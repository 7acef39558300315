"""Pages of flows and steps, and what a flow waits for: what the routes read, in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import instant
from persistasaurus._engine.engine import Engine
from persistasaurus._engine.listing import checked_prefix, instant_ms, status_codes
from persistasaurus._engine.registry import StepDefinition, display_name, known_step
from persistasaurus._engine.signals import known_signal
from persistasaurus._handle import _step_record
from persistasaurus._model import STATUS_BY_CODE, FlowStatus, Kind
from persistasaurus._store.base import FlowFilter, FlowRow, History, StepRow
from persistasaurus.errors import AppNotRunningError, FlowNotFound
from persistasaurus.web._addresses import as_cursor, from_cursor
from persistasaurus.web._models import (
    FlowAnswer,
    FlowPage,
    FlowSummary,
    StepPage,
    Waiting,
    flow_answer,
    step_answer,
)
from persistasaurus.web._schemas import arguments_schema

MOST_FLOWS = 200
MOST_STEPS = 1_000

UrlOf = Callable[[str], str]


class Asked(NamedTuple):
    """Which flows to list; None does not restrict. Datetimes are aware."""

    status: Sequence[FlowStatus] | None = None
    name: str | None = None
    id_prefix: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def flow_page(
    app: Persistasaurus, asked: Asked, *, cursor: str | None, limit: int, url_of: UrlOf
) -> FlowPage:
    """Return a page of flows, newest first.

    Raises:
        ValueError: the cursor is none, or the prefix begins no id.
    """
    engine = app._engine_here("GET /flows")
    which = FlowFilter(
        statuses=status_codes(asked.status or None),
        names=app._names_of(engine, asked.name),
        id_prefix=checked_prefix(asked.id_prefix),
        created_from_ms=instant_ms(asked.created_after, "createdAfter"),
        created_before_ms=instant_ms(asked.created_before, "createdBefore"),
    )
    before = None if cursor is None else from_cursor(cursor)
    # One more than asked for tells whether there is another page.
    rows = engine.store.list_flows(which, before_key=before, limit=limit + 1)
    following = as_cursor(rows[limit - 1].flow_key) if len(rows) > limit else None
    return FlowPage(items=[_summary(app, row, url_of) for row in rows[:limit]], next=following)


def _summary(app: Persistasaurus, row: FlowRow, url_of: UrlOf) -> FlowSummary:
    # Not by the record: it checks the outcome, and one damaged row is no reason to list nothing.
    return FlowSummary(
        flow_id=row.flow_id,
        name=display_name((row.class_name, row.method_name)),
        status=STATUS_BY_CODE[row.status],
        created_at=instant(row.created_at_ms),
        updated_at=instant(row.updated_at_ms),
        reason=app._reason_of(row),
        url=url_of(row.flow_id),
    )


def one_flow(app: Persistasaurus, flow_id: str, url_of: UrlOf) -> FlowAnswer:
    """Return a flow with its outcome and what it waits for.

    Raises:
        FlowNotFound: no flow has this id.
    """
    engine, history = history_of(app, flow_id)
    return flow_answer(
        app._record(history.flow),
        url=url_of(flow_id),
        waits_for=[_waiting(engine, row) for row in waits(history)],
    )


def step_page(app: Persistasaurus, flow_id: str, *, cursor: str | None, limit: int) -> StepPage:
    """Return a page of a flow's execution log.

    Raises:
        FlowNotFound: no flow has this id.
        ValueError: the cursor is none.
    """
    engine, history = history_of(app, flow_id)
    after = 0 if cursor is None else from_cursor(cursor)
    rows = [row for row in history.steps if row.step > after]
    return StepPage(
        items=[
            step_answer(_step_record(engine.shown.step(flow_id, row), engine.names.of(row.name_id)))
            for row in rows[:limit]
        ],
        next=as_cursor(rows[limit - 1].step) if len(rows) > limit else None,
    )


def history_of(app: Persistasaurus, flow_id: str) -> tuple[Engine, History]:
    """Return all that is recorded of a flow: one consistent read."""
    engine = app._engine_here("A flow's page")
    history = engine.store.load(app.handle(flow_id)._row().flow_key)
    if history is None:
        raise FlowNotFound(f"The flow {flow_id!r} was deleted just now.")
    return engine, history


def waits(history: History) -> list[StepRow]:
    """Return the rows at which a flow waits for somebody."""
    if STATUS_BY_CODE[history.flow.status].ended:
        return []
    return [
        row
        for row in history.steps
        if row.event is None and row.kind in (Kind.SIGNAL, Kind.WAIT_FOR) and row.parameters is None
    ]


def _waiting(engine: Engine, row: StepRow) -> Waiting:
    name = engine.names.of(row.name_id)
    if row.kind == Kind.SIGNAL:
        signal = known_signal(name[1])
        schema = None if signal is None else arguments_schema(signal.codec)
        return Waiting(kind="signal", name=name[1], payload=schema)
    step = known_step(name)
    schema = None if step is None else arguments_schema(step.arguments)
    return Waiting(kind="step", name=name[1], payload=schema)


def step_named(app: Persistasaurus, flow_id: str, name: str) -> StepDefinition | None:
    """Return the step that a flow's caller means by `method` or `Class.method`: one it waits for, or its own.

    Raises:
        FlowNotFound: no flow has this id.
    """
    engine, history = history_of(app, flow_id)
    names = [engine.names.of(row.name_id) for row in waits(history) if row.kind == Kind.WAIT_FOR]
    meant = [one for one in names if name in (one[1], display_name(one))]
    target = app._registry.find((history.flow.class_name, history.flow.method_name))
    owner = None if target is None else target.owner
    classes: Sequence[Any] = () if owner is None else owner.__mro__
    class_name, _, method_name = name.rpartition(".")
    meant += [(cls.__qualname__, name) for cls in classes]
    meant += [(class_name, method_name), ("", name)]
    return next((step for one in meant if (step := known_step(one)) is not None), None)


def readiness(app: Persistasaurus) -> tuple[bool, str]:
    """Ask the store and the worker; return whether there is a worker, and what is wrong with it, if anything.

    Raises:
        AppNotRunningError: the app is not entered.
        StoreError: the store cannot be read.
    """
    engine = app._engine_here("GET /health/ready")
    engine.store.check()
    engine.store.workers()
    if not engine.settings.worker:
        return False, ""
    if engine.stopping:
        raise AppNotRunningError("The app is being left: it starts no more steps.")
    if engine.worker_id is None or not engine.worker.holds_lease():
        return True, "The worker does not hold its lease: flows are recorded, and driven once it is renewed."
    return True, ""
