"""What is bounded: a value, its depth, a flow's steps, a page. And who may read the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persistasaurus import FlowParked, FlowStatus, Persistasaurus, SerializationError, flow, step
from persistasaurus.web import _flow_list, _flow_view, _looking
from tests.flows.kit import until_status
from tests.security.kit import files, mode, run_busy


@step
def counted(number: int) -> int:
    return number


@step
def grown(size: int) -> str:
    return "x" * size


@flow(name="security_loop")
def loop(times: int) -> int:
    return sum(counted(number) for number in range(times))


@flow(name="security_async_loop")
async def async_loop(times: int) -> int:
    return sum([await counted.submit(number) for number in range(times)])


@flow(name="security_grows")
def grows(size: int) -> str:
    return grown(size)


def nested(depth: int) -> Any:
    """Return lists within each other."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@flow(name="security_takes")
def takes(value: Any) -> Any:
    return value


def test_the_database_is_its_owners_alone(database: Path) -> None:
    """The file and those beside it, from the first moment to the last."""
    with Persistasaurus(database) as app:
        run_busy(app)
        open_files = {path.name: mode(path) for path in files(database)}

    assert len(open_files) == 3
    assert set(open_files.values()) | {mode(path) for path in files(database)} == {0o600}


@pytest.mark.parametrize("looping", [loop, async_loop], ids=["sync", "async"])
def test_a_flow_that_asks_for_too_many_steps_is_parked_and_may_go_on(
    database: Path, looping: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With more allowed it goes on behind the last recorded step."""
    with Persistasaurus(database, max_steps=20) as app:
        assert app.run(looping, 20) == 190
        handle = app.start(looping.options(flow_id="long"), 21)
        until_status(handle, FlowStatus.PARKED)
        with pytest.raises(FlowParked, match=r"'long' asked for more steps than max_steps=20"):
            handle.result(1)
        assert len(handle.steps()) == 20
    assert [record.message.split(":")[0] for record in caplog.records] == ["flow parked"]

    with Persistasaurus(database, max_steps=21) as app:
        app.handle("long").retry()
        assert app.handle("long").result(10) == 210


def test_a_value_is_bounded_in_size_and_depth(database: Path) -> None:
    """Refused before it is recorded; a step's result fails the step."""
    with Persistasaurus(database, max_payload=1_000) as app:
        for value in ("x" * 1_000, nested(200)):
            with pytest.raises(SerializationError, match=r"max_payload|nested deeper than 200"):
                app.start(takes, value)
        assert list(app.flows()) == []
        with pytest.raises(SerializationError, match="max_payload"):
            app.run(grows, 1_000)
        assert app.run(grows, 900) == "x" * 900
        assert app.run(takes, nested(199)) == nested(199)


def test_a_page_is_bounded() -> None:
    """Whoever asks for more gets the next page."""
    assert _looking.MOST_FLOWS <= 200
    assert _looking.MOST_STEPS <= 1_000
    assert _flow_list.PAGE <= 200
    assert _flow_view.STEPS <= 1_000
