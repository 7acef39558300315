"""What everybody in a simulated run is told: effects, what flows have seen, who was reopened."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from persistasaurus import current
from tests.simulation import scheduler

reports: list[dict[str, Any]] = []
traces: dict[str, list[list[Any]]] = defaultdict(list)
reopened: set[str] = set()


def clear() -> None:
    """Forget the run before."""
    reports.clear()
    traces.clear()
    reopened.clear()


def report(what: str, **fields: Any) -> None:
    """Note a fact; a process that is dead says nothing any more."""
    reports.append({"what": what, "serial": check_alive(), **fields})


def check_alive() -> str:
    """Return which process this is; end here where it is dead: its code is being unwound, or freed."""
    sim = scheduler.current
    if sim is None or sim.here is None or sim.here.process.dead:
        raise scheduler.GreenletExit
    name: str = sim.here.process.name
    return name


def begin_effect() -> None:
    """Note that a step's effect begins; from then on others may come first."""
    here = current()
    check_alive()
    sim: Any = scheduler.current
    ms = sim.machine.latest_ms
    report("effect", flow=here.flow_id, step=here.step, attempt=here.attempt, key=here.idempotency_key, ms=ms)
    sim.point()


def end_effect(given: object) -> str:
    """Note what an effect gives: a value that no other attempt of any step has."""
    here = current()
    value = f"{here.step}/{here.attempt}/{len(reports)}:{given}"
    report("end", flow=here.flow_id, step=here.step, attempt=here.attempt, value=value)
    return value


def effect(given: object) -> str:
    """Have an effect, and return its value."""
    begin_effect()
    return end_effect(given)


def saw(value: str) -> str:
    """Note that the body of a flow has seen a step's value: it is recorded."""
    report("saw", flow=current().flow_id, step=int(value.partition("/")[0]), value=value)
    return value


def trace() -> list[Any]:
    """Begin to note what a flow's body sees; each time that it runs."""
    made: list[Any] = []
    traces[current().flow_id].append(made)
    return made


def is_reopened() -> bool:
    """Whether somebody has retried the flow of this step."""
    return current().flow_id in reopened
