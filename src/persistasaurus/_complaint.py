"""Says in one clause what pydantic refused, with the place and without the payload."""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
import re
from typing import Any

from persistasaurus._plain import MAX_DEPTH, Kind, Trail, a, place

NO_FORM = "which has no JSON form"

_UNEXPECTED = re.compile(r"Expected `(?P<expected>[^`]+)`.*?input_type=(?P<found>\w+)", re.DOTALL)

# Errors of strict mode that are none in Python, where a bool is an int and an int will do for a float.
_STRICTER_THAN_PYTHON = frozenset({"int_type", "float_type"})


def complaint(error: Exception, value: Any, *, root: str) -> str:
    """Return what is wrong with `value`, which pydantic refused with `error`."""
    if isinstance(error, RecursionError):
        return f"{root or 'it'} is nested too deep for what is left of the stack"
    # Asked by name: this module does without pydantic, like all above it.
    details = getattr(error, "errors", None)
    if details is not None and type(error).__name__ == "ValidationError":
        return _invalid(details(include_url=False, include_context=False), value, root)
    return (
        _unwritten(str(error), root) or f"{root or 'it'} raised {type(error).__name__}: {first_line(error)}"
    )


def first_line(error: Exception) -> str:
    """Return the first sentence of an error's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")[:300]


def named(annotation: Any) -> str:
    """Return an annotation as one would write it."""
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        return annotation.__qualname__
    return repr(annotation).replace("typing.", "")[:200]


def _invalid(errors: list[dict[str, Any]], value: Any, root: str) -> str:
    wrong = [error for error in errors if not _is_bool_for_number(error)] or errors
    # A name that nobody knows comes first: it is what the one that is missing was meant to be.
    wrong = sorted(wrong, key=lambda error: error["type"] != "extra_forbidden")
    first = place(_trail(wrong[0], value), root)
    # The branches of a union each complain at the same place.
    here = [error for error in wrong if place(_trail(error, value), root) == first]
    told = " or ".join(list(dict.fromkeys(_message(error) for error in here))[:4])
    more = len(wrong) - len(here)
    found = here[0]["input"]
    kind = f"is {a(type(found))} but " if told.startswith("should be") and found is not None else ""
    return f"{first} {kind}{told}" + (f" (and {more} more)" if more else "")


def _is_bool_for_number(error: dict[str, Any]) -> bool:
    return error["type"] in _STRICTER_THAN_PYTHON and isinstance(error.get("input"), bool)


def _message(error: dict[str, Any]) -> str:
    text = str(error["msg"])
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "extra_forbidden":
        return "is not a known name"
    if error["type"] == "json_invalid" and "recursion limit" in text:
        return f"is nested deeper than {MAX_DEPTH} levels"
    head, _, rest = text.partition(" ")
    return rest if head == "Input" else f"is refused: {text[:1].lower()}{text[1:]}"


def _trail(error: dict[str, Any], value: Any) -> Trail | None:
    """Turn pydantic's location into a place in the value, without the labels of union branches."""
    trail: Trail | None = None
    node = value
    for step in error["loc"]:
        if step == "[key]" and trail is not None:
            return (trail[0], "key", trail[2])
        found = _entered(node, step)
        if found is not None:
            kind, key, node = found
            trail = (trail, kind, key)
    # The name of what is missing is in no value.
    return (trail, "item", error["loc"][-1]) if error["type"] == "missing" else trail


def _entered(node: Any, step: Any) -> tuple[Kind, Any, Any] | None:
    """Follow one step of a location into a value; None where it leads nowhere."""
    if isinstance(node, dict):
        key = _key(node, step)
        return None if key is None else ("item", key[0], node[key[0]])
    if isinstance(node, (list, tuple)):
        within = isinstance(step, int) and 0 <= step < len(node)
        return ("item", step, node[step]) if within else None
    return ("attribute", step, getattr(node, step, None)) if _has_member(node, step) else None


def _key(node: dict[Any, Any], step: Any) -> tuple[Any] | None:
    """Return the key that a step of a location names; pydantic tells some keys as their text."""
    if step in node:
        return (step,)
    return next(((key,) for key in node if not isinstance(key, str) and str(key) == step), None)


def _has_member(node: Any, step: Any) -> bool:
    if isinstance(node, type) or not isinstance(step, str):
        return False
    if dataclasses.is_dataclass(node):
        return step in {field.name for field in dataclasses.fields(node)}
    return step in getattr(type(node), "__pydantic_fields__", ())


def _unwritten(text: str, root: str) -> str | None:
    """Translate a message of pydantic's writer; it holds the payload, so only known parts are kept."""
    subject = root or "it"
    if found := _UNEXPECTED.search(text):
        expected = found["expected"]
        return f"{subject} holds {found['found']!r} where {expected!r} is annotated"
    if "Circular reference" in text:
        return f"{subject} contains itself"
    if "depth exceeded" in text:
        return f"{subject} is nested deeper than {MAX_DEPTH} levels"
    if "invalid utf-8" in text:
        return f"{subject} holds bytes that its model writes as text (set ser_json_bytes and val_json_bytes)"
    if found := re.search(r"unknown type: <class '([^']+)'>", text):
        return f"{subject} holds an object of class {found[1]}, {NO_FORM}"
    return None
