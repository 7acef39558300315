"""`persistasaurus start`: one flow, by its module or its name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from persistasaurus._engine.registry import display_name
from persistasaurus._flow import Flow
from persistasaurus._handle import FlowHandle
from persistasaurus._model import FlowStatus
from persistasaurus.cli._arguments import arg_option, input_option, read_arguments
from persistasaurus.cli._command import Command, Here
from persistasaurus.cli._database import new_client
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.cli._inert import as_json
from persistasaurus.cli._modules import flow_of
from persistasaurus.cli._records import flow_json


@click.command(cls=Command)
@click.argument("flow", metavar="[MODULE:]FLOW")
@input_option
@arg_option
@click.option("--id", "flow_id", metavar="ID", help="The flow id; the same id again is the same flow.")
@click.option("--wait", is_flag=True, help="Wait until it has ended and print its result.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait for at most so long, then exit with 5.")
@click.pass_obj
def start(here: Here, /, flow: str, **options: Any) -> Exit:
    """Start a flow and print its id.

    FLOW is a function or Class.method in MODULE, or the name of a flow in a module that --module names.
    Some worker has to drive it: this command only records the start.
    """
    app = new_client(here)
    marked = flow_of(app, flow)
    args, kwargs = _arguments(marked, options["text"], options["pairs"])
    # Not before: what is refused makes no database.
    with app:
        handle = app.start(marked.options(flow_id=options["flow_id"]), *args, **kwargs)
        if reason := handle.record().reason:
            here.out.aside(f"persistasaurus: {reason}")
        if options["wait"] or options["timeout"] is not None:
            return _wait(here, handle, options["timeout"])
        if here.out.as_json:
            here.out.document(flow_json(handle.record()))
        else:
            here.out.text(handle.flow_id)
        return Exit.OK


def _arguments(marked: Flow[..., Any], text: str | None, pairs: Sequence[str]) -> tuple[Any, Any]:
    codec = marked._definition.arguments
    name = display_name(marked._definition.name_in(marked._owner_class()))
    bound = codec.from_json(read_arguments(text, pairs, codec), what=f"The input of flow {name!r}")
    return codec.unpack(bound)


def _wait(here: Here, handle: FlowHandle[Any], timeout: float | None) -> Exit:
    if not here.out.as_json:
        here.out.aside(f"flow {handle.flow_id}")
    # What it raises is the flow's own, or says that time is over: the record tells which.
    with suppress(Exception):
        handle.result(timeout)
    record = handle.record()
    if here.out.as_json:
        here.out.document(flow_json(record))
    elif record.status == FlowStatus.COMPLETE:
        here.out.text(as_json(record.result))
    return ended(record.status, handle.flow_id, why=record.reason or told(record.error))


def ended(status: FlowStatus, flow_id: str, *, why: str) -> Exit:
    """Return the code of a flow that was waited for.

    Raises:
        Refusal: it is not complete; the message says what became of it.
    """
    match status:
        case FlowStatus.COMPLETE:
            return Exit.OK
        case FlowStatus.FAILED:
            raise Refusal(f"Flow {flow_id!r} failed: {why}", Exit.FAILED)
        case FlowStatus.CANCELLED:
            raise Refusal(f"Flow {flow_id!r} was cancelled.", Exit.FAILED)
        case FlowStatus.PARKED:
            raise Refusal(f"Flow {flow_id!r} is parked: {why}", Exit.FAILED)
        case FlowStatus.PENDING | FlowStatus.WAITING_FOR_SIGNAL:
            message = f"Flow {flow_id!r} has not ended in time, it is {status}. It goes on. {why}"
            raise Refusal(message.strip(), Exit.TIMEOUT)


def told(error: dict[str, Any] | None) -> str:
    """Return a recorded failure in a line."""
    if error is None:
        return ""
    return f"{error.get('type', 'an error')}: {error.get('message', '')}"
