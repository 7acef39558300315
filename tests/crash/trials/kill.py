"""Processes are killed at random moments, again and again, until their flows have ended all the same."""

from __future__ import annotations

import random
import time
from typing import Any

from tests import postgres
from tests.crash.checker import Recorded, changed, check, explained
from tests.crash.places import Place, is_there
from tests.crash.processes import Process, Zygote
from tests.crash.trials.story import KINDS, Outcome

FLOWS = 64


def killed_at_random(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """One file, whose processes are killed up to sixty times; then one that lives."""
    return Outcome(kill_until_all_have_ended(zygote, place.database(f"kill-{seed}"), str(seed)), FLOWS)


def kill_until_all_have_ended(zygote: Zygote, db: str, seed: str, *, most: int = 60) -> int:
    rng = random.Random(seed)
    longest_s = 0.4 if postgres.is_url(db) else 0.15  # to be entered takes longer there
    zygote.fresh()
    plan = {
        f"{kind}-{n}": [kind, rng.randint(0, 20), 0] for n in range(FLOWS // len(KINDS)) for kind in KINDS
    }
    final: dict[tuple[str, int], str] = {}
    violations: list[str] = []
    kills = 0
    while True:
        process = zygote.start(rng.choice(["soak", "async_soak"]), db=db, plan=plan)
        if _ends_within(process, rng.uniform(0.02, longest_s) if kills < most else 60):
            break
        process.kill()
        kills += 1
        reports = zygote.settle()
        now = Recorded(db).final() if is_there(db) else {}
        violations += changed(_kept(final, reports), now)
        final |= now
        for flow_id, told in plan.items():
            told[2] = sum(r["what"] == "sent" and r["flow"] == flow_id for r in reports)
    reports = zygote.settle()
    recorded = Recorded(db)
    violations += [*changed(_kept(final, reports), recorded.final()), *check(reports, recorded)]
    assert process.status == 0, f"seed {seed}: the last process ended with {process.status}"
    assert not violations, f"seed {seed}, {kills} kills:\n" + explained(violations, reports)
    assert len({r["flow"] for r in reports if r["what"] == "result"}) == FLOWS
    return kills


def _kept(final: dict[tuple[str, int], str], reports: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """Leave out what somebody has reopened since, which is the one way to change it."""
    reopened = {report["flow"] for report in reports if report["what"] == "reopening"}
    return {place: outcome for place, outcome in final.items() if place[0] not in reopened}


def _ends_within(process: Process, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            return True
        time.sleep(0.003)
    return process.poll() is not None
