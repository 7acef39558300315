"""Many processes on one file, and processes that are asked to go."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import apsw

from tests.crash.checker import Recorded, check, explained
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.story import Outcome, Story

STORM = 8
RACERS = 200
# No signals and no retries by hand: eight processes would each send and retry their own.
UNTOUCHED = [
    "sequence",
    "async_sequence",
    "submits",
    "gathers",
    "async_sleeps",
    "retries",
    "catches",
    "parent",
]
LEFT = 5
FULL = 4


def lock_storm(zygote: Zygote, place: Place, seed: int, *, held_s: float = 1.0) -> Outcome:
    """Eight processes on one file, whose lock a ninth holds for long: nobody hears of a lock."""
    rng = random.Random(seed)
    story = Story(zygote, place.database(f"storm-{seed}"), rng, flows=len(UNTOUCHED), kinds=UNTOUCHED)
    processes = [story.begin() for _ in range(STORM)]
    zygote.wait_for(what="entered")
    with closing(apsw.Connection(story.db)) as connection:
        connection.set_busy_timeout(60_000)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(held_s)  # real time is the subject: longer than SQLite's own patience
        connection.execute("ROLLBACK")
    assert [process.wait(held_s + 60) for process in processes] == [0] * STORM, f"seed {seed}"
    troubles = [report for report in story.look(ended=True) if report["what"] == "trouble"]
    assert not troubles, f"seed {seed}: {troubles}"
    return Outcome(1, story.end(seed))


def started_twice(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """200 starts of one id by two processes at once are one flow instance; another input is a conflict."""
    zygote.fresh()
    db, go = place.database(f"race-{seed}"), place.folder / f"go-{seed}"
    racers = [zygote.start("racers", db=db, count=RACERS // 2, ms=1, go=str(go)) for _ in range(2)]
    for racer in racers:
        zygote.wait_for(what="ready", serial=racer.serial)
    go.touch()
    assert [racer.wait() for racer in racers] == [0, 0]
    assert zygote.start("racers", db=db, count=RACERS // 2, ms=2, go=str(go)).wait() == 0
    reports = zygote.settle()
    results = zygote.those(what="result")
    assert len(results) == RACERS
    assert len({str(report["value"]) for report in results}) == 1, f"seed {seed}: {results}"
    assert len(zygote.those(what="effect")) == len(results[0]["value"])
    assert len(zygote.those(what="conflict")) == RACERS // 2
    recorded = Recorded(db)
    assert {row["flow_id"] for row in recorded.flows} == {"one", "one/1"}
    violations = check(reports, recorded)
    assert not violations, f"seed {seed}: " + explained(violations, reports)
    return Outcome(RACERS, 1)


def asked_to_leave(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """Five processes that get SIGTERM, or SIGINT once or twice: they end, and nothing is lost."""
    rng = random.Random(seed)
    story = Story(zygote, place.database(f"leave-{seed}"), rng, flows=6)
    left = 0
    for _ in range(LEFT):
        process = zygote.start("polite_soak", db=story.db, plan=story.plan, forks=rng.choice([0, 0, 2]))
        time.sleep(rng.uniform(0.0, 0.15))
        for number in rng.choice([[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]]):
            process.send(number)
            time.sleep(rng.uniform(0.0, 0.01))
        process.wait(20)
        story.look()
        left += 1
    return Outcome(left, story.end(seed))


def full_disk(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """A disk that is full four times while flows run: what is refused did not happen, and all goes on."""
    rng = random.Random(seed)
    how = ["file size", "pages", "file system"][seed % 3]
    folder = place.folder / f"full-{seed}"
    folder.mkdir()
    with _small(folder) if how == "file system" else nullcontext():
        story = Story(zygote, str(folder / "flows.db"), rng, flows=6)
        process = zygote.start("full_disk_soak", db=story.db, plan=story.plan, how=how, times=FULL)
        assert process.wait() == 0, (seed, how, zygote.those(what="trouble")[-3:])
        reports = story.look()
        found = [r for r in reports if r["what"] == "refused" and r["found"] is not None]
        assert not found, f"seed {seed}: refused, and yet there: {found}"
        full = [report for report in reports if report["what"] == "full"]
        return Outcome(len(full), story.end(seed))


@contextmanager
def _small(folder: Path) -> Generator[None]:
    """A file system of two megabytes, where this user may mount one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
    )
    try:
        yield
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)
