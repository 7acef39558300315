"""`persistasaurus tail`: a flow's steps as they are recorded, until it ends."""

from __future__ import annotations

import time
from typing import Any

import click

from persistasaurus._app import Persistasaurus
from persistasaurus._model import FlowStatus
from persistasaurus.cli._command import Command, Here
from persistasaurus.cli._database import client
from persistasaurus.cli._exit import Exit
from persistasaurus.cli._look import step_cells
from persistasaurus.cli._records import flow_json, step_json
from persistasaurus.cli._start import ended, told

POLL_S = 0.1


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="Follow for at most so long, then exit with 5."
)
@click.pass_obj
def tail(here: Here, /, flow_id: str, timeout: float | None) -> Exit:
    """Follow a flow until it has ended or is parked.

    Each step is printed when it is recorded and whenever it changes, the flow itself at the end. With
    --json that is a line of JSON each: {"step": {...}} and at last {"flow": {...}}.
    """
    until = None if timeout is None else time.monotonic() + timeout
    with client(here) as app:
        record = _follow(here, app, flow_id, until)
        if here.out.as_json:
            here.out.line({"flow": flow_json(record)})
        else:
            here.out.text(f"flow {record.status}")
        return ended(record.status, flow_id, why=record.reason or told(record.error))


def _follow(here: Here, app: Persistasaurus, flow_id: str, until: float | None) -> Any:
    handle = app.handle(flow_id)
    printed: dict[int, Any] = {}
    while True:
        # Before the steps: what is recorded between the two reads is seen the next time.
        changes = app._engine_here("tail").store.changes()
        record = handle.record()
        for step in map(step_json, handle.steps()):
            if printed.get(step["step"]) != step:
                printed[step["step"]] = step
                _print_step(here, step)
        if record.status.ended or record.status == FlowStatus.PARKED:
            return record
        while app._engine_here("tail").store.changes() == changes:
            if until is not None and time.monotonic() >= until:
                return record
            time.sleep(POLL_S)


def _print_step(here: Here, step: dict[str, Any]) -> None:
    if here.out.as_json:
        here.out.line({"step": step})
    else:
        here.out.text("  ".join(cell for cell in step_cells(step) if cell))
