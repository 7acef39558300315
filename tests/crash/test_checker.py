"""The checker finds what it is there to find: in a sound history nothing, in each of these one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persistasaurus import Persistasaurus, flow, step
from tests.crash.checker import Recorded, changed, check


@step
def answer() -> str:
    return "1/1"


@flow
def ask() -> str:
    return answer()


EFFECT = {"what": "effect", "flow": "a", "step": 1, "attempt": 1, "key": "a/1"}
SOUND: list[dict[str, Any]] = [
    {"what": "started", "flow": "a"},
    EFFECT,
    {"what": "end", "flow": "a", "step": 1, "attempt": 1, "value": "1/1"},
    {"what": "saw", "flow": "a", "step": 1, "value": "1/1"},
    {"what": "result", "flow": "a", "value": "1/1"},
]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    db = str(tmp_path / "flows.db")
    with Persistasaurus(db) as app:
        app.run(ask.options(flow_id="a"))
    return Recorded(db)


def test_a_sound_history_has_no_violations(recorded: Recorded) -> None:
    assert check(SOUND, recorded) == []


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param([EFFECT | {"attempt": 2}], id="a recorded step runs again"),
        pytest.param([{"what": "started", "flow": "b"}], id="an acknowledged start is lost"),
        pytest.param([{"what": "result", "flow": "a", "value": "2/1"}], id="another result was told"),
        pytest.param([{"what": "result", "flow": "a", "error": ["E", "no"]}], id="a failure was told"),
        pytest.param([{"what": "saw", "flow": "a", "step": 1, "value": "x"}], id="another value was seen"),
        pytest.param(
            [{"what": kind, "flow": "a", "value": "a#1"} for kind in ("sending", "sent")],
            id="a signal is lost",
        ),
    ],
)
def test_a_history_that_cannot_be_is_found(recorded: Recorded, extra: list[dict[str, Any]]) -> None:
    assert check([*SOUND, *extra], recorded)


@pytest.mark.parametrize("change", [{"attempt": 1}, {"attempt": 2, "key": "b/1"}])
def test_an_attempt_given_twice_and_another_key_are_found(recorded: Recorded, change: dict[str, Any]) -> None:
    assert check([SOUND[0], EFFECT, EFFECT | change, *SOUND[2:]], recorded)


@pytest.mark.parametrize(
    "table, row, change",
    [
        ("flows", 0, {"flow_key": 9}),
        ("flows", 0, {"owner": 9}),
        ("flows", 0, {"status": 0}),
        ("flows", 0, {"parent_key": 9}),
        ("steps", 0, {"event": 2}),
    ],
)
def test_rows_that_belong_to_nothing_are_found(
    recorded: Recorded, table: str, row: int, change: dict[str, Any]
) -> None:
    getattr(recorded, table)[row] |= change

    assert check(SOUND, recorded)


def test_a_final_outcome_that_changes_is_found(recorded: Recorded) -> None:
    before = recorded.final()

    assert list(changed(before, before | {("a", 1): "another"}))
    assert list(changed(before, {}))
    assert not list(changed(before, dict(before)))
