"""A process that stands still for longer than its lease, and wakes up where another has taken over."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import apsw

from tests import postgres
from tests.crash.checker import Recorded, check, explained
from tests.crash.places import Place
from tests.crash.processes import Process, Zygote
from tests.crash.trials.story import Outcome

FLOWS = 12
IN_BETWEEN = 1
"""So many may be stopped between their look at the clock and the step's first line."""


def paused(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """SIGSTOP, take-over, SIGCONT: no step is started past the lease, and nothing is overwritten."""
    zygote.fresh()
    db = place.database(f"pause-{seed}")
    late = started_past_the_lease(zygote, db, after=random.Random(seed).uniform(0, 0.08), weak=False)
    assert len(late) <= IN_BETWEEN, f"seed {seed}: steps were started past the lease: {late}"
    reports = [report for report in zygote.settle() if report not in late]
    violations = check(reports, Recorded(db))
    assert not violations, f"seed {seed}: " + explained(violations, reports)
    return Outcome(1, FLOWS)


def started_past_the_lease(zygote: Zygote, db: str, *, after: float, weak: bool) -> list[dict[str, Any]]:
    """Stop a process for longer than its lease, and return which steps it then began all the same."""
    lease = 0.4
    given = {"db": db, "lease": lease, "flow_ids": [f"flow-{n}" for n in range(FLOWS)], "ms": 20}
    paused = zygote.start("drive", **given, weak=weak)
    zygote.wait_for(what="effect", serial=paused.serial)
    time.sleep(after)

    stopped_at = _stop_between_two_commits(paused, db)
    assert zygote.start("drive", **given).wait() == 0
    final = Recorded(db).final()
    paused.send(signal.SIGCONT)
    assert paused.wait() == 0

    zygote.settle()
    assert Recorded(db).final() == final
    begun = zygote.those(what="effect", serial=paused.serial)
    return [report for report in begun if report["at"] > stopped_at + lease]


def _stop_between_two_commits(process: Process, db: str) -> float:
    """Stop it and return when; a process that is stopped with SQLite's lock stops all others too.

    One that is stopped in a transaction of PostgreSQL holds up for fifteen seconds those who want its flows.
    """
    if postgres.is_url(db):
        return _stop_between_two_transactions(process, db)
    connection = apsw.Connection(db)
    try:
        while True:
            stopped_at = time.monotonic()
            process.stop()
            try:
                connection.execute("BEGIN IMMEDIATE; ROLLBACK")
            except apsw.BusyError:
                process.send(signal.SIGCONT)
                time.sleep(0.005)
            else:
                return stopped_at
    finally:
        connection.close()


def _stop_between_two_transactions(process: Process, db: str) -> float:
    under_way = "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    while True:
        process.stop()
        stopped_at = time.monotonic()
        time.sleep(0.005)  # the server ends what it was sent
        if not postgres.in_schema(db, under_way):
            return stopped_at
        process.send(signal.SIGCONT)
        time.sleep(0.005)
