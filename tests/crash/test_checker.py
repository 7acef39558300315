"""The checker finds what it is there to find: in a sound history nothing, in each of these one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persistasaurus import Persistasaurus, flow, step
from tests.crash.checker import Recorded, _acknowledged, _epochs, _prefixes, _sent, _too_early, changed, check


@step
def answer() -> str:
    return "1/1"


@flow
def ask() -> str:
    return answer()


EFFECT = {"what": "effect", "flow": "a", "step": 1, "attempt": 1, "key": "a/1", "ms": 1}
SOUND: list[dict[str, Any]] = [
    {"what": "started", "flow": "a"},
    EFFECT,
    {"what": "end", "flow": "a", "step": 1, "attempt": 1, "value": "1/1"},
    {"what": "saw", "flow": "a", "serial": 1, "step": 1, "value": "1/1"},
    {"what": "result", "flow": "a", "value": "1/1"},
]


LATE = {"what": "effect", "flow": "a", "serial": 2, "step": 3, "attempt": 1, "key": "a/3", "ms": 2000}
DELAYED = {"flow_id": "a", "step": 3, "method_name": "late", "timestamp": 1500, "delay": 600}


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
        pytest.param(
            [{"what": "saw", "flow": "a", "serial": 1, "step": 1, "value": "x"}], id="another value was seen"
        ),
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


def test_a_result_holds_until_its_flow_is_reopened(recorded: Recorded) -> None:
    """Then it may have gone another way, whoever was told what before."""
    failed = {"what": "result", "flow": "a", "error": ["E", "no"]}
    reopening = {"what": "reopening", "flow": "a"}

    assert list(_acknowledged([failed], recorded))
    assert not list(_acknowledged([failed, reopening], recorded))
    assert list(_acknowledged([failed, reopening, failed], recorded))


def test_a_replay_that_shows_something_else_is_found() -> None:
    """The second life may end earlier than the first, or go on; it may not take another way."""
    first = [{"what": "saw", "flow": "a", "serial": 1, "value": value} for value in ("1/1", "2/1", "3/1")]
    shorter = [report | {"serial": 2} for report in first[:2]]
    other = [first[0] | {"serial": 2}, first[2] | {"serial": 2}]

    assert not list(_prefixes([*first, *shorter]))
    assert not list(_prefixes([*first, *first]))  # let go of and replayed in one process
    assert list(_prefixes([*first, *other]))


def test_a_worker_with_a_number_that_was_used_is_found() -> None:
    entered = [{"what": "entered", "worker": number} for number in (1, 2, 5)]

    assert not list(_epochs(entered))
    assert list(_epochs([*entered, entered[2]]))
    assert list(_epochs([*entered, {"what": "mark"}, {"what": "entered", "worker": 4}]))


@pytest.mark.parametrize(
    "row, early",
    [
        (DELAYED, True),
        (DELAYED | {"timestamp": 1400}, False),
        (DELAYED | {"timestamp": 2000}, True),
        (DELAYED | {"timestamp": 2001}, False),
        (DELAYED | {"step": 2, "method_name": "sleep"}, True),
        (DELAYED | {"step": 2, "method_name": "sleep", "status": "CANCELLED"}, False),
        (DELAYED | {"step": 4, "method_name": "sleep"}, False),
        (DELAYED | {"step": 2, "method_name": "sleep", "timestamp": 1}, False),
    ],
)
def test_what_is_woken_too_early_is_found(recorded: Recorded, row: dict[str, Any], early: bool) -> None:
    """A delayed step itself, and a step behind a sleep."""
    recorded.log = [row]
    recorded.by_step = {("a", row["step"]): row}

    assert bool(list(_too_early([LATE], recorded))) == early


def test_a_signal_that_is_consumed_twice_out_of_order_or_pending_still_is_found(recorded: Recorded) -> None:
    """And one that is pending alone, or consumed alone, is not."""
    sent = [{"what": what, "flow": "a", "value": v} for v in ("1", "2") for what in ("sending", "sent")]

    def consumed(*values: str) -> None:
        recorded.log = [
            {"flow_id": "a", "step": n, "method_name": "news", "return_value": f'"{value}"'}
            for n, value in enumerate(values, 1)
        ]

    def pending(*values: str) -> None:
        recorded.signals = [{"flow_id": "a", "payload": f'"{value}"'} for value in values]

    for took, left, sound in [
        (["1", "2"], [], True),
        (["1"], ["2"], True),
        ([], ["1", "2"], True),
        (["1", "1"], ["2"], False),
        (["2", "1"], [], False),
        (["1"], ["1", "2"], False),
        (["1"], [], False),
        (["1", "2", "3"], [], False),
    ]:
        consumed(*took)
        pending(*left)
        assert (not list(_sent(sent, recorded))) == sound, (took, left)


def test_what_never_ends_and_workers_left_behind_are_found(recorded: Recorded) -> None:
    recorded.workers.append({"worker_id": 7})
    assert any("is still there" in each for each in check(SOUND, recorded))
    assert not check(SOUND, recorded, ended=False)

    recorded.flows[0] |= {"status": 0, "due_at_ms": 1}
    assert any("never ended" in each for each in check(SOUND, recorded))


def test_a_step_without_its_flow_is_found(recorded: Recorded) -> None:
    recorded.steps[0] |= {"flow_key": 99}

    assert any("a step without its flow" in each for each in check(SOUND, recorded, ended=False))
