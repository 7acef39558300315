"""Syncs and writes that kill the process, or that fail."""

from __future__ import annotations

import pytest

from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.calls import failing_calls, killed_at_a_call

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("_strace")]

# The first call that fails, and how many later the next ones: making the file takes some 60 writes in a row.
FAILING = {"fdatasync": (range(1, 11), 10), "pwrite64": (range(1, 97, 6), 97)}


@pytest.mark.parametrize("seed", range(4))
def test_what_was_acknowledged_survives_a_kill_at_any_sync_or_write(
    zygote: Zygote, files: Place, seed: int
) -> None:
    """Killed on entering the n-th call, 40 times in all; then every flow goes on to its end."""
    killed_at_a_call(zygote, files, seed)


@pytest.mark.parametrize("call", FAILING)
def test_what_could_not_be_written_is_never_acknowledged(zygote: Zygote, files: Place, call: str) -> None:
    """In one run or another every sync of a life fails with EIO, and every sixth write."""
    firsts, period = FAILING[call]

    outcomes = [failing_calls(zygote, files, call, first, period) for first in firsts]

    assert sum(outcome.faults for outcome in outcomes) > 0, "nobody noticed an error"
