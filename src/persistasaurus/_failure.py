"""Exceptions as data: written to the log, and made into exceptions again.

Live and replay go through the same conversion, so a flow catches after a restart what it caught
before. A class is looked up among the modules that are loaded already, never imported by a stored
name, and its `__init__` is never run. A class defined inside a function has no place to be looked
up: it is found while this process remembers it, and not after a restart.
"""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import math
import re
import traceback
from types import TracebackType
from typing import Any

from persistasaurus._plain import TOO_LARGE
from persistasaurus._rebuild import guarded, instance_dict, rebuild, remember, slots, source_file
from persistasaurus.errors import FlowFailed, SerializationError

# In characters.
MESSAGE_CAP = 64 * 1024
TRACEBACK_CAP = 16 * 1024
TOTAL_CAP = 512 * 1024

# Causes, contexts and groups may fan out without end; past these they cost more than they tell.
DEPTH_CAP = 8
NODE_CAP = 64

_FRAMES = 60
_NESTING = 32
_SURROGATES = re.compile("[\ud800-\udfff]")


def convert(exc: BaseException, missing: type[FlowFailed]) -> tuple[str, BaseException]:
    """Return an exception's record, and what the flow sees: the exception that the record gives.

    The live one keeps its traceback object, of which replay has only the text.
    """
    text = record_failure(exc)
    return text, rebuild_failure(text, missing=missing).with_traceback(exc.__traceback__)


def record_failure(exc: BaseException) -> str:
    """Return an exception as JSON text; it never raises, whatever the exception's own code does."""
    data = guarded(lambda: _Recorder().node(exc, 0, frozenset()), None)
    return json.dumps(data or _head(exc), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def rebuild_failure(text: str, *, missing: type[FlowFailed]) -> BaseException:
    """Return the exception of a record, as `missing` where its class is not to be had here.

    Raises:
        SerializationError: the text is no record of a failure.
    """
    return rebuild(_loaded(text), missing=missing)


def describe(text: str) -> tuple[str, str]:
    """Return type name and message of a record, for logs and reasons.

    Raises:
        SerializationError: the text is no record of a failure.
    """
    data = _loaded(text)
    return data["type"], data["message"]


class _Recorder:
    """Writes one exception with its causes, all within one budget."""

    def __init__(self) -> None:
        self._nodes = 0
        self._room = TOTAL_CAP

    def node(self, exc: BaseException, depth: int, above: frozenset[int]) -> dict[str, Any] | None:
        """Return one exception's data; None past the caps, and where a chain bites its own tail."""
        if depth > DEPTH_CAP or self._nodes >= NODE_CAP or id(exc) in above:
            return None
        self._nodes += 1
        remember(type(exc))
        data = _head(exc)
        data["message"] = self._fitted(data["message"], MESSAGE_CAP)
        if (file := source_file(data["module"])) is not None:
            data["file"] = _clean(file)
        guarded(lambda: self._add_state(data, exc), None)
        data["traceback"] = self._fitted(_traceback_text(exc, data), TRACEBACK_CAP)
        guarded(lambda: self._add_chain(data, exc, depth, above | {id(exc)}), None)
        return data

    def _add_state(self, data: dict[str, Any], exc: BaseException) -> None:
        """Add arguments, attributes and notes, as far as they are plain JSON."""
        args = self._plain(list(BaseException.__dict__["args"].__get__(exc)))
        if args is not None:
            data["args"] = args[0]
        plain = {_clean(name): self._plain(value) for name, value in _attributes(exc).items()}
        attributes = {name: boxed[0] for name, boxed in plain.items() if boxed is not None}
        if attributes:
            data["attributes"] = attributes
        notes = instance_dict(exc).get("__notes__")
        if type(notes) is list and notes:
            data["notes"] = [
                self._fitted(_clean(n), MESSAGE_CAP) for n in notes[:NODE_CAP] if isinstance(n, str)
            ]

    def _add_chain(self, data: dict[str, Any], exc: BaseException, depth: int, above: frozenset[int]) -> None:
        context = None if exc.__suppress_context__ else exc.__context__
        for key, linked in (("cause", exc.__cause__), ("context", context)):
            # A cause that is the context too is told once.
            if linked is None or (key == "context" and linked is exc.__cause__):
                continue
            if (node := self.node(linked, depth + 1, above)) is not None:
                data[key] = node
        if isinstance(exc, BaseExceptionGroup):
            data["group"] = self._fitted(_clean(exc.message), MESSAGE_CAP)
            parts = [self.node(part, depth + 1, above) for part in exc.exceptions[:NODE_CAP]]
            data["exceptions"] = [part for part in parts if part is not None]

    def _fitted(self, text: str, cap: int) -> str:
        """Cut a text to its cap and to what is left of the budget, but leave a glimpse of it."""
        text = _cut(text, max(min(cap, self._room), 512))
        self._room -= len(text)
        return text

    def _plain(self, value: Any) -> list[Any] | None:
        """Return a boxed copy of a plain JSON value; None if it is not plain, or too much."""
        room = self._room
        try:
            return [self._copied(value, 0)]
        except _NotPlainError:
            self._room = room
            return None

    def _copied(self, value: Any, depth: int) -> Any:
        self._room -= 8
        kind = type(value)
        if self._room < 0 or depth > _NESTING:
            raise _NotPlainError
        if kind is str:
            return self._fitted(_clean(value), MESSAGE_CAP)
        if kind is list:
            return [self._copied(item, depth + 1) for item in value]
        if kind is dict:
            return {self._key(key): self._copied(item, depth + 1) for key, item in value.items()}
        return _number(value)

    def _key(self, key: Any) -> str:
        if type(key) is not str:
            raise _NotPlainError
        return self._fitted(_clean(key), MESSAGE_CAP)


class _NotPlainError(Exception):
    """A value has no plain JSON form, or leaves no room for the rest."""


def _number(value: Any) -> Any:
    """Return None, a bool or a number as JSON can hold it; NaN and infinity as text."""
    if type(value) is float:
        return value if math.isfinite(value) else str(value)
    if value is None or type(value) is bool or (type(value) is int and abs(value) < TOO_LARGE):
        return value
    raise _NotPlainError


def _head(exc: BaseException) -> dict[str, Any]:
    cls = type(exc)
    return {
        "type": _clean(guarded(lambda: str(cls.__qualname__), "BaseException")),
        "module": _clean(guarded(lambda: str(cls.__module__), "builtins")),
        "message": _cut(guarded(lambda: _clean(str(exc)), "<its __str__ failed>"), MESSAGE_CAP),
        "traceback": "",
    }


def _attributes(exc: BaseException) -> dict[str, Any]:
    """Return what an exception carries beside its arguments, in `__dict__` and in slots."""
    found = {name: value for name, value in instance_dict(exc).items() if name != "__notes__"}
    for name, member in slots(type(exc)).items():
        value = guarded(lambda member=member: member.__get__(exc), None)  # type: ignore[misc]
        if isinstance(exc, UnicodeDecodeError) and name == "object" and isinstance(value, bytes):
            value = value.decode("latin-1")
        if value is not None:
            found[name] = value
    return {name: value for name, value in found.items() if type(name) is str}


def _traceback_text(exc: BaseException, data: dict[str, Any]) -> str:
    """Return the traceback as Python prints it, without the chain, the middle left out."""
    last = f"{data['type']}: {data['message']}" if data["message"] else data["type"]
    tb = exc.__traceback__
    frames = "" if tb is None else guarded(lambda: _frames(tb), "")
    return f"Traceback (most recent call last):\n{_clean(frames)}{last}" if frames else last


def _frames(tb: TracebackType) -> str:
    depth = sum(1 for _ in traceback.walk_tb(tb))
    if depth <= 2 * _FRAMES:
        return "".join(traceback.format_tb(tb))
    # Reading the source lines of a million frames would take minutes.
    first, last = traceback.format_tb(tb, _FRAMES), traceback.format_tb(tb, -_FRAMES)
    return "".join([*first, f"  [{depth - 2 * _FRAMES} frames left out]\n", *last])


def _clean(text: str) -> str:
    """Return an exact str without lone surrogates; a subclass of str may do anything."""
    exact = str.__add__("", text)
    return exact if exact.isascii() else _SURROGATES.sub("\ufffd", exact)


def _cut(text: str, cap: int) -> str:
    """Keep the head and the tail of a text that is longer than `cap`."""
    if len(text) <= cap:
        return text
    gap = f"\n[... {len(text) - cap} characters left out ...]\n"
    head = (cap - len(gap)) * 2 // 3
    return text[:head] + gap + text[head + len(gap) - cap :]


def _loaded(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("type", "message")):
        raise _damaged()
    return data


def _damaged() -> SerializationError:
    return SerializationError(
        "A recorded failure cannot be read: the text is no record of an exception. The row was damaged or "
        "edited. Restore it from a backup, or retry the flow."
    )
