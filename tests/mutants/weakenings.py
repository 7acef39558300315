"""The guards without which the library would lose or repeat work, and how each is taken away.

A weakening is exact text of the source and what stands there instead. `tests` are quick, named tests that are
green with the guard and must be red without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Edit(NamedTuple):
    """One place in the source."""

    file: str
    before: str
    after: str


class Weakening(NamedTuple):
    """One guard that is taken away."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


class GoneError(Exception):
    """The source does not have the text that a weakening replaces."""


STORE, ENGINE = "persistasaurus/_store", "persistasaurus/_engine"
ACKNOWLEDGED = "tests/flows/test_acknowledged.py"

EARLY_ACKNOWLEDGEMENT = """
                if batch.steps and not (batch.starts or batch.signals or batch.cancels):
                    threading.Timer(0.2, self._store.commit, (batch,)).start()
                    return Committed((), (), ())
                return self._store.commit(batch)
            except OutcomeUnknownError"""

EARLY_CONSUMPTION = """
        early = Batch(worker_id=batch.worker_id, consumed=[report.consumed])
        report.run.engine.store.commit(early)"""

NO_COUNT = """
            head, tail = operation.parts(run.key, PENDING, None, None, error)
            report.rows = [((*head[:5], 0, *head[6:]), tail)]"""

WEAKENINGS = (
    Weakening(
        "no fencing",
        (
            Edit(
                f"{STORE}/_sqlite_commit.py",
                '(SELECT ? FROM worker WHERE worker_id=?))"',
                'coalesce(?,?))"',
            ),
            Edit(
                f"{STORE}/_sqlite_commit.py",
                "    if changed != len(rows):\n        raise lease_lost(worker_id)",
                "    if changed < 0:\n        raise lease_lost(worker_id)",
            ),
        ),
        ("tests/store/test_conformance.py::test_a_dead_worker_writes_nothing",),
    ),
    Weakening(
        "NORMAL in place of FULL",
        (Edit(f"{STORE}/_sqlite_open.py", '{"full": 2,', '{"full": 1,'),),
        ("tests/store/test_sqlite.py::test_every_connection_is_as_durable_as_was_asked",),
    ),
    Weakening(
        "no IMMEDIATE",
        (
            Edit(
                f"{STORE}/_sqlite_file.py",
                'self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))',
                'self._patiently(lambda: connection.execute("BEGIN"))',
            ),
            Edit(
                f"{STORE}/_sqlite_file.py",
                'self._patiently(lambda: writer.execute("BEGIN IMMEDIATE"))',
                'self._patiently(lambda: writer.execute("BEGIN"))',
            ),
        ),
        (
            "tests/store/test_conformance.py::test_racing_processes_start_an_id_once",
            "tests/store/test_conformance.py::test_claims_of_racing_processes_never_overlap",
        ),
    ),
    Weakening(
        "no deadline",
        (
            Edit(
                f"{ENGINE}/engine.py",
                "return not self.stopping and self._steady() < self.worker.lease_until",
                "return not self.stopping",
            ),
        ),
        ("tests/flows/test_lease.py::test_no_step_starts_past_the_lease_until_it_is_renewed",),
    ),
    Weakening(
        "acknowledged before the commit",
        (
            Edit(
                f"{ENGINE}/commit.py",
                "                return self._store.commit(batch)\n            except OutcomeUnknownError",
                EARLY_ACKNOWLEDGEMENT,
            ),
        ),
        (f"{ACKNOWLEDGED}::test_a_flow_does_not_go_on_before_its_steps_outcome_is_durable",),
    ),
    Weakening(
        "replay ignores the order of events",
        (
            Edit(
                f"{ENGINE}/history.py",
                "    return Replay(rows, events, chain)",
                "    return Replay(rows, sorted(events), chain)",
            ),
        ),
        ("tests/flows/test_replay.py::test_a_concurrent_shape_sees_the_same_on_replay",),
    ),
    Weakening(
        "a signal is consumed before the commit",
        (
            Edit(
                f"{ENGINE}/progress.py",
                "        batch.consumed.append(report.consumed)",
                EARLY_CONSUMPTION,
            ),
        ),
        (f"{ACKNOWLEDGED}::test_a_signal_is_pending_until_the_wait_that_took_it_is_recorded",),
    ),
    Weakening(
        "the count of attempts is not persisted",
        (
            Edit(
                f"{ENGINE}/outbox.py",
                "            report.rows = [operation.parts(run.key, PENDING, None, None, error)]",
                NO_COUNT,
            ),
        ),
        ("tests/flows/test_retry.py::test_a_restart_neither_shortens_the_wait_nor_resets_the_count",),
    ),
    Weakening(
        "the due time is computed anew",
        (
            Edit(
                f"{ENGINE}/delays.py",
                "    if operation.row is None:\n        operation.started_at_ms = engine.now_ms()",
                "    if True:\n        operation.started_at_ms = engine.now_ms()",
            ),
        ),
        ("tests/flows/test_delays.py::test_after_a_restart_only_the_rest_is_waited",),
    ),
)


def weakened(text: str, edit: Edit) -> str:
    """Return a file's text without its guard.

    Raises:
        GoneError: the text is not there, or is there more than once.
    """
    count = text.count(edit.before)
    if count != 1:
        raise GoneError(
            f"{edit.file} has this text {count} times and not once, so nothing would be taken away. Give "
            f"tests/mutants/weakenings.py the text that the guard has now:\n{edit.before}",
        )
    return text.replace(edit.before, edit.after)
