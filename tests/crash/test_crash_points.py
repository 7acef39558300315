"""The process dies at every named point: before and after each call of the store, and each effect."""

from __future__ import annotations

import pytest

from persistasaurus.testing import crash_points
from tests import postgres
from tests.crash.checker import Recorded, changed, check, explained
from tests.crash.places import Place, is_there
from tests.crash.processes import Zygote

KINDS = "submits gathers listens async_confirms retries fails async_parent async_sleeps"
PLAN = {kind: [kind, 5, 0] for kind in KINDS.split()}
# Only the web pages read signals through the store, and only an observer is told its size.
NOT_REACHED = {f"{place}:{side}" for place in ("signals", "size") for side in ("before", "after")}
EXIT_STATUS = 137

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("point", [point for point in crash_points() if point not in NOT_REACHED])
def test_a_process_that_dies_at_a_named_point_loses_nothing(zygote: Zygote, place: Place, point: str) -> None:
    """Three deaths a point, at the first, second and fourth time that it is reached; then one life.

    On PostgreSQL, where a process takes longer to begin, it is two.
    """
    db = place.database("flows")
    final: dict[tuple[str, int], str] = {}
    statuses = []
    for entry, crash, lease in _deaths(point)[: 2 if postgres.is_url(db) else 3]:
        process = zygote.start(entry, db=db, plan=_told(zygote), crash=crash, lease=lease)
        statuses.append((crash[0], process.wait()))
        zygote.settle()
        now = Recorded(db).final() if is_there(db) else {}
        reopened = {report["flow"] for report in zygote.those(what="reopening")}
        assert not [*changed({p: o for p, o in final.items() if p[0] not in reopened}, now)]
        final |= now

    last = zygote.start("soak", db=db, plan=_told(zygote)).wait()

    reports = zygote.settle()
    violations = check(reports, Recorded(db))
    assert (point, EXIT_STATUS) in statuses, f"{point} was never reached: {statuses}"
    assert last == 0
    assert not violations, explained(violations, reports)


def test_without_the_count_of_lost_claims_an_attempt_would_be_given_twice(
    zygote: Zygote, place: Place
) -> None:
    """The test above bites, once two deaths in a row hit the same step."""
    db = place.database("flows")
    for _ in range(20):
        zygote.start("forgetful_soak", db=db, plan=PLAN, crash=["effect:after", 2]).wait()
        violations = check(zygote.settle(), Recorded(db), ended=False)
        if any("attempt 1 began after 1" in violation for violation in violations):
            return
    raise AssertionError("no attempt was given twice")


def _deaths(point: str) -> list[tuple[str, list[object], float]]:
    """Return how three processes are run: the entry, where it dies, and its lease."""
    if point.startswith("take_over"):  # needs a process that has died before
        return [("soak", ["commit:after", 9], 10), ("soak", [point, 1], 10), ("async_soak", [point, 1], 10)]
    if point.startswith("renew_lease"):  # once in a third of the lease
        return [("soak", [point, 1], 0.3), ("async_soak", [point, 1], 0.3), ("soak", [point, 2], 0.3)]
    return [("soak", [point, 1], 10), ("async_soak", [point, 2], 10), ("soak", [point, 4], 10)]


def _told(zygote: Zygote) -> dict[str, list[object]]:
    """Return the plan with how much each flow was sent for certain."""
    return {
        flow_id: [kind, ms, len(zygote.those(what="sent", flow=flow_id))]
        for flow_id, (kind, ms, _) in PLAN.items()
    }
