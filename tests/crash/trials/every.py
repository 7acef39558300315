"""All trials by the name of their fault."""

from __future__ import annotations

import random
import shutil

from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.calls import failing_calls, killed_at_a_call
from tests.crash.trials.clock import moved_clock
from tests.crash.trials.damage import damaged
from tests.crash.trials.kill import killed_at_random
from tests.crash.trials.lease import paused
from tests.crash.trials.mail import letters
from tests.crash.trials.network import cluster, lost_connections
from tests.crash.trials.poison import poisoned
from tests.crash.trials.power import power_loss
from tests.crash.trials.processes import asked_to_leave, full_disk, lock_storm, started_twice
from tests.crash.trials.story import Outcome, Trial


def failing_call(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """A process whose syncs or writes fail at intervals that the seed draws."""
    rng = random.Random(seed)
    call, period = rng.choice([("fdatasync", rng.randint(4, 30)), ("pwrite64", rng.randint(80, 200))])
    return failing_calls(zygote, place, call, rng.randint(1, 100), period)


def thirty_kills(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """Two thousand flows on four workers, of which one is killed each second, and three crashes."""
    return cluster(zygote, place, seed, kills=30, crashes=3)


def on_postgres(trial: Trial) -> Trial:
    """The same with a server for a store."""
    return lambda zygote, place, seed: trial(zygote, Place(place.folder, "postgres"), seed)


ALL: dict[str, Trial] = {
    "kill at a random moment": killed_at_random,
    "kill at a sync or write": killed_at_a_call,
    "power loss": power_loss,
    "sync or write error": failing_call,
    "full disk": full_disk,
    "damage of file or row": damaged,
    "lock storm": lock_storm,
    "pause past the lease": paused,
    "poison flow": poisoned,
    "SIGTERM, SIGINT, fork": asked_to_leave,
    "letters at odd moments": letters,
    "starts of one id": started_twice,
    "moved clock": moved_clock,
    "kill, on PostgreSQL": on_postgres(killed_at_random),
    "poison, on PostgreSQL": on_postgres(poisoned),
    "letters, on PostgreSQL": on_postgres(letters),
    "SIGTERM, on PostgreSQL": on_postgres(asked_to_leave),
    "lost connection": on_postgres(lost_connections),
    "killed workers and server": thirty_kills,
}

NEED_STRACE = {"kill at a sync or write", "sync or write error"}
TRIALS = {name: trial for name, trial in ALL.items() if name not in NEED_STRACE or shutil.which("strace")}
