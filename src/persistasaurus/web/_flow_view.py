"""A flow as its page shows it: where it stands, its timeline, its steps, and forms for what it waits for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import instant
from persistasaurus._engine.engine import Engine
from persistasaurus._engine.registry import display_name, known_step
from persistasaurus._engine.signals import known_signal
from persistasaurus._model import STATUS_BY_CODE, FlowStatus, Kind
from persistasaurus._store.base import FlowRow, History, StepRow
from persistasaurus.errors import FlowNotFound
from persistasaurus.web._addresses import segment
from persistasaurus.web._forms import Form, form_of
from persistasaurus.web._looking import history_of, waits
from persistasaurus.web._payload import Shown, laid_out, shown_json, shown_text
from persistasaurus.web._schemas import arguments_schema
from persistasaurus.web._timeline import Timeline, timeline

STEPS = 100
_FINAL = (FlowStatus.COMPLETE, FlowStatus.CANCELLED)
_RETRYABLE = (FlowStatus.FAILED, FlowStatus.PARKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A recorded failure: what was raised, and where."""

    kind: str
    message: str
    traceback: Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A row of the steps."""

    step: int
    name: str
    kind: str
    status: FlowStatus
    attempts: int
    started: datetime
    took_ms: int | None
    delay_ms: int | None
    due: datetime | None
    parameters: Shown | None
    result: Shown | None
    error: Failure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitForm:
    """Something that the flow waits for. Without a `form` this process does not know its type."""

    kind: str
    name: str
    address: str
    since: datetime
    form: Form | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowView:
    """All that the page shows."""

    flow_id: str
    address: str
    name: str
    status: FlowStatus
    reason: str | None
    created: datetime
    updated: datetime
    cancel_asked: bool
    queued: Sequence[str]
    input: Shown
    result: Shown | None
    error: Failure | None
    waits: Sequence[WaitForm]
    timeline: Timeline
    steps: Sequence[StepLine]
    all_steps: int
    following: int | None

    @property
    def may_cancel(self) -> bool:
        return not self.status.ended and not self.cancel_asked

    @property
    def may_retry(self) -> bool:
        return self.status in _RETRYABLE


def flow_view(app: Persistasaurus, flow_id: str, *, after: int = 0) -> FlowView:
    """Return a flow with the steps behind step `after`.

    Raises:
        FlowNotFound: no flow has this id.
    """
    engine, history = history_of(app, flow_id)
    history = engine.shown.history(history)
    row = history.flow
    behind = [one for one in history.steps if one.step > after]
    steps = behind[:STEPS]
    named = [(one, display_name(engine.names.of(one.name_id))) for one in steps]
    begin_ms = row.created_at_ms if not after or not steps else steps[0].started_at_ms
    return FlowView(
        flow_id=flow_id,
        address=segment(flow_id),
        name=display_name((row.class_name, row.method_name)),
        status=STATUS_BY_CODE[row.status],
        reason=app._reason_of(row),
        created=instant(row.created_at_ms),
        updated=instant(row.updated_at_ms),
        cancel_asked=row.cancel_requested_at_ms is not None,
        queued=[one.name for one in history.mailbox.signals],
        input=shown_json(row.input),
        result=_json_shown(row.result),
        error=_failure(row.error),
        waits=_forms(engine, history),
        timeline=timeline(named, begin_ms=begin_ms, now_ms=engine.now_ms()),
        steps=[_line(one, name) for one, name in named],
        all_steps=len(history.steps),
        following=steps[-1].step if len(behind) > STEPS else None,
    )


def _line(row: StepRow, name: str) -> StepLine:
    pending = row.event is None
    return StepLine(
        step=row.step,
        name=name,
        kind=Kind(row.kind).name.lower().replace("_", " "),
        status=STATUS_BY_CODE[row.status],
        attempts=row.attempts,
        started=instant(row.started_at_ms),
        took_ms=row.ended_after_ms,
        delay_ms=row.delay_ms,
        due=instant(row.due_at_ms) if pending and row.due_at_ms is not None else None,
        parameters=_json_shown(row.parameters),
        result=_json_shown(row.return_value),
        error=_failure(row.error),
    )


def _json_shown(text: str | None) -> Shown | None:
    return None if text is None else shown_json(text)


def _failure(text: str | None) -> Failure | None:
    if text is None:
        return None
    try:
        record: Mapping[str, Any] = json.loads(text)
    except ValueError:
        return Failure(kind="Damaged record", message="It is no JSON.", traceback=shown_text(text))
    return Failure(
        kind=str(record.get("type", "")),
        message=shown_text(str(record.get("message", ""))).text,
        traceback=shown_text(str(record.get("traceback", ""))),
    )


def _forms(engine: Engine, history: History) -> list[WaitForm]:
    found: dict[tuple[int, str], WaitForm] = {}
    for row in waits(history):
        name = engine.names.of(row.name_id)
        is_signal = row.kind == Kind.SIGNAL
        shown_name = name[1] if is_signal else display_name(name)
        form = signal_form(name[1]) if is_signal else _step_form(name)
        found.setdefault(
            (row.kind, shown_name),
            WaitForm(
                kind="signal" if is_signal else "step",
                name=shown_name,
                address=f"{'signals' if is_signal else 'resume'}/{segment(shown_name)}",
                since=instant(row.started_at_ms),
                form=form,
            ),
        )
    return list(found.values())


def signal_form(name: str) -> Form:
    """Return the form of a signal's value; any JSON where this process does not know the signal."""
    signal = known_signal(name)
    return form_of(None if signal is None else arguments_schema(signal.codec))


def _step_form(name: tuple[str, str]) -> Form | None:
    step = known_step(name)
    return None if step is None else form_of(arguments_schema(step.arguments))


def payload_text(app: Persistasaurus, flow_id: str, step: int, part: str) -> str:
    """Return all of one payload of a flow (step 0) or of a step, laid out; `part` is input, result or error.

    Raises:
        FlowNotFound: there is no such flow, step or payload.
    """
    engine, history = history_of(app, flow_id)
    history = engine.shown.history(history)
    texts = _payloads(history.flow, next((one for one in history.steps if one.step == step), None), step)
    text = texts.get(part)
    if text is None:
        raise FlowNotFound(f"Flow {flow_id!r} has no {part!r:.20} at step {step}. Go back to its page.")
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return laid_out(value) if part != "error" else str(value.get("traceback", ""))


def _payloads(flow: FlowRow, row: StepRow | None, step: int) -> dict[str, str | None]:
    if step == 0:
        return {"input": flow.input, "result": flow.result, "error": flow.error}
    if row is None:
        return {}
    return {"input": row.parameters, "result": row.return_value, "error": row.error}


class Watch:
    """Tells whether a flow is another than before; reads it only once somebody has committed something."""

    def __init__(self, app: Persistasaurus, flow_id: str) -> None:
        self._app = app
        self._flow_id = flow_id
        self._change = -1
        self.seen: int | None = 0

    def __call__(self) -> int | None:
        """Return a number that differs once the flow does, None once nothing more will happen to it."""
        change = self._app._engine_here("A flow's page").store.changes()
        if change != self._change:
            self._change = change
            self.seen = self._look()
        return self.seen

    def _look(self) -> int | None:
        try:
            _, history = history_of(self._app, self._flow_id)
        except FlowNotFound:
            return None
        flow = history.flow
        if STATUS_BY_CODE[flow.status] in _FINAL:
            return None
        steps = tuple((one.step, one.status, one.attempts, one.event, one.due_at_ms) for one in history.steps)
        left = (flow.status, flow.reason, flow.updated_at_ms, flow.cancel_requested_at_ms)
        return hash((left, steps, len(history.mailbox.signals)))
