"""Flow ids: what is one, and how a new one is made."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from persistasaurus.errors import InvalidFlowIdError

LONGEST = 512


def checked_id(value: Any) -> str:
    """Return a flow id as text.

    Raises:
        InvalidFlowIdError: it is not a text of 1 to 512 characters without NUL and surrogates, nor a `UUID`.
    """
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        raise InvalidFlowIdError(f"A flow id is a text or a UUID, not a {type(value).__name__}.")
    if not 1 <= len(value) <= LONGEST:
        raise InvalidFlowIdError(f"A flow id has 1 to {LONGEST} characters; this one has {len(value)}.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidFlowIdError(f"The flow id {value!r} holds a NUL or a lone surrogate, which no database can store.")
    return value


def new_id(now_ms: int) -> str:
    """Return a new UUIDv7 (RFC 9562): 48 bits of milliseconds, then random ones, so that ids sort by age."""
    random_bits = secrets.randbits(74)
    value = (now_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62) << 64
    value |= 0b10 << 62
    value |= random_bits & (1 << 62) - 1
    return str(uuid.UUID(int=value))
