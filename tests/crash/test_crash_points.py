"""The process dies at every named point: before and after each call of the store, and each effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistasaurus.testing import crash_points
from tests.crash.checker import Recorded, changed, check, explained
from tests.crash.processes import Zygote

PLAN = {
    kind: [kind, 5, 0]
    for kind in ("submits", "gathers", "listens", "async_confirms", "retries", "fails", "async_parent", "async_sleeps")
}
# Only the web pages read signals through the store so far, and a process that dies on leaving has reported all.
NOT_REACHED = {"signals:before", "signals:after"}
EXIT_STATUS = 137

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("point", [point for point in crash_points() if point not in NOT_REACHED])
def test_a_process_that_dies_at_a_named_point_loses_nothing(zygote: Zygote, tmp_path: Path, point: str) -> None:
    """Three deaths a point, at the first, second and fourth time that it is reached; then one life."""
    db = tmp_path / "flows.db"
    final: dict[tuple[str, int], str] = {}
    statuses = []
    for nth in (1, 2, 4):
        plan = _told(zygote)
        process = zygote.start("async_soak" if nth == 2 else "soak", db=str(db), plan=plan, crash=[point, nth])
        statuses.append(process.wait())
        zygote.settle()
        now = Recorded(str(db)).final() if db.exists() else {}
        reopened = {report["flow"] for report in zygote.those(what="reopening")}
        assert not [*changed({p: o for p, o in final.items() if p[0] not in reopened}, now)]
        final |= now

    last = zygote.start("soak", db=str(db), plan=_told(zygote)).wait()

    reports = zygote.settle()
    violations = check(reports, Recorded(str(db)))
    assert EXIT_STATUS in statuses, f"{point} was never reached: {statuses}"
    assert last == 0
    assert not violations, explained(violations, reports)


def _told(zygote: Zygote) -> dict[str, list[object]]:
    sent = zygote.those(what="sent")
    return {flow_id: [kind, ms, sum(r["flow"] == flow_id for r in sent)] for flow_id, (kind, ms, _) in PLAN.items()}
