"""Whatever a step raises is recorded, and what a caller is handed never ends their process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowFailed, FlowStatus, Persistasaurus, StepFailed, flow, step
from tests.flows.kit import ran, start


@step
def note(label: str) -> str:
    ran.append(label)
    return label


@flow
def unharmed_neighbour() -> str:
    return note("fine")


class Odd(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.second = second


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@step
def raise_odd(kind: str) -> None:
    ran.append(kind)
    match kind:
        case "odd":
            raise Odd(1, second=2)
        case "unprintable":
            raise Unprintable
        case "exit":
            sys.exit(3)
        case "generator exit":
            raise GeneratorExit("so be it")
        case "stop":
            raise StopIteration("no more")
        case "group":
            raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [Odd(3, 4)])])
        case "timeout":
            raise TimeoutError("the server's")


@step
async def raise_cancelled() -> None:
    raise asyncio.CancelledError("the step's own")


@flow
def odd(kind: str) -> str:
    try:
        raise_odd(kind)
    except BaseException as error:
        text = f"{type(error).__name__}"
    return text + note(".")


@pytest.mark.parametrize(
    "kind,name",
    [
        ("odd", "Odd"),
        ("unprintable", "StepFailed"),
        ("exit", "StepFailed"),
        ("generator exit", "StepFailed"),
        ("stop", "StopIteration"),
        ("group", "ExceptionGroup"),
        ("timeout", "TimeoutError"),
    ],
)
def test_an_odd_exception_is_recorded_and_caught(database: Path, kind: str, name: str) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, odd, "f", kind)
        assert handle.result(10) == f"{name}."
        assert handle.steps()[0].status == FlowStatus.FAILED
    assert ran == [kind, "."]


@flow
def dies_of(kind: str) -> None:
    raise_odd(kind)


def test_an_exception_with_an_odd_constructor_is_raised_as_itself(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(Odd, match="1 and 2") as raised:
        app.run(dies_of, "odd")
    assert raised.value.second == 2


def test_a_nested_exception_group_is_raised_as_itself(database: Path) -> None:
    with Persistasaurus(database) as app, pytest.raises(ExceptionGroup) as raised:
        app.run(dies_of, "group")
    found = raised.value.exceptions
    assert isinstance(found[0], ValueError)
    assert isinstance(found[1], ExceptionGroup)
    assert str(found[1].exceptions[0]) == "3 and 4"


def test_a_step_that_exits_fails_its_flow_and_not_the_process(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, dies_of, "f", "exit")
        # then nobody is handed an exception that would end their process
        with pytest.raises(FlowFailed) as raised:
            handle.result(10)
        assert (raised.value.type_name, raised.value.message) == ("SystemExit", "3")
        assert handle.status() == FlowStatus.FAILED
        assert app.run(unharmed_neighbour) == "fine"


@flow
async def step_cancels_itself() -> str:
    try:
        await raise_cancelled()
    except StepFailed as error:
        return error.type_name
    return "nothing"


def test_a_step_that_cancels_itself_has_failed_and_cancels_nothing_else(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, step_cancels_itself, "f")
        assert handle.result(10) == "asyncio.CancelledError"
        assert handle.steps()[0].status == FlowStatus.FAILED


@flow
async def exits_in_its_body() -> None:
    await note.submit("a")
    sys.exit(4)


@flow
def sync_exits_in_its_body() -> None:
    note("a")
    sys.exit(4)


@pytest.mark.parametrize("exiting", [exits_in_its_body, sync_exits_in_its_body])
def test_a_flow_that_exits_fails_alone(database: Path, exiting: Any) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, exiting, "f")
        with pytest.raises(FlowFailed, match="SystemExit: 4"):
            handle.result(10)
        assert handle.status() == FlowStatus.FAILED
        assert app.run(unharmed_neighbour) == "fine"


# Another process.

ELSEWHERE = """
import sys
from persistasaurus import Persistasaurus, flow, step

class OnlyHere(Exception):
    pass

@step
def bad():
    raise OnlyHere("over there")

@flow
def elsewhere():
    bad()

with Persistasaurus(sys.argv[1]) as app:
    try:
        app.run(elsewhere.options(flow_id="f"))
    except OnlyHere as error:
        print(type(error).__name__)
"""


def test_a_failure_whose_class_only_another_process_has_is_a_flow_failure(database: Path) -> None:
    # given
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(database)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout.strip() == "OnlyHere", done.stderr
    # when
    with Persistasaurus(database) as app, pytest.raises(FlowFailed) as raised:
        app.handle("f").result(10)
    # then
    error = raised.value
    assert error.type_name.endswith("OnlyHere")
    assert error.message == "over there"
    assert "in bad" in error.traceback_text
    assert "'f'" in "\n".join(error.__notes__)
