"""Prints the engine's figures beside those of raw SQLite, as ratios of one run."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from benchmarks import raw, workloads
from benchmarks.harness import Measure, Report, alone, beside, in_turn, median
from benchmarks.page import write_page
from benchmarks.scale import scale
from benchmarks.side_by_side import side_by_side
from benchmarks.stores import fresh_file as fresh


def main() -> None:
    """Measure everything, print it as a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="the figures are medians of so many rounds")
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    parser.add_argument("--sleepers", type=int, default=100_000, help="up to so many flows sleep at once")
    parser.add_argument("--interrupted", type=int, default=20_000, help="so many flows are recovered")
    parser.add_argument("--peers", type=Path, help="a Python with the peers' packages: the same on them")
    parser.add_argument("--flows", type=int, default=1_000, help="how many run at once beside the peers")
    parser.add_argument("--absurd-schema", type=Path, help="Absurd's absurd.sql, which its wheel lacks")
    parser.add_argument(
        "--page", type=Path, help="the folder for benchmarks.json, .svg and .md; with --peers"
    )
    options = parser.parse_args()
    if options.page is not None and options.peers is None:
        parser.error("--page needs --peers: the plotting library is installed there")
    report = Report(options.rounds)
    throughput(report, options.rounds)
    latency(report, options.rounds)
    size(report)
    scale(report, fresh, rounds=options.rounds, sleepers=options.sleepers, interrupted=options.interrupted)
    if options.peers is not None:
        schema, flows = options.absurd_schema, options.flows
        side_by_side(report, options.rounds, peers=options.peers, absurd_schema=schema, flows=flows)
    if options.page is not None:
        write_page(report, options.page, options.peers)
    if options.json is not None:
        report.write(options.json)


def throughput(report: Report, rounds: int) -> None:
    """Steps a second, beside rows a second of SQLite alone."""
    measures: dict[str, Measure] = {
        "one": partial(raw.rows_per_second, commits=1_000, rows_a_commit=1),
        "sequential, sync": partial(workloads.sequential, steps=1_000, is_async=False),
        "sequential, async": partial(workloads.sequential, steps=1_000, is_async=True),
        "hundred": partial(raw.rows_per_second, commits=400, rows_a_commit=100),
        "concurrent, async": partial(workloads.concurrent, flows=1_000, steps=10, is_async=True),
        "concurrent, sync": partial(workloads.concurrent, flows=1_000, steps=10, is_async=False),
        "replay, async": partial(workloads.replay, steps=10_000, is_async=True),
        "replay, sync": partial(workloads.replay, steps=10_000, is_async=False),
    }
    taken = in_turn(rounds, fresh, measures)
    report.section("Throughput")
    report.line("raw SQLite, one row a commit", median(taken["one"]), "rows/s")
    report.line("raw SQLite, 100 rows a commit", median(taken["hundred"]), "rows/s")
    for word in ("sync", "async"):
        figures = taken[f"sequential, {word}"]
        remark = f"{beside(figures, taken['one']):.2f} of raw one-row commits (bar 0.6)"
        report.line(f"one flow, {word}", median(figures), "steps/s", remark)
    for word in ("async", "sync"):
        figures = taken[f"concurrent, {word}"]
        remark = f"{beside(figures, taken['hundred']):.3f} of raw 100-row inserts (bar 0.15)"
        report.line(f"1,000 flows x 10 steps, {word}", median(figures), "steps/s", remark)
    for word in ("async", "sync"):
        remark = "start of the app included (bar 60,000)"
        report.line(f"replay of 10,000 steps, {word}", median(taken[f"replay, {word}"]), "steps/s", remark)


def latency(report: Report, rounds: int) -> None:
    """How long a start and a signal take, beside a commit of SQLite alone."""
    report.section("Latency")
    starts: list[tuple[float, float, float]] = []
    signals: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        for figures, measure in (
            (starts, partial(workloads.start_latency_ms, starts=300)),
            (signals, partial(workloads.signal_round_trip_ms, signals=300)),
        ):
            with fresh() as database, fresh() as other:
                rows = alone(partial(raw.rows_per_second, commits=500, rows_a_commit=1), other)
                figures.append((*alone(measure, database), 1000 / rows))
    for what, bar, figures in (("start", 2, starts), ("signal round trip", 4, signals)):
        p50s, p99s, commits = zip(*figures, strict=True)
        remark = f"{median(p99s):.2f} ms p99; {beside(p50s, commits):.1f} raw commits (bar {bar})"
        report.line(what, median(p50s), "ms p50", remark)


def size(report: Report) -> None:
    """Bytes on disk, and how long the import takes."""
    report.section("Size")
    for what, bar, flows, steps in (("10-step flows", 250, 500, 10), ("2,000-step flow", 130, 1, 2_000)):
        with fresh() as database:
            figure = alone(partial(workloads.bytes_a_step, flows=flows, steps=steps), database)
        report.line(f"on disk, {what}", figure, "bytes", f"a step (bar {bar})")
    report.line("import", workloads.import_seconds(), "s", "(bar 0.25)")


if __name__ == "__main__":
    main()
