"""Absurd's part of the benchmarks: `python on_absurd.py WORKLOAD DATABASE OPTIONS`, the answer as JSON.

On PostgreSQL, with the schema that OPTIONS names as `schema`: its wheel has none. One task runs in the
process that starts it. Many at once are driven by four worker processes, as its documentation recommends,
each of which claims ten tasks at a time, the fastest setting found. Sync, since that was faster than async.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from absurd_sdk import Absurd

WORKERS = 4
TASKS_A_CLAIM = 10


def open_app(database: str, schema: str = "") -> Absurd:
    """Open the app; a schema makes the tables first."""
    if schema:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(Path(schema).read_bytes())
    app = Absurd(database)
    app.create_queue("default")

    @app.register_task("hello")
    def hello(asked: dict[str, Any], flow: Any) -> int:
        return total_of(asked, flow)

    @app.register_task("replayed")
    def replayed(asked: dict[str, Any], flow: Any) -> int:
        total = total_of(asked, flow)
        assert sys.argv[1] != "record", "fails after its last step, to be tried again"
        return total

    @app.register_task("nap")
    def nap(asked: dict[str, Any], flow: Any) -> None:
        flow.sleep_for("nap", 3600)

    return app


def total_of(asked: dict[str, Any], flow: Any) -> int:
    total = 0
    for i in range(asked["steps"]):
        total += flow.step("say", lambda count=i: count)
    return total


def sequential(database: str, *, schema: str, steps: int) -> float:
    """Return steps a second of one task."""
    app = open_app(database, schema)
    app.spawn("hello", {"name": "World", "steps": 5})
    app.work_batch()
    started = time.perf_counter()
    app.spawn("hello", {"name": "World", "steps": steps})
    app.work_batch()
    seconds = time.perf_counter() - started
    assert count(database, "completed") == 2
    return steps / seconds


def concurrent(database: str, *, schema: str, flows: int, steps: int) -> float:
    """Return steps a second of many tasks, from the first start to the last result."""
    app = open_app(database, schema)
    command = [sys.executable, __file__, "worker", database, "{}"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(WORKERS)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        started = time.perf_counter()
        for _ in range(flows):
            app.spawn("hello", {"name": "World", "steps": steps})
        with psycopg.connect(database, autocommit=True) as connection:
            while count_on(connection, "completed") < flows:
                time.sleep(0.02)
        return flows * steps / (time.perf_counter() - started)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def worker(database: str) -> None:
    """Drive tasks until killed."""
    app = open_app(database)
    print("ready", flush=True)
    app.start_worker(batch_size=TASKS_A_CLAIM)


def record(database: str, *, schema: str, steps: int) -> None:
    """Run a task that fails after its last step."""
    app = open_app(database, schema)
    app.spawn("replayed", {"name": "World", "steps": steps}, retry_strategy={"kind": "none"})
    app.work_batch()


def replay(database: str, *, schema: str, steps: int) -> float:
    """Return steps a second of a task that is claimed again in a fresh process."""
    subprocess.run([sys.executable, __file__, "record", *sys.argv[2:]], check=True)
    started = time.perf_counter()
    open_app(database).work_batch()
    seconds = time.perf_counter() - started
    assert count(database, "completed") == 1
    return steps / seconds


def fill(database: str, *, schema: str, flows: int, steps: int) -> float:
    """Record tasks, for their size on disk."""
    return concurrent(database, schema=schema, flows=flows, steps=steps)


def sleeping(database: str, *, schema: str, flows: int) -> dict[str, float]:
    """Return the memory and the threads that sleeping tasks add to a worker."""
    app = open_app(database, schema)
    app.spawn("hello", {"name": "World", "steps": 5})
    app.work_batch()
    before = cost()
    for _ in range(flows):
        app.spawn("nap", {})
    while count(database, "sleeping") < flows:
        app.work_batch(batch_size=TASKS_A_CLAIM)
    return {name: value - before[name] for name, value in cost().items()}


def count(database: str, state: str) -> int:
    with psycopg.connect(database, autocommit=True) as connection:
        return count_on(connection, state)


def count_on(connection: psycopg.Connection[Any], state: str) -> int:
    found = connection.execute("SELECT count(*) FROM absurd.t_default WHERE state = %s", [state]).fetchone()
    assert found is not None
    return int(found[0])


def cost() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"mb": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"])}


def answer(found: float | dict[str, float] | None) -> None:
    print(json.dumps(found), flush=True)
    os._exit(0)


WORKLOADS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (sequential, concurrent, worker, record, replay, fill, sleeping)
}

if __name__ == "__main__":
    answer(WORKLOADS[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3])))
