"""Calls of the operating system that kill the process, or fail: by strace, in the very process under test."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.crash.places import Place
from tests.crash.processes import Process, Zygote
from tests.crash.trials.story import Outcome, Story

KILLS = 10
FLOWS = 4
WRITES = "fdatasync,fsync,pwrite64,ftruncate,unlink"


@contextmanager
def injected(zygote: Zygote, process: Process, calls: str, how: str) -> Generator[None]:
    """Have strace do something to a process that waits for it; until the process has ended."""
    strace = shutil.which("strace")
    assert strace, "strace is not installed, and without it these faults cannot be injected"
    zygote.wait_for(what="ready", serial=process.serial)
    tracer = subprocess.Popen(
        f"{strace} -f -qqq -o /dev/null -e trace={calls} -e inject={calls}:{how} -p {process.pid}".split()
    )
    try:
        yield
    finally:
        process.wait()
        tracer.wait(10)


def killed_at_a_call(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """Ten processes, each killed on entering its n-th sync or write."""
    rng = random.Random(seed)
    kills = flows = rounds = 0
    while kills < KILLS:
        rounds += 1
        story = Story(zygote, place.database(f"call-{seed}-{rounds}"), rng, flows=FLOWS)
        for _ in range(rng.randint(4, KILLS)):
            calls, when = rng.choice([("fdatasync", rng.randint(1, 20)), (WRITES, rng.randint(1, 80))])
            process = story.begin(traced=True)
            with injected(zygote, process, calls, f"signal=KILL:when={when}"):
                status = process.wait()
            story.look()
            kills += status != 0
            if status == 0:
                break
        flows += story.end(f"{seed}/{rounds}")
    return Outcome(kills, flows)


def failing_calls(zygote: Zygote, place: Place, call: str, first: int, period: int) -> Outcome:
    """One process whose `first` call of a kind fails with EIO, and each `period`-th after it.

    What is refused has not happened: it is not found, and asked for again it happens once.
    """
    story = Story(zygote, place.database(f"{call}-{first}"), random.Random(f"{call}/{first}"), flows=FLOWS)
    process = zygote.start("stubborn_soak", db=story.db, plan=story.plan, traced=True)
    with injected(zygote, process, call, f"error=EIO:when={first}+{period}"):
        assert process.wait() == 0, (call, first, zygote.those(what="trouble")[-3:])
    reports = story.look()
    refused = [report for report in reports if report["what"] == "refused"]
    assert [report for report in refused if report["found"] is not None] == []
    told: list[dict[str, Any]] = [report for report in reports if report["what"] == "trouble"]
    return Outcome(len(told), story.end((call, first)))
