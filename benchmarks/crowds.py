"""What many flows, long histories and large values cost. Each function runs in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import workloads
from persistasaurus import FlowStatus, Persistasaurus, flow, step

TOGETHER = 1_000
"""So many flows are started at once."""
WAKES_A_SECOND = 1_000
UNENDING: list[int] = []
"""Where it holds a number, the process dies as soon as so many steps of `unfinished` run."""
REACHED: list[float] = []
"""What the last steps of this process's flows have noted."""
DAY_S = 86_400.0


@step
async def note(number: int) -> int:
    """Do nothing."""
    return number


@step
async def wake(due_s: float) -> None:
    """Note how late it is, in seconds."""
    REACHED.append(time.time() - due_s)


@step
async def carry(text: str) -> str:
    """Return what it is given."""
    return text


@step
async def unfinished() -> None:
    """Note the time, but in a process that is to die."""
    if not UNENDING:
        REACHED.append(time.time())
        return
    UNENDING[0] -= 1
    if not UNENDING[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.Event().wait()


@flow
async def sleeper(due_s: float, wait_s: float) -> None:
    """Sleep once."""
    await asyncio.sleep(wait_s)
    await wake(due_s)


@flow
async def interrupted(number: int) -> None:
    """Do one step, and be killed in the next."""
    await note(number)
    await unfinished()


@flow
async def paced(steps: int, every: int) -> list[float]:
    """Do many steps, and return the seconds that each so many took."""
    taken: list[float] = []
    started = time.perf_counter()
    for number in range(1, steps + 1):
        await note(number)
        if number % every == 0:
            taken.append(time.perf_counter() - started)
            started = time.perf_counter()
    return taken


@flow
async def carrying(size: int, steps: int) -> int:
    """Take a text of a size through some steps."""
    for _ in range(steps):
        await carry("x" * size)
    return steps


class Crowd(NamedTuple):
    """What many sleeping flows cost."""

    start_up_s: float
    memory_mb: float
    threads: int
    late_p50_s: float
    late_p99_s: float


async def start_all(app: Persistasaurus, flow: Any, arguments: Iterable[tuple[Any, ...]]) -> int:
    """Start a flow with each of the arguments, many at a time, and return how many."""
    waiting = list(arguments)
    for first in range(0, len(waiting), TOGETHER):
        await asyncio.gather(*(app.start_async(flow, *each) for each in waiting[first : first + TOGETHER]))
    return len(waiting)


def put_to_sleep(db: str, *, flows: int) -> float:
    """Start flows that sleep a day, and return starts a second."""

    async def main() -> float:
        async with Persistasaurus(db) as app:
            started = time.perf_counter()
            await start_all(app, sleeper, ((0.0, DAY_S) for _ in range(flows)))
            return flows / (time.perf_counter() - started)

    return asyncio.run(main())


def set_alarms(db: str, *, flows: int, in_s: float) -> float:
    """Start flows that wake one after the other from a time on, and return that time."""
    first = time.time() + in_s

    async def main() -> None:
        async with Persistasaurus(db) as app:
            dues = [first + number / WAKES_A_SECOND for number in range(flows)]
            await start_all(app, sleeper, ((due, due - time.time()) for due in dues))

    asyncio.run(main())
    return first


def wake_up(db: str, *, alarms: int, first_s: float) -> Crowd:
    """Open a database of sleepers, and see those wake whose time comes."""
    with Persistasaurus(":memory:"):
        empty = memory_mb()
    started = time.perf_counter()
    with Persistasaurus(db):
        start_up = time.perf_counter() - started
        time.sleep(max(0.0, first_s - 1 - time.time()))
        memory, threads = memory_mb() - empty, threading.active_count() - 1
        reached(alarms)
    return Crowd(
        start_up, memory, threads, statistics.median(REACHED), statistics.quantiles(REACHED, n=100)[98]
    )


def long_flow(db: str, *, steps: int, every: int) -> list[float]:
    """Return the seconds that each so many steps of one flow took."""
    with Persistasaurus(db) as app:
        return app.run(paced, steps, every)


def carry_all(db: str, *, flows: int, steps: int, size: int) -> float:
    """Return the seconds that flows took whose steps take and return a text of so many characters."""

    async def main() -> float:
        async with Persistasaurus(db) as app:
            await app.run_async(carrying, 1, 1)
            started = time.perf_counter()
            await asyncio.gather(*(app.run_async(carrying, size, steps) for _ in range(flows)))
            return time.perf_counter() - started

    return asyncio.run(main())


def side_by_side(db: str, *, processes: int, flows: int, steps: int) -> float:
    """Return steps a second of several processes on one file, from the first start to the last end."""
    share = partial(one_of_several, processes=processes, flows=flows // processes, steps=steps)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as children:
        spans = list(children.map(share, [db] * processes))
    return flows * steps / (max(end for _, end in spans) - min(start for start, _ in spans))


def one_of_several(db: str, *, processes: int, flows: int, steps: int) -> tuple[float, float]:
    """Run flows once as many processes are ready, and return when they began and ended."""

    async def main() -> float:
        flow = workloads.hello_async
        await asyncio.gather(*(app.run_async(flow, "World", steps) for _ in range(flows)))
        return time.time()

    with Persistasaurus(db) as app:
        ready = Path(f"{db}-{os.getpid()}.ready")
        ready.touch()
        while len(list(ready.parent.glob("*.ready"))) < processes:
            time.sleep(0.01)
        return time.time(), asyncio.run(main())


def interrupt(db: str, *, flows: int) -> None:
    """Start flows, and die once all of them are in their second step."""
    UNENDING.append(flows)

    async def main() -> None:
        async with Persistasaurus(db, capacity=flows + 1, residents=flows + 1) as app:
            await start_all(app, interrupted, ((number,) for number in range(flows)))
            await asyncio.sleep(3_600)

    asyncio.run(main())


def recover(db: str, *, flows: int) -> tuple[float, float]:
    """Return the seconds to the first recovered flow's step, and flows a second to the last one's end."""
    entered = time.time()
    with Persistasaurus(db) as app:
        reached(flows)
        while next(app.flows(status=FlowStatus.PENDING), None) is not None:
            time.sleep(0.05)
        seconds = time.time() - entered
    return min(REACHED) - entered, flows / seconds


def reached(flows: int) -> None:
    """Wait until so many flows of this process have reached their last step.

    Raises:
        TimeoutError: none did for a minute.
    """
    seen, until = 0, time.monotonic() + 60
    while seen < flows:
        time.sleep(0.05)
        if len(REACHED) > seen:
            seen, until = len(REACHED), time.monotonic() + 60
        if time.monotonic() > until:
            raise TimeoutError(f"{seen} of {flows} flows got to their last step")


def memory_mb() -> float:
    """Return the resident memory of this process."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
