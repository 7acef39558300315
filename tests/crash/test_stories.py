"""What a few processes do to one another: failing, racing, pausing, dying in a loop, leaving."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.crash.checker import Recorded, check, explained
from tests.crash.places import Place
from tests.crash.processes import PATIENCE_S, Process, Zygote
from tests.crash.trials.lease import paused, started_past_the_lease
from tests.crash.trials.poison import poisoned
from tests.crash.trials.processes import started_twice

pytestmark = pytest.mark.crash

both_colours = pytest.mark.parametrize("kind", ["patient", "async_patient"])


def test_a_failed_flow_goes_on_at_its_third_step_in_the_next_process(zygote: Zygote, place: Place) -> None:
    """The Java README's story: the third of five steps fails with "Uh oh", none before it is repeated."""
    db = place.database("hello")

    first = zygote.start("hello", db=db, broken=True)
    assert first.wait() == 1
    second = zygote.start("hello", db=db, broken=False)
    assert second.wait() == 0

    reports = zygote.settle()
    effects = [(r["serial"], r["step"], r["attempt"]) for r in reports if r["what"] == "effect"]
    assert effects == [
        *((first.serial, 1, 1), (first.serial, 2, 1), (first.serial, 3, 1)),
        *((second.serial, 3, 2), (second.serial, 4, 1), (second.serial, 5, 1)),
    ]
    assert zygote.those(what="result")[0]["value"] == 10
    _check(reports, db)


@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_starts_of_one_id_in_two_processes_are_one_flow(
    zygote: Zygote, place: Place, seed: int
) -> None:
    """All get the result of the one flow instance, whose steps run once; another input is a conflict."""
    started_twice(zygote, place, seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_process_that_was_stopped_past_its_lease_starts_nothing_and_overwrites_nothing(
    zygote: Zygote, place: Place, seed: int
) -> None:
    """SIGSTOP, take-over by another process, SIGCONT."""
    paused(zygote, place, seed)


def test_without_the_deadline_a_stopped_process_would_start_steps_past_its_lease(
    zygote: Zygote, place: Place
) -> None:
    """The test above bites."""
    late = (
        started_past_the_lease(zygote, place.database(f"{trial}"), after=0.013 * (trial % 10), weak=True)
        for trial in range(60)
    )
    assert any(late)


@pytest.mark.peer("crashes not counted as attempts")
@pytest.mark.parametrize("seed", range(4))
def test_a_flow_that_kills_its_process_is_parked_and_the_others_end(
    zygote: Zygote, place: Place, seed: int
) -> None:
    """Parked after `crash_limit` claims, with its attempts counted; retried when it is repaired, it ends."""
    poisoned(zygote, place, seed)


@pytest.mark.peer("recovery re-runs a flow that is live in the same process")
@both_colours
def test_a_flow_that_is_alive_in_the_same_process_is_not_recovered(
    zygote: Zygote, place: Place, kind: str
) -> None:
    """Two apps in one process on one file: the second leaves alone what the first one drives."""
    db = place.database("twins")

    assert zygote.start("twins", db=db, kind=kind).wait() == 0

    reports = zygote.settle()
    assert [report["attempt"] for report in zygote.those(what="effect")] == [1, 1]
    _check(reports, db)


@both_colours
def test_a_killed_worker_is_taken_over_by_a_living_one_at_once(
    zygote: Zygote, place: Place, kind: str
) -> None:
    """Its process is gone from this machine: nobody waits for its lease."""
    db = place.database("flows")
    living = zygote.start("stand_by", db=db)
    zygote.wait_for(what="ready", serial=living.serial)
    dying = zygote.start("start_patient", db=db, kind=kind, seconds=60)
    zygote.wait_for(what="effect", serial=dying.serial)

    dying.kill()
    killed_at = time.monotonic()
    again = zygote.wait_for(what="effect", serial=living.serial, step=1)
    took = again["at"] - killed_at
    living.send(signal.SIGTERM)

    assert living.wait() == 0
    assert again["attempt"] == 2
    assert took < 2, f"the take-over took {took:.3f} s, and the lease is 10 s"
    print(f"taken over within {took * 1000:.0f} ms")
    reports = zygote.settle()
    violations = check(reports, Recorded(db), ended=False)
    assert not violations, explained(violations, reports)


@both_colours
def test_a_process_that_is_asked_to_end_lets_a_running_step_finish_and_starts_no_other(
    zygote: Zygote, place: Place, kind: str
) -> None:
    """SIGTERM, and the step ends within the drain time: the next process goes on after it."""
    db = place.database("flows")
    ending = zygote.start("start_patient", db=db, kind=kind, seconds=0.5)
    zygote.wait_for(what="effect", serial=ending.serial)

    ending.send(signal.SIGTERM)
    assert ending.wait(5) == 0
    assert zygote.start("start_patient", db=db, kind=kind, seconds=0.5).wait() == 0

    reports = zygote.settle()
    assert [(r["step"], r["attempt"]) for r in zygote.those(what="effect")] == [(1, 1), (2, 1)]
    assert zygote.those(what="effect", step=2)[0]["serial"] != ending.serial
    _check(reports, db)


@both_colours
def test_a_step_that_outlasts_the_drain_is_left_to_the_next_start(
    zygote: Zygote, place: Place, kind: str
) -> None:
    """SIGTERM with a step of a minute: the process ends all the same, no crash is counted, the attempt is."""
    db = place.database("flows")
    ending = zygote.start("start_patient", db=db, kind=kind, seconds=60, drain=0.2)
    zygote.wait_for(what="effect", serial=ending.serial)

    ending.send(signal.SIGTERM)
    assert ending.wait(5) == 0
    (left,) = Recorded(db).flows
    assert zygote.start("start_patient", db=db, kind=kind, seconds=60).wait() == 0

    assert (left["owner"], left["crashes"], left["lost_claims"]) == (None, 0, 0)
    reports = zygote.settle()
    assert [(r["step"], r["attempt"]) for r in zygote.those(what="effect")][:2] == [(1, 1), (1, 2)]
    _check(reports, db)


@pytest.mark.parametrize("poke", [False, True])
def test_the_death_of_a_worker_is_no_crash_of_the_flows_that_sleep(
    zygote: Zygote, place: Place, *, poke: bool
) -> None:
    """Only flows with a step or body running at the crash count, however often the process dies."""
    db = place.database("flows")
    for _ in range(3):
        process = zygote.start("sleepers", db=db, poke=poke)
        zygote.wait_for(what="ready", serial=process.serial)
        _until_all_idle(db, process)
        process.kill()

    last = zygote.start("sleepers", db=db, poke=False)
    zygote.wait_for(what="ready", serial=last.serial)
    flows = Recorded(db).flows
    last.kill()

    assert [flow["crashes"] for flow in flows] == [0, 0, 0]
    assert all(flow["status"] in (0, 2) for flow in flows)


def _until_all_idle(db: str, process: Process) -> None:
    until = time.monotonic() + PATIENCE_S
    quiet = 0
    while quiet < 5:
        assert process.poll() is None
        assert time.monotonic() < until, [dict(flow) for flow in Recorded(db).flows]
        quiet = quiet + 1 if all(flow["idle"] for flow in Recorded(db).flows) else 0
        time.sleep(0.03)


def _check(reports: list[dict[str, Any]], db: str) -> None:
    violations = check(reports, Recorded(db))
    assert not violations, explained(violations, reports)
