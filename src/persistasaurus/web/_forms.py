"""Forms from JSON schemas: fields that a browser shows without scripts, and what it sends as JSON values.

A field that no input fits is a text of JSON. What is wrong with a value is said by the codec that takes it,
not by the form, so that a form is never stricter or laxer than the code that it speaks to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from persistasaurus.web._problem import FieldError

# Field names are those of the user: with this in front they meet none of ours.
PREFIX = "field."
# Of a value that has no fields of its own.
WHOLE = "value"

_NUMBERS = {"integer": int, "number": float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input: `kind` is how it is shown and read, `text` what stands in it."""

    name: str
    kind: str
    required: bool = False
    nullable: bool = False
    hint: str = ""
    options: Sequence[tuple[str, str]] = ()
    """What is sent (JSON) and what is shown."""
    text: str = ""
    error: str = ""

    @property
    def input_name(self) -> str:
        return PREFIX + self.name

    @property
    def must_be_filled(self) -> bool:
        """Whether it may not be left empty; what may be null is null then."""
        return self.required and not self.nullable


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Fields for one value: an object's, or with `whole` a single one."""

    fields: Sequence[Field]
    whole: bool
    error: str = ""


def form_of(schema: Mapping[str, Any] | None) -> Form:
    """Return the empty form of a schema without references; any JSON where there is none."""
    properties: Mapping[str, Any] | None = (schema or {}).get("properties")
    if properties is None and _takes_no_fields(schema):
        return Form(fields=[], whole=False)
    if schema is None or properties is None:
        only = _field(WHOLE, schema or {}, required=schema is not None)
        return Form(fields=[only], whole=True)
    required = schema.get("required", ())
    return Form(
        fields=[_field(name, one, required=name in required) for name, one in properties.items()],
        whole=False,
    )


def _takes_no_fields(schema: Mapping[str, Any] | None) -> bool:
    return (
        schema is not None and schema.get("type") == "object" and not schema.get("additionalProperties", True)
    )


def _field(name: str, schema: Mapping[str, Any], *, required: bool) -> Field:
    variants = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    nullable = len(variants) < len(schema.get("anyOf", ())) or schema.get("type") == "null"
    inner = {**schema, **variants[0]} if len(variants) == 1 else schema
    if nullable and inner.get("type") == "boolean":
        # A box has two states.
        inner = {**inner, "enum": [True, False]}
    kind = _kind(inner, variants)
    default = schema.get("default")
    options = _options(inner) if kind == "select" else ()
    return Field(
        name=name,
        kind=kind,
        required=required,
        nullable=nullable,
        hint=_hint(inner, kind),
        options=options if required and not nullable else (("", "—"), *options) if options else (),
        text=_default_text(default, kind),
    )


def _kind(schema: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> str:
    if "enum" in schema or "const" in schema:
        return "select"
    kind = schema.get("type")
    if kind == "string":
        return {"date-time": "datetime", "date": "date"}.get(schema.get("format", ""), "text")
    if kind in _NUMBERS or kind == "boolean":
        return str(kind)
    # What is a number or a text, as decimals are, loses nothing as a text.
    if variants and all(one.get("type") in ("string", *_NUMBERS) for one in variants):
        return "text" if any(one.get("type") == "string" for one in variants) else "number"
    return "json"


def _options(schema: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    values: Sequence[Any] = schema["enum"] if "enum" in schema else [schema["const"]]
    return [(json.dumps(one), one if isinstance(one, str) else json.dumps(one)) for one in values]


def _hint(schema: Mapping[str, Any], kind: str) -> str:
    told = [str(schema.get("description", ""))]
    told.append({"datetime": "UTC", "json": "JSON"}.get(kind, str(schema.get("format", ""))))
    bounds = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    bounds |= {"exclusiveMaximum": "less than", "maxLength": "characters at most:"}
    told += [f"{words} {schema[key]}" for key, words in bounds.items() if key in schema]
    return ", ".join(filter(None, told))


def _default_text(default: Any, kind: str) -> str:
    if default is None:
        return ""
    if kind == "boolean":
        return "on" if default else ""
    if kind == "datetime":
        return str(default).removesuffix("Z").removesuffix("+00:00")
    return default if isinstance(default, str) and kind not in ("select", "json") else json.dumps(default)


def filled(form: Form, sent: Mapping[str, str], errors: Sequence[FieldError] = (), told: str = "") -> Form:
    """Return a form with what was sent in it, and what is wrong with that beside the fields."""
    by_field: dict[str, list[str]] = {}
    names = {one.name for one in form.fields}
    loose: list[str] = []
    for error in errors:
        first, _, rest = error.field.partition(".")
        name = WHOLE if form.whole else first
        where = error.field if form.whole else rest
        message = f"{where}: {error.message}" if where not in ("", "body") else error.message
        if name in names:
            by_field.setdefault(name, []).append(message)
        else:
            loose.append(f"{error.field}: {error.message}")
    fields = [
        replace(one, text=sent.get(one.input_name, ""), error=" ".join(by_field.get(one.name, ())))
        for one in form.fields
    ]
    general = "; ".join(loose) or ("" if by_field else told)
    return replace(form, fields=fields, error=general)


def values_of(form: Form, sent: Mapping[str, str]) -> tuple[dict[str, Any], list[FieldError]]:
    """Return what a form's fields say as JSON values by name, and the fields that are no JSON.

    A field left empty is left out where it may be, so that a default stays the default.
    """
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for field in form.fields:
        text = sent.get(field.input_name, "")
        if field.kind == "boolean":
            values[field.name] = field.input_name in sent
        elif text.strip() or (field.must_be_filled and field.kind == "text"):
            try:
                values[field.name] = _value(field.kind, text)
            except ValueError as error:
                errors.append(FieldError(field=field.name, message=f"This is no JSON: {error}"))
        elif field.must_be_filled:
            errors.append(FieldError(field=field.name, message="Give a value."))
        elif field.required:
            values[field.name] = None
    return values, errors


def _value(kind: str, text: str) -> Any:
    if kind in ("json", "select"):
        return json.loads(text, parse_constant=_no_constant)
    if kind == "datetime":
        has_zone = text.endswith(("Z", "z")) or "+" in text or text.count("-") > 2  # noqa: PLR2004 - of the date
        return text if has_zone else f"{text}Z"
    if kind in _NUMBERS:
        try:
            return (
                _NUMBERS[kind](text) if kind == "integer" else json.loads(text, parse_constant=_no_constant)
            )
        except ValueError:
            # The codec says what it wants instead.
            return text
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
