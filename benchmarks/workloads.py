"""What is measured. Each function returns one figure and runs on a fresh database, by its path or URL."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from persistasaurus import Persistasaurus, Signal, flow, sleep, step

proceed = Signal("benchmark-proceed", int)


@step
def say(name: str, count: int) -> int:
    """Do nothing, as the seed's demo does."""
    return count


@step
async def say_async(name: str, count: int) -> int:
    """Do nothing, async."""
    return count


@flow
def hello(name: str, steps: int) -> int:
    """Call steps one after the other."""
    return sum(say(name, i) for i in range(steps))


@flow
async def hello_async(name: str, steps: int) -> int:
    """Call async steps one after the other."""
    total = 0
    for i in range(steps):
        total += await say_async(name, i)
    return total


@flow
async def replayed(name: str, steps: int) -> int:
    """Call steps, then wait, so that all of them are replayed later."""
    total = 0
    for i in range(steps):
        total += await say_async(name, i)
    return total + await proceed


@flow
def replayed_sync(name: str, steps: int) -> int:
    """Do the same in a sync flow."""
    total = sum(say(name, i) for i in range(steps))
    return total + proceed.wait()


@flow
async def echo() -> int:
    """Wait for one signal."""
    return await proceed


@flow
def nap(seconds: float) -> None:
    """Sleep once."""
    sleep(seconds)


def sequential(db: str, steps: int, *, is_async: bool) -> float:
    """Return steps a second of one flow, each step durable before the next."""
    with Persistasaurus(db) as app:
        chosen = hello_async if is_async else hello
        app.run(chosen, "World", 5)
        started = time.perf_counter()
        app.run(chosen, "World", steps)
        return steps / (time.perf_counter() - started)


def concurrent(db: str, flows: int, steps: int, *, is_async: bool) -> float:
    """Return steps a second of many flows at once, from the first start to the last result."""
    chosen = hello_async if is_async else hello

    async def main() -> float:
        async with Persistasaurus(db) as app:
            await app.run_async(chosen, "World", 5)
            started = time.perf_counter()
            await asyncio.gather(*[app.run_async(chosen, "World", steps) for _ in range(flows)])
            return flows * steps / (time.perf_counter() - started)

    return asyncio.run(main())


def start_latency_ms(db: str, starts: int) -> tuple[float, float]:
    """Return the median and 99th percentile of `app.start`, in milliseconds."""
    taken: list[float] = []
    with Persistasaurus(db) as app:
        app.run(hello, "World", 1)
        for _ in range(starts):
            started = time.perf_counter()
            handle = app.start(hello, "World", 1)
            taken.append((time.perf_counter() - started) * 1000)
            handle.result()
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def signal_round_trip_ms(db: str, signals: int) -> tuple[float, float]:
    """Return the median and 99th percentile from `send` to the flow's result, in milliseconds."""
    taken: list[float] = []
    with Persistasaurus(db) as app:
        handles = [app.start(echo) for _ in range(signals)]
        time.sleep(0.5)
        for handle in handles:
            started = time.perf_counter()
            handle.send(proceed, 1)
            handle.result()
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


def replay(db: str, steps: int, *, is_async: bool) -> float:
    """Return steps a second at which a recorded history is run through again."""
    chosen = replayed if is_async else replayed_sync
    limit = steps + 10
    # Only what comes afterwards is measured.
    with Persistasaurus(db, max_steps=limit, durability="may-lose-last-commits-on-power-loss") as app:
        handle = app.start(chosen.options(flow_id="long"), "World", steps)
        while handle.status().value != "WAITING_FOR_SIGNAL":
            time.sleep(0.02)
    with Persistasaurus(db, worker=False) as client:
        client.handle("long").send(proceed, 0)
    started = time.perf_counter()
    with Persistasaurus(db, max_steps=limit) as app:
        app.handle("long").result()
        seconds = time.perf_counter() - started
    return steps / seconds


def bytes_a_step(db: str, flows: int, steps: int) -> float:
    """Return the bytes on disk a step after a checkpoint, flows and their indexes included."""
    with Persistasaurus(db) as app:
        for handle in [app.start(hello_async, "World", steps) for _ in range(flows)]:
            handle.result()
    return Path(db).stat().st_size / (flows * steps)


def import_seconds() -> float:
    """Return how long a fresh interpreter takes to import the library."""
    code = "import time; t = time.perf_counter(); import persistasaurus; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    taken = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(5)]
    return statistics.median(taken)
