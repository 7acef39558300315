"""The history checker: holds what was seen outside of the killed processes against what the database says.

What it asserts, each in a function of its own:

1.  every acknowledged start and result is in the log, with an equal value;
2.  no effect begins after the recorded completion of its step, or the end of its flow;
3.  an attempt of a step begins at most once, attempts rise, and the idempotency key stays;
4.  a step has one recorded value, which an effect gave and every replay saw;
5.  what is final never changes (`changed`, between two looks);
6.  what a flow is shown is a prefix of what it is shown in every later life;
7.  every worker has a number above those of all before it;
8.  each acknowledged signal is consumed once and in the order sent, or is pending;
9.  nothing is woken before it is due;
10. once the faults stop, every flow ends, and no row is left that belongs to nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import apsw
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tests import postgres

Report = dict[str, Any]
Violations = Iterator[str]


class Recorded:
    """What the database holds, read on a connection of our own; nothing where it was not made yet."""

    def __init__(self, db: str) -> None:
        if postgres.is_url(db):
            with postgres.connected(db) as server, server.transaction():
                server.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self._read(partial(_rows_of_schema, server))
            return
        connection = apsw.Connection(db)
        connection.set_busy_timeout(10_000)
        try:
            with connection:
                self._read(partial(_rows, connection))
        finally:
            connection.close()

    @classmethod
    def of(cls, connection: apsw.Connection) -> Self:
        """Return what a database holds that is open already, in memory for instance."""
        recorded = cls.__new__(cls)
        recorded._read(partial(_rows, connection))
        return recorded

    def _read(self, rows: Callable[[str], list[dict[str, Any]]]) -> None:
        self.log = rows("execution_log")
        self.flows = rows("flow")
        self.steps = rows("step")
        self.signals = rows("signal")
        self.workers = rows("worker")
        self.by_step = {(row["flow_id"], row["step"]): row for row in self.log}

    def final(self) -> dict[tuple[str, int], str]:
        """Return what may never change again: results of flows (step 0) and outcomes of steps."""
        return {
            place: json.dumps([row["status"], row["return_value"], row["error"]])
            for place, row in self.by_step.items()
            if row["status"] in ("COMPLETE", "FAILED", "CANCELLED")
        }


def _rows(connection: apsw.Connection, table: str) -> list[dict[str, Any]]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
        return []  # the process was killed before it had made it
    names = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    return [dict(zip(names, row, strict=True)) for row in connection.execute(f"SELECT * FROM {table}")]


def _rows_of_schema(connection: psycopg.Connection[Any], table: str) -> list[dict[str, Any]]:
    if connection.execute("SELECT to_regclass(%s)", (table,)).fetchall() == [(None,)]:
        return []
    cursor = connection.cursor(row_factory=dict_row)
    return cursor.execute(sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier(table))).fetchall()


def changed(before: dict[tuple[str, int], str], now: dict[tuple[str, int], str]) -> Violations:
    """What was final and is another, or gone."""
    for place, outcome in before.items():
        if now.get(place) != outcome:
            yield f"{place} was recorded as {outcome} and is now {now.get(place)}"


def check(reports: Sequence[Report], recorded: Recorded, *, ended: bool = True) -> list[str]:
    """Return every violation of what must hold, none if all does.

    With `ended` every flow must have come to its end and every process must have left in good order.
    """
    # When it happened, by the one clock of all processes: one that is stopped may write its report late.
    reports = sorted(reports, key=lambda report: report.get("at", 0.0))
    found = [
        *_effects(reports),
        *_nothing_runs_after_its_record(reports),
        *_values(reports, recorded),
        *_acknowledged(reports, recorded),
        *_prefixes(reports),
        *_epochs(reports),
        *_sent(reports, recorded),
        *_too_early(reports, recorded),
        *_orphans(recorded),
        *_events(recorded),
    ]
    return [*found, *_everything_ended(recorded)] if ended else found


def explained(violations: Sequence[str], reports: Sequence[Report]) -> str:
    """Return the violations, and all that was reported of the flow of the first."""
    flows = {report["flow"] for report in reports if "flow" in report}
    involved = max((flow for flow in flows if flow in violations[0]), key=len, default=None)
    told = [str(report) for report in reports if report.get("flow", involved) == involved]
    return "\n".join([*violations[:20], "What was reported:", *told])


def _effects(reports: Sequence[Report]) -> Violations:
    """One effect a (flow, step, attempt); attempts rise; the key is the same on each."""
    last: dict[tuple[str, int], Report] = {}
    for report in reports:
        if report["what"] != "effect":
            continue
        before = last.get(place := (report["flow"], report["step"]))
        if before is not None and report["attempt"] <= before["attempt"]:
            yield f"{place}: attempt {report['attempt']} began after {before['attempt']}: {before} {report}"
        if before is not None and report["key"] != before["key"]:
            yield f"{place}: key {report['key']!r}, before it was {before['key']!r}"
        last[place] = report


def _nothing_runs_after_its_record(reports: Sequence[Report]) -> Violations:
    """Who has seen a step's value, or a flow's result, has seen its record: no effect begins after that."""
    seen: set[tuple[str, int]] = set()
    over: set[str] = set()
    for report in reports:
        match report["what"]:
            case "saw":
                seen.add((report["flow"], report["step"]))
            case "result":
                over.add(report["flow"])
            case "reopening":
                over.discard(report["flow"])
            case "effect":
                if (report["flow"], report["step"]) in seen:
                    yield f"a recorded step ran again: {report}"
                if report["flow"] in over:
                    yield f"a step ran after its flow had ended: {report}"


def _values(reports: Sequence[Report], recorded: Recorded) -> Violations:
    """A step has one value: the one that an effect gave, that every replay saw, and that is recorded."""
    given: dict[tuple[str, int], set[str]] = defaultdict(set)
    for report in reports:
        if report["what"] == "end":
            given[report["flow"], report["step"]].add(report["value"])
    for report in reports:
        if report["what"] != "saw":
            continue
        place = (report["flow"], report["step"])
        row = recorded.by_step.get(place)
        if row is None or row["status"] != "COMPLETE" or json.loads(row["return_value"]) != report["value"]:
            yield f"{place}: the flow saw {report['value']!r}, recorded is {row}"
        if report["value"] not in given[place]:
            yield f"{place}: the flow saw {report['value']!r}, which no effect gave"


def _prefixes(reports: Sequence[Report]) -> Violations:
    """What a flow was shown in one life, it is shown first in every other."""
    lives: dict[tuple[str, int], list[list[str]]] = defaultdict(lambda: [[]])
    for report in reports:
        if report["what"] == "saw":
            shown = lives[report["flow"], report["serial"]]
            if report["value"] in shown[-1]:
                shown.append([])  # the same process has let go of it and replays it
            shown[-1].append(report["value"])
    longest: dict[str, list[str]] = {}
    for (flow_id, _), shown in lives.items():
        for values in shown:
            known = longest.setdefault(flow_id, values)
            shorter, longer = sorted((known, values), key=len)
            if longer[: len(shorter)] != shorter:
                yield f"{flow_id} was shown {known} in one life and {values} in another"
            longest[flow_id] = longer


def _epochs(reports: Sequence[Report]) -> Violations:
    """A worker's number is used once, and is above those of the processes before the last look."""
    used: set[int] = set()
    before = 0
    for report in reports:
        if report["what"] == "mark":
            before = max(used, default=0)
        elif report["what"] == "entered":
            if report["worker"] in used or report["worker"] <= before:
                yield f"worker {report['worker']} came after {sorted(used)}: {report}"
            used.add(report["worker"])


def _acknowledged(reports: Sequence[Report], recorded: Recorded) -> Violations:
    """A start or a result that somebody was told is in the log, and stays as it was told until a retry."""
    retried = {report["flow"]: at for at, report in enumerate(reports) if report["what"] == "reopening"}
    for at, report in enumerate(reports):
        if report["what"] not in ("started", "result"):
            continue
        if report["what"] == "result" and at < retried.get(report["flow"], 0):
            continue
        row = recorded.by_step.get((report["flow"], 0))
        if row is None or not _is_recorded(report, row):
            yield f"{report} was acknowledged, recorded is {row}"


def _is_recorded(report: Report, row: Report) -> bool:
    if "error" in report:
        return row["status"] == "FAILED" and report["error"][1] in row["error"]
    if "value" in report:
        return (row["status"], row["return_value"]) == ("COMPLETE", _text(report["value"]))
    return True


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _sent(reports: Sequence[Report], recorded: Recorded) -> Violations:
    """What was sent is consumed once, in the order sent, or is still pending; and nothing else is."""
    sending: dict[str, list[str]] = defaultdict(list)
    sent = {report["value"] for report in reports if report["what"] == "sent"}
    for report in reports:
        if report["what"] == "sending":
            sending[report["flow"]].append(report["value"])
    for flow_id, values in sending.items():
        consumed = _consumed(recorded, flow_id)
        pending = [row["payload"] for row in recorded.signals if row["flow_id"] == flow_id]
        places = [values.index(value) if value in values else -1 for value in consumed]
        if -1 in places or places != sorted(set(places)):
            yield f"{flow_id} was sent {values} and consumed {consumed}"
        for value in values:
            kept = any(value in payload for payload in pending)
            if value in sent and value not in consumed and not kept:
                yield f"{flow_id}: {value!r} was sent and is lost"
            if value in consumed and kept:
                yield f"{flow_id}: {value!r} was consumed and is pending still"


def _consumed(recorded: Recorded, flow_id: str) -> list[str]:
    rows = [row for row in recorded.log if row["flow_id"] == flow_id and row["step"]]
    signals = [row["return_value"] for row in rows if row["method_name"] == "news" and row["return_value"]]
    resumed = [
        row["parameters"] for row in rows if row["method_name"].endswith("confirm") and row["parameters"]
    ]
    return [*map(json.loads, signals), *(json.loads(text)["name"] for text in resumed)]


def _too_early(reports: Sequence[Report], recorded: Recorded) -> Violations:
    """A delayed step begins once its delay is over, and what comes after a sleep once that is.

    An effect from before the record is of a life whose own wait, over by then, was never recorded. A sleep
    that was cancelled has kept nobody waiting.
    """
    sleeps: dict[str, list[Report]] = defaultdict(list)
    for row in recorded.log:
        if row["method_name"] == "sleep" and row.get("status") != "CANCELLED":
            sleeps[row["flow_id"]].append(row)
    for report in reports:
        if report["what"] != "effect":
            continue
        own = recorded.by_step.get((report["flow"], report["step"]))
        before = [row for row in sleeps[report["flow"]] if row["step"] < report["step"]]
        for row in [own, *before]:
            if row is not None and 0 <= report["ms"] - row["timestamp"] < (row["delay"] or 0):
                yield f"woken before it was due: {report} {row}"


def _orphans(recorded: Recorded) -> Violations:
    """No step without its flow, no owned flow without its worker, no child without its parent."""
    flows = {row["flow_key"] for row in recorded.flows}
    workers = {row["worker_id"] for row in recorded.workers}
    for step in recorded.steps:
        if step["flow_key"] not in flows:
            yield f"a step without its flow: {step}"
    for flow in recorded.flows:
        if flow["owner"] not in {None, *workers}:
            yield f"owned by a worker that is not there: {flow}"
        if flow["parent_key"] not in {None, *flows}:
            yield f"a child without its parent: {flow}"


def _events(recorded: Recorded) -> Violations:
    """The events of a flow are numbered from 1 without gaps or doubles; a cancel takes one too."""
    flows = {row["flow_key"]: row for row in recorded.flows}
    events: dict[int, list[int]] = defaultdict(list)
    for step in recorded.steps:
        if step["event"] is not None:
            events[step["flow_key"]].append(step["event"])
    for key, numbers in events.items():
        if sorted(numbers) != list(range(1, len(numbers) + 1)) and flows[key]["cancel_event"] is None:
            yield f"gaps or doubles in the events of {flows[key]['flow_id']}: {sorted(numbers)}"


def _everything_ended(recorded: Recorded) -> Violations:
    for row in recorded.flows:
        if row["status"] not in (1, 3, 4):
            yield f"never ended: {row}"
        elif row["owner"] is not None or row["due_at_ms"] is not None:
            yield f"ended, and yet owned or due: {row}"
    for worker in recorded.workers:
        yield f"a worker that left in good order is still there: {worker}"
