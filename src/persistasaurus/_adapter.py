"""Builds the pydantic reader and writer of one annotation.

The only module that imports pydantic, and itself imported at the first value that needs it.
"""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import (
    CoreConfig,
    CoreSchema,
    PydanticSerializationUnexpectedValue,
    SchemaSerializer,
    SchemaValidator,
    to_json,
)

# typing's own TypedDict tells pydantic too little before Python 3.12.
from typing_extensions import NotRequired, TypedDict  # noqa: UP035

# Bytes are base64 both ways. Constants for NaN and infinity can be found in the text and refused;
# pydantic's default writes null in their place and says nothing.
_CONFIG: CoreConfig = {
    "ser_json_bytes": "base64",
    "val_json_bytes": "base64",
    "ser_json_inf_nan": "constants",
    "allow_inf_nan": False,
    # Messages of errors reach logs, and payloads must not.
    "hide_input_in_errors": True,
}

# Parts of a core schema that hold values and classes of the user's, not schemas.
_OPAQUE = frozenset({"metadata", "default", "expected", "members", "cls", "config"})

# Below these a value may come back equal and yet as another type.
_OPEN = frozenset({"any", "union"})

_building = threading.RLock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One annotation's reader and writer.

    `dump(value)` gives JSON bytes, `load(text)` a value, `check(value)` validates a Python value.
    `loose` says that the annotation leaves a type open somewhere (`Any`, a union), `reorders` that a
    TypedDict comes back with its keys in the order of its fields.
    """

    dump: Callable[..., bytes]
    load: Callable[..., Any]
    check: Callable[..., Any]
    json_schema: Callable[[], dict[str, Any]]
    loose: bool
    reorders: bool


def build_adapter(annotation: Any, *, closed: type | None = None) -> Adapter:
    """Build the adapter of `annotation`; the TypedDict `closed` refuses names it does not have.

    Raises:
        Exception: whatever pydantic raises on an annotation that it cannot handle.
    """
    # Two threads that complete one recursive model at a time would trip over each other.
    with _building:
        config = ConfigDict(
            ser_json_bytes="base64",
            val_json_bytes="base64",
            ser_json_inf_nan="constants",
            allow_inf_nan=False,
            hide_input_in_errors=True,
        )
        source: TypeAdapter[Any] = TypeAdapter(Annotated[object, _Root(annotation)], config=config)
        kinds: set[str] = set()
        schema = _tuned(source.core_schema, kinds, closed)
        # A model's ready-made writer knows nothing of our tuning, so they are built anew.
        writer = SchemaSerializer(schema, _CONFIG, _use_prebuilt=False)
        reader = SchemaValidator(schema, _CONFIG, _use_prebuilt=False)
    return Adapter(
        dump=writer.to_json,
        load=reader.validate_json,
        check=reader.validate_python,
        json_schema=source.json_schema,
        loose=not _OPEN.isdisjoint(kinds),
        reorders="typed-dict" in kinds,
    )


def build_object_adapter(name: str, fields: Mapping[str, Any], optional: AbstractSet[str]) -> Adapter:
    """Build the adapter of a JSON object with these fields and no others.

    Raises:
        Exception: whatever pydantic raises on an annotation that it cannot handle.
    """
    types = {field: NotRequired[hint] if field in optional else hint for field, hint in fields.items()}
    # Type checkers want to know name and fields beforehand.
    make: Any = TypedDict
    shape = make(name, types)
    return build_adapter(shape, closed=shape)


class _Root:
    """Hands the annotation to pydantic from below.

    TypeAdapter refuses a config for a dataclass or TypedDict at the top, though not within; from
    here a standard dataclass inherits the config like anything else.
    """

    # typing caches what it can hash, and would keep the annotation's classes alive.
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self._annotation)


def _tuned(node: Any, kinds: set[str], closed: type | None) -> Any:
    """Copy a core schema with our config in every model and sets in one order; collect its kinds."""
    if isinstance(node, (list, tuple)):
        return type(node)(_tuned(item, kinds, closed) for item in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    # A table of fields or choices by name: one of them may be called "default".
    if not isinstance(kind, str):
        return {name: _tuned(part, kinds, closed) for name, part in node.items()}
    ours = closed is not None and node.get("cls") is closed
    kinds.add("closed" if ours else kind)
    copy = {key: part if key in _OPAQUE else _tuned(part, kinds, closed) for key, part in node.items()}
    if kind in ("model", "dataclass", "typed-dict"):
        # A model's own choice of bytes stands, but never a silent null for infinity.
        copy["config"] = {**_CONFIG, **copy.get("config", {}), "ser_json_inf_nan": "constants"}
    if ours:
        copy["extra_behavior"] = "forbid"
    if kind in ("set", "frozenset") and "serialization" not in copy:
        plain = {key: part for key, part in copy.items() if key != "ref"}
        copy["serialization"] = {"type": "function-wrap", "function": _in_order, "schema": plain}
    return copy


def _in_order(value: Any, handler: Callable[[Any], list[Any]]) -> list[Any]:
    """Write a set in the order of its items' text: hash seeds differ between processes."""
    if not isinstance(value, (set, frozenset)):
        raise PydanticSerializationUnexpectedValue(f"Expected `set` [input_type={type(value).__name__}]")
    return sorted(handler(value), key=to_json)
