"""Calls of the app and its handles that cannot work: wrong ids, filters, settings, addresses and moments."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import (
    AppNotRunningError,
    FlowHandle,
    FlowNotFound,
    FlowStatus,
    InvalidFlowIdError,
    Persistasaurus,
    Signal,
    UsageError,
    flow,
    step,
    wait_for,
)
from tests.flows.kit import until_waiting
from tests.flows.unharmed import flow_that_goes_on, recorded, step_that_goes_on, unharmed


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of this file: what is refused leaves nothing in it."""
    return tmp_path_factory.mktemp("bad") / "flows.db"


@pytest.fixture(scope="module")
def app(database: Path) -> Iterator[Persistasaurus]:
    with Persistasaurus(database) as entered:
        yield entered


called = Signal("signal of bad calls", int)


@step
def confirm_call(number: int) -> int:
    return number


@flow
def waits_for_a_call() -> int:
    return wait_for(confirm_call)


# Flow ids.

WRONG_IDS: dict[str, tuple[Any, str]] = {
    "empty": ("", "A flow id has 1 to 512 characters; this one has 0. Give the key of your own"),
    "513 characters": ("x" * 513, "A flow id has 1 to 512 characters; this one has 513. Give the key"),
    "10,000 characters": (
        "x" * 10_000,
        "A flow id has 1 to 512 characters; this one has 10000. Give the key",
    ),
    "NUL": (
        "a\0b",
        r"The flow id 'a\\x00b' holds a NUL or a lone surrogate, which no database can store. Give",
    ),
    "surrogate": (
        "\ud800",
        r"The flow id '\\ud800' holds a NUL or a lone surrogate, which no database can store",
    ),
    "int": (3, r"A flow id is a text or a UUID, not an int. Give str\(...\) of it."),
    "bytes": (b"x", "A flow id is a text or a UUID, not a bytes. Give"),
    "class": (uuid.UUID, "A flow id is a text or a UUID, not a type. Give"),
}


@pytest.mark.parametrize("kind", WRONG_IDS)
def test_a_wrong_flow_id_is_refused_everywhere(app: Persistasaurus, database: Path, kind: str) -> None:
    """Before anything is recorded, also as a ValueError."""
    wrong, message = WRONG_IDS[kind]
    for use in (
        lambda: app.start(flow_that_goes_on.options(flow_id=wrong), 1),
        lambda: app.run(flow_that_goes_on.options(flow_id=wrong), 1),
        lambda: app.handle(wrong),
        lambda: app.get_flow(flow_that_goes_on, wrong),
    ):
        with unharmed(app, database), pytest.raises(InvalidFlowIdError, match=message) as caught:
            use()
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "flow_id", ["x", "é" * 512, "/../ ?#%\n'\"", "\U0001f995", uuid.UUID(int=7)], ids=ascii
)
def test_every_other_text_is_a_flow_id(app: Persistasaurus, flow_id: Any) -> None:
    """A UUID is taken as its text."""
    handle = app.start(flow_that_goes_on.options(flow_id=flow_id), 1)
    assert handle.result() == 2
    assert app.handle(str(flow_id)).status() == FlowStatus.COMPLETE


def test_an_unknown_id_is_not_found_at_the_first_question(app: Persistasaurus, database: Path) -> None:
    """Making a handle checks nothing."""
    handle = app.handle("nobody")
    for ask in (handle.result, handle.status, handle.record, handle.steps, handle.cancel, handle.retry):
        with (
            unharmed(app, database),
            pytest.raises(FlowNotFound, match=r"^No flow has the id 'nobody' in this store\."),
        ):
            ask()


# What is started, and what a listing asks for.


@pytest.mark.parametrize("wrong", [print, confirm_call, Path, None, "flow_that_goes_on"], ids=str)
def test_only_a_flow_can_be_started(app: Persistasaurus, database: Path, wrong: Any) -> None:
    """An undecorated function would not be found again after a restart."""
    for call in ("start", "run"):
        with (
            unharmed(app, database),
            pytest.raises(UsageError, match=r"takes a function or method marked with @flow"),
        ):
            getattr(app, call)(wrong, 1)


WRONG_LAMBDAS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no call": (lambda f: None, "The lambda called 0 methods; it must call one"),
    "two calls": (lambda f: [f(1), f(2)], "The lambda called 2 methods; it must call one"),
}


@pytest.mark.parametrize("kind", WRONG_LAMBDAS)
def test_a_lambda_calls_one_method(app: Persistasaurus, database: Path, kind: str) -> None:
    """Nothing was started by the lambda itself."""
    call, message = WRONG_LAMBDAS[kind]
    with unharmed(app, database), pytest.raises(UsageError, match=message):
        app.get_flow(flow_that_goes_on).run(call)
    with unharmed(app, database), pytest.raises(UsageError, match="must call a step of the flow's class"):
        app.get_flow(flow_that_goes_on).resume(lambda f: f(1))


WRONG_FILTERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "naive after": (
        {"created_after": datetime(2025, 1, 1)},
        ValueError,
        "created_after=.* is naive: it names no inst",
    ),
    "naive before": (
        {"created_before": datetime(2025, 1, 1)},
        ValueError,
        "created_before=.* is naive: it names no",
    ),
    "text after": (
        {"created_after": "2025"},
        TypeError,
        "created_after='2025' is no datetime. Give an aware one",
    ),
    "date before": (
        {"created_before": date(2025, 1, 1)},
        TypeError,
        "created_before=.* is no datetime. Give an aware",
    ),
    "status": (
        {"status": "DONE"},
        ValueError,
        "status='DONE': there is no such status. Give some of PENDING, ",
    ),
    "number as status": (
        {"status": 3},
        ValueError,
        "status=3: there is no such status. Give some of PENDING, ",
    ),
    "one wrong status": (
        {"status": ["FAILED", "x"]},
        ValueError,
        "there is no such status. Give some of PENDING, ",
    ),
    "number as flow": ({"flow": 3}, TypeError, "flow=3 is no flow. Give a function marked with @flow"),
    "number as prefix": ({"id_prefix": 3}, TypeError, "id_prefix=3 is no text. Give the first characters"),
    "surrogate as prefix": (
        {"id_prefix": "\ud800"},
        ValueError,
        "holds a NUL or a lone surrogate, which no flow id do",
    ),
}


@pytest.mark.parametrize("kind", WRONG_FILTERS)
def test_a_listing_that_makes_no_sense_is_refused_at_once(app: Persistasaurus, kind: str) -> None:
    """Not in the first iteration, and never answered with an empty list."""
    options, error, message = WRONG_FILTERS[kind]
    with pytest.raises(error, match=message):
        app.flows(**options)
    assert app.run(flow_that_goes_on, 1) == 2


# How long to wait.


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (-1, ValueError, "is negative"),
        (timedelta(seconds=-1), ValueError, "is negative"),
        (math.nan, ValueError, "is nan"),
        (math.inf, ValueError, "is inf"),
        (1e308, ValueError, "is longer than 10,000 years"),
        ("3", TypeError, "is of type str"),
    ],
)
def test_a_result_is_waited_for_so_long_as_makes_sense(
    app: Persistasaurus, wrong: Any, error: type[Exception], message: str
) -> None:
    """In both colours. The flow goes on."""
    handle = until_waiting(app.start(waits_for_a_call))
    with pytest.raises(error, match=rf"^the timeout of result\(\) {message}"):
        handle.result(timeout=wrong)
    with pytest.raises(error, match=rf"^the timeout of result\(\) {message}"):
        asyncio.run(handle.result_async(timeout=wrong))
    handle.resume(confirm_call, 5)
    assert handle.result(timeout=timedelta(days=365 * 5_000)) == 5


# Use before entering and after leaving.


async def awaited(handle: FlowHandle[Any]) -> Any:
    return await handle


def uses(app: Persistasaurus) -> dict[str, Callable[[], object]]:
    """Every public method of the app, its handles and instances that needs the store."""
    handle, instance = app.handle("x"), app.get_flow(waits_for_a_call, "x")
    return {
        "start": lambda: app.start(flow_that_goes_on, 1),
        "run": lambda: app.run(flow_that_goes_on, 1),
        "start_async": lambda: asyncio.run(app.start_async(flow_that_goes_on, 1)),
        "run_async": lambda: asyncio.run(app.run_async(flow_that_goes_on, 1)),
        "flows": app.flows,
        "result": handle.result,
        "result_async": lambda: asyncio.run(handle.result_async()),
        "await": lambda: asyncio.run(awaited(handle)),
        "status": handle.status,
        "status_async": lambda: asyncio.run(handle.status_async()),
        "record": handle.record,
        "record_async": lambda: asyncio.run(handle.record_async()),
        "steps": handle.steps,
        "steps_async": lambda: asyncio.run(handle.steps_async()),
        "send": lambda: handle.send(called, 1),
        "send_async": lambda: asyncio.run(handle.send_async(called, 1)),
        "resume": lambda: handle.resume(confirm_call, 1),
        "resume_async": lambda: asyncio.run(handle.resume_async(confirm_call, 1)),
        "cancel": handle.cancel,
        "cancel_async": lambda: asyncio.run(handle.cancel_async()),
        "retry": handle.retry,
        "retry_async": lambda: asyncio.run(handle.retry_async()),
        "instance.run": lambda: instance.run(lambda f: f()),
        "instance.run_async": lambda: asyncio.run(instance.run_async(lambda f: f())),
        "instance.start": lambda: instance.start(lambda f: f()),
        "instance.signal_resume": lambda: instance.signal_resume(1),
        "instance.signal_resume_async": lambda: asyncio.run(instance.signal_resume_async(1)),
    }


USES = list(uses(Persistasaurus(":memory:")))
FREE = {"register", "get_flow", "handle"}


def test_every_public_method_is_tried() -> None:
    """A method that is added later must be added here."""
    public = {name for name in dir(Persistasaurus) if not name.startswith("_")} - FREE
    public |= {name for name in dir(FlowHandle) if not name.startswith("_")} - {"flow_id"}
    assert public <= set(USES)


@pytest.mark.parametrize("use", USES)
def test_an_app_is_not_used_before_it_is_entered(tmp_path: Path, use: str) -> None:
    """The message says how to enter it, and there is no file yet."""
    app = Persistasaurus(tmp_path / "flows.db")
    with pytest.raises(
        AppNotRunningError, match="was called on an app that was not entered yet: use `with app:`"
    ):
        uses(app)[use]()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", USES)
def test_an_app_is_not_used_after_it_was_left(left: tuple[Persistasaurus, Path], use: str) -> None:
    """Nothing is recorded by the refused call."""
    app, database = left
    before = recorded(database)
    with pytest.raises(
        AppNotRunningError, match="was called on an app that was left already: enter it again"
    ):
        uses(app)[use]()
    assert recorded(database) == before


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Persistasaurus, Path]:
    database = tmp_path_factory.mktemp("left") / "flows.db"
    app = Persistasaurus(database)
    with app:
        app.run(flow_that_goes_on, 1)
    return app, database


def test_an_app_may_be_entered_again_after_it_was_left(left: tuple[Persistasaurus, Path]) -> None:
    """It goes on where it was. Leaving it once more than entering does no harm."""
    app, _ = left
    with app:
        assert app.run(flow_that_goes_on, 2) == 3
    app.__exit__(None, None, None)


def test_an_app_that_is_entered_cannot_be_entered_again(app: Persistasaurus, database: Path) -> None:
    """In neither colour; it goes on as it was."""
    message = r"^This app is entered already\. Make a second Persistasaurus for a second worker\.$"
    with unharmed(app, database), pytest.raises(UsageError, match=message):
        app.__enter__()
    with unharmed(app, database), pytest.raises(UsageError, match=message):
        asyncio.run(app.__aenter__())


def test_who_waits_for_a_result_hears_that_the_app_was_left(tmp_path: Path) -> None:
    """At once, and the flow goes on at the next start."""

    async def main() -> None:
        async with Persistasaurus(tmp_path / "flows.db") as app:
            handle = await app.start_async(waits_for_a_call.options(flow_id="w"))
            waiting = asyncio.ensure_future(handle.result_async())
            await asyncio.sleep(0.05)
        with pytest.raises(
            AppNotRunningError, match=r"The app was left while this flow had not ended\. It goes on"
        ):
            await waiting

    asyncio.run(main())
    with Persistasaurus(tmp_path / "flows.db") as app:
        app.handle("w").resume(confirm_call, 6)
        assert app.handle("w").result(timeout=10) == 6


def test_a_plain_call_outside_of_a_flow_records_nothing(app: Persistasaurus, database: Path) -> None:
    """Not an error: it is Python's own call."""
    with unharmed(app, database):
        assert flow_that_goes_on(1) == 2
        assert step_that_goes_on.submit(1).result() == 2
