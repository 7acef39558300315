"""How the figures change with the number of flows, steps and bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from functools import partial

from benchmarks import crowds, workloads
from benchmarks.harness import Report, alone, median

Fresh = Callable[[], AbstractContextManager[str]]
SIZES = {"1 kB": 1_000, "100 kB": 100_000, "1 MB": 1_000_000}


def scale(report: Report, fresh: Fresh, *, rounds: int, sleepers: int, interrupted: int) -> None:
    """Measure each at several sizes, up to so many flows that sleep, and so many that were interrupted."""
    report.section("Scale")
    _replays(report, fresh, rounds)
    _long_history(report, fresh)
    _payloads(report, fresh)
    _processes(report, fresh)
    _recovery(report, fresh, interrupted)
    for flows in sorted({1_000, 100_000, sleepers}):
        if flows <= sleepers:
            _sleepers(report, fresh, flows)


def _replays(report: Report, fresh: Fresh, rounds: int) -> None:
    per_step: dict[int, float] = {}
    for steps in (100, 1_000, 10_000, 100_000):
        figures: list[float] = []
        for _ in range(rounds if steps < 100_000 else min(rounds, 3)):
            with fresh() as database:
                figures.append(alone(partial(workloads.replay, steps=steps, is_async=True), database))
        per_step[steps] = 1 / median(figures)
        remark = "start of the app included"
        if steps == 100_000:
            remark += f"; {per_step[steps] / per_step[1_000]:.2f} of the cost at 1,000 (bars 80,000 and 1.3)"
        report.line(f"replay of {steps:,} steps", median(figures), "steps/s", remark)


def _long_history(report: Report, fresh: Fresh) -> None:
    with fresh() as database:
        taken = alone(partial(crowds.long_flow, steps=50_000, every=5_000), database)
    report.line("one flow, steps 1 to 5,000", 5_000 / taken[0], "steps/s")
    remark = f"{taken[-1] / taken[0]:.2f} of the cost of the first"
    report.line("one flow, steps 45,001 to 50,000", 5_000 / taken[-1], "steps/s", remark)


def _payloads(report: Report, fresh: Fresh) -> None:
    for name, size in SIZES.items():
        flows, steps = (50, 10) if size < 1_000_000 else (10, 10)
        with fresh() as database:
            seconds = alone(partial(crowds.carry_all, flows=flows, steps=steps, size=size), database)
        megabytes = 2 * flows * steps * size / 1e6 / seconds
        report.line(
            f"values of {name} in and out", flows * steps / seconds, "steps/s", f"{megabytes:.0f} MB/s"
        )


def _processes(report: Report, fresh: Fresh) -> None:
    first = 0.0
    for processes in (1, 2, 4):
        with fresh() as database:
            figure = crowds.side_by_side(database, processes=processes, flows=1_000, steps=10)
        first = first or figure
        report.line(
            f"{processes} processes on one file", figure, "steps/s", f"{figure / first:.2f} times one"
        )


def _recovery(report: Report, fresh: Fresh, flows: int) -> None:
    with fresh() as database:
        with suppress(BrokenProcessPool):  # it dies, as it should
            alone(partial(crowds.interrupt, flows=flows), database)
        first_s, rate = alone(partial(crowds.recover, flows=flows), database)
    report.line(f"recovery of {flows:,} flows, the first", first_s, "s", "after entering the app (bar 1)")
    report.line(f"recovery of {flows:,} flows", rate, "flows/s", "to the last one's end (bar 3,000)")


def _sleepers(report: Report, fresh: Fresh, flows: int) -> None:
    alarms = min(flows, 10_000)
    with fresh() as database:
        starts = alone(partial(crowds.put_to_sleep, flows=flows), database)
        first_s = alone(partial(crowds.set_alarms, flows=alarms, in_s=10 + alarms / 1_000), database)
        crowd = alone(partial(crowds.wake_up, alarms=alarms, first_s=first_s), database)
    many = f"{flows:,} sleepers"
    report.line(f"{many}, put to sleep", starts, "flows/s")
    report.line(f"{many}, start-up", crowd.start_up_s, "s", "(bar 3)")
    report.line(
        f"{many}, memory", crowd.memory_mb, "MB", f"above an empty app (bar 300); {crowd.threads} threads"
    )
    remark = f"{crowd.late_p99_s:.3f} s p99, at {crowds.WAKES_A_SECOND:,} wakes a second (bar 1)"
    report.line(f"{many}, lateness", crowd.late_p50_s, "s p50", remark)
