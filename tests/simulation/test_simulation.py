"""Random programs on the real engine, several processes and one store, while whatever can go wrong does.

A seed decides everything: the programs, which thread runs when, where a process dies or stands still, and
what the clock says. `python -m tests.simulation SEED` tells what happened in one.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistasaurus._engine import attempts
from persistasaurus._engine.engine import Engine
from persistasaurus._engine.run import Run
from tests.simulation.machine import free
from tests.simulation.play import KINDS, Played, play

SEEDS = 300
SOAK_MINUTES = float(os.environ.get("PERSISTASAURUS_SOAK_MINUTES", "0"))
KEPT = [
    int(line.split()[0])
    for line in Path(__file__).with_name("seeds.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    yield
    free()


@pytest.mark.parametrize("share", [0, 1])
def test_every_promise_holds_whatever_goes_wrong(share: int) -> None:
    """Some hundred seeds, or as many as the minutes of a soak allow: by halves, one for each core."""
    until = time.monotonic() + SOAK_MINUTES * 60
    seed = share
    while seed < SEEDS or time.monotonic() < until:
        _assert_holds(seed, play(seed))
        seed += 2
    print(f"{seed // 2} seeds")


@pytest.mark.parametrize("seed", KEPT)
def test_what_was_found_once_stays_corrected(seed: int) -> None:
    """Seeds that were red before their cause was corrected."""
    _assert_holds(seed, play(seed))


@pytest.mark.parametrize("seed", range(10))
def test_a_seed_is_the_same_every_time(seed: int) -> None:
    """Else a red one could not be looked into."""
    first, second = play(seed), play(seed)

    assert first.reports == second.reports
    assert (first.faults, first.switches) == (second.faults, second.switches)


def test_without_faults_nothing_runs_twice() -> None:
    """A step has as many attempts as its own failures ask for."""
    for seed in range(40):
        played = play(seed, kinds=())
        _assert_holds(seed, played)
        made: dict[tuple[str, int], list[int]] = defaultdict(list)
        for report in played.reports:
            if report["what"] == "effect":
                made[report["flow"], report["step"]].append(report["attempt"])
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in made.values()), f"seed {seed}"


def _drives_on(engine: Engine) -> bool:
    """Without the deadline: a process that stood still goes on as if it still held its lease."""
    return not engine.stopping


def _forgets_claims(run: Run, operation: Any) -> bool:
    """Without the count of lost claims: an attempt that may have run is not counted."""
    return False


@pytest.mark.parametrize(
    "where,weak,kind",
    [
        ([(Engine, "may_start")], _drives_on, "pause"),
        ([(attempts, "in_doubt")], _forgets_claims, "kill"),
    ],
    ids=["no deadline", "no count of lost claims"],
)
def test_the_suite_bites(
    monkeypatch: pytest.MonkeyPatch, where: list[tuple[Any, str]], weak: Callable[..., Any], kind: str
) -> None:
    """Each guard, taken away, turns a seed red: one in some ten, with the faults that it is against."""
    for owner, name in where:
        monkeypatch.setattr(owner, name, weak)

    kinds = [each for each in KINDS if each.startswith(kind)]
    assert any(play(seed, kinds=kinds).violations for seed in range(SEEDS))


def _assert_holds(seed: int, played: Played) -> None:
    found = "\n".join(played.violations)
    assert not found, f"seed {seed}, after {played.faults}:\n{found}"
