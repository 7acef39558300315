"""DBOS's part of the benchmarks: `python on_dbos.py WORKLOAD DATABASE OPTIONS`, the answer as JSON.

Sync workflows, called directly or started without a queue, since they were faster than async ones. Many at
once share 8 threads, the fastest number found; without a bound each takes a thread. The database is left as
DBOS sets it, on SQLite with a rollback journal and `synchronous=FULL`, but where a journal is asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS, SetWorkflowID

THREADS = 8
REPLAYED = "replayed"
taken: dict[str, float] = {}


@DBOS.step()
def say(name: str, count: int) -> int:
    return count


@DBOS.workflow()
def hello(name: str, steps: int) -> int:
    total: int = sum(say(name, i) for i in range(steps))
    return total


@DBOS.workflow()
def replayed(name: str, steps: int) -> int:
    started = time.perf_counter()
    total: int = sum(say(name, i) for i in range(steps))
    taken["seconds"] = time.perf_counter() - started
    if sys.argv[1] == "record":
        os._exit(0)
    return total


@DBOS.workflow()
def nap() -> None:
    DBOS.sleep(3600)


@DBOS.workflow()
async def nap_async() -> None:
    await DBOS.sleep_async(3600)


def sequential(database: str, *, steps: int, journal: str = "") -> float:
    """Return steps a second of one workflow."""
    launch(database, journal=journal)
    hello("World", 5)
    started = time.perf_counter()
    hello("World", steps)
    return steps / (time.perf_counter() - started)


def concurrent(database: str, *, flows: int, steps: int, journal: str = "") -> float:
    """Return steps a second of many workflows, from the first start to the last result."""
    launch(database, journal=journal, max_executor_threads=THREADS)
    hello("World", 5)
    started = time.perf_counter()
    run_all(flows, steps)
    return flows * steps / (time.perf_counter() - started)


def record(database: str, *, steps: int) -> None:
    """Run a workflow's steps and leave at once, before it ends."""
    launch(database)
    with SetWorkflowID(REPLAYED):
        replayed("World", steps)


def replay(database: str, *, steps: int) -> float:
    """Return steps a second of the recovered workflow's body, without the start and the recovery's queue."""
    subprocess.run([sys.executable, __file__, "record", *sys.argv[2:]], check=True)
    launch(database)
    DBOS.retrieve_workflow(REPLAYED).get_result()
    return steps / taken["seconds"]


def fill(database: str, *, flows: int, steps: int) -> float:
    """Record workflows, for their size on disk."""
    launch(database, max_executor_threads=THREADS)
    run_all(flows, steps)
    return flows * steps


def sleeping(database: str, *, flows: int, is_async: bool) -> None:
    """Answer with the memory and the threads that sleeping workflows add to an app, on SQLite."""
    asyncio.run(put_to_sleep(database, flows=flows, is_async=is_async))


async def put_to_sleep(database: str, *, flows: int, is_async: bool) -> None:
    launch(database)
    hello("World", 5)
    before, recorded = cost(), count(database)
    for _ in range(flows):
        if is_async:
            await DBOS.start_workflow_async(nap_async)
        else:
            DBOS.start_workflow(nap)
    while count(database) - recorded < flows:  # noqa: ASYNC110 - the database tells, and no event
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    # From within the loop, whose end would cancel what sleeps.
    answer({name: value - before[name] for name, value in cost().items()})


def run_all(flows: int, steps: int) -> None:
    for handle in [DBOS.start_workflow(hello, "World", steps) for _ in range(flows)]:
        handle.get_result()


def launch(database: str, *, journal: str = "", **settings: Any) -> None:
    url = database if database.startswith("postgresql:") else f"sqlite:///{database}"
    if journal:
        sqlite3.connect(database).execute(f"PRAGMA journal_mode = {journal}")
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", **settings})
    DBOS.launch()


def count(database: str) -> int:
    """Return how many operations are recorded."""
    with sqlite3.connect(database, timeout=30) as connection:
        return int(connection.execute("SELECT count(*) FROM operation_outputs").fetchone()[0])


def cost() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"mb": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"])}


def answer(found: float | dict[str, float] | None) -> None:
    """Print the answer and leave at once: sleeping workflows would hold the process."""
    print(json.dumps(found), flush=True)
    os._exit(0)


WORKLOADS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (sequential, concurrent, record, replay, fill, sleeping)
}

if __name__ == "__main__":
    answer(WORKLOADS[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3])))
