"""`ls`, `show` and `steps`: what is recorded, changed by nothing here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from persistasaurus._app import Persistasaurus
from persistasaurus._engine.listing import checked_prefix, instant_ms, status_codes
from persistasaurus._model import FlowStatus
from persistasaurus._store.base import FlowFilter
from persistasaurus.cli._command import Command, Here
from persistasaurus.cli._database import client
from persistasaurus.cli._exit import Exit
from persistasaurus.cli._inert import as_json
from persistasaurus.cli._output import Column
from persistasaurus.cli._records import flow_json, flows_json, row_json, signal_json, step_json
from persistasaurus.cli._start import told
from persistasaurus.cli._time import When, ago
from persistasaurus.errors import DamagedRecordError

COLUMNS = ("id", "flow", "status", "created", "updated", "input", "result", "error", "reason")
USUAL = "id,flow,status,created,updated,reason"


def _columns(_ctx: click.Context, _param: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise click.BadParameter(f"there is no column {name!r}. There are {', '.join(COLUMNS)}.")
    return names


@click.command(cls=Command)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(list(FlowStatus), case_sensitive=False),
    help="Only flows that stand so. May be repeated.",
)
@click.option("--flow", metavar="NAME", help="Only instances of this flow.")
@click.option("--prefix", metavar="TEXT", help="Only flows whose id begins so.")
@click.option("--since", type=When(), help="Only flows created then or later: 2h, 3d, 2026-05-17.")
@click.option("--before", type=When(), help="Only flows created before.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="0 for all.")
@click.option(
    "--columns", default=USUAL, callback=_columns, metavar="NAMES", help=f"Some of {','.join(COLUMNS)}."
)
@click.option(
    "--time", type=click.Choice(["relative", "utc"]), help="The default is relative on a terminal, else utc."
)
@click.pass_obj
def ls(here: Here, /, **options: Any) -> Exit:
    """List flows, newest first. With --json, one line of JSON for each."""
    with client(here) as app:
        flows = flows_json(app, _filter(app, options))
        if here.out.as_json:
            found = _print_lines(here, islice(flows, options["limit"] or None))
        else:
            found = _print_table(here, list(islice(flows, options["limit"] or None)), options)
        if options["limit"] and next(flows, None) is not None:
            here.out.aside("There are more: raise --limit, or give 0 for all.")
    return Exit.FAILED if found else Exit.OK


def _filter(app: Persistasaurus, options: dict[str, Any]) -> FlowFilter:
    engine = app._engine_here("app.flows()")
    return FlowFilter(
        statuses=status_codes(options["status"] or None),
        names=app._names_of(engine, options["flow"]),
        id_prefix=checked_prefix(options["prefix"]),
        created_from_ms=instant_ms(options["since"], "--since"),
        created_before_ms=instant_ms(options["before"], "--before"),
    )


def _print_lines(here: Here, flows: Any) -> bool:
    damaged = False
    for flow in flows:
        here.out.line(flow)
        damaged |= _warn(here, flow)
    return damaged


def _print_table(here: Here, flows: Sequence[dict[str, Any]], options: dict[str, Any]) -> bool:
    if not flows:
        here.out.aside("No flow fits.")
        return False
    columns = [Column(name, whole=name in ("id", "status")) for name in options["columns"]]
    cell = _cells(here, options["time"])
    here.out.table(columns, [[cell(flow, column.title) for column in columns] for flow in flows])
    return sum(_warn(here, flow) for flow in flows) > 0


def _warn(here: Here, flow: dict[str, Any]) -> bool:
    if flow["damaged"]:
        here.out.aside(flow["damaged"])
    return bool(flow["damaged"])


def _cells(here: Here, time: str | None) -> Callable[[dict[str, Any], str], str]:
    now = datetime.now(UTC)
    relative = time == "relative" or (time is None and here.out.is_terminal)

    def cell(flow: dict[str, Any], column: str) -> str:
        match column:
            case "id":
                return str(flow["flow_id"])
            case "flow":
                return str(flow["name"])
            case "created" | "updated":
                text = str(flow[f"{column}_at"])
                return ago(datetime.fromisoformat(text), now) if relative else text
            case "input" | "result":
                return "" if flow[column] is None else as_json(flow[column])
            case "error":
                return told(flow["error"])
            case "reason" if flow["damaged"]:
                return "damaged"
            case _:
                return str(flow[column] or "")

    return cell


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.pass_obj
def show(here: Here, /, flow_id: str) -> Exit:
    """Show a flow: where it stands, what it waits for, its steps and its unconsumed signals."""
    with client(here) as app:
        handle = app.handle(flow_id)
        flow = row_json(app, handle._row())
        steps = list(map(step_json, handle.steps()))
        store = app._engine_here("show").store
        flow["waiting_for"] = [_name(step) for step in steps if step["status"] == "WAITING_FOR_SIGNAL"]
        flow["signals"] = [signal_json(row) for row in store.signals(flow_id)]
        flow["steps"] = steps
    if here.out.as_json:
        here.out.document(flow)
    else:
        _print_flow(here, flow)
    if flow["damaged"]:
        raise DamagedRecordError(flow["damaged"])
    return Exit.OK


def _print_flow(here: Here, flow: dict[str, Any]) -> None:
    shown = {
        "flow": f"{flow['name']} {flow['flow_id']}",
        "status": flow["status"],
        "created": flow["created_at"],
        "updated": flow["updated_at"],
        "input": as_json(flow["input"]),
        "result": "" if flow["result"] is None else as_json(flow["result"]),
        "error": told(flow["error"]),
        "reason": flow["reason"],
        "waits for": ", ".join(flow["waiting_for"]),
        "rejected": "; ".join(
            f"{one['name']}: {one['rejected']}" for one in flow["signals"] if one["rejected"]
        ),
        "pending": ", ".join(one["name"] for one in flow["signals"] if not one["rejected"]),
    }
    here.out.pairs([(name, value) for name, value in shown.items() if value])
    if flow["steps"]:
        here.out.text("")
        _print_steps(here, flow["steps"])


@click.command(cls=Command)
@click.argument("flow_id", metavar="ID")
@click.pass_obj
def steps(here: Here, /, flow_id: str) -> Exit:
    """List a flow's steps in their order. With --json, one line of JSON for each."""
    with client(here) as app:
        flow = flow_json(app.handle(flow_id).record())
        found = [step_json(step) for step in app.handle(flow_id).steps()]
    if here.out.as_json:
        for step in found:
            here.out.line(step)
    elif found:
        _print_steps(here, found)
    else:
        here.out.aside(f"Flow {flow_id!r} is {flow['status']} and has no step yet.")
    return Exit.OK


def _print_steps(here: Here, found: Sequence[dict[str, Any]]) -> None:
    columns = [
        Column("step", whole=True),
        Column("name"),
        Column("status", whole=True),
        Column("attempts", whole=True),
        Column("arguments"),
        Column("outcome"),
    ]
    here.out.table(columns, [step_cells(step) for step in found])


def step_cells(step: dict[str, Any]) -> list[str]:
    """Return a step's number, name, status, attempts, arguments and outcome for a person."""
    outcome = told(step["error"]) if step["error"] else as_json(step["return_value"])
    ended = step["status"] not in ("PENDING", "WAITING_FOR_SIGNAL")
    return [
        str(step["step"]),
        _name(step),
        step["status"],
        str(step["attempts"]),
        "" if step["parameters"] is None else as_json(step["parameters"]),
        outcome if ended else _until(step),
    ]


def _until(step: dict[str, Any]) -> str:
    return "" if step["delay"] is None else f"delayed by {step['delay']:g} s"


def _name(step: dict[str, Any]) -> str:
    return f"{step['class_name']}.{step['method_name']}" if step["class_name"] else str(step["method_name"])
