"""Forms made from JSON schemas, and what they send as JSON values."""

from __future__ import annotations

from typing import Any

import pytest

from persistasaurus.web._forms import Form, filled, form_of, values_of
from persistasaurus.web._payload import MOST_SHOWN, shown_json
from persistasaurus.web._problem import FieldError


def form(required: bool = True, **schema: Any) -> Form:
    """A form of one field, x."""
    return form_of({"type": "object", "properties": {"x": schema}, "required": ["x"] if required else []})


@pytest.mark.parametrize(
    "schema,kind",
    [
        ({"type": "string"}, "text"),
        ({"type": "integer"}, "integer"),
        ({"type": "number"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "string", "format": "date-time"}, "datetime"),
        ({"type": "string", "format": "date"}, "date"),
        ({"enum": ["a", 1, None]}, "select"),
        ({"const": 3}, "select"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "select"),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, "text"),
        ({"type": "array", "items": {"type": "string"}}, "json"),
        ({}, "json"),
    ],
)
def test_a_field_is_shown_as_what_its_schema_says(schema: dict[str, Any], kind: str) -> None:
    """What no input fits is JSON."""
    assert form(**schema).fields[0].kind == kind


@pytest.mark.parametrize(
    "schema,text,value",
    [
        ({"type": "integer"}, "12345678901234567890", 12345678901234567890),
        ({"type": "integer"}, "many", "many"),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "string"}, "", ""),
        ({"type": "string"}, " 12 ", " 12 "),
        ({"type": "string", "format": "date-time"}, "2026-01-31T09:00", "2026-01-31T09:00Z"),
        ({"type": "string", "format": "date-time"}, "2026-01-31T09:00-05:00", "2026-01-31T09:00-05:00"),
        ({"enum": ["a", 1]}, "1", 1),
        ({"enum": ["a", "1"]}, '"1"', "1"),
        ({"type": "array"}, "[1, null]", [1, None]),
    ],
)
def test_what_is_typed_becomes_a_json_value(schema: dict[str, Any], text: str, value: Any) -> None:
    """A number that is none goes on as it is: the codec says what it wants instead."""
    values, errors = values_of(form(**schema), {"field.x": text})

    assert (values, errors) == ({"x": value}, [])


def test_what_is_left_empty_is_left_out_where_it_may_be() -> None:
    """So a default stays the default, and what must be there is asked for."""
    nullable = {"anyOf": [{"type": "integer"}, {"type": "null"}]}

    assert values_of(form(required=False, type="integer", default=3), {"field.x": ""})[0] == {}
    assert values_of(form(**nullable), {})[0] == {"x": None}
    assert values_of(form(anyOf=[{"type": "boolean"}, {"type": "null"}]), {"field.x": ""})[0] == {"x": None}
    assert values_of(form(type="boolean"), {})[0] == {"x": False}
    assert values_of(form(type="boolean"), {"field.x": "on"})[0] == {"x": True}
    assert [one.field for one in values_of(form(type="integer"), {"field.x": " "})[1]] == ["x"]
    assert "no JSON" in values_of(form(type="array"), {"field.x": "[NaN]"})[1][0].message


def test_a_value_without_fields_of_its_own_is_one_field() -> None:
    """Of a known type it must be there; of an unknown one anything will do, and nothing too."""
    known, unknown = form_of({"type": "integer"}), form_of(None)

    assert values_of(known, {"field.value": "3"}) == ({"value": 3}, [])
    assert values_of(known, {})[1] != []
    assert values_of(unknown, {}) == ({}, [])
    assert form_of({"type": "object", "properties": {}, "additionalProperties": False}).fields == []


def test_what_is_wrong_stands_beside_its_field() -> None:
    """And what is wrong with no field that is shown stands above them all."""
    errors = [FieldError(field="x.0", message="too small"), FieldError(field="y", message="unknown")]

    told = filled(form(type="array"), {"field.x": "[0]"}, errors, "It does not fit.")

    assert told.fields[0].error == "0: too small"
    assert told.fields[0].text == "[0]"
    assert told.error == "y: unknown"
    assert filled(form(type="array"), {}, [], "It does not fit.").error == "It does not fit."


def test_payloads_of_any_size_and_damage_are_shown() -> None:
    """A large one is not laid out, and what is no JSON is shown as it is."""
    large = shown_json('{"x": "' + "y" * 1_000_000 + '"}')

    assert large.cut
    assert len(large.text) == MOST_SHOWN
    assert shown_json("{broken").text == "{broken"
    assert shown_json('{"a":1}').text == '{\n  "a": 1\n}'
