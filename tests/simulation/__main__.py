"""Tells what happens in one seed: `python -m tests.simulation 760`; all calls of the store, all reports."""

from __future__ import annotations

import sys
from typing import Any

from persistasaurus._store.base import Batch
from tests.simulation import machine, world
from tests.simulation.play import play

_QUIET = ("find", "intern", "intern_all", "workers", "names")


def _say(*what: object) -> None:
    sim = machine.scheduler.current
    here = sim.here if sim is not None else None
    if here is not None:
        print(f"{sim.now:9.3f} {here.process.name} [{here.name}]", *what)


def _said(name: str, args: tuple[Any, ...], answer: Any) -> None:
    if name == "commit":
        _say("commit", answer)
        batch: Batch = args[0]
        for row in (*batch.starts, *batch.steps, *batch.updates, *batch.signals):
            print("          ", row)
        print("           consumed", batch.consumed, "cancels", batch.cancels, "poke", batch.poke)
    elif name not in _QUIET and not (name == "claim" and not answer.flow_keys and not answer.poked):
        _say(name, args, answer)


def main() -> None:
    watched, report, die = machine.SimStore._watched, world.report, machine.Worker.die

    def told_call(self: machine.SimStore, name: str) -> Any:
        call = watched(self, name)

        def told(*args: Any, **kwargs: Any) -> Any:
            try:
                answer = call(*args, **kwargs)
            except BaseException as error:
                _say(name, "raised", repr(error))
                raise
            _said(name, args, answer)
            return answer

        return told

    def told_report(what: str, **fields: Any) -> None:
        report(what, **fields)
        _say("REPORT", what, fields)

    def told_death(self: machine.Worker) -> None:
        if not self.dead:
            _say("DIES", self.name)
        die(self)

    machine.SimStore._watched = told_call
    world.report = told_report
    machine.Worker.die = told_death
    played = play(int(sys.argv[1]))
    machine.free()
    print(played.faults, *played.violations, sep="\n")


if __name__ == "__main__":
    main()
