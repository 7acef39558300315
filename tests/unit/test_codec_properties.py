"""Whatever annotation and value are: it comes back as itself, or is refused before it is recorded."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Optional, Union
from uuid import UUID

from hypothesis import example, given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from persistasaurus._codec import value_codec
from persistasaurus.errors import SerializationError

Fitting = tuple[Any, st.SearchStrategy[Any]]
"""An annotation, and the values that fit it."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.Enum):
    LOW = 1
    HIGH = "high"


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    label: str | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict):
    depth: int
    names: list[str]


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(10**40), 10**40)
finite = st.floats(allow_nan=False, allow_infinity=False)
dates = st.datetimes(timezones=st.none() | st.just(UTC))
lengths = st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000))

HASHABLE: list[Fitting] = [
    (int, numbers),
    (str, texts),
    (bool, st.booleans()),
    (bytes, st.binary()),
    (date, st.dates()),
    (datetime, dates),
    (time, st.times()),
    (timedelta, lengths),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Point, st.builds(Point, numbers, st.none() | texts)),
]
OTHERS: list[Fitting] = [
    (Level, st.sampled_from(Level)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (float, finite),
    (type(None), st.none()),
    (Pair, st.builds(Pair, numbers, texts)),
    (
        Options,
        st.tuples(numbers, st.lists(texts, max_size=3)).map(lambda two: Options(depth=two[0], names=two[1])),
    ),
    (
        Any,
        st.recursive(
            st.none() | st.booleans() | numbers | finite | texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
            max_leaves=6,
        ),
    ),
]


def _collected(inner: st.SearchStrategy[Fitting]) -> st.SearchStrategy[Fitting]:
    hashable, keys = st.sampled_from(HASHABLE), st.sampled_from(HASHABLE[:-1])
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),
        inner.map(lambda one: (dict[str, one[0]], st.dictionaries(texts, one[1], max_size=3))),
        inner.map(lambda one: (tuple[one[0], ...], st.lists(one[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))
        ),
        inner.map(lambda one: (Optional[one[0]], st.none() | one[1])),  # noqa: UP045 - of any annotation
        hashable.map(lambda one: (set[one[0]], st.sets(one[1], max_size=3))),
        hashable.map(lambda one: (frozenset[one[0]], st.frozensets(one[1], max_size=3))),
        keys.map(lambda one: (dict[one[0], int], st.dictionaries(one[1], numbers, max_size=3))),
    )


annotations = st.recursive(st.sampled_from(HASHABLE + OTHERS), _collected, max_leaves=4)
fitting = annotations.flatmap(lambda one: st.tuples(st.just(one[0]), one[1]))


@st.composite
def hostile(draw: Callable[..., Any]) -> Any:
    """What no JSON holds, or none that comes back, perhaps inside something that would."""
    value = draw(
        st.one_of(
            st.floats(),
            st.text(st.characters()),
            st.sampled_from(
                [float("nan"), float("-inf"), "\ud800", "\0", 10**5000, object(), 1j, ..., Ellipsis]
            ),
            st.sampled_from(
                [{1: 2}, {None: 1}, {(1, 2): 3}, (1, 2), {1, 2}, b"\xff", Point(1), Colour.RED, Pair(1, "")]
            ),
            st.decimals(),
            st.timedeltas(),
            st.integers(1, 400).map(_nested),
        )
    )
    for wrap in draw(st.lists(st.sampled_from(["list", "dict", "tuple"]), max_size=2)):
        value = {"list": [value], "dict": {"it": value}, "tuple": (value,)}[wrap]
    return value


odd = st.sampled_from(
    ["1e999", "NaN", '"\\ud800"', "[" * 300 + "]" * 300, "1" * 5000, '{"a":1,"a":2}', "-0", "1.0"]
)
"""Texts that some readers take for JSON."""


def _nested(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal down to their types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(alike, one.items(), other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


@settings(max_examples=100)
@given(fitting)
def test_a_value_that_fits_its_annotation_comes_back_as_itself(case: tuple[Any, Any]) -> None:
    """The flow sees live what it will see on replay, and the caller's value is what it sees."""
    annotation, value = case
    codec = value_codec(annotation)

    text, decoded = codec.record(value, what="The result")

    assert alike(decoded, value)
    assert alike(codec.decode(text), decoded)
    _is_kept(text)


@settings(max_examples=150)
@given(annotations.map(lambda one: one[0]), hostile())
@example(float, float("nan"))
@example(Any, "\ud800")
@example(Union[int, str], True)  # noqa: UP007 - as hypothesis draws them
def test_a_value_that_may_not_fit_is_refused_or_comes_back(annotation: Any, value: Any) -> None:
    """Refused by the one error that names it, before there is a text; nothing else comes of it."""
    codec = value_codec(annotation)
    try:
        text, decoded = codec.record(value, what="The result of step 'charge'")
    except SerializationError as error:
        refused = str(error)
        assert refused.startswith("The result of step 'charge'")
        assert refused.encode()  # a message can be logged
        return

    again, twice = codec.record(decoded, what="The result")
    assert (again, repr(twice)) == (text, repr(decoded))
    assert repr(codec.decode(text)) == repr(decoded)
    _is_kept(text)


@settings(max_examples=80)
@given(annotations.map(lambda one: one[0]), st.text() | odd | fitting.map(lambda case: _text(*case)))
def test_text_from_outside_fits_or_is_refused(annotation: Any, text: str) -> None:
    """A signal by name is any text at all; what is taken can be recorded."""
    codec = value_codec(annotation)
    try:
        value = codec.from_json(text, what="The value of signal 'news'")
    except SerializationError:
        return

    recorded = codec.encode(value, what="The value")
    assert repr(codec.decode(recorded)) == repr(value)
    _is_kept(recorded)


def _text(annotation: Any, value: Any) -> str:
    return value_codec(annotation).record(value, what="The value")[0]


def _is_kept(text: str) -> None:
    """Both stores keep it as it is: JSON without NaN, UTF-8, no NUL byte."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(text, parse_constant=refuse)
    assert "\0" not in text.encode().decode()
