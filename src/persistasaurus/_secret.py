"""A value that the code gets and nobody is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_args

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

T = TypeVar("T")

MASK = "**********"
MARK = "$secret"
"""The one key of the JSON object that holds a secret in the log, so that whoever shows it knows."""


class Secret(Generic[T]):
    """A value for parameters, results and signals that is masked wherever it is shown.

    `reveal()` returns it. Its repr, its text, the records of a flow, the command line, the API and the pages
    say `**********`. In the database it is as plain as any other value: give the app a `cipher` to keep it
    there. As an annotation it names what it holds, as in `Secret[str]`.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, others = self._value, cast("Secret[object]", other)._value
        return bool(mine == others)

    def __hash__(self) -> int:
        return hash(self._value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Loading pydantic takes 0.15 s: a process without secrets is spared it.
        from pydantic_core import core_schema  # noqa: PLC0415

        held = handler.generate_schema((get_args(source) or (Any,))[0])
        boxed = core_schema.typed_dict_schema(
            {MARK: core_schema.typed_dict_field(held)}, extra_behavior="forbid", cls_name=cls.__name__
        )
        from_log = core_schema.no_info_after_validator_function(_unboxed, boxed)
        from_outside = core_schema.no_info_after_validator_function(cls, held)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.union_schema([from_log, from_outside], mode="left_to_right"),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.plain_serializer_function_ser_schema(_boxed, return_schema=boxed),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Ask for what it holds: nobody outside writes the box."""
        both: Any = schema
        shown = handler(both["json_schema"]["choices"][1]["schema"])
        return {**shown, "format": "password", "writeOnly": True}


def _boxed(secret: Any) -> dict[str, Any]:
    if not isinstance(secret, Secret):
        raise TypeError(f"it is a {type(secret).__name__} and no Secret")
    return {MARK: secret.reveal()}


def _unboxed(box: dict[str, Any]) -> Secret[Any]:
    return Secret(box[MARK])
