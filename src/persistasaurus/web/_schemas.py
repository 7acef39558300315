"""The body that starts a flow, described from the signatures of the flows that this process knows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from persistasaurus._app import Persistasaurus
from persistasaurus._engine.registry import Target, display_name
from persistasaurus.errors import SerializationError, UsageError

_FLOW_ID = {
    "type": "string",
    "minLength": 1,
    "maxLength": 512,
    "description": "Left out, the flow gets one. The same id, flow and input again is the same flow.",
}
_SAMPLES = {
    "boolean": True,
    "integer": 1,
    "null": None,
    "number": 1.5,
    "string": "text",
}
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T09:00:00Z",
    "duration": "PT10S",
    "email": "alice@example.com",
    "time": "09:00:00Z",
    "uri": "https://example.com/",
    "uuid": "01997a3e-5d1c-7000-8000-3f2f6c1f0a55",
}


class Start(BaseModel):
    """Which flow to start, and with what."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    name: str
    flow_id: str | None = Field(None, min_length=1, max_length=512)
    input: dict[str, Any] = {}


def start_model(app: Persistasaurus) -> type[Start]:
    """Return the model of the body of `POST /flows`; its schema is made when somebody asks for it."""

    class StartFlow(Start):
        __doc__ = Start.__doc__

        @classmethod
        def __get_pydantic_json_schema__(
            cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
        ) -> dict[str, Any]:
            variants = [_variant(target) for _, target in sorted(app._registry.known().items())]
            if not variants:
                return handler.resolve_ref_schema(handler(core_schema))
            examples = [variant["examples"][0] for variant in variants]
            return {"title": "StartFlow", "oneOf": variants, "examples": examples}

    return StartFlow


def _variant(target: Target) -> dict[str, Any]:
    """Return the schema of the body that starts one flow."""
    name = display_name(target.name)
    arguments = arguments_schema(target.definition.arguments)
    required = ["name", "input"] if arguments.get("required") else ["name"]
    sample = {"name": name, "input": sample_of(arguments)} if arguments.get("properties") else {"name": name}
    return {
        "title": name,
        "description": inspect.getdoc(target.definition.function) or f"Starts the flow {name}.",
        "type": "object",
        "properties": {
            "name": {"type": "string", "const": name},
            "flowId": _FLOW_ID,
            "input": {**arguments, "title": "Input"},
        },
        "required": required,
        "additionalProperties": False,
        "examples": [sample],
    }


def arguments_schema(codec: Any) -> dict[str, Any]:
    """Return the JSON schema of what a codec reads, of any object where JSON cannot describe it."""
    try:
        return inlined(codec.json_schema())
    except (SerializationError, UsageError):
        return {"type": "object"}


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without `$defs`, so that it can stand anywhere in another document.

    What contains itself is described once and is anything below that; the codec checks all of it.
    """
    return _placed(schema, schema.get("$defs", {}), ())


def _placed(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], open_names: tuple[str, ...]
) -> dict[str, Any]:
    def place(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _placed(cast("Any", value), definitions, open_names)
        return [place(one) for one in cast("Any", value)] if isinstance(value, list) else value

    rest = {key: place(value) for key, value in schema.items() if key not in ("$ref", "$defs")}
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name not in definitions:
        return rest
    if name in open_names:
        return {"title": name, **rest}
    return {**_placed(definitions[name], definitions, (*open_names, name)), **rest}


def sample_of(schema: Mapping[str, Any]) -> Any:
    """Return a value that a schema describes, to begin with."""
    for key in ("example", "const", "default"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum", "anyOf", "oneOf", "allOf"):
        if schema.get(key):
            first = schema[key][0]
            return first if key in ("examples", "enum") else sample_of(first)
    kind = schema.get("type")
    if kind == "object":
        properties: Mapping[str, Any] = schema.get("properties", {})
        return {name: sample_of(one) for name, one in properties.items()}
    if kind == "array":
        sample = sample_of(schema.get("items", {}))
        return [] if sample is None else [sample]
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return schema.get("minimum", _SAMPLES.get(str(kind)))
