"""A flow that kills every process that drives it."""

from __future__ import annotations

import signal

from tests.crash.checker import Recorded, check, explained
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.story import Outcome

INNOCENTS = 8
LIMIT = 5


def poisoned(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """It is parked after five claims while the others end, and ends itself once it is repaired."""
    zygote.fresh()
    db = place.database(f"poison-{seed}")
    statuses = [zygote.start("poisoned", db=db, innocents=INNOCENTS).wait()]
    while statuses[-1] == -signal.SIGKILL and len(statuses) < 4 * LIMIT:
        statuses.append(zygote.start("poisoned", db=db, innocents=INNOCENTS).wait())
    zygote.settle()
    assert statuses == [-signal.SIGKILL] * LIMIT + [0], f"seed {seed}: {statuses}"
    attempts = [report["attempt"] for report in zygote.those(what="effect", flow="poison")]
    assert attempts == list(range(1, LIMIT + 1)), f"seed {seed}: {attempts}"
    assert len(zygote.those(what="parked")) == 1

    assert zygote.start("poisoned", db=db, innocents=INNOCENTS, defused=True).wait() == 0
    reports = zygote.settle()
    assert len(zygote.those(what="result", flow="poison")) == 1
    assert zygote.those(what="effect", flow="poison")[-1]["attempt"] == LIMIT + 1
    violations = check(reports, Recorded(db))
    assert not violations, f"seed {seed}: " + explained(violations, reports)
    return Outcome(LIMIT, INNOCENTS + 1)
