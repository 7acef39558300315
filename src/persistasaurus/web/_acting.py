"""What the routes do to flows: start by name, resume, send, retry; each with the refusals of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from persistasaurus._app import Persistasaurus
from persistasaurus._engine.registry import Target, display_name
from persistasaurus._flow import Flow, Step
from persistasaurus._handle import FlowHandle
from persistasaurus._model import FlowStatus
from persistasaurus.errors import InvalidFlowIdError, SerializationError
from persistasaurus.web._looking import step_named
from persistasaurus.web._problem import FieldError, Refused, payload_fields
from persistasaurus.web._schemas import Start

_RETRYABLE = (FlowStatus.FAILED, FlowStatus.PARKED)


async def start(app: Persistasaurus, asked: Start) -> tuple[FlowHandle[Any], str]:
    """Start a flow by its name and return its handle and name once the start is durable.

    Raises:
        Refused: there is no such flow, or the input does not fit its signature.
        FlowConflict: the id belongs to another flow or another input.
    """
    target = _target_named(app, asked.name)
    codec = target.definition.arguments
    try:
        bound = codec.from_json(asked.input, what=f"The input of flow {asked.name!r}")
        args, kwargs = codec.unpack(bound)
        flow = Flow[..., Any](target.definition)._bound(None, target.owner)
        return await app.start_async(flow.options(flow_id=asked.flow_id), *args, **kwargs), asked.name
    except SerializationError as error:
        raise _unfit(error, "input") from error
    except InvalidFlowIdError as error:
        raise Refused(
            422, "payload", str(error), errors=[FieldError(field="flowId", message=str(error))]
        ) from error


def _target_named(app: Persistasaurus, name: str) -> Target:
    known = {display_name(one): target for one, target in app._registry.known().items()}
    if name not in known:
        told = (
            f"No flow is named {name!r:.80} here. Known are: {', '.join(sorted(known)) or 'none'}. "
            "Import the flow's module in the server, and register its class if it takes arguments."
        )
        raise Refused(
            422, "payload", told, errors=[FieldError(field="name", message="No flow has this name.")]
        )
    return known[name]


async def resume(app: Persistasaurus, flow_id: str, name: str, arguments: dict[str, Any]) -> None:
    """Resume a step of a flow; durable when it returns, also where the flow does not wait for it yet.

    Raises:
        Refused: the flow has no such step or has ended, or the arguments do not fit.
        FlowNotFound: no flow has this id.
    """
    step = await asyncio.to_thread(step_named, app, flow_id, name)
    if step is None:
        raise Refused(
            404,
            "step-not-found",
            f"No step {name!r:.80} of flow {flow_id!r} is known here. Name one that it waits for: "
            "`waitsFor` of the flow lists them.",
        )
    await _refuse_ended(app, flow_id, f"the step {name!r}")
    try:
        bound = step.arguments.from_json(arguments, what=f"The input of step {name!r}")
        args, kwargs = step.arguments.unpack(bound)
        await app.handle(flow_id).resume_async(Step[..., Any](step), *args, **kwargs)
    except SerializationError as error:
        raise _unfit(error) from error


async def send(app: Persistasaurus, flow_id: str, name: str, value: Any, *, ahead: bool) -> None:
    """Send a signal to a flow; with `ahead` also where no flow has the id yet.

    Raises:
        Refused: the flow has ended, or the value does not fit.
        FlowNotFound: no flow has this id.
    """
    if not ahead:
        await _refuse_ended(app, flow_id, f"the signal {name!r}")
    try:
        await app.handle(flow_id).send_async(name, value)
    except SerializationError as error:
        raise _unfit(error) from error


async def retry(app: Persistasaurus, flow_id: str) -> None:
    """Let a failed or parked flow go on.

    Raises:
        Refused: it is neither.
        FlowNotFound: no flow has this id.
    """
    handle = app.handle(flow_id)
    status = await handle.status_async()
    if status not in _RETRYABLE:
        raise Refused(
            409,
            "flow-not-retryable",
            f"Flow {flow_id!r} is {status}: only a FAILED or PARKED flow is retried. Wait, or start another.",
        )
    await handle.retry_async()


async def _refuse_ended(app: Persistasaurus, flow_id: str, what: str) -> None:
    status = await app.handle(flow_id).status_async()
    if status.ended:
        raise Refused(
            409,
            "flow-not-waiting",
            f"Flow {flow_id!r} is {status} and takes {what} no more. Nothing was recorded.",
        )


def _unfit(error: SerializationError, within: str = "") -> Refused:
    return Refused(422, "payload", str(error), errors=payload_fields(error, within))
