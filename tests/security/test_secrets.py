"""A `Secret` and a redacted field: the code gets them, and nobody is shown."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from persistasaurus import Persistasaurus, Secret, SerializationError, Signal, flow, step, wait_for
from persistasaurus._codec import value_codec
from persistasaurus.cli._records import row_json, step_json
from persistasaurus.web._flow_view import flow_view, payload_text
from persistasaurus.web._looking import one_flow, step_page
from tests.flows.kit import until_waiting
from tests.security.kit import MARKER, on_disk

MASK = "**********"

code_word = Signal("secret_code_word", Secret[str])


class Account(BaseModel):
    owner: str
    token: Secret[str]


@dataclass
class Card:
    number: Secret[int]
    pins: list[Secret[str]]


@step
def login(user: str, password: Secret[str]) -> Account:
    assert password.reveal() == MARKER
    return Account(owner=user, token=Secret(password.reveal() + "!"))


@step
def refused(password: Secret[str]) -> None:
    raise PermissionError(f"{password} is not the password of {password!r}", password)


@step
def confirmed(pin: Secret[str]) -> str:
    return pin.reveal()[:1]


@flow(name="security_shop")
def shop(user: str, password: Secret[str]) -> Secret[str]:
    account = login(user, password)
    try:
        refused(password)
    except PermissionError as error:
        user = str(error)
    word = code_word.wait()
    assert wait_for(confirmed) == MARKER[:1]
    return Secret(account.token.reveal() + word.reveal())


@flow(name="security_plain")
def plain(user: str, password: str, card: dict[str, Any]) -> dict[str, Any]:
    return {"user": user, "Password": password, "cards": [card]}


def run_shop(app: Persistasaurus) -> Secret[str]:
    """Run the flow of secrets to its end."""
    handle = app.start(shop.options(flow_id="shop"), "ann", Secret(MARKER))
    handle.send(code_word, Secret(MARKER))
    handle.resume(confirmed, Secret(MARKER))
    return handle.result(10)


def test_the_code_gets_secrets_and_nobody_is_shown_them(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Records, the command line's JSON, the API's answers, the pages and the log of the process."""
    caplog.set_level(logging.DEBUG)
    with Persistasaurus(database) as app:
        assert run_shop(app).reveal() == f"{MARKER}!{MARKER}"
    with Persistasaurus(database, worker=False) as app:
        handle = app.handle("shop")
        row = handle._row()
        shown = [
            handle.record(),
            handle.steps(),
            row_json(app, row),
            [step_json(each) for each in handle.steps()],
            one_flow(app, "shop", str),
            step_page(app, "shop", cursor=None, limit=100),
            flow_view(app, "shop"),
            [
                payload_text(app, "shop", number, part)
                for number, part in ((0, "input"), (0, "result"), (1, "input"))
            ],
        ]

        assert handle.record().input == {"user": "ann", "password": MASK}
        assert handle.record().result == MASK
        assert handle.steps()[0].return_value == {"owner": "ann", "token": MASK}
    assert [repr(each).count(MARKER) for each in shown] == [0] * len(shown)
    assert all(MASK in repr(each) for each in shown)
    assert MARKER not in caplog.text


def test_the_file_holds_a_secret_plainly_unless_there_is_a_cipher(database: Path) -> None:
    """Masking is for eyes: only a cipher keeps it from who has the file."""
    with Persistasaurus(database) as app:
        run_shop(app)

    assert on_disk(database)


def test_a_secret_is_masked_wherever_python_shows_it() -> None:
    """repr, str, format, and within other things."""
    secret = Secret(MARKER)

    shown = [repr(secret), str(secret), f"{secret}", f"{[secret]}", repr(Card(Secret(1), [secret]))]

    assert not any(MARKER in each for each in shown)
    assert all(MASK in each for each in shown)
    assert secret.reveal() == MARKER


def test_secrets_are_compared_by_what_they_hold() -> None:
    """And are never equal to the bare value."""
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


@pytest.mark.parametrize(
    "annotation, value",
    [
        (Secret[str], Secret("x")),
        (Secret[int], Secret(3)),
        (Secret[dict[str, int]], Secret({"a": 1})),
        (Secret[Card], Secret(Card(Secret(1), []))),
        (list[Secret[str]], [Secret("x"), Secret("y")]),
        (Secret[str] | None, None),
        (Secret[str] | None, Secret("x")),
        (Card, Card(Secret(4), [Secret("0000")])),
        (Account, Account(owner="a", token=Secret("t"))),
    ],
    ids=str,
)
def test_a_secret_round_trips(annotation: Any, value: Any) -> None:
    """Within models, dataclasses, containers and unions."""
    codec = value_codec(annotation)

    text, decoded = codec.record(value, what="It")

    assert decoded == value
    assert type(decoded) is type(value)
    assert codec.decode(text) == value
    assert codec.validate(value, what="It") == (text, value)


@pytest.mark.parametrize("wrong", ["bare", Secret(3), 3, None], ids=str)
def test_what_is_no_secret_of_this_kind_is_refused_before_it_is_recorded(database: Path, wrong: Any) -> None:
    """Python is strict: a bare str would be shown by whoever made it."""
    with Persistasaurus(database, worker=False) as app:
        with pytest.raises(SerializationError, match="password") as refusal:
            app.start(shop, "ann", wrong)
        assert list(app.flows()) == []
    assert "bare" not in str(refusal.value)


def test_json_from_outside_says_the_bare_value() -> None:
    """A form or a client has no class of ours; its schema asks for what the secret holds."""
    codec = value_codec(Secret[str])

    assert codec.from_json('"x"', what="It") == Secret("x")
    assert codec.json_schema() == {"type": "string", "format": "password", "writeOnly": True}


def test_a_signal_by_name_takes_the_bare_value(database: Path) -> None:
    """As the API and the command line send it."""
    with Persistasaurus(database) as app:
        handle = until_waiting(app.start(shop, "ann", Secret(MARKER)))
        handle.send("secret_code_word", "w")
        handle.resume(confirmed, Secret(MARKER))

        assert handle.result(10).reveal() == f"{MARKER}!w"


def test_named_fields_are_masked_where_values_are_shown(database: Path) -> None:
    """At any depth, in any case; the flow has them, and so has the database."""
    with Persistasaurus(database, redact=["password", "IBAN"]) as app:
        handle = app.start(plain, "ann", MARKER, {"iban": MARKER, "name": "visa", "pin": None})
        result = handle.result(10)
        record = handle.record()

    assert result["Password"] == MARKER
    assert record.input == {
        "user": "ann",
        "password": MASK,
        "card": {"iban": MASK, "name": "visa", "pin": None},
    }
    assert record.result["Password"] == MASK
    assert record.result["cards"] == [record.input["card"]]
    assert on_disk(database)


def test_without_redaction_a_record_is_what_was_recorded(database: Path) -> None:
    """No name is masked that nobody named."""
    with Persistasaurus(database) as app:
        handle = app.start(plain, "ann", MARKER, {})
        handle.result(10)

        assert handle.record().input["password"] == MARKER


def test_the_mark_in_the_log_is_the_one_that_pages_look_for(database: Path) -> None:
    """Whoever shows the log without the code's types knows a secret by it."""
    text, _ = value_codec(Secret[str]).record(Secret("x"), what="It")

    assert json.loads(text) == {"$secret": "x"}
