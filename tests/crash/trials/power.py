"""The power fails at any write of SQLite's, again and again."""

from __future__ import annotations

import random

from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.story import EXIT_STATUS, Outcome, Story

CUTS = 10
FLOWS = 4


def power_loss(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """Ten power losses on one or a few files; after each, all that was acknowledged is there."""
    rng = random.Random(seed)
    cuts = flows = rounds = 0
    while cuts < CUTS:
        rounds += 1
        story = Story(zygote, place.database(f"power-{seed}-{rounds}"), rng, flows=FLOWS)
        for _ in range(rng.randint(4, CUTS)):
            at = rng.choice([rng.randint(1, 70), rng.randint(1, 300)])
            status = story.begin(power=[rng.getrandbits(32), at]).wait()
            story.look()
            if status != EXIT_STATUS:
                assert status == 0
                break
            cuts += 1
        flows += story.end(f"{seed}/{rounds}")
    return Outcome(cuts, flows)
