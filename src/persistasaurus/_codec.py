"""Typed values to JSON text and back.

A codec belongs to one annotation. What it records it reads back at once, and what the flow gets is
the value read back, so that live equals replay; a value that does not survive is refused before
anything is recorded. The text is the same for equal values on every store: compact, without a raw
NUL, NaN or lone surrogate, sets in one order. Nothing is ever unpickled.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from persistasaurus._complaint import NO_FORM, complaint, first_line, named
from persistasaurus._loss import find_loss, same
from persistasaurus._plain import (
    MAX_DEPTH,
    MAX_DIGITS,
    QUICK,
    SCALARS,
    Finding,
    find_unplain,
    find_unwritable,
    is_plain,
    scalar_text,
)
from persistasaurus.errors import SerializationError

if TYPE_CHECKING:
    from persistasaurus._adapter import Adapter

_UNANNOTATED = (inspect.Parameter.empty, Any, object, NoReturn)

# A string is matched whole, so that a NaN within one is passed over; possessive, so linear.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|NaN|Infinity', re.DOTALL)

# Anchored to the start of a run of digits, so linear.
_LONG_RUN = re.compile(rb"(?<!\d)\d{%d}" % (MAX_DIGITS + 1))


def value_codec(annotation: Any) -> ValueCodec:
    """Return the codec of an annotation; without one (`Any`, `object`, a TypeVar) plain JSON."""
    try:
        # By its repr too: `int | str` equals `str | int`, and yet the order settles ties.
        return _cached_codec(annotation, repr(annotation))
    # An annotation with unhashable metadata is good, just not a key.
    except TypeError:
        return ValueCodec(annotation)


def load_pydantic() -> None:
    """Import it now: Ctrl-C in the middle of an import breaks it for every thread that waits for it."""
    importlib.import_module("persistasaurus._adapter")


def object_codec(
    name: str, fields: Mapping[str, Any], *, optional: AbstractSet[str], what: str
) -> ValueCodec:
    """Return the codec of a JSON object with these annotated fields, some of which may be absent.

    Raises:
        SerializationError: pydantic cannot handle a field's annotation; the message names the field.
    """
    from persistasaurus._adapter import build_object_adapter  # noqa: PLC0415 (as in prepare)

    try:
        adapter = build_object_adapter(name, fields, optional)
    except Exception as error:
        # One at a time, the guilty one is found.
        for field, annotation in fields.items():
            ValueCodec(annotation).prepare(what=what, root=field)
        raise _unknown_class(name, what, "it", error) from error
    return ValueCodec(dict, adapter=adapter)


def is_unannotated(annotation: Any) -> bool:
    """Whether an annotation says nothing, so that its values must be plain JSON."""
    return any(annotation is none for none in _UNANNOTATED) or isinstance(annotation, TypeVar)


def quick_kinds(annotation: Any) -> frozenset[type]:
    """Return the types of which a simple value is recorded as it is, without asking pydantic."""
    if is_unannotated(annotation):
        return QUICK
    return frozenset(kind for kind in QUICK if annotation is kind)


def check_size(text: str, *, limit: int, what: str) -> None:
    """Refuse a text of more than `limit` bytes.

    Raises:
        SerializationError: it is larger; the message names size, limit and setting.
    """
    if len(text) * 4 <= limit:
        return
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise SerializationError(
            f"{what} takes {size:,} bytes as JSON, more than the {limit:,} bytes that max_payload allows. "
            f"Store it elsewhere and pass its id, or raise max_payload."
        )


class ValueCodec:
    """Reads and writes the values of one annotation. Use `value_codec` to get one.

    `what` names the value in messages as the subject of a sentence ("The result of step 'charge'"),
    `root` stands for it in paths (`result['when']`).
    """

    __slots__ = ("_adapter", "_annotation", "_plain", "_quick")

    def __init__(self, annotation: Any, *, adapter: Adapter | None = None) -> None:
        self._annotation = annotation
        self._adapter = adapter
        self._plain = is_unannotated(annotation)
        self._quick = quick_kinds(annotation)

    def record(self, value: object, *, what: str, root: str = "result") -> tuple[str, Any]:
        """Return the value's JSON text and the value that this text reads back as.

        Raises:
            SerializationError: the text cannot be written, or does not give the value back.
        """
        kind: type[Any] = type(value)
        if kind in self._quick and (quick := scalar_text(value)) is not None:
            return quick, value
        if kind in SCALARS:
            attempt = self.attempt(value)
            if attempt is not None and type(attempt[1]) is kind:
                return attempt
        return self._record(value, what, root)

    def attempt(self, value: Any) -> tuple[str, Any] | None:
        """Record a scalar or a dict of them; None says no more than that this way is not theirs."""
        adapter = self._adapter
        if adapter is None:
            return None
        try:
            raw = adapter.dump(value, warnings=False)
            decoded = adapter.load(raw)
        # The way that explains finds the same fault again, and says which.
        except Exception:  # noqa: BLE001
            return None
        # NaN is never equal, and infinity gets past the reader only where any value does.
        if decoded != value or (adapter.loose and b"Infinity" in raw):
            return None
        return raw.decode(), decoded

    def encode(self, value: Any, *, what: str, root: str = "value") -> str:
        """Return the value's JSON text, without asking whether it comes back as it was.

        Raises:
            SerializationError: the value is not what the annotation says, or has no JSON text.
        """
        raw = self._dump(value, what, root)
        try:
            _check_readable(raw)
        except ValueError as error:
            raise self._refusal(error, value, what, root) from error
        return raw.decode()

    def decode(self, text: str, *, what: str = "A recorded value", root: str = "value") -> Any:
        """Return the value of a text that this codec, or one of a like annotation, has written.

        Raises:
            SerializationError: the text does not fit the annotation.
        """
        adapter = self._adapter or self.prepare(what=what, root=root)
        try:
            return adapter.load(text, by_alias=False, by_name=True)
        except Exception as error:
            reason = complaint(error, _glance(text), root=root)
            raise SerializationError(
                f"{what} cannot be read: {reason}. The annotation changed since it was recorded, or the "
                f"record did. Restore the annotation, or make it accept the older values too."
            ) from error

    def validate(self, value: Any, *, what: str, root: str = "value") -> tuple[str, Any]:
        """Check a value that a caller handed in, strictly where Python is strict, and record it.

        Values that are equal by their annotation give equal text.

        Raises:
            SerializationError: it is not what the annotation says (3 is no str), or cannot be recorded.
        """
        try:
            text, decoded = self.record(value, what=what, root=root)
        except SerializationError:
            # The annotation's own validators may still turn it into something that survives.
            checked, objection = self._strictly(value)
            if objection or checked is value:
                raise
            text, decoded = self.record(checked, what=what, root=root)
        if self._adapter is not None and self._adapter.reorders:
            text = self._dump(decoded, what, root).decode()
        return text, decoded

    def from_json(self, text: str, *, what: str, root: str = "value") -> Any:
        """Return the value of JSON text from outside, in pydantic's usual JSON mode.

        Raises:
            SerializationError: the text is no JSON or does not fit; the message names path and cause.
        """
        adapter = self._adapter or self.prepare(what=what, root=root)
        try:
            value = adapter.load(text, by_alias=True, by_name=True)
        except Exception as error:
            reason = complaint(error, _glance(text), root=root)
            raise SerializationError(f"{what} does not fit: {reason}. Send JSON that does.") from error
        # Under Any, "1e999" reads as infinity.
        if adapter.loose and (finding := find_unwritable(value)):
            raise SerializationError(f"{what} does not fit: {finding.told(root)}. Send finite numbers.")
        return value

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of what `from_json` takes.

        Raises:
            SerializationError: the annotation has none.
        """
        adapter = self._adapter or self.prepare(what="The form")
        try:
            return adapter.json_schema()
        except Exception as error:
            raise SerializationError(
                f"{named(self._annotation)} has no JSON schema: {first_line(error)}. "
                f"Annotate with types that JSON can describe."
            ) from error

    def prepare(self, *, what: str, root: str = "value") -> Adapter:
        """Build the adapter, as any method does at the first use; two threads do it to the same end.

        Raises:
            SerializationError: pydantic cannot handle the annotation.
        """
        # Loading pydantic takes 0.15 s: a process that only defines flows or reads a log is spared it.
        from persistasaurus._adapter import build_adapter  # noqa: PLC0415

        try:
            self._adapter = adapter = build_adapter(Any if self._plain else self._annotation)
        except Exception as error:
            raise _unknown_class(self._annotation, what, root, error) from error
        return adapter

    def _record(self, value: Any, what: str, root: str) -> tuple[str, Any]:
        raw = self._dump(value, what, root)
        adapter = self._adapter or self.prepare(what=what, root=root)
        try:
            decoded = adapter.load(raw, by_alias=False, by_name=True)
        except Exception as error:
            raise self._refusal(error, value, what, root) from error
        equal = same(value, decoded)
        # A plain value that could be written is what it was: its types are exact.
        if equal and (not adapter.loose or self._plain or (is_plain(value) and is_plain(decoded))):
            return raw.decode(), decoded
        loss = find_loss(value, decoded, exact=adapter.loose)
        if loss is None and not equal and self._dump(decoded, what, root) != raw:
            loss = Finding(trail=None, problem="would come back with another value")
        if loss is not None:
            raise SerializationError(f"{what} cannot be recorded: {loss.told(root)}. {_annotate(root)}")
        return raw.decode(), decoded

    def _dump(self, value: Any, what: str, root: str) -> bytes:
        adapter = self._adapter or self.prepare(what=what, root=root)
        if self._plain and not is_plain(value):
            finding = find_unplain(value)
            reason = finding.told(root) if finding else f"{root} is not plain JSON"
            raise SerializationError(f"{what} cannot be recorded: {reason}. {_annotate(root)}")
        try:
            # Field names, not aliases, and no computed fields: the text is for reading back. Plain
            # values have no type to miss, and asking for errors by name costs 2 microseconds.
            warnings = False if self._plain else "error"
            raw = adapter.dump(value, by_alias=False, round_trip=True, warnings=warnings)
            _check_finite(raw)
        except Exception as error:
            raise self._refusal(error, value, what, root) from error
        return raw

    def _refusal(self, error: Exception, value: Any, what: str, root: str) -> SerializationError:
        """Say what is wrong with a value that pydantic could not write or read back."""
        verb = "returned" if root == "result" else "passed"
        if finding := find_unwritable(value):
            cure = f"Replace it before it is {verb}, or keep it elsewhere and use an id."
            return SerializationError(f"{what} cannot be recorded: {finding.told(root)}. {cure}")
        reason = complaint(self._objection(value) or error, value, root=root)
        cure = (
            f"{'Return' if root == 'result' else 'Pass'} what the annotation says, or change the annotation."
        )
        if self._plain or reason.endswith(NO_FORM):
            cure = _annotate(root)
        return SerializationError(f"{what} cannot be recorded: {reason}. {cure}")

    def _objection(self, value: Any) -> Exception | None:
        """Return what the reader holds against a value: unlike the writer it tells the place."""
        objection = self._strictly(value)[1]
        if objection is not None or self._adapter is None:
            return objection
        try:
            # A model or dataclass that is one already is only looked into when it is read back.
            self._adapter.load(self._adapter.dump(value, warnings=False), by_alias=False, by_name=True)
        except Exception as error:  # noqa: BLE001
            return error if type(error).__name__ == "ValidationError" else None
        return None

    def _strictly(self, value: Any) -> tuple[Any, Exception | None]:
        """Return what strict validation makes of a value, and its objection if it has one."""
        if self._adapter is None:
            return value, None
        try:
            return self._adapter.check(value, strict=True), None
        # Validators are foreign code and raise what they like.
        except Exception as error:  # noqa: BLE001
            return value, error


@lru_cache(maxsize=1024)
def _cached_codec(annotation: Any, _spelling: str) -> ValueCodec:
    return ValueCodec(annotation)


def _unknown_class(annotation: Any, what: str, root: str, error: Exception) -> SerializationError:
    return SerializationError(
        f"{what} cannot be recorded: {root} is annotated with {named(annotation)}, which has no JSON form "
        f"({first_line(error)}). Make the class a dataclass or a pydantic model, or pass an id instead."
    )


def _annotate(root: str) -> str:
    if root == "result":
        return "Annotate the return type with what it is, or return plain JSON."
    return "Annotate it with what it is, or pass plain JSON."


def _check_finite(raw: bytes) -> None:
    if b"NaN" not in raw and b"Infinity" not in raw:
        return
    if any(not match[0].startswith(b'"') for match in _TOKEN.finditer(raw)):
        raise ValueError("the text holds NaN or infinity, which JSON cannot hold")


def _check_readable(raw: bytes) -> None:
    """Refuse a text that the parser stops in; pydantic writes deeper nests and longer integers."""
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH or (len(raw) > MAX_DIGITS and _LONG_RUN.search(raw)):
        from pydantic_core import from_json  # noqa: PLC0415 (as in prepare)

        from_json(raw)


def _glance(text: str) -> Any:
    """Parse a text that was refused, to tell its keys from the labels in pydantic's locations."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
