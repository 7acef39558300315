"""What the API answers with: the records of flows and steps, in camelCase."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from persistasaurus._model import FlowRecord, FlowStatus, StepRecord

_ID = "01997a3e-5d1c-7000-8000-3f2f6c1f0a55"
_EARLY, _LATE = "2026-01-31T09:00:00Z", "2026-01-31T09:00:10.250Z"


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Health(_Answer):
    """That the process answers."""

    status: Literal["healthy"] = "healthy"


class Readiness(_Answer):
    """That flows can be started and are driven."""

    status: Literal["ready"] = "ready"
    store: Literal["ok"] = "ok"
    worker: Literal["ok", "none"] = Field(description="`none` for a client, which drives no flows.")


class FlowSummary(_Answer):
    """A flow in a list: where it stands, without what it carries."""

    flow_id: str = Field(examples=[_ID])
    name: str = Field(examples=["SignupFlow.sign_up"])
    status: FlowStatus
    created_at: datetime = Field(examples=[_EARLY])
    updated_at: datetime = Field(examples=[_LATE])
    reason: str | None = Field(description="Why it is parked or not driven.", examples=[None])
    url: str = Field(description="The flow's address, for any id.", examples=[f"/flows/{_ID}"])


class FlowPage(_Answer):
    """A page of flows, newest first."""

    items: list[FlowSummary]
    next: str | None = Field(
        description="What to give as `cursor` for the next page; null on the last.", examples=["azQy"]
    )


class Waiting(_Answer):
    """Something that a flow waits for."""

    kind: Literal["step", "signal"] = Field(description="A step is resumed, a signal is sent.")
    name: str = Field(examples=["confirm_email_address"])
    payload: dict[str, Any] | None = Field(
        description="The JSON schema of what to send, where this process knows it.",
        examples=[
            {"type": "object", "properties": {"confirmed_at": {"type": "string", "format": "date-time"}}}
        ],
    )


class FlowAnswer(FlowSummary):
    """A flow with its input and its outcome."""

    input: dict[str, Any] = Field(examples=[{"user_name": "alice", "email": "alice@example.com"}])
    result: Any = Field(examples=[42])
    error: dict[str, Any] | None = Field(
        description="The failure: type, message, traceback and more.", examples=[None]
    )
    waits_for: list[Waiting]


class StepAnswer(_Answer):
    """A row of the execution log."""

    step: int = Field(examples=[1])
    class_name: str = Field(description="Empty for a function.", examples=["SignupFlow"])
    method_name: str = Field(examples=["create_user_record"])
    status: FlowStatus
    attempts: int = Field(examples=[1])
    delay: float | None = Field(description="Seconds waited before the step runs.", examples=[10.0])
    timestamp: datetime = Field(description="When the flow asked for the step.", examples=[_EARLY])
    parameters: dict[str, Any] | None = Field(examples=[{"user_name": "alice"}])
    return_value: Any = Field(examples=[42])
    error: dict[str, Any] | None = Field(examples=[None])


class StepPage(_Answer):
    """A page of a flow's execution log, in the order of the steps."""

    items: list[StepAnswer]
    next: str | None = Field(
        description="What to give as `cursor` for the next page; null on the last.", examples=[None]
    )


class Started(_Answer):
    """A flow that is durable and goes on by itself."""

    flow_id: str = Field(examples=[_ID])
    name: str = Field(examples=["SignupFlow.sign_up"])
    url: str = Field(examples=[f"/flows/{_ID}"])


class Queued(_Answer):
    """What was sent is durable: the flow takes it now, or as soon as it waits for it."""

    flow_id: str = Field(examples=[_ID])
    name: str = Field(description="The step's or the signal's.", examples=["approval"])
    url: str = Field(examples=[f"/flows/{_ID}"])


def flow_answer(record: FlowRecord, *, url: str, waits_for: list[Waiting]) -> FlowAnswer:
    """Return a flow's record as the API shows it."""
    return FlowAnswer(
        flow_id=record.flow_id,
        name=record.name,
        status=record.status,
        created_at=record.created_at,
        updated_at=record.updated_at,
        reason=record.reason,
        url=url,
        input=record.input,
        result=record.result,
        error=record.error,
        waits_for=waits_for,
    )


def step_answer(record: StepRecord) -> StepAnswer:
    """Return a row of the execution log as the API shows it."""
    return StepAnswer(
        step=record.step,
        class_name=record.class_name,
        method_name=record.method_name,
        status=record.status,
        attempts=record.attempts,
        delay=None if record.delay is None else record.delay.total_seconds(),
        timestamp=record.timestamp,
        parameters=record.parameters,
        return_value=record.return_value,
        error=record.error,
    )
