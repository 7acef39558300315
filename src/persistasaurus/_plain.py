"""Plain JSON, and where in a value JSON cannot follow.

Every walk here is iterative: a value may be nested a hundred thousand deep.
"""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
import json.encoder
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from types import NoneType
from typing import Any, Literal

# Exactly these types come back from JSON text as themselves, whatever the annotation.
SCALARS: frozenset[type] = frozenset({NoneType, bool, int, float, str})

# pydantic's JSON parser reads 201 brackets within each other; the object of arguments takes one.
MAX_DEPTH = 200

# The parser reads no integer of more digits, and Python by default neither.
MAX_DIGITS = 4300
TOO_LARGE = 10**MAX_DIGITS

# What is written without pydantic: short and simple, so that the text is certainly the one it would write.
SHORT = 4_096
LARGEST = 2**63 - 1
_CONSTANTS = {True: "true", False: "false", None: "null"}
QUICK: frozenset[type] = frozenset({NoneType, bool, int, str})
quoted: Callable[[str], str] = getattr(json.encoder, "encode_basestring")  # noqa: B009 - unknown to typeshed

_KEY_WIDTH = 60
_PATH_WIDTH = 300

_TEXT_KEYS: frozenset[type] = frozenset({str})

Kind = Literal["item", "attribute", "key"]

# A part of a container: how it is reached, by what, and the part.
Member = tuple[Kind, Any, Any]

# A place in a value, as a chain towards its root: sharing keeps a walk linear at any depth.
Trail = tuple["Trail | None", Kind, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with a value, and where."""

    trail: Trail | None
    problem: str

    def told(self, root: str) -> str:
        """Return the finding as a clause; `root` names the value, empty for arguments by name."""
        return f"{place(self.trail, root)} {self.problem}"


def scalar_text(value: Any) -> str | None:
    """Return the JSON text of a scalar that certainly reads back as itself, as pydantic would write it.

    None says no more than that it takes pydantic to tell: for floats, other text than ASCII, large values.
    """
    kind: type[Any] = type(value)
    if kind is str:
        return quoted(value) if len(value) < SHORT and value.isascii() else None
    if kind is int:
        return str(value) if -LARGEST <= value <= LARGEST else None
    return _CONSTANTS.get(value) if kind is bool or value is None else None


def is_plain(value: object) -> bool:
    """Whether `value` is made of None, bool, int, float, str, list and dict with str keys, exactly."""
    if type(value) in SCALARS:
        return True
    seen: set[int] = set()
    pending = [value]
    while pending:
        node = pending.pop()
        # Seen before, so judged before: a list that holds itself ends too.
        if type(node) in SCALARS or id(node) in seen:
            continue
        seen.add(id(node))
        parts = _plain_parts(node)
        if parts is None:
            return False
        if not SCALARS.issuperset(map(type, parts)):
            pending.extend(parts)
    return True


def find_unplain(value: object) -> Finding | None:
    """Return the first place in `value` that is not plain JSON."""
    for trail, node, _ in _walk(value):
        kind = type(node)
        if trail is not None and trail[1] == "key" and kind is not str:
            problem = f"is a key of type {kind.__name__}, and JSON has only text keys"
            return Finding(trail=trail, problem=problem)
        if kind not in SCALARS and kind is not list and kind is not dict:
            return Finding(trail=trail, problem=f"is {a(kind)}, which plain JSON cannot hold")
    return None


def find_unwritable(value: object) -> Finding | None:
    """Return the first place in `value` that no JSON text can hold, whatever the annotation."""
    for trail, node, depth in _walk(value):
        if depth > MAX_DEPTH:
            return Finding(trail=None, problem=f"is nested deeper than {MAX_DEPTH} levels")
        problem = _unwritable(node)
        if problem is not None:
            return Finding(trail=trail, problem=problem)
    return None


def members(value: object) -> Iterator[Member]:
    """Yield the parts of a container, dataclass or model; a scalar has none."""
    try:
        yield from _members(value)
    # A container of the user's may fail in any way; it is then judged as a whole.
    except Exception:  # noqa: BLE001
        return


def place(trail: Trail | None, root: str) -> str:
    """Return a trail as Python text, such as `result['when'].day`."""
    steps: list[tuple[Kind, Any]] = []
    while trail is not None:
        trail, kind, key = trail
        steps.append((kind, key))
    steps.reverse()
    if not root and steps:
        root = str(steps.pop(0)[1])
    path = "".join(_step(kind, key) for kind, key in steps)
    if len(path) > _PATH_WIDTH:
        path = f"...{path[-_PATH_WIDTH:]}"
    return (root or "it") + path


def a(kind: type) -> str:
    """Return a type's name with its article."""
    name = kind.__name__
    return f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"


def _members(value: object) -> Iterable[Member]:
    if isinstance(value, dict):
        return (("item", key, part) for key, part in value.items())
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        return (("attribute", name, part) for name, part in zip(names, value, strict=False))
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return (("item", index, part) for index, part in enumerate(value))
    if isinstance(value, type):
        return ()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return [("attribute", name, getattr(value, name, None)) for name in names]
    # pydantic marks its models so; asking by isinstance would import pydantic.
    if hasattr(type(value), "__pydantic_fields__"):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        private = getattr(value, "__pydantic_private__", None) or {}
        return [("attribute", name, part) for name, part in {**vars(value), **extra, **private}.items()]
    return ()


def _plain_parts(node: object) -> Collection[object] | None:
    """Return what a list or a dict by text holds, None for anything else."""
    if type(node) is list:
        return node
    if type(node) is dict and _TEXT_KEYS.issuperset(map(type, node)):
        return node.values()
    return None


def _walk(value: object) -> Iterator[tuple[Trail | None, Any, int]]:
    """Visit `value` and what it holds in order, each container once, with the depth in brackets."""
    yield None, value, 1
    seen: set[int] = {id(value)}
    # One iterator a level: what is still to come takes no memory.
    open_levels: list[tuple[Trail | None, Any, Iterator[Member]]] = [(None, value, members(value))]
    while open_levels:
        trail, node, parts = open_levels[-1]
        depth = len(open_levels)
        for kind, key, part in parts:
            here: Trail = (trail, kind, key)
            if kind == "item" and isinstance(node, dict):
                yield (trail, "key", key), key, depth
            # Only what may hold something counts as a level: brackets nest, scalars do not.
            if type(part) in SCALARS:
                yield here, part, depth
                continue
            yield here, part, depth + 1
            if id(part) not in seen and depth < MAX_DEPTH:
                seen.add(id(part))
                open_levels.append((here, part, members(part)))
                break
        else:
            open_levels.pop()


def _unwritable(node: object) -> str | None:
    if isinstance(node, float) and not math.isfinite(node):
        return f"is {float(node)}, which JSON cannot hold"
    if isinstance(node, int) and abs(node) >= TOO_LARGE:
        return f"is an integer of more than {MAX_DIGITS} digits"
    if isinstance(node, str) and not node.isascii():
        try:
            str.encode(node, "utf-8")
        except UnicodeEncodeError:
            return "holds a lone surrogate, which is no valid text"
    return None


def _step(kind: Kind, key: object) -> str:
    if kind == "attribute":
        return f".{key}"
    # Other keys may have any repr, and an integer of 5000 digits has none.
    short = type(key) is str or (type(key) is int and -(10**18) < key < 10**18)
    text = repr(key)[:_KEY_WIDTH] if short else a(type(key))
    return f"[{text}]" if kind == "item" else f" (the key {text})"
