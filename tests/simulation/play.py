"""Plays one seed: some flows with random programs, some processes, some faults, and who judges the end."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from persistasaurus import FlowCancelled, PersistasaurusError
from tests.crash.checker import Recorded, check
from tests.simulation import programs, world
from tests.simulation.machine import _STORE, Fault, Machine, Worker, simulated
from tests.simulation.programs import Boom, Maker, expected, plain, rows
from tests.simulation.scheduler import Hang, SimThread

BOUND_S = 120.0
"""Simulated seconds within which everything must have ended."""
KINDS = ("kill before", "kill after", "pause before", "pause after", "clock after", "error before")


@dataclass(slots=True, kw_only=True)
class Planned:
    """A flow that the operator looks after."""

    flow_id: str
    colour: str
    body: programs.Body
    cancel_after: float | None
    result: Any = None


@dataclass(slots=True, kw_only=True)
class Played:
    """What came of a seed."""

    violations: list[str] = field(default_factory=list[str])
    faults: list[str] = field(default_factory=list[str])
    flows: int = 0
    reports: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    switches: int = 0


def play(seed: int, *, kinds: Sequence[str] = KINDS) -> Played:
    """Play a seed, with faults of these kinds, and judge it."""
    world.clear()
    played = Played()
    with simulated(seed) as sim:
        machine = Machine(sim, _faults(random.Random(f"{seed}/faults"), kinds))
        operator = Operator(machine, random.Random(f"{seed}/flows"))
        try:
            operator.play()
        except Hang as hang:
            played.violations.append(f"never ended: {hang}; {operator.stuck()}")
        except Exception as error:
            played.violations.append("".join(traceback.format_exception(error)))
        else:
            played.violations += operator.judge()
        finally:
            machine.end()
        played.faults = machine.faulted
        played.switches = sim.switches
        played.flows = len(operator.flows)
    played.reports = list(world.reports)
    return played


def _faults(rng: random.Random, kinds: Sequence[str]) -> dict[int, Fault]:
    found: dict[int, Fault] = {}
    for _ in range(rng.choice([0, 1, 2, 3, 4]) if kinds else 0):
        kind = rng.choice(kinds)
        amount = rng.choice([-0.5, 0.5, 5.0]) if kind.startswith("clock") else rng.choice([0.05, 0.5, 1.5])
        found[rng.randint(1, rng.choice([25, 60, 150]))] = Fault(kind, amount)
    return found


class Operator:
    """Starts processes and flows, sends what they wait for, and sees them to their ends."""

    def __init__(self, machine: Machine, rng: random.Random) -> None:
        self.machine = machine
        self.sim = machine.sim
        maker = Maker(rng)
        colours = [rng.choice(["async", "sync"]) for _ in range(rng.choice([1, 1, 2, 3]))]
        self.flows = [
            Planned(
                flow_id=f"flow-{n}",
                colour=colour,
                body=maker.program(colour),
                cancel_after=rng.uniform(0, 0.3) if rng.random() < 0.2 else None,
            )
            for n, colour in enumerate(colours)
        ]
        self.wanted = rng.choice([1, 2, 2, 3])
        self.over = False

    def play(self) -> None:
        """Run everything to its end."""
        doing: list[SimThread] = []
        for planned in self.flows:
            doing.append(self._spawn(lambda planned=planned: self._see_through(planned)))
            doing.append(self._spawn(lambda planned=planned: self._send_all(planned)))
            if planned.cancel_after is not None:
                doing.append(self._spawn(lambda planned=planned: self._cancel(planned)))
        keeping = self._spawn(self._keep)
        self.sim.run(lambda: all(thread.over for thread in doing), at_most=BOUND_S)
        self.over = True
        self.machine.faults.clear()
        ending = self._spawn(self._end)
        self.sim.run(lambda: keeping.over and ending.over, at_most=BOUND_S)

    def _spawn(self, act: Callable[[], Any]) -> SimThread:
        thread = SimThread(act, process=self.machine.operator)
        thread.start()
        return thread

    def _sleep(self, seconds: float) -> None:
        until = self.sim.now + seconds
        while self.sim.now < until:
            self.sim.wait(until - self.sim.now)

    # Processes.

    def _alive(self) -> list[Worker]:
        return [p for p in self.machine.processes if p.entered and not p.dead]

    def _keep(self) -> None:
        """Start processes in place of those that have died; now and then, leave one in good order."""
        rng = self.sim.rng
        while not self.over:
            running = [p for p in self.machine.processes if not p.dead and not p.left]
            if len(running) < self.wanted:
                self.machine.start()
            elif rng.random() < 0.02:
                leaving = rng.choice(running)
                if leaving.entered:
                    leaving.entered = False
                    leaving.spawn(leaving.leave)
            self._sleep(rng.choice([0.02, 0.2, 0.5]))

    def _end(self) -> None:
        """Wait until every flow has ended and every dead worker was noticed, then leave everything."""
        self._sleep(0.1)
        while not self._alive() or not self._all_ended():
            if not self._alive() and all(p.dead or p.left for p in self.machine.processes):
                self.machine.start()
            self._sleep(0.1)
        for process in self.machine.processes:
            while not process.dead and not process.left:
                if process.entered:
                    process.spawn(process.leave).join()
                else:
                    self._sleep(0.1)

    def _all_ended(self) -> bool:
        living = {i for i, p in self.machine.workers.items() if not p.dead and not p.left}
        unended = _STORE._file.read(
            lambda db: db.execute("SELECT count(*) FROM flow WHERE status NOT IN (1, 3, 4)").fetchall()
        )[0][0]
        return unended == 0 and {row.worker_id for row in _STORE.workers()} <= living

    # Flows.

    def _ask(self, act: Callable[[Any], Any]) -> Any:
        """Have a living process do something; again by another one where it dies over it."""
        while True:
            alive = self._alive()
            if not alive:
                self._sleep(0.05)
                continue
            answer: Future[Any] = Future()
            process = self.sim.rng.choice(alive)
            process.spawn(partial(_answer, answer, act, process.app)).join()
            if answer.done():
                return answer.result()
            self._sleep(0.01)

    def _see_through(self, planned: Planned) -> None:
        flow = programs.FLOWS[planned.colour].options(flow_id=planned.flow_id)
        self._sleep(self.sim.rng.choice([0, 0, 0.1]))
        self._ask(lambda app: app.start(flow, planned.body))
        world.report("started", flow=planned.flow_id)
        while True:
            try:
                planned.result = self._ask(lambda app: app.handle(planned.flow_id).result())
            except FlowCancelled:
                return
            except Boom as error:
                world.report("result", flow=planned.flow_id, error=["Boom", str(error)])
                if planned.cancel_after is not None:
                    return
                world.report("reopening", flow=planned.flow_id)
                world.reopened.add(planned.flow_id)
                world.traces.pop(planned.flow_id)
                self._ask(lambda app: app.handle(planned.flow_id).retry())
            else:
                world.report("result", flow=planned.flow_id, value=planned.result)
                return

    def _send_all(self, planned: Planned) -> None:
        for kind, *_ in planned.body:
            if kind in ("signal", "confirm"):
                self._sleep(self.sim.rng.choice([0, 0.05, 0.2]))
                self._send(planned, kind)

    def _send(self, planned: Planned, kind: str) -> None:
        def send(app: Any) -> None:
            value = f"{planned.flow_id}#{len(world.reports)}:news"
            world.report("sending", flow=planned.flow_id, value=value)
            handle = app.handle(planned.flow_id)
            if kind == "signal":
                handle.send(programs.news, value)
            else:
                handle.resume(
                    programs.async_confirm if planned.colour == "async" else programs.confirm, value
                )
            world.report("sent", flow=planned.flow_id, value=value)

        self._ask(send)

    def _cancel(self, planned: Planned) -> None:
        self._sleep(planned.cancel_after or 0)
        self._ask(lambda app: app.start(self._flow(planned), planned.body))
        self._ask(lambda app: app.handle(planned.flow_id).cancel())

    def _flow(self, planned: Planned) -> Any:
        return programs.FLOWS[planned.colour].options(flow_id=planned.flow_id)

    # Judging.

    def stuck(self) -> str:
        """Return where everything stands."""
        flows = _STORE._file.read(lambda db: db.execute("SELECT * FROM flow").fetchall())
        return f"{self.machine.faulted} {flows}"

    def judge(self) -> list[str]:
        """Return what has gone wrong."""
        recorded = _STORE._file.read(Recorded.of)
        found = check(world.reports, recorded)
        for planned in self.flows:
            if planned.result is not None and plain(planned.result) != expected(planned.body):
                found.append(f"{planned.flow_id} came to {planned.result}: {planned.body}")
            if planned.result is None and planned.cancel_after is None:
                found.append(f"{planned.flow_id} was cancelled by nobody")
        return [*found, *_traces(), *_logs(recorded)]


def _answer(answer: Future[Any], act: Callable[[Any], Any], app: Any) -> None:
    """Do something in a process, and say nothing where the process is leaving or its disk is full."""
    try:
        answer.set_result(act(app))
    except (FlowCancelled, Boom) as error:
        answer.set_exception(error)
    except PersistasaurusError:
        return


def _traces() -> list[str]:
    """What a flow's body has seen, each time that it ran, begins like what it saw the longest time."""
    found: list[str] = []
    for flow_id, seen in world.traces.items():
        longest = max(seen, key=len)
        found += [f"{flow_id} saw {longest} and {each}" for each in seen if each != longest[: len(each)]]
    return found


def _logs(recorded: Recorded) -> list[str]:
    """Every flow that is complete has the rows that the model says, and the result."""
    found: list[str] = []
    for row in recorded.log:
        if row["step"] or row["status"] != "COMPLETE":
            continue
        colour, body = row["method_name"].removeprefix("run_"), json.loads(row["parameters"])["body"]
        if plain(json.loads(row["return_value"])) != expected(body):
            found.append(f"{row['flow_id']} came to {row['return_value']}: {body}")
        modelled = rows(body, colour)
        if modelled is None:
            continue
        steps = programs.Rows(
            (each["method_name"], each["status"])
            for each in recorded.log
            if each["step"] and each["flow_id"] == row["flow_id"]
        )
        must, may = modelled
        if must - steps or steps - must - may:
            found.append(f"{row['flow_id']}: rows {steps}, must be {must} and may be {may}: {body}")
    return found
