"""What every trial shares: a plan of flows, the lives of processes on one file, and the verdict on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.crash.checker import Recorded, changed, check, explained
from tests.crash.places import Place, is_there
from tests.crash.processes import Process, Zygote

KINDS = """
    sequence async_sequence submits gathers sleeps async_sleeps listens async_listens
    confirms async_confirms retries async_retries catches fails parent async_parent
""".split()  # noqa: SIM905
EXIT_STATUS = 137

Report = dict[str, Any]


class Outcome(NamedTuple):
    """What a trial did; one that finds a violation raises AssertionError with its seed."""

    faults: int
    flows: int


Trial = Callable[[Zygote, Place, int], Outcome]


class Story:
    """Flows on one file, whose processes come to harm, and what is known of them."""

    def __init__(
        self, zygote: Zygote, db: str, rng: random.Random, *, flows: int, kinds: list[str] | None = None
    ) -> None:
        self.zygote = zygote
        self.db = db
        self.reached_by = db
        """How its processes reach it: through a proxy, for instance."""
        self.rng = rng
        zygote.fresh()
        some = kinds or KINDS
        drawn = rng.sample(some, k=min(flows, len(some))) * (flows // len(some) + 1)
        self.plan = {
            f"{kind}-{number}": [kind, rng.choice([0, 0, 1, 5]), 0]
            for number, kind in enumerate(drawn[:flows])
        }
        self._final: dict[tuple[str, int], str] = {}
        self.violations: list[str] = []

    def begin(self, **faults: Any) -> Process:
        """Start a process that drives the flows, in one colour or the other."""
        entry = self.rng.choice(["soak", "async_soak"])
        return self.zygote.start(entry, db=self.reached_by, plan=self.plan, **faults)

    def look(self, *, ended: bool = False) -> list[Report]:
        """Hold what was reported so far against what is recorded; all processes are gone."""
        reports = self.zygote.settle()
        if not is_there(self.db):
            acknowledged = [r for r in reports if r["what"] in ("started", "sent", "result", "saw")]
            self.violations += [f"{report} was acknowledged, and nothing is there" for report in acknowledged]
            return reports
        recorded = Recorded(self.db)
        now = recorded.final()
        reopened = {report["flow"] for report in reports if report["what"] == "reopening"}
        kept = {place: outcome for place, outcome in self._final.items() if place[0] not in reopened}
        self.violations += [*changed(kept, now), *check(reports, recorded, ended=ended)]
        self._final |= now
        for flow_id, told in self.plan.items():
            told[2] = sum(r["what"] == "sent" and r["flow"] == flow_id for r in reports)
        return reports

    def end(self, seed: object) -> int:
        """Let a last process bring all flows to their end, and judge; returns how many flows there were."""
        status = self.begin().wait()
        reports = self.look(ended=True)
        assert status == 0, f"seed {seed}: the last process ended with {status}"
        assert not self.violations, f"seed {seed}:\n" + explained(self.violations, reports)
        told = {report["flow"] for report in reports if report["what"] == "result"}
        assert told == set(self.plan), f"seed {seed}: nobody was told the end of {set(self.plan) - told}"
        return len(self.plan)
