"""What a value must go through to be recorded: JSON text, and back as itself."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import gc
import inspect
import json
import subprocess
import sys
import traceback
import typing
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    TypeAdapter,
    computed_field,
)
from typing_extensions import TypedDict, Unpack

from persistasaurus._codec import ValueCodec, check_size, value_codec
from persistasaurus._plain import scalar_text
from persistasaurus._signature import arguments_codec
from persistasaurus.errors import SerializationError, UsageError

T = TypeVar("T")

RESULT = "The result of step 'charge'"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Status(enum.StrEnum):
    OPEN = "open"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Packet:
    body: bytes
    tags: frozenset[str] = frozenset()
    inner: Packet | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    size: int
    label: str


class Model(BaseModel):
    name: str
    body: bytes = b""
    ratio: float | None = None
    tags: set[str] = set()
    children: list[Model] = []


class SubModel(Model):
    extra: int = 0


class Aliased(BaseModel):
    """Each field's alias is the other's name."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    a: int = Field(alias="b")
    b: int = Field(alias="a")

    @computed_field
    def total(self) -> int:
        return self.a + self.b


class Box(BaseModel, Generic[T]):
    item: T


class Hidden(BaseModel):
    name: str
    _token: str = PrivateAttr(default="")


class Identity:
    """Knows no equality but its own; pydantic reads and writes it by its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.int_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.number),
        )


class Unknown:
    """A class that pydantic knows nothing about."""


def record(annotation: Any, value: Any) -> tuple[str, Any]:
    return value_codec(annotation).record(value, what=RESULT)


def refusal(annotation: Any, value: Any) -> str:
    with pytest.raises(SerializationError) as caught:
        record(annotation, value)
    return str(caught.value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

hostile_text = st.text(st.characters(exclude_categories=[]))

hostile_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | hostile_text
    | st.binary()
    | st.datetimes()
    | st.sampled_from([Status.OPEN, Level.LOW, Colour.RED, Unknown(), object, Decimal("NaN"), 1j]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(hostile_text | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)

packets = st.builds(Packet, st.binary(), st.frozensets(st.text(), max_size=3), st.none())
models = st.builds(
    Model,
    name=st.text(),
    body=st.binary(),
    ratio=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    tags=st.sets(st.text(), max_size=3),
    children=st.lists(st.builds(Model, name=st.text()), max_size=2),
)

typed_values: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, st.text()),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary()),
    (datetime, st.datetimes(timezones=st.none() | st.just(UTC))),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (Path, st.text(min_size=1).filter(lambda text: "\0" not in text).map(Path)),
    (Colour, st.sampled_from(Colour)),
    (Status, st.sampled_from(Status)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (int | str | None, st.integers() | st.text() | st.none()),
    (list[int], st.lists(st.integers())),
    (set[str], st.sets(st.text())),
    (frozenset[int], st.frozensets(st.integers())),
    (tuple[int, str], st.tuples(st.integers(), st.text())),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (dict[str, float], st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False))),
    (dict[int, str], st.dictionaries(st.integers(), st.text())),
    (dict[str, Any], st.dictionaries(st.text(), json_values)),
    (Point, st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False))),
    (Packet, st.builds(Packet, st.binary(), st.frozensets(st.text(), max_size=3), st.none() | packets)),
    (Pair, st.builds(Pair, st.integers(), st.text())),
    (Options, st.fixed_dictionaries({}, optional={"size": st.integers(), "label": st.text()})),
    (Model, models),
    (Box[int], st.builds(Box[int], item=st.integers())),
    (
        list[Point | Pair],
        st.lists(st.builds(Point, st.integers()) | st.builds(Pair, st.integers(), st.text())),
    ),
]


class TestWhatSurvives:
    @pytest.mark.parametrize("annotation, values", typed_values, ids=lambda it: str(it)[:40])
    def test_a_value_of_its_annotation_comes_back_equal_and_of_its_type(self, annotation, values):
        """Whatever the annotation, the value read back is the value."""

        @given(value=values)
        @settings(max_examples=40)
        def check(value):
            text, decoded = record(annotation, value)

            assert decoded == value
            assert type(decoded) is type(value)
            assert value_codec(annotation).decode(text) == value
            assert value_codec(annotation).validate(value, what="x")[1] == value
            assert value_codec(annotation).validate(decoded, what="x") == value_codec(annotation).validate(
                value, what="x"
            )

        check()

    @given(value=json_values)
    def test_plain_json_needs_no_annotation(self, value):
        """Without an annotation plain JSON comes back with its exact types, in canonical text."""
        text, decoded = record(Any, value)

        assert repr(decoded) == repr(value)
        assert repr(json.loads(text)) == repr(value)
        assert "\0" not in text
        assert value_codec(Any).encode(value, what=RESULT) == text

    @given(
        value=hostile_values,
        annotation=st.sampled_from([Any, dict[str, Any], list[Any], str, int | str, set[int]]),
    )
    @settings(max_examples=300)
    def test_any_value_survives_or_is_refused(self, value, annotation):
        """No value changes unseen, and no other error than ours gets out."""
        codec = value_codec(annotation)
        for act in (codec.record, codec.validate):
            try:
                text, decoded = act(value, what=RESULT)
            except SerializationError:
                continue
            assert decoded == value
            assert json.loads(text, parse_constant=pytest.fail) is not pytest.fail
            assert text.encode()
        with contextlib.suppress(SerializationError):
            assert codec.encode(value, what=RESULT).encode()

    @pytest.mark.parametrize("annotation", [Any, object, T, inspect.Parameter.empty, NoReturn])
    def test_these_annotations_say_nothing(self, annotation):
        """Any, object and a type variable leave plain JSON only."""
        assert record(annotation, {"a": [1, None]}) == ('{"a":[1,null]}', {"a": [1, None]})
        assert "Annotate" in refusal(annotation, {"a": (1,)})

    def test_an_integer_annotation_takes_what_python_takes(self):
        """A bool is an int, and an int will do for a float."""
        assert record(int, True) == ("1", 1)
        assert record(float, 3) == ("3.0", 3.0)
        assert record(list[float], [1, True]) == ("[1.0,1.0]", [1.0, 1.0])

    def test_bytes_are_base64_everywhere(self):
        """Also in a standard dataclass and in a model, which have configs of their own."""
        assert record(bytes, b"\xff\x00")[0] == '"_wA="'
        assert record(Packet, Packet(b"\xff"))[0] == '{"body":"_w==","tags":[],"inner":null}'
        assert '"body":"_w=="' in record(Model, Model(name="a", body=b"\xff"))[0]

    def test_sets_are_written_in_one_order(self):
        """Equal sets give equal text, whatever the hash seed; a list in a union keeps its order."""
        assert record(set[str], {"b", "c", "a"})[0] == '["a","b","c"]'
        assert record(Model, Model(name="x", tags={"b", "a"}))[0].count('"tags":["a","b"]') == 1
        assert value_codec(set[str] | list[str]).encode(["b", "a"], what="x") == '["b","a"]'

    def test_a_nul_is_escaped(self):
        """PostgreSQL refuses a raw NUL in text."""
        assert record(str, "a\0b") == ('"a\\u0000b"', "a\0b")

    def test_field_names_are_recorded_not_aliases(self):
        """Aliases that cross each other, and a computed field under extra=forbid, do no harm."""
        value = Aliased(a=1, b=2)

        text, decoded = record(Aliased, value)

        assert json.loads(text) == {"a": 2, "b": 1}
        assert decoded == value

    def test_an_object_without_equality_is_compared_by_its_text(self):
        """Two objects that know only identity are taken as the same when type and text agree."""
        text, decoded = record(dict[str, Identity], {"a": Identity(3)})

        assert text == '{"a":3}'
        assert decoded["a"].number == 3

    def test_an_object_without_equality_whose_text_changes_is_refused(self):
        """Its type alone says too little."""

        class Drifting(Identity):
            def __init__(self, number: int) -> None:
                super().__init__(number + 1)

        assert "would come back with another value" in refusal(dict[str, Drifting], {"a": Drifting(3)})

    def test_fields_may_have_any_name(self):
        """Also those that a core schema uses for itself."""

        class Named(TypedDict):
            type: set[str]
            default: set[str]
            metadata: list[Any]

        value: Named = {"type": {"b", "a", "c"}, "default": {"e", "d", "f"}, "metadata": [1]}

        text, decoded = record(Named, value)

        assert text == '{"type":["a","b","c"],"default":["d","e","f"],"metadata":[1]}'
        assert decoded == value

    def test_a_repeated_hour_survives(self):
        """In the hour that a zone repeats Python holds no two zones' times equal; the text tells."""
        value = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)

        decoded = record(datetime, value)[1]

        assert decoded.isoformat() == value.isoformat()

    def test_the_result_of_a_function_that_returns_nothing_is_null(self):
        """None is a value like others."""
        assert record(None, None) == ("null", None)
        assert "should be None" in refusal(None, 3)


class TestWhatIsRefused:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("annotation", [Any, float, "list", "nested", "union"])
    def test_nan_and_infinity_are_refused_wherever_they_are(self, annotation, value):
        """Pydantic's default would write null in their place."""
        shapes = {"list": list[float], "nested": dict[str, Any], "union": list[float | None]}
        made = {"list": [value], "nested": {"a": [value]}, "union": [None, value]}.get(str(annotation), value)
        codec = value_codec(shapes.get(str(annotation), annotation))

        for act in (codec.record, codec.encode, codec.validate):
            with pytest.raises(SerializationError, match="which JSON cannot hold"):
                act(made, what=RESULT)

    def test_infinity_in_a_model_is_no_silent_null(self):
        """A model's own config does not bring the null back."""
        value = Model(name="a", ratio=float("inf"))

        assert "result.ratio is inf" in refusal(Model, value)
        with pytest.raises(SerializationError, match=r"value\.ratio is inf"):
            value_codec(Model).encode(value, what="x")

    def test_a_models_own_config_does_not_let_infinity_through(self):
        """Not even as text: the promise is one for all values."""

        class Spelled(BaseModel):
            model_config = ConfigDict(ser_json_inf_nan="strings", allow_inf_nan=True)
            ratio: float

        assert "result.ratio is inf" in refusal(Spelled, Spelled(ratio=float("inf")))

    def test_text_that_reads_like_nan_is_text(self):
        """Only bare constants are refused."""
        value = {"a": "NaN", "Infinity": '"NaN \\" -Infinity'}

        assert record(Any, value)[1] == value
        assert record(dict[str, str], value)[1] == value
        assert record(str, "NaN")[1] == "NaN"

    @pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a", {"b": "\ud800"}]])
    def test_a_lone_surrogate_is_refused(self, value):
        """It is no text that a database would take."""
        assert "lone surrogate" in refusal(Any, value)

    @pytest.mark.parametrize(
        "value, told",
        [
            ((1, 2), "result is a tuple"),
            ({"a": {1, 2}}, "result['a'] is a set"),
            ([{"a": object()}], "result[0]['a'] is an object"),
            ({"a": {1: 2}}, "result['a'] (the key 1) is a key of type int"),
            (Status.OPEN, "result is a Status"),
            ([Level.LOW], "result[0] is a Level"),
            (OrderedDict(), "result is an OrderedDict"),
            (b"", "result is a bytes"),
        ],
    )
    def test_what_is_not_plain_json_needs_an_annotation(self, value, told):
        """The message says where it is, what it is, and the cure."""
        message = refusal(Any, value)

        assert message.startswith(f"{RESULT} cannot be recorded: {told}")
        assert message.endswith("Annotate the return type with what it is, or return plain JSON.")

    def test_a_datetime_under_any_is_refused_with_its_path(self):
        """It would come back as a str, and the flow would see another type after a restart."""
        message = refusal(dict[str, Any], {"when": datetime(2026, 1, 1)})

        assert "result['when'] is a datetime but would come back as a str" in message

    @pytest.mark.parametrize(
        "annotation, value, told",
        [
            (dict[str, Any], {"a": (1,)}, "result['a'] is a tuple but would come back as a list"),
            (dict[str, Any], {"a": {1: 2}}, "result['a'] has a key that is an int"),
            (list[Any], [{"s": Status.OPEN}], "result[0]['s'] is a Status but would come back as a str"),
            (list, [1, 2.5, {3}], "result[2] is a set but would come back as a list"),
            (Sequence[int], (1, 2), "result is a tuple but would come back as a list"),
            (Point, Point3(1, 2.0, 3), "result is a Point3 but would come back as a Point"),
            (list[Model], [SubModel(name="a")], "result[0] is a SubModel but would come back as a Model"),
            (int | str, Level.LOW, "result is a Level but would come back as an int"),
            (
                dict[str, UUID | str],
                {"a": str(UUID(int=1))},
                "result['a'] is a str but would come back as a UUID",
            ),
            (float, 2**53 + 1, "result is an int but would come back as a float"),
        ],
    )
    def test_a_value_that_would_come_back_as_another_is_refused(self, annotation, value, told):
        """What the flow sees live must be what it sees on replay."""
        assert told in refusal(annotation, value)

    def test_what_a_model_keeps_to_itself_is_missed(self):
        """A private attribute or a secret is not in the text."""
        value = Hidden(name="a")
        value._token = "t"

        assert "would come back" in refusal(Hidden, value)
        assert "would come back" in refusal(SecretStr, SecretStr("s"))

    @pytest.mark.parametrize(
        "annotation, value, told",
        [
            (str, 3, "result is an int but should be a valid string"),
            (int, "3", "result is a str but should be a valid integer"),
            (int, 2.0, "result is a float but should be a valid integer"),
            (list[dict[str, int]], [{"a": 1}, {"b": "x", "c": True}], "result[1]['b'] is a str"),
            (Model, {"name": "a"}, "result holds 'dict' where 'Model' is annotated"),
            (UUID, "8d3c4a46-7f4b-4f3e-a8fb-2f1a54dd0f0e", "result is a str"),
            (Status, "open", "result is a str but should be"),
            (int | str, 2.5, "result is a float but should be a valid integer or should be a valid string"),
            (set[int], frozenset([1]), "result is a frozenset but should be a valid set"),
            (Point, Point("a", 1.0), "result.x is a str but should be a valid integer"),  # type: ignore[arg-type]
        ],
    )
    def test_a_value_of_another_type_than_annotated_is_refused(self, annotation, value, told):
        """Strictly where Python is strict, when recorded, encoded or handed in."""
        codec = value_codec(annotation)

        assert told in refusal(annotation, value)
        with pytest.raises(SerializationError):
            codec.encode(value, what="x")

    def test_a_constraint_is_checked(self):
        """When a value is recorded or handed in; arguments of a step are taken as they are."""
        assert "result is an int but should be greater than 0" in refusal(Annotated[int, Field(gt=0)], -1)

    def test_messages_hold_no_payload(self):
        """They reach logs, which payloads must not."""
        secret = "s3cr3t-value"

        for annotation, value in [
            (int, secret),
            (list[int], [secret]),
            (dict[str, Any], {"a": secret.encode()}),
            (Point, Point(secret)),  # type: ignore[arg-type]
            (Any, {"a": {secret}}),
        ]:
            assert secret not in refusal(annotation, value)

    @pytest.mark.parametrize("annotation", [Any, list, list[Any]])
    @pytest.mark.parametrize("depth", [202, 255, 300, 100_000])
    def test_a_value_nested_too_deep_is_refused_cleanly(self, annotation, depth):
        """No RecursionError, also when the chained causes are printed."""
        codec = value_codec(annotation)
        for act in (codec.record, codec.encode, codec.validate):
            with pytest.raises(SerializationError, match="nested deeper than 200 levels") as caught:
                act(nested(depth), what=RESULT)
            assert len("".join(traceback.format_exception(caught.value))) < 100_000

    def test_two_hundred_levels_are_read_back(self):
        """What is accepted can be read: pydantic writes deeper than it reads."""
        for annotation in (Any, list[Any]):
            codec = value_codec(annotation)
            assert codec.decode(codec.record(nested(200), what=RESULT)[0]) == nested(200)
            assert codec.decode(codec.encode(nested(200), what=RESULT)) == nested(200)

    def test_a_value_that_holds_itself_is_refused(self):
        """At once, though it is endless in every direction."""
        value: list[Any] = []
        value += [value, value]

        assert "contains itself" in refusal(Any, value)
        assert "contains itself" in refusal(list[Any], value)

    @pytest.mark.parametrize("annotation", [Any, int, list[int]])
    def test_an_integer_of_more_than_4300_digits_is_refused(self, annotation):
        """Neither Python nor the parser reads it."""
        value = [10**4300] if annotation == list[int] else 10**4300

        assert "more than 4300 digits" in refusal(annotation, value)
        assert record(int, 10**4299)[1] == 10**4299

    def test_a_generator_is_refused(self):
        """It can be read once only, and not recorded."""
        assert "generator" in refusal(Iterable[int], (number for number in [1]))

    def test_an_unknown_class_is_refused_with_a_cure(self):
        """At first use, again and again."""
        for _ in range(2):
            message = refusal(Unknown, Unknown())
            assert "annotated with Unknown" in message
            assert "dataclass or a pydantic model, or pass an id" in message

    def test_a_comparison_that_fails_counts_as_a_difference(self):
        """Foreign code in `__eq__` breaks nothing."""

        class Odd(BaseModel):
            x: int

            def __eq__(self, other: object) -> bool:
                raise RuntimeError("no")

            __hash__ = None  # type: ignore[assignment]

        # its parts are equal and its text is the same
        assert record(Odd, Odd(x=1))[0] == '{"x":1}'

    def test_a_serializer_that_fails_is_named(self):
        """An error of foreign code is chained to ours."""

        def broken(_value: int) -> int:
            raise KeyError("inside")

        with pytest.raises(SerializationError) as caught:
            record(Annotated[int, AfterValidator(broken)], 3)

        assert caught.value.__cause__ is not None


class TestSize:
    def test_a_text_over_the_limit_is_refused(self):
        """The message names size, limit and setting."""
        with pytest.raises(SerializationError, match=r"1,002 bytes .* 1,000 bytes that max_payload"):
            check_size('"' + "a" * 1000 + '"', limit=1000, what=RESULT)

    def test_the_limit_counts_bytes(self):
        """Not characters."""
        check_size("é" * 500, limit=1000, what=RESULT)
        with pytest.raises(SerializationError, match="1,002 bytes"):
            check_size("é" * 501, limit=1000, what=RESULT)

    def test_a_value_of_a_hundred_megabytes_is_refused_in_linear_time(self):
        """It is written, read back and measured, and that is all."""
        text, _ = record(Any, {"a": ["x" * 50_000_000, "NaN" * 16_000_000]})

        with pytest.raises(SerializationError, match="max_payload"):
            check_size(text, limit=16_000_000, what=RESULT)

    def test_the_odd_one_of_a_million_is_found(self):
        """The path comes from one walk."""
        value: list[Any] = [1] * 1_000_000
        value[999_999] = (1,)

        assert "result[999999] is a tuple" in refusal(list[Any], value)
        assert "result[999999] is a tuple" in refusal(Any, value)


class TestReading:
    def test_a_record_that_no_longer_fits_says_so(self):
        """Its annotation changed while the flow was under way."""
        with pytest.raises(SerializationError, match=r"cannot be read: value\['a'\] is a str but should be"):
            value_codec(dict[str, int]).decode('{"a":"x"}')

    @pytest.mark.parametrize("text", ["", "{", "nul", "[" * 300, '"\\ud800"', "1" * 5000])
    def test_text_that_is_no_json_is_refused(self, text):
        """Damaged or hostile text ends in our error."""
        for act in (value_codec(Any).decode, lambda it: value_codec(Any).from_json(it, what="The signal")):
            with pytest.raises(SerializationError):
                act(text)

    @pytest.mark.parametrize("text", ["NaN", "[1e999]", '{"a":-Infinity}'])
    def test_nan_and_infinity_from_outside_are_refused(self, text):
        """JSON has no such numbers, though parsers read them."""
        for annotation in (Any, list[float], dict[str, Any]):
            with pytest.raises(SerializationError):
                value_codec(annotation).from_json(text, what="The signal 'approval'")

    def test_json_from_outside_is_read_in_pydantics_usual_mode(self):
        """A number in quotes is a number, and an alias is a name."""
        assert value_codec(int).from_json('"3"', what="x") == 3
        assert value_codec(Point).from_json('{"x":"1"}', what="x") == Point(1)
        assert value_codec(datetime).from_json('"2026-01-01T00:00:00Z"', what="x") == datetime(
            2026, 1, 1, tzinfo=UTC
        )
        assert value_codec(bytes).from_json('"/wA="', what="x") == b"\xff\0"

    def test_json_from_outside_that_does_not_fit_names_path_and_cause(self):
        """The sender can put it right."""
        with pytest.raises(
            SerializationError, match=r"approval' does not fit: value\['children'\]\[0\]\['name'\] is missing"
        ):
            value_codec(Model).from_json('{"name":"a","children":[{}]}', what="The signal 'approval'")

    def test_a_validator_of_the_annotation_may_change_what_is_handed_in(self):
        """What it makes of the value is recorded."""
        lower = Annotated[str, AfterValidator(str.lower)]

        assert value_codec(lower).validate("ABC", what="x") == ('"abc"', "abc")
        assert value_codec(AnyUrl).validate("http://a.example", what="x")[1] == AnyUrl("http://a.example")

    def test_the_schema_describes_what_is_read(self):
        """For forms."""
        assert value_codec(list[int]).json_schema() == {"items": {"type": "integer"}, "type": "array"}
        assert value_codec(Any).json_schema() == {}
        with pytest.raises(SerializationError, match="has no JSON schema"):
            value_codec(Callable[[int], int]).json_schema()


class TestTheCodecItself:
    def test_one_annotation_has_one_codec(self):
        """Adapters are dear to build."""
        assert value_codec(dict[str, int]) is value_codec(dict[str, int])

    def test_the_order_of_a_union_is_part_of_it(self):
        """Though Python holds both unions equal."""
        assert value_codec(set[int] | list[int]) is not value_codec(list[int] | set[int])

    def test_an_annotation_that_has_no_hash_works_too(self):
        """It is just not cached."""
        annotation = Annotated[int, {"unit": "m"}]

        assert value_codec(annotation).record(3, what="x") == ("3", 3)

    def test_a_codec_lets_its_class_go(self):
        """A class inside a function is garbage once its codec is."""

        @dataclasses.dataclass
        class Local:
            x: int

        codec = ValueCodec(Local)
        assert codec.record(Local(1), what="x")[0] == '{"x":1}'
        seen = weakref.ref(Local)

        del Local, codec
        gc.collect()

        assert seen() is None

    def test_importing_the_codec_does_not_load_pydantic(self):
        """A process that only defines flows is spared 0.15 seconds."""
        code = (
            "import sys, persistasaurus._codec, persistasaurus._signature as s\n"
            "c = s.arguments_codec(lambda a: a, skip_self=False)\n"
            "c.bind((1,), {})\n"
            "sys.exit(any(name.startswith('pydantic') for name in sys.modules))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def say(name: str, count: int = 3) -> int:
    raise NotImplementedError


def every(a: int, /, b: int, *args: int, c: date | None = None, **kw: bytes) -> None:
    raise NotImplementedError


def options(**kw: Unpack[Options]) -> None:
    raise NotImplementedError


def sloppy(name: str = None, extra=(1, 2)):  # type: ignore[assignment,no-untyped-def]  # noqa: RUF013
    raise NotImplementedError


class Signup:
    def sign_up(self, user: str, email: str) -> None:
        raise NotImplementedError

    def anything(*args: int) -> None:
        raise NotImplementedError


def send(mailer: Unknown, count: int) -> None:
    raise NotImplementedError


def codec_of(function, *, skip_self=False, localns=None):
    return arguments_codec(function, skip_self=skip_self, localns=localns)


class TestBinding:
    @pytest.mark.parametrize(
        "args, kwargs",
        [(("a", 1), {}), (("a",), {"count": 1}), ((), {"count": 1, "name": "a"})],
    )
    def test_positional_and_keyword_are_the_same(self, args, kwargs):
        """Bound arguments are in the order of the parameters."""
        assert list(codec_of(say).bind(args, kwargs).items()) == [("name", "a"), ("count", 1)]

    def test_defaults_are_applied(self):
        """They are part of the call."""
        assert codec_of(say).bind(("a",), {}) == {"name": "a", "count": 3}

    @pytest.mark.parametrize(
        "function, args, kwargs",
        [
            (say, (), {}),
            (say, (1, 2, 3), {}),
            (say, (1,), {"name": 2}),
            (say, (1,), {"nmae": 2}),
            (every, (), {}),
            (every, (), {"a": 1, "b": 2}),
        ],
    )
    def test_a_call_that_python_refuses_is_refused_in_its_words(self, function, args, kwargs):
        """With the function's own name."""
        with pytest.raises(TypeError) as expected:
            function(*args, **kwargs)
        with pytest.raises(TypeError) as got:
            codec_of(function).bind(args, kwargs)

        assert str(got.value) == str(expected.value)

    def test_a_method_is_bound_without_its_self(self):
        """Python's words count self, and so do ours."""
        codec = codec_of(Signup.sign_up, skip_self=True)

        assert codec.bind(("a",), {"email": "b"}) == {"user": "a", "email": "b"}
        with pytest.raises(TypeError) as expected:
            Signup().sign_up("a", "b", "c")  # type: ignore[call-arg]
        with pytest.raises(TypeError) as got:
            codec.bind(("a", "b", "c"), {})
        assert str(got.value) == str(expected.value)

    def test_a_method_may_take_self_among_its_arguments(self):
        """The caller's arguments never hold it."""
        codec = codec_of(Signup.anything, skip_self=True)

        assert codec.bind((1, 2), {}) == {"args": [1, 2]}

    def test_every_kind_of_parameter_goes_there_and_back(self):
        """Positional-only, variadic, keyword-only."""
        codec = codec_of(every)
        bound = codec.bind((1, 2, 3, 4), {"c": date(2026, 1, 1), "z": b"\xff"})

        text, decoded = codec.validate(bound, what="x")

        assert bound == {"a": 1, "b": 2, "args": [3, 4], "c": date(2026, 1, 1), "kw": {"z": b"\xff"}}
        assert text == '{"a":1,"b":2,"args":[3,4],"c":"2026-01-01","kw":{"z":"_w=="}}'
        assert decoded == bound == codec.decode(text)
        assert codec.unpack(decoded) == ((1, 2, 3, 4), {"c": date(2026, 1, 1), "z": b"\xff"})

    @given(
        args=st.lists(st.integers(), max_size=5),
        kwargs=st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), st.integers(), max_size=4),
    )
    def test_binding_agrees_with_a_call(self, args, kwargs):
        """What Python refuses is refused, and else the function gets what it would have got."""

        def function(a, /, b, c=3, *args, d, e=5, **kw):
            return {"a": a, "b": b, "c": c, "args": list(args), "d": d, "e": e, "kw": kw}

        codec = codec_of(function)
        try:
            expected = function(*args, **kwargs)
        except TypeError:
            with pytest.raises(TypeError):
                codec.bind(tuple(args), kwargs)
            return

        bound = codec.bind(tuple(args), kwargs)
        again, named = codec.unpack(bound)

        assert list(bound.items()) == list(expected.items())
        assert function(*again, **named) == expected

    def test_what_has_no_signature_is_refused(self):
        """So is a method without a self."""
        with pytest.raises(UsageError, match="tells no signature"):
            codec_of(type)
        with pytest.raises(UsageError, match="takes no self"):
            codec_of(lambda: None, skip_self=True)


class TestArguments:
    @pytest.mark.parametrize("act", ["encode", "validate"])
    @pytest.mark.parametrize(
        "args, kwargs, told",
        [
            ((3,), {}, "name is an int but should be a valid string"),
            (("a", "3"), {}, "count is a str but should be a valid integer"),
            (("\ud800",), {}, "name holds a lone surrogate"),
            (("a", 10**4300), {}, "count is an integer of more than 4300 digits"),
        ],
    )
    def test_an_argument_that_does_not_fit_is_named(self, act, args, kwargs, told):
        """Strictly where Python is strict."""
        codec = codec_of(say)

        with pytest.raises(SerializationError, match=f"^The input cannot be recorded: {told}"):
            getattr(codec, act)(codec.bind(args, kwargs), what="The input")

    def test_a_str_will_not_do_for_an_enum_of_them(self):
        """Though Python holds them equal."""

        def function(status: Status) -> None:
            raise NotImplementedError

        assert codec_of(function).encode({"status": Status.OPEN}, what="x") == '{"status":"open"}'
        for act in (codec_of(function).encode, codec_of(function).validate):
            with pytest.raises(SerializationError, match="status is a str but should be"):
                act({"status": "open"}, what="x")

    def test_a_bool_will_do_for_an_int(self):
        """As in Python."""
        assert codec_of(say).validate({"name": "a", "count": True}, what="x")[0] == '{"name":"a","count":1}'

    def test_equal_input_gives_equal_text(self):
        """Positional, keyword and default."""
        codec = codec_of(say)
        ways = [(("a", 3), {}), (("a",), {}), ((), {"count": 3, "name": "a"})]

        texts = {codec.validate(codec.bind(args, kwargs), what="x")[0] for args, kwargs in ways}

        assert texts == {'{"name":"a","count":3}'}

    def test_the_order_of_keyword_arguments_does_not_count(self):
        """Nor that of a TypedDict's keys."""

        def function(options: Options, **kw: int) -> None:
            raise NotImplementedError

        one = codec_of(function).bind(({"size": 1, "label": "a"},), {"a": 1, "b": 2})
        two = codec_of(function).bind(({"label": "a", "size": 1},), {"b": 2, "a": 1})

        assert codec_of(function).validate(one, what="x")[0] == codec_of(function).validate(two, what="x")[0]

    @given(name=st.text(), count=st.integers())
    def test_encoding_and_validating_give_one_text(self, name, count):
        """The fast way and the careful way agree."""
        codec = codec_of(say)
        bound = {"name": name, "count": count}

        text, decoded = codec.validate(bound, what="x")

        assert codec.encode(bound, what="x") == text
        assert decoded == bound == codec.decode(text)

    def test_an_unannotated_parameter_takes_plain_json(self):
        """A None for a default is fine, though the annotation does not say so."""
        codec = codec_of(sloppy)

        assert codec.encode(codec.bind((), {"extra": [1]}), what="x") == '{"name":null,"extra":[1]}'
        for act in (codec.encode, codec.validate):
            with pytest.raises(SerializationError, match=r"extra is a tuple.* Annotate the parameter"):
                act(codec.bind((), {}), what="x")

    def test_keyword_arguments_may_be_typed_together(self):
        """By Unpack of a TypedDict."""
        codec = codec_of(options)

        assert codec.decode('{"kw":{"size":3}}') == {"kw": {"size": 3}}
        with pytest.raises(SerializationError, match=r"kw\['size'\]"):
            codec.validate({"kw": {"size": "x"}}, what="x")

    def test_a_parameter_of_an_unknown_class_is_named(self):
        """With the cure."""
        codec = codec_of(send)

        with pytest.raises(SerializationError, match=r"mailer is annotated with Unknown.*or pass an id"):
            codec.encode(codec.bind((Unknown(), 3), {}), what="The arguments of step 'send'")

    def test_a_parameter_added_since_takes_its_default(self):
        """A flow started before the deploy goes on after it."""
        assert codec_of(say).decode('{"name":"a"}') == {"name": "a", "count": 3}
        assert codec_of(every).decode('{"a":1,"b":2}') == {"a": 1, "b": 2, "args": [], "c": None, "kw": {}}

    @pytest.mark.parametrize(
        "source, told",
        [
            ('{"count":3}', "name is missing"),
            ('{"name":"a","cuont":3}', "cuont is not a known name"),
            ('{"nmae":"a"}', r"nmae is not a known name \(and 1 more\)"),
            ('{"name":"a","count":"many"}', "count is a str but should be a valid integer"),
            ("[]", "it is a list but should be an object"),
            ({"name": "a", "count": float("nan")}, "count"),
            ({"name": ("a",)}, "name"),
        ],
    )
    def test_json_from_outside_that_does_not_fit_names_the_field(self, source, told):
        """The sender can put it right."""
        with pytest.raises(SerializationError, match=f"^The input .*{told}"):
            codec_of(say).from_json(source, what="The input")

    def test_json_from_outside_is_bound_by_name(self):
        """As text or as values, in the order of the parameters."""
        for source in ('{"count":"5","name":"a"}', {"count": 5, "name": "a"}):
            bound = codec_of(say).from_json(source, what="x")
            assert list(bound.items()) == [("name", "a"), ("count", 5)]

    def test_a_dataclass_among_the_arguments_keeps_unknown_names_out_of_its_own_business(self):
        """Only the object of arguments itself is closed."""

        def function(point: Point) -> None:
            raise NotImplementedError

        bound = codec_of(function).from_json('{"point":{"x":1,"w":2}}', what="x")

        assert bound == {"point": Point(1)}

    def test_the_schema_tells_required_names_and_defaults(self):
        """For forms."""
        schema = codec_of(say).json_schema()

        assert schema["required"] == ["name"]
        assert schema["additionalProperties"] is False
        assert schema["properties"]["count"] == {"default": 3, "title": "Count", "type": "integer"}
        assert "default" not in codec_of(sloppy).json_schema()["properties"]["extra"]


class TestAnnotations:
    def test_a_class_local_to_a_function_is_resolved_by_the_names_given(self):
        """Annotations are strings in this module."""

        @dataclasses.dataclass
        class Local:
            x: int

        def function(it: Local) -> Local:
            raise NotImplementedError

        codec = codec_of(function, localns=locals())

        assert codec.validate({"it": Local(1)}, what="x") == ('{"it":{"x":1}}', {"it": Local(1)})
        assert codec.return_codec().decode('{"x":2}') == Local(2)

    def test_an_annotation_that_cannot_be_resolved_is_an_error_of_use(self):
        """Binding needs no annotations, so it comes at the first value."""

        def function(it: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
            raise NotImplementedError

        codec = codec_of(function)
        bound = codec.bind((1,), {})

        with pytest.raises(UsageError, match="function cannot be resolved: name 'Missing' is not defined"):
            codec.encode(bound, what="x")
        with pytest.raises(UsageError, match="cannot be resolved"):
            codec.return_codec()

    def test_a_coroutine_function_returns_what_it_resolves_to(self):
        """So does a function that returns an awaitable."""

        async def one() -> int:
            raise NotImplementedError

        def two() -> Awaitable[int]:
            raise NotImplementedError

        def three() -> typing.Coroutine[Any, Any, int]:
            raise NotImplementedError

        for function in (one, two, three):
            assert codec_of(function).return_codec() is value_codec(int)

    def test_a_function_without_annotations_returns_plain_json(self):
        """And so does one with a type variable."""

        def generic(it: T) -> T:
            raise NotImplementedError

        for function in (lambda: None, generic):
            with pytest.raises(SerializationError, match="plain JSON"):
                codec_of(function).return_codec().record((1,), what=RESULT)

    def test_a_mapping_annotation_comes_back_as_a_dict(self):
        """It is the annotation that says what the flow sees."""
        assert value_codec(Mapping[str, int]).record({"a": 1}, what="x")[1] == {"a": 1}
        assert value_codec(UUID).record(uid := uuid4(), what="x")[1] == uid


def two_scalars(text: str, number: int, anything, flag: Any = True): ...


@given(
    text=st.text(),
    number=st.integers() | st.booleans(),
    anything=st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    flag=st.booleans() | st.lists(st.integers(), max_size=2),
)
def test_the_quick_way_to_write_arguments_writes_what_the_thorough_one_does(
    text: str, number: int, anything: object, flag: object
) -> None:
    """Simple arguments are recorded without pydantic, and nobody can tell from the text."""
    codec = arguments_codec(two_scalars, skip_self=False)
    codec.write(("", 0, 0), {}, what="arguments")  # the first call builds what the next ones use

    def told(write: Callable[[], str]) -> str:
        try:
            return write()
        except SerializationError as refused:
            return f"refused: {refused}"

    given, named = (text, number), {"anything": anything, "flag": flag}
    quick = told(lambda: codec.write(given, named, what="arguments"))

    assert quick == told(lambda: codec.encode(codec.bind(given, named), what="arguments"))


@given(st.none() | st.booleans() | st.integers() | st.text())
def test_the_quick_text_of_a_scalar_is_the_one_that_pydantic_writes(value: object) -> None:
    """Where there is none, the thorough way decides."""
    quick = scalar_text(value)

    if quick is not None:
        assert TypeAdapter(Any).dump_json(value).decode() == quick
        assert json.loads(quick) == value
