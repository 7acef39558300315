"""`resume`, `signal`, `cancel` and `retry`: what a person does to a flow."""

from __future__ import annotations

from typing import Any

import click

from persistasaurus._app import Persistasaurus
from persistasaurus._codec import value_codec
from persistasaurus._engine.registry import StepDefinition, display_name, known_step
from persistasaurus._handle import FlowHandle
from persistasaurus._model import STATUS_BY_CODE, WAITING, FlowStatus, Kind
from persistasaurus._store.base import FlowRow
from persistasaurus.cli._arguments import arg_option, input_option, read_arguments, read_value
from persistasaurus.cli._command import Command, Here
from persistasaurus.cli._database import client
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.cli._records import flow_json
from persistasaurus.errors import FlowNotFound, FlowNotWaiting


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.argument("step")
@input_option
@arg_option
@click.pass_obj
def resume(here: Here, /, flow_id: str, step: str, **options: Any) -> Exit:
    """Resume a step that a flow waits for, with the step's arguments.

    STEP is a function's or method's name, or Class.method. Where --module names its module, the arguments
    are checked before anything is recorded, and the resume may come before the wait.
    """
    with client(here) as app:
        handle = app.handle(flow_id)
        name, waits = _awaited(app, _unended(handle), step)
        definition = known_step(name)
        given = read_arguments(
            options["text"], options["pairs"], None if definition is None else definition.arguments
        )
        app._send(flow_id, _queue(name), _payload(handle, definition, given)).result()
        _report(
            here, handle, f"resumed {display_name(name)}" + ("" if waits else ", for when it is waited for")
        )
    return Exit.OK


def _payload(handle: FlowHandle[Any], definition: StepDefinition | None, given: dict[str, Any]) -> str:
    what = "The input of the step"
    if definition is None:
        return value_codec(Any).encode(given, what=what)
    handle._check_own(definition)
    return definition.arguments.encode(
        definition.arguments.from_json(given, what=definition.input_label), what=definition.input_label
    )


def _queue(name: tuple[str, str]) -> str:
    return f"step:{display_name(name)}"


def _awaited(app: Persistasaurus, row: FlowRow, step: str) -> tuple[tuple[str, str], bool]:
    """Return the class and method name of a step, and whether the flow waits for it now.

    Raises:
        FlowNotWaiting: it does not wait for it, and no imported module has it.
    """
    engine = app._engine_here("resume")
    history = engine.store.load(row.flow_key)
    waiting = {
        engine.names.of(each.name_id)
        for each in (history.steps if history else ())
        if each.kind == Kind.WAIT_FOR and each.status == WAITING and each.event is None
    }
    fitting = [name for name in waiting if step in (name[1], display_name(name))]
    if len(fitting) == 1:
        return fitting[0], True
    class_name, _, method = step.rpartition(".")
    for name in ((class_name, method), (row.class_name, step)):
        if not fitting and known_step(name) is not None:
            return name, False
    waits = ", ".join(sorted(map(display_name, waiting))) or "no step"
    raise FlowNotWaiting(
        f"Flow {row.flow_id!r} waits for {waits}, and {step!r} is not one of them or is several. Name one in "
        "full, or give the module of the step with --module to resume it before it is waited for."
    )


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.argument("name")
@input_option
@click.option("--early", is_flag=True, help="Send it although no flow has this id yet.")
@click.pass_obj
def signal(here: Here, /, flow_id: str, name: str, *, text: str | None, early: bool) -> Exit:
    """Send a signal to a flow, which may wait for it later.

    The value is checked where --module names a module that defines the signal, else when the flow takes it.
    """
    value = read_value(text)
    with client(here) as app:
        handle = app.handle(flow_id)
        try:
            _unended(handle)
        except FlowNotFound:
            if not early:
                raise
        handle.send(name, value)
        if here.out.as_json:
            here.out.document({"flow_id": flow_id, "signal": name})
        else:
            here.out.text(f"{flow_id}: signal {name} sent")
    return Exit.OK


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.pass_obj
def cancel(here: Here, /, flow_id: str) -> Exit:
    """Ask a flow to end. A worker runs its clean-up steps and then it is CANCELLED."""
    with client(here) as app:
        handle = app.handle(flow_id)
        status = handle.status()
        if status != FlowStatus.CANCELLED:
            _unended(handle)
            handle.cancel()
        _report(here, handle, "cancelled" if handle.status().ended else "cancel requested")
    return Exit.OK


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.pass_obj
def retry(here: Here, /, flow_id: str) -> Exit:
    """Let a failed flow go on at the step that failed, or a parked one where it stopped."""
    with client(here) as app:
        handle = app.handle(flow_id)
        status = handle.status()
        if status not in (FlowStatus.FAILED, FlowStatus.PARKED):
            raise Refusal(
                f"Flow {flow_id!r} is {status}: only a FAILED or PARKED flow is retried.", Exit.CONFLICT
            )
        handle.retry()
        _report(here, handle, "retried")
    return Exit.OK


def _unended(handle: FlowHandle[Any]) -> FlowRow:
    row = handle._row()
    status = STATUS_BY_CODE[row.status]
    if status.ended:
        raise Refusal(f"Flow {handle.flow_id!r} has ended already: it is {status}.", Exit.CONFLICT)
    return row


def _report(here: Here, handle: FlowHandle[Any], what: str) -> None:
    if here.out.as_json:
        here.out.document(flow_json(handle.record()))
    else:
        here.out.text(f"{handle.flow_id}: {what}")
