"""Any value there is: it comes back as it was, or is refused before anything is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistasaurus import FlowFailed, Persistasaurus, SerializationError, flow, step
from persistasaurus.crypto import AesGcm
from tests.security.kit import OLD

BOUNDED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

odd_text = st.text(st.characters(codec=None, exclude_categories=[])) | st.sampled_from(
    [
        "\0",
        "\ud800",
        "\udfffx",
        "a\0b",
        "\u202e",
        "\ufeff",
        "NaN",
        '{"encrypted": "old", "data": "AAAA"}',
        "'; DROP--",
    ]
)
odd_number = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.integers()
    | st.sampled_from([10**4299, -0.0, 2**63, -(2**63) - 1])
)
leaf = (
    st.none()
    | st.booleans()
    | odd_number
    | odd_text
    | st.binary(max_size=8)
    | st.just({1: 2})
    | st.just((1,))
)
hostile = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_text, inner, max_size=4),
    max_leaves=12,
)


class Odd(Exception):
    """What an exception may do wrong: its text, its arguments, its attributes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.extra = args[0] if args else None

    def __str__(self) -> str:
        if self.args and self.args[-1] is None:
            raise RuntimeError("no text")
        return str(self.args[:1])


@step
def passed(value: Any) -> Any:
    return value


@step
def raised(values: list[Any]) -> None:
    raise Odd(*values, *values[:1])


@flow(name="security_through")
def through(value: Any) -> Any:
    return passed(value)


@flow(name="security_failing_oddly")
def failing(values: list[Any]) -> None:
    raised(values)


@pytest.fixture(params=[None, AesGcm({"old": OLD})], ids=["plain", "cipher"])
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Persistasaurus]:
    """An app, with a cipher and without; its store does not sync, for many flows run."""
    url = tmp_path / "flows.db"
    durability = "may-lose-last-commits-on-power-loss"
    with Persistasaurus(url, cipher=request.param, durability=durability) as entered:  # type: ignore[arg-type]
        yield entered


def alike(one: Any, other: Any) -> bool:
    """Equal, in type too, where NaN is not to be found."""
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and list(one) == list(other) and all(alike(one[k], other[k]) for k in one)
        )
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and bool(one == other)


@given(value=hostile)
@BOUNDED
def test_a_value_comes_back_or_is_refused_before_it_is_recorded(app: Persistasaurus, value: Any) -> None:
    """Live, and as the record says."""
    before = len(list(app.flows()))
    try:
        handle = app.start(through, value)
    except SerializationError:
        assert len(list(app.flows())) == before
        return
    assert alike(handle.result(10), value)
    record, (row,) = handle.record(), handle.steps()
    assert alike(record.result, value)
    assert alike(row.return_value, value)


@given(values=st.lists(st.none() | st.booleans() | st.integers() | odd_text.filter(str.isascii), max_size=3))
@BOUNDED
def test_an_odd_exception_fails_its_flow_and_nothing_else(app: Persistasaurus, values: list[Any]) -> None:
    """Also one whose text cannot be had."""
    handle = app.start(failing, values)

    with pytest.raises((Odd, FlowFailed)):
        handle.result(10)
    error = handle.record().error
    assert error is not None
    assert error["type"] in {"Odd", "StepFailed"}  # the latter where its text could not be had
