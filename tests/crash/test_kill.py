"""Processes are killed at random moments, again and again, until their flows have ended all the same."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checker import Recorded, changed, check, explained
from tests.crash.processes import Process, Zygote

KINDS = [
    "sequence",
    "async_sequence",
    "submits",
    "gathers",
    "sleeps",
    "async_sleeps",
    "listens",
    "async_listens",
    "confirms",
    "async_confirms",
    "retries",
    "async_retries",
    "catches",
    "fails",
    "parent",
    "async_parent",
]
KILLS = 150
SOAK_MINUTES = float(os.environ.get("PERSISTASAURUS_SOAK_MINUTES", "0"))
FLOWS = 64

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_done_twice_whenever_the_process_is_killed(
    zygote: Zygote, tmp_path: Path, seed: int
) -> None:
    """300 kills in all; for a soak as many as fit into the minutes."""
    until = time.monotonic() + SOAK_MINUTES * 60
    kills = rounds = 0
    while kills < KILLS or time.monotonic() < until:
        rounds += 1
        kills += _kill_until_all_have_ended(zygote, tmp_path / f"{rounds}.db", f"{seed}/{rounds}")
    print(f"{kills} kills in {rounds} rounds")


def _kill_until_all_have_ended(zygote: Zygote, db: Path, seed: str) -> int:
    print(f"seed {seed}")
    rng = random.Random(seed)
    zygote.fresh()
    plan = {
        f"{kind}-{n}": [kind, rng.randint(0, 20), 0] for n in range(FLOWS // len(KINDS)) for kind in KINDS
    }
    final: dict[tuple[str, int], str] = {}
    violations: list[str] = []
    kills = 0
    while True:
        process = zygote.start(rng.choice(["soak", "async_soak"]), db=str(db), plan=plan)
        if _ends_within(process, rng.uniform(0.02, 0.15) if kills < 60 else 60):
            break
        process.kill()
        kills += 1
        reports = zygote.settle()
        now = Recorded(str(db)).final() if db.exists() else {}
        violations += changed(_kept(final, reports), now)
        final |= now
        for flow_id, told in plan.items():
            told[2] = sum(r["what"] == "sent" and r["flow"] == flow_id for r in reports)
    reports = zygote.settle()
    recorded = Recorded(str(db))
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
