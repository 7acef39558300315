"""The bugs that other libraries of this kind have shipped, and that each has a test here that names it.

A test names one by `@pytest.mark.peer(...)`, wherever it stands: `pytest -m peer` runs them all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
NAMED = re.compile(r'^@pytest\.mark\.peer\("([^"]+)"\)$', re.MULTILINE)

BUGS = {
    "recovery re-runs a flow that is live in the same process": "the flow ran twice side by side",
    "stale recovery list": "a worker ran from its list what another had finished meanwhile",
    "double dequeue on SQLite": "two workers read the same row as free before either wrote",
    "an interrupted purge leaves rows": "a reused id replayed another flow's results",
    "an id reused with another function": "the new function was answered with the old one's result",
    "a rescuer overwrites a completed flow": "the late one of two workers replaced a recorded outcome",
    "a database restart during recovery strands flows": "what had been listed was never looked at again",
    "one dead flow aborts the recovery of the rest": "the loop ended at the first flow that raised",
    "unknown flow names discarded": "a worker without the module took the flow and dropped it",
    "wait/emit lost wake-up": "a signal between the look and the sleep woke nobody",
    "a timed-out wait not recorded": "steps behind it had other numbers on replay",
    "a dead waiter eats the next signal": "a wait that had been given up was still in the list",
    "gather differs on replay": "branches were numbered, and shown, in another order than they had run",
    "asyncio.wait set order": "the sets that it returns iterate in another order in each process",
    "cancelled became success": "a step that ended late completed a flow that was cancelled",
    "recovery deadlocks when pending > threads": "waiting flows held every thread",
    "thread lists grow for ever": "ended threads were kept",
    "exceptions that do not unpickle": "a failure could not be read back",
    "silent serialisation failure": "a result was replaced by null and a log line",
    "clock moved back and a timer was dropped": "nobody looked at it again",
    "DST skip and repeat in schedules": "due times were kept in local time",
    "crashes not counted as attempts": "a flow that ran out of memory was recovered for ever",
    "anyio cancel livelock": "a cancel was delivered again at each turn of the loop",
}


def named() -> dict[str, list[str]]:
    """Return the files whose tests name each bug."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        for bug in NAMED.findall(file.read_text("utf-8")):
            found[bug].append(file.name)
    return found


def test_every_bug_has_a_test_that_names_it() -> None:
    """And no test names one that is not in the list."""
    assert sorted(named()) == sorted(BUGS)
