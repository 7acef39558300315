"""Starts many flows that sleep an hour, half of them sync, and tells what that takes: run by test_delays."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Self

from persistasaurus import FlowStatus, Persistasaurus, flow, sleep
from persistasaurus.testing import MovableClock

TOGETHER = 500


@flow
def sleeps(number: int) -> int:
    sleep(timedelta(hours=1))
    return number


@flow
async def sleeps_in_asyncio(number: int) -> int:
    await asyncio.sleep(3600)
    return number


async def start(app: Persistasaurus, count: int) -> None:
    for first in range(0, count, TOGETHER):
        numbers = range(first, min(first + TOGETHER, count))
        await asyncio.gather(*(app.start_async((sleeps, sleeps_in_asyncio)[n % 2], n) for n in numbers))


def memory_mb(what: str) -> float:
    """Return a figure of this process: VmRSS for now, VmHWM for the most so far."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


class Threads:
    """Notes how many threads there are, again and again."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)

    def _count(self) -> None:
        while not self._over.wait(0.02):
            own = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
            self.most = max(self.most, len(own))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def main(database: str, count: int) -> None:
    clock = MovableClock(patience=60)
    with Persistasaurus(database, clock=clock) as app, Threads() as threads:
        empty = memory_mb("VmRSS")
        asyncio.run(start(app, count))
        clock.advance_sync(timedelta(minutes=59))
        asleep = sum(1 for _ in app.flows(status=FlowStatus.PENDING))
        memory_asleep = memory_mb("VmRSS") - empty
        clock.advance_sync(timedelta(minutes=1))
        woken = sum(1 for _ in app.flows(status=FlowStatus.COMPLETE))
    seen = {
        "asleep": asleep,
        "woken": woken,
        "most_threads": threads.most,
        "memory_asleep_mb": memory_asleep,
        "memory_at_most_mb": memory_mb("VmHWM") - empty,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
