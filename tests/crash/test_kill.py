"""Processes are killed at random moments, again and again, until their flows have ended all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.kill import kill_until_all_have_ended

KILLS = 68
KILLS_ON_POSTGRES = 30  # there each process takes longer to begin, and the cluster's workers are killed too

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_nothing_is_lost_or_done_twice_whenever_the_process_is_killed(
    zygote: Zygote, files: Place, seed: int
) -> None:
    """270 kills in all."""
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        kills += kill_until_all_have_ended(zygote, files.database(f"{rounds}"), f"{seed}/{rounds}")


def test_nor_is_anything_on_a_server(zygote: Zygote, tmp_path: Path) -> None:
    """30 kills in all, which make 300 with those above."""
    db = Place(tmp_path, "postgres").database("kill")
    kill_until_all_have_ended(zygote, db, "1", most=KILLS_ON_POSTGRES)
