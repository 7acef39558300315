"""Prints the engine's figures beside those of raw SQLite, as ratios of one run."""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import peers, raw, workloads


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="the figures are medians of so many rounds")
    options = parser.parse_args()

    def median(measure: Callable[[str], float]) -> float:
        figures: list[float] = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="persistasaurus-bench-") as folder:
                figures.append(measure(str(Path(folder, "bench.db"))))
        return statistics.median(figures)

    one = median(lambda db: raw.rows_per_second(db, commits=2_000, rows_a_commit=1))
    hundred = median(lambda db: raw.rows_per_second(db, commits=400, rows_a_commit=100))
    line("raw SQLite, one row a commit", one, "rows/s")
    line("raw SQLite, 100 rows a commit", hundred, "rows/s")
    for is_async, word in ((False, "sync"), (True, "async")):
        figure = median(partial(workloads.sequential, steps=2_000, is_async=is_async))
        line(f"sequential, {word}", figure, "steps/s", f"{figure / one:.2f} of raw one-row commits (bar 0.5)")
    dbos = median(peers.dbos_sequential) if importlib.util.find_spec("dbos") is not None else None
    if dbos is not None:
        line("DBOS, sequential", dbos, "steps/s")
    for is_async, word in ((True, "async"), (False, "sync")):
        figure = median(partial(workloads.concurrent, flows=1_000, steps=10, is_async=is_async))
        beside = f"; {figure / dbos:.0f} times sequential DBOS (bar 20)" if dbos is not None else ""
        remark = f"{figure / hundred:.3f} of raw 100-row inserts (bar 0.12){beside}"
        line(f"1,000 flows x 10 steps, {word}", figure, "steps/s", remark)
    for is_async, word in ((True, "async"), (False, "sync")):
        figure = median(partial(workloads.replay, steps=10_000, is_async=is_async))
        line(f"replay of 10,000 steps, {word}", figure, "steps/s", "start of the app included (bar 60,000)")
    with tempfile.TemporaryDirectory(prefix="persistasaurus-bench-") as folder:
        p50, p99 = workloads.start_latency_ms(str(Path(folder, "start.db")), 300)
        line("start latency", p50, "ms p50", f"{p99:.2f} ms p99; {p50 * one / 1000:.1f} raw commits")
        p50, p99 = workloads.signal_round_trip_ms(str(Path(folder, "signal.db")), 300)
        line("signal round trip", p50, "ms p50", f"{p99:.2f} ms p99; {p50 * one / 1000:.1f} raw commits")
    line(
        "bytes a step, 10-step flows",
        median(lambda db: workloads.bytes_a_step(db, 500, 10)),
        "bytes",
        "(bar 300)",
    )
    line("bytes a step, 2,000-step flow", median(lambda db: workloads.bytes_a_step(db, 1, 2_000)), "bytes")
    line("import", workloads.import_seconds(), "s", "(bar 0.25)")


def line(what: str, figure: float, unit: str, remark: str = "") -> None:
    """Print one figure."""
    shown = f"{figure:,.0f}" if figure >= 100 else f"{figure:.3f}"
    print(f"{what:34} {shown:>12} {unit:9} {remark}", flush=True)


if __name__ == "__main__":
    main()
