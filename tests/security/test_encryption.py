"""With a cipher, what the flows carry is ciphertext in the file, and only there."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import CipherError, FlowConflict, FlowStatus, Persistasaurus, StoreError, UsageError
from persistasaurus.crypto import AesGcm
from tests import postgres
from tests.flows.kit import eventually, sql, until_status, until_waiting
from tests.security.kit import (
    MARKER,
    NEW,
    OLD,
    Declined,
    busy_async,
    ciphers,
    failing,
    gate,
    gated,
    note,
    on_disk,
    run_busy,
    waiting,
)

ENCRYPTED = '{"encrypted": "old", "data": "'


def test_nothing_that_a_flow_carries_is_plain_in_the_file(database: Path) -> None:
    """Input, parameters, results, failures, child flows, signals and resumes; also those not consumed yet."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        result = run_busy(app)
        app.handle("not-yet").send(note, MARKER)
        failed = app.start(failing.options(flow_id="failed"), MARKER)
        with pytest.raises(Declined, match=MARKER):
            failed.result(10)
        parked_in_log = on_disk(database)

    assert result.count(MARKER) == 6
    assert parked_in_log == on_disk(database) == []


def test_without_a_cipher_the_marker_is_found(database: Path) -> None:
    """Without this, the test above would pass by looking in the wrong place."""
    with Persistasaurus(database) as app:
        run_busy(app)

    assert on_disk(database) == [database.name]


def test_the_execution_log_says_that_a_value_is_encrypted_and_with_which_key(database: Path) -> None:
    """Each value is a JSON object, so that SQL's JSON functions go on working."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        run_busy(app)

    rows = sql(database, "SELECT parameters, return_value, error FROM execution_log")
    texts = [text for row in rows for text in row if text is not None]
    assert len(texts) > 10
    assert all(text.startswith(ENCRYPTED) for text in texts)
    keys = sql(
        database, "SELECT DISTINCT parameters ->> 'encrypted' FROM execution_log WHERE parameters NOT NULL"
    )
    assert keys == [("old",)]


def test_code_and_records_see_the_values(database: Path) -> None:
    """The cipher is between the app and its database, and nowhere else."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        run_busy(app)
    with Persistasaurus(database, worker=False, cipher=ciphers(old=OLD)) as app:
        handle = app.handle("busy")
        record, steps = handle.record(), handle.steps()

        assert handle.result(1).count(MARKER) == 6
        assert record.input == {"text": MARKER}
        assert steps[0].return_value == {"found": MARKER}
        assert steps[1].error is not None
        assert steps[1].error["message"] == f"not {MARKER}"


@pytest.mark.parametrize("rotated", [False, True], ids=["same key", "new key"])
def test_a_flow_goes_on_after_a_restart(database: Path, rotated: bool) -> None:
    """What was recorded under an old key is read; what is new is under the newest."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        until_waiting(app.start(waiting.options(flow_id="w"), MARKER))

    keys = {"old": OLD, "new": NEW} if rotated else {"old": OLD}
    with Persistasaurus(database, cipher=AesGcm(keys)) as app:
        app.handle("w").send(note, "and more")
        assert app.handle("w").result(10) == f"{MARKER}and more"

    (used,) = sql(database, "SELECT result ->> 'encrypted', input ->> 'encrypted' FROM flow")
    assert used == ("new" if rotated else "old", "old")


async def test_async_flows_and_their_children_too(database: Path) -> None:
    """They are recorded by the same writer."""
    async with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        handle = await app.start_async(busy_async.options(flow_id="a"), MARKER)
        await handle.send_async(note, MARKER)

        assert await handle == MARKER * 2
        assert on_disk(database) == []


def test_a_database_that_was_plain_goes_on_encrypted(database: Path) -> None:
    """Plain texts are read as they are; what is written from now on is not plain."""
    with Persistasaurus(database) as app:
        until_waiting(app.start(waiting.options(flow_id="w"), "old"))
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        app.handle("w").send(note, MARKER)

        assert app.handle("w").result(10) == f"old{MARKER}"
    assert on_disk(database) == []


@pytest.mark.parametrize(
    "keys", [None, {"old": NEW}, {"new": NEW}], ids=["no cipher", "wrong key", "other key"]
)
def test_without_the_key_a_flow_is_parked_and_goes_on_with_it(database: Path, keys: Any) -> None:
    """The reason says what to do. Nothing is lost: neither the steps nor the signal that came meanwhile."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        until_waiting(app.start(waiting.options(flow_id="w"), MARKER))

    with Persistasaurus(database, cipher=None if keys is None else AesGcm(keys)) as app:
        handle = app.handle("w")
        handle.send(note, "!")
        until_status(handle, FlowStatus.PARKED)
        with pytest.raises(CipherError, match=r"'w'.*cipher= with the key.*retry the flow; nothing is lost"):
            handle.result(1)
        assert "encrypted" in json.dumps(handle.record().input)

    # The signal was sent under what the other app had: one that this app does not have stays with the flow.
    with Persistasaurus(
        database, cipher=AesGcm({**(keys if keys and "old" not in keys else {}), "old": OLD})
    ) as app:
        handle = app.handle("w")
        if keys == {"old": NEW}:
            sql(database, "DELETE FROM signal")
            handle.send(note, "!")
        handle.retry()
        assert handle.result(10) == f"{MARKER}!"


@pytest.mark.parametrize("flow", [waiting, busy_async], ids=["sync", "async"])
def test_a_signal_under_an_unknown_key_parks_its_flow_and_stays_pending(database: Path, flow: Any) -> None:
    """It is not set aside as one that does not fit: it may be good."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        handle = until_waiting(app.start(flow.options(flow_id="w"), "x"))
        with Persistasaurus(database, worker=False, cipher=ciphers(new=NEW)) as sender:
            sender.handle("w").send(note, "!")
        until_status(handle, FlowStatus.PARKED)

    with Persistasaurus(database, cipher=ciphers(new=NEW, old=OLD)) as app:
        app.handle("w").retry()
        assert app.handle("w").result(10) == "x!"


def test_a_result_is_not_shown_without_the_key(database: Path) -> None:
    """The record says that it is encrypted, `result` refuses, and other facts are there."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        run_busy(app)
        with pytest.raises(Declined):
            app.run(failing.options(flow_id="f"), MARKER)
    with Persistasaurus(database, worker=False) as app:
        records = list(app.flows())
        steps = app.handle("busy").steps()

        with pytest.raises(CipherError, match=r"no cipher"):
            app.handle("busy").result(1)
        with pytest.raises(CipherError, match=r"no cipher"):
            app.handle("f").retry()
        with pytest.raises(CipherError, match=r"no cipher"):
            app.start(failing.options(flow_id="f"), MARKER)
    assert MARKER not in repr((records, steps))
    assert {record.status for record in records} == {FlowStatus.COMPLETE, FlowStatus.FAILED}
    assert "key 'old'" in records[-1].input["encrypted"]
    failed = next(record for record in records if record.flow_id == "f")
    assert failed.error is not None
    assert failed.error["type"] == "Encrypted"


def test_a_failed_flow_is_retried_at_its_failed_step(database: Path) -> None:
    """Which steps those were is in the encrypted failure."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        with pytest.raises(Declined):
            app.run(failing.options(flow_id="f"), MARKER)
        app.handle("f").retry()
        with pytest.raises(Declined):
            app.handle("f").result(10)

        assert app.handle("f").steps()[0].attempts == 4


def test_the_same_start_again_is_the_same_flow(database: Path) -> None:
    """Inputs are compared by what they say: no two ciphertexts are equal."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        app.start(waiting.options(flow_id="w"), "a")
        app.start(waiting.options(flow_id="w"), "a")
        with pytest.raises(FlowConflict):
            app.start(waiting.options(flow_id="w"), "b")


MOVES = {
    "to another flow": "UPDATE step SET return_value = (SELECT return_value FROM step AS s "
    "WHERE s.flow_key = 2) WHERE flow_key = 1 AND step = 1",
    "to another column": "UPDATE step SET return_value = parameters WHERE flow_key = 1 AND step = 1",
    "changed": 'UPDATE step SET return_value = replace(return_value, \'"data": "\', \'"data": "AAAA\') '
    "WHERE flow_key = 1 AND step = 1",
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_a_text_that_was_moved_or_changed_does_not_decrypt(database: Path, move: str) -> None:
    """Also by somebody who can compute our checksums, which are no secret."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        until_waiting(app.start(waiting.options(flow_id="w"), "mine"))
        until_waiting(app.start(waiting.options(flow_id="v"), "theirs"))
    sql(database, move)
    _sign_again(database)

    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        until_status(app.handle("v"), FlowStatus.WAITING_FOR_SIGNAL)
        app.handle("w").send(note, "!")
        until_status(app.handle("w"), FlowStatus.PARKED)
        with pytest.raises(CipherError, match=r"return_value 1.*changed or moved"):
            app.handle("w").result(1)


def _sign_again(database: Path) -> None:
    from persistasaurus._store.base import StepRow
    from persistasaurus._store.checksum import step_checksum

    (values,) = sql(database, "SELECT * FROM step WHERE flow_key = 1 AND step = 1")
    row = StepRow(*values)
    sql(database, "UPDATE step SET checksum = ? WHERE flow_key = 1 AND step = 1", step_checksum(row, 0))


class Failing:
    """A cipher whose key service is away at first."""

    def __init__(self) -> None:
        self.away = False
        self._cipher = ciphers(old=OLD)

    def encrypt(self, text: bytes, *, bound_to: bytes) -> tuple[str, bytes]:
        if self.away:
            raise ConnectionError("the key service is away")
        return self._cipher.encrypt(text, bound_to=bound_to)

    def decrypt(self, data: bytes, *, key_id: str, bound_to: bytes) -> bytes:
        return self._cipher.decrypt(data, key_id=key_id, bound_to=bound_to)


def test_a_cipher_that_fails_is_asked_again_and_no_event_is_lost_or_doubled(database: Path) -> None:
    """A start is refused; a flow under way waits, and nothing is ever written plainly."""
    cipher = Failing()
    with Persistasaurus(database, cipher=cipher) as app:
        handle = until_waiting(app.start(waiting.options(flow_id="w"), MARKER))
        handle.send(note, "!")
        cipher.away = True
        with pytest.raises(StoreError, match=r"cannot encrypt.*away"):
            app.start(waiting, MARKER)
        cipher.away = False

        assert handle.result(10) == f"{MARKER}!"
    events = sql(database, "SELECT event FROM step ORDER BY event")
    assert events == [(1,), (2,)]
    assert on_disk(database) == []


def test_a_flow_waits_while_its_cipher_fails(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The step has run once; its result is written once the cipher can, and it does not run again."""
    cipher = Failing()
    gate.clear()
    with Persistasaurus(database, cipher=cipher) as app:
        handle = app.start(gated.options(flow_id="g"), MARKER)
        eventually(lambda: gate.entered)
        cipher.away = True
        gate.set()
        eventually(lambda: "cannot encrypt" in caplog.text)
        cipher.away = False

        assert handle.result(10) == MARKER
    assert gate.entered == 1
    assert sql(database, "SELECT event, attempts FROM step") == [(1, 1)]
    assert MARKER not in caplog.text
    assert on_disk(database) == []


@pytest.mark.parametrize("keys", [{}, {"short": b"x"}, {"long": b"x" * 33}], ids=["none", "short", "long"])
def test_keys_that_are_none_are_refused(keys: dict[str, bytes]) -> None:
    """The message names the cure and repeats no key."""
    with pytest.raises(UsageError, match=r"new_key"):
        AesGcm(keys)


def test_keys_from_an_environment_variable() -> None:
    """The newest is last; a text that is none is refused without being repeated."""
    first, second = AesGcm.new_key_text(), AesGcm.new_key_text()
    cipher = AesGcm.from_text(f"2025:{first}, 2026:{second}")

    key_id, data = cipher.encrypt(b"x", bound_to=b"here")
    assert key_id == "2026"
    assert cipher.decrypt(data, key_id="2026", bound_to=b"here") == b"x"
    assert repr(cipher) == "AesGcm(keys '2025', '2026')"
    with pytest.raises(UsageError, match=r"Key 1 is not written as id:base64") as refused:
        AesGcm.from_text(first)
    assert first[:20] not in str(refused.value)


def test_a_cipher_that_is_none_is_refused_where_the_app_is_made(database: Path) -> None:
    """A key is no cipher; the message does not repeat it."""
    with pytest.raises(ValueError, match=r"^cipher=... is a bytes"):
        Persistasaurus(database, cipher=OLD)  # type: ignore[arg-type]


def test_checksums_are_checked_without_the_key(database: Path) -> None:
    """They are over what is stored: a damaged row is found by whoever looks."""
    with Persistasaurus(database, cipher=ciphers(old=OLD)) as app:
        run_busy(app)
    from persistasaurus._store.urls import whole_store
    from persistasaurus._store.verification import Verification

    with closing(whole_store(str(database))) as store:
        store.open()
        with store.snapshot() as snapshot:
            verification = Verification(snapshot)
            assert list(verification.findings(lambda: None)) == []
    assert verification.checked >= 3


def test_a_value_that_looks_like_a_ciphertext_is_a_value(database: Path) -> None:
    """An envelope is told by its spelling, which the codec never writes."""
    looks = json.dumps({"encrypted": "old", "data": "AAAA"})
    for cipher in (None, ciphers(old=OLD)):
        with Persistasaurus(database, cipher=cipher) as app:
            handle = app.start(waiting, looks)
            handle.send(note, looks)
            eventually(lambda handle=handle: handle.status() == FlowStatus.COMPLETE)
            assert handle.result(5) == looks * 2


def test_postgresql_gets_ciphertext_too() -> None:
    """The cipher is above the stores; whoever reads the server, its log or its backups sees no value."""
    with postgres.new_schema() as url:
        with Persistasaurus(url, cipher=ciphers(old=OLD)) as app:
            assert run_busy(app).count(MARKER) == 6
            app.handle("not-yet").send(note, MARKER)
        with Persistasaurus(url, cipher=ciphers(new=NEW)) as app, pytest.raises(CipherError, match="'old'"):
            app.handle("busy").result(1)
        columns = "SELECT flow::text FROM flow UNION ALL SELECT step::text FROM step"
        rows = postgres.in_schema(url, f"{columns} UNION ALL SELECT signal::text FROM signal")

    assert len(rows) > 10
    assert not any(MARKER in row[0] for row in rows)
