"""Flow ids and names: what is one, and how a new id is made."""

from __future__ import annotations

import os
import uuid
from collections import deque
from typing import Any

from persistasaurus._plain import a
from persistasaurus.errors import InvalidFlowIdError

LONGEST = 512
LONGEST_NAME = 256


def checked_id(value: object) -> str:
    """Return a flow id as text.

    Raises:
        InvalidFlowIdError: it is not a text of 1 to 512 characters without NUL and surrogates, nor a `UUID`.
    """
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        raise InvalidFlowIdError(f"A flow id is a text or a UUID, not {a(type(value))}. Give str(...) of it.")
    if not 1 <= len(value) <= LONGEST:
        raise InvalidFlowIdError(
            f"A flow id has 1 to {LONGEST} characters; this one has {len(value)}. Give the key of your own "
            "that "
            "names the instance, or a hash of it, or leave it out for a new id."
        )
    if not is_storable(value):
        raise InvalidFlowIdError(
            f"The flow id {value!r:.60} holds a NUL or a lone surrogate, which no database can store. "
            "Give one of valid text."
        )
    return value


def is_name(value: Any) -> bool:
    """Whether a flow, a step or a signal may be called so."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_NAME and is_storable(value)


def is_storable(text: str) -> bool:
    """Whether every database can hold the text: it has no NUL and no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


_BYTES = 10
_AT_ONCE = 128
_unused: deque[bytes] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unused.clear)


def _random_bytes() -> bytes:
    """Return random bytes of the system's, of which many are fetched at once: it takes 8 us to ask."""
    try:
        return _unused.pop()
    except IndexError:
        fetched = os.urandom(_BYTES * _AT_ONCE)
        _unused.extend(fetched[start : start + _BYTES] for start in range(_BYTES, len(fetched), _BYTES))
        return fetched[:_BYTES]


def new_id(now_ms: int) -> str:
    """Return a new UUIDv7 (RFC 9562): 48 bits of milliseconds, then random ones, so that ids sort by age."""
    random_bits = int.from_bytes(_random_bytes()) & (1 << 74) - 1
    value = (now_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62) << 64
    value |= 0b10 << 62
    value |= random_bits & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
