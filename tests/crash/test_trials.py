"""Faults of whole processes: locks, goodbyes, clocks."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from persistasaurus import Persistasaurus, flow, sleep, step
from tests.crash.places import STORES, Place
from tests.crash.processes import Zygote
from tests.crash.trials.clock import moved_clock
from tests.crash.trials.mail import letters
from tests.crash.trials.processes import asked_to_leave, full_disk, lock_storm
from tests.flows.kit import eventually

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("seed", range(3))
def test_eight_processes_on_one_file_hear_of_no_lock(zygote: Zygote, files: Place, seed: int) -> None:
    """While somebody holds the lock for longer than SQLite itself waits."""
    lock_storm(zygote, files, seed, held_s=1.5 * seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_process_that_is_asked_to_leave_loses_nothing(zygote: Zygote, place: Place, seed: int) -> None:
    """SIGTERM, SIGINT, and SIGINT twice, 20 times in all; some fork while flows run."""
    asked_to_leave(zygote, place, seed)


@pytest.mark.parametrize("seed", range(20))
def test_no_delay_is_cut_short_or_lost_however_the_clock_moves(
    zygote: Zygote, files: Place, seed: int
) -> None:
    """1,000 delays in all, clocks that jump by up to a year, nights of summer time, restarts."""
    moved_clock(zygote, files, seed)


@pytest.mark.parametrize("seed", range(6))
def test_a_disk_that_is_full_for_a_while_loses_nothing(zygote: Zygote, files: Place, seed: int) -> None:
    """24 times in all, by a limit of the file's size, of SQLite's pages, and by a small file system."""
    full_disk(zygote, files, seed)


@pytest.mark.parametrize("seed", range(5))
def test_each_of_ten_thousand_letters_is_taken_once_or_pending(
    zygote: Zygote, tmp_path: Path, seed: int
) -> None:
    """Five rounds of 2,000: eight senders, before the start and after, a restart, timeouts, a cancel."""
    letters(zygote, Place(tmp_path, STORES[seed % 2]), seed)


@step
def add(number: int) -> int:
    return number + 1


@flow
async def adds(number: int) -> int:
    return sum(await asyncio.gather(*(add.submit(n) for n in range(number))))


def _open() -> tuple[int, int]:
    gc.collect()
    return len(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))


def test_threads_and_file_descriptors_return_when_an_app_is_left(tmp_path: Path) -> None:
    """Twenty times, with flows that ended and one that waits."""

    def live(number: int) -> None:
        with Persistasaurus(tmp_path / "flows.db") as app:
            assert app.run(adds.options(flow_id=f"{number}"), 5) == 15
            app.start(long_wait.options(flow_id="waits"))

    live(0)
    before = _open()
    for number in range(1, 21):
        live(number)

    # Of other tests some may have ended meanwhile; a thread is listed for a moment after its last line.
    eventually(lambda: _open()[0] <= before[0])
    assert _open()[1] <= before[1]


@flow
def long_wait() -> None:
    sleep(3600)
