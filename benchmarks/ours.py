"""What stands beside the peers and nowhere else: our flows' size on disk, and what sleeping ones cost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import apsw

from benchmarks import workloads
from persistasaurus import Persistasaurus, flow


@flow
async def nap_async() -> None:
    """Sleep once."""
    await asyncio.sleep(3600)


def fill(database: str, *, flows: int, steps: int) -> float:
    """Record flows, for their size on disk."""
    return workloads.concurrent(database, flows, steps, is_async=True)


def sleeping(database: str, *, flows: int, is_async: bool) -> dict[str, float]:
    """Return the memory and the threads that sleeping flows add to an app, on SQLite."""
    with Persistasaurus(database) as app:
        app.run(workloads.hello_async if is_async else workloads.hello, "World", 5)
        before, recorded = cost(), _steps(database)
        for _ in range(flows):
            if is_async:
                app.start(nap_async)
            else:
                app.start(workloads.nap, 3600)
        while _steps(database) - recorded < flows:
            time.sleep(0.1)
        time.sleep(1)
        return {name: value - before[name] for name, value in cost().items()}


def cost() -> dict[str, float]:
    """Return this process's memory in MB and its threads."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"mb": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"])}


def _steps(database: str) -> int:
    connection = apsw.Connection(database)
    try:
        ((steps,),) = connection.execute("SELECT count(*) FROM execution_log WHERE step > 0").fetchall()
        return int(str(steps))
    finally:
        connection.close()
