"""A step may start another flow and wait for it: it holds a thread that the other flow may need."""

from __future__ import annotations

from pathlib import Path

from persistasaurus import Persistasaurus, flow, step

running: list[Persistasaurus] = []


@flow
def doubled(number: int) -> int:
    return 2 * number


@step
def run_doubled(number: int) -> int:
    return running[-1].run(doubled, number)


@flow
def through_a_step(number: int) -> int:
    return run_doubled(number)


def test_more_steps_wait_for_flows_than_there_are_threads(tmp_path: Path):
    """Each step that waits lends its thread, so that the flows it waits for are never stuck behind it."""
    # given a pool of two threads
    with Persistasaurus(tmp_path / "flows.db", flow_threads=2) as app:
        running.append(app)
        # when ten flows each wait in a step for another flow
        handles = [app.start(through_a_step, number) for number in range(10)]
        # then all of them end
        assert [handle.result(timeout=30) for handle in handles] == [2 * number for number in range(10)]
