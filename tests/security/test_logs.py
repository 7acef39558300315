"""No payload is in any log record, whatever happens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowStatus, Persistasaurus, SerializationError
from tests.flows.kit import sql, until_status, until_waiting
from tests.security.kit import MARKER, Declined, busy_async, confirmed, failing, note, run_busy, waiting


def told(caplog: pytest.LogCaptureFixture) -> str:
    """Return all of every record: message, arguments, fields and traceback."""
    formatter = logging.Formatter("%(message)s")
    return "\n".join(formatter.format(record) + repr(record.__dict__) for record in caplog.records)


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_a_busy_run_logs_no_payload(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Results, failures, retries, children, signals and resumes, and a flow that fails for good."""
    with Persistasaurus(database) as app:
        run_busy(app)
        with pytest.raises(Declined):
            app.run(failing, MARKER)
        handle = app.start(busy_async, MARKER)
        handle.send(note, MARKER)
        handle.result(10)

    names = {record.name for record in caplog.records}
    assert {"persistasaurus.flow", "persistasaurus.step"} <= names
    assert "flow failed" in caplog.text
    assert MARKER not in told(caplog)


def _misfit(app: Persistasaurus, database: Path) -> None:
    handle = until_waiting(app.start(waiting.options(flow_id="w"), MARKER))
    sql(
        database,
        "INSERT INTO signal (flow_id, name, payload, sent_at_ms, checksum) "
        "VALUES ('w', 'security_note', ?, 1, 1)",
        f'"{MARKER}"',
    )
    handle.send(note, MARKER)
    handle.result(10)


def _edited(app: Persistasaurus, database: Path) -> None:
    """A recorded value that the annotation does not fit any more, with a right checksum."""
    from persistasaurus._store.base import StepRow
    from persistasaurus._store.checksum import step_checksum

    until_waiting(app.start(waiting.options(flow_id="w"), "x"))
    app.__exit__(None, None, None)
    ((*values,),) = sql(database, "SELECT * FROM step WHERE step = 1")
    row = StepRow(*values)._replace(return_value=f'["{MARKER}"]')
    sql(
        database,
        "UPDATE step SET return_value = ?, checksum = ? WHERE step = 1",
        row.return_value,
        step_checksum(row, 0),
    )
    app.__enter__()
    app.handle("w").send(note, "!")
    until_status(app.handle("w"), FlowStatus.PARKED)
    with pytest.raises(SerializationError):
        app.handle("w").result(1)


def _damaged(app: Persistasaurus, database: Path) -> None:
    until_waiting(app.start(waiting.options(flow_id="w"), MARKER))
    app.__exit__(None, None, None)
    sql(database, "UPDATE step SET return_value = return_value || ' '")
    app.__enter__()
    app.handle("w").send(note, "!")
    until_status(app.handle("w"), FlowStatus.PARKED)


def _refused(app: Persistasaurus, database: Path) -> None:
    handle = until_waiting(app.start(waiting.options(flow_id="w"), "x"))
    for wrong in (lambda: handle.send(note, [MARKER]), lambda: handle.resume(confirmed, [MARKER])):  # type: ignore[list-item]
        with pytest.raises(SerializationError) as caught:
            wrong()
        assert MARKER not in str(caught.value)


TROUBLES = [_misfit, _edited, _damaged, _refused]


@pytest.mark.parametrize("trouble", TROUBLES, ids=[each.__name__.strip("_") for each in TROUBLES])
def test_what_goes_wrong_is_logged_without_the_value(
    database: Path, caplog: pytest.LogCaptureFixture, trouble: Any
) -> None:
    """A signal that does not fit, a value that cannot be read any more, damage, refusals."""
    with Persistasaurus(database) as app:
        trouble(app, database)
        reasons = [record.reason for record in app.flows()]

    assert caplog.records
    assert MARKER not in told(caplog) + repr(reasons)
