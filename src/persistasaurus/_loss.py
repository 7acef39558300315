"""Where a value differs from what its JSON text reads back as."""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any

from persistasaurus._plain import SCALARS, Finding, Kind, Trail, a, members

# Python takes the one where the other is annotated; nothing but the name of the type is lost.
_WIDENED: frozenset[tuple[type, type]] = frozenset({(bool, int), (bool, float), (int, float)})


def same(original: object, decoded: object) -> bool:
    """Whether two values are equal, where an `__eq__` of the user's may fail or answer anything."""
    try:
        return bool(original == decoded)
    # Any error of foreign code means "not known to be equal"; RecursionError is one of them.
    except Exception:  # noqa: BLE001
        return False


def find_loss(original: object, decoded: object, *, exact: bool) -> Finding | None:
    """Return the first place where `decoded` lost something of `original`.

    `exact` compares types too, where the annotation left them open: a `StrEnum` under `Any` is
    equal to the str that comes back, and yet not the same. Objects that know only identity as
    equality are taken as unchanged when their types agree: the caller compares their text.
    """
    pending: list[tuple[Trail | None, Any, Any]] = [(None, original, decoded)]
    while pending:
        trail, before, after = pending.pop()
        if before is after or (not exact and same(before, after)):
            continue
        problem = _changed_kind(before, after) or _changed_shape(before, after)
        if problem is not None:
            return Finding(trail=trail, problem=problem)
        pending.extend(reversed(_pairs(trail, before, after)))
    return None


def _changed_kind(before: object, after: object) -> str | None:
    pair = (type(before), type(after))
    if pair[0] is pair[1] or (pair in _WIDENED and same(before, after)):
        return None
    names = (a(pair[0]), a(pair[1]))
    if names[0] == names[1]:
        names = (f"{names[0]} of {pair[0].__module__}", f"one of {pair[1].__module__}")
    return f"is {names[0]} but would come back as {names[1]}"


def _changed_shape(before: object, after: object) -> str | None:
    """Judge two values of one type by all that is not in their parts."""
    if isinstance(before, dict) and isinstance(after, dict):
        return _changed_keys(before, after)
    if isinstance(before, (set, frozenset)):
        return None if same(before, after) else f"is {a(type(before))} that would come back with other items"
    if isinstance(before, (list, tuple, deque)) and isinstance(after, (list, tuple, deque)):
        if len(before) == len(after):
            return None
        return f"has {len(before)} items but would come back with {len(after)}"
    names = [key for _, key, _ in members(before)]
    if names != [key for _, key, _ in members(after)]:
        return f"is {a(type(before))} that would come back with other parts"
    if names or same(before, after) or type(before).__eq__ is object.__eq__ or _same_instant(before, after):
        return None
    return f"is {a(type(before))} that would come back with another value"


def _same_instant(before: object, after: object) -> bool:
    """Whether two times read alike: in the hour that a zone repeats, Python holds none equal to another's."""
    return (
        isinstance(before, datetime)
        and isinstance(after, datetime)
        and before.isoformat() == after.isoformat()
    )


def _changed_keys(before: dict[Any, Any], after: dict[Any, Any]) -> str | None:
    for key, back in zip(before, after, strict=False):
        if type(key) is not type(back):
            kinds = f"{a(type(key))}, which would come back as {a(type(back))}"
            return f"has a key that is {kinds}"
    if len(before) != len(after) or not same(list(before), list(after)):
        return "would come back with other keys"
    return None


def _pairs(trail: Trail | None, before: object, after: object) -> list[tuple[Trail | None, Any, Any]]:
    """Return the parts that need a look: a million equal numbers do not."""
    if isinstance(before, (set, frozenset)):
        return []
    pairs: list[tuple[Trail | None, Any, Any]] = []
    for (kind, key, one), (_, _, other) in zip(members(before), members(after), strict=False):
        if type(one) is type(other) and type(one) in SCALARS and one == other:
            continue
        step: tuple[Trail | None, Kind, Any] = (trail, kind, key)
        pairs.append((step, one, other))
    return pairs
