"""Checksums over what a row says, so that a damaged or edited row is found and never believed.

SQLite's own `integrity_check` does not see a flipped bit in a payload. Completed steps are chained:
each checksum starts from that of the flow's event before, so a missing or exchanged row is found too.
The results are signed 32-bit integers, which take four bytes in a row.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812
from zlib import crc32

from persistasaurus._store.base import StepRow

_pack = Struct("<17q").pack

NEVER = 1 << 40
"""What no row holds: the checksum of one that was edited to hold other than whole numbers."""


def step_checksum(row: StepRow, chain: int) -> int:
    """Return the checksum of a step's row after the event whose checksum is `chain` (0 for none)."""
    # By position and packed: every step takes this path, twice as fast as by way of a text.
    key, step, kind, name, status, attempts, asked, started, ended, delay, due, event, before = row[:13]
    parameters, value, error = row[13:16]
    try:
        numbers = _pack(
            key,
            step,
            kind,
            name,
            status,
            attempts,
            asked,
            started,
            -1 if ended is None else ended,
            -1 if delay is None else delay,
            -1 if due is None else due,
            -1 if event is None else event,
            before,
            # -1 is no NULL, "None" is none either, and no text gives its end to the next one.
            (ended is None) + 2 * (delay is None) + 4 * (due is None) + 8 * (event is None),
            -1 if parameters is None else len(parameters),
            -1 if value is None else len(value),
            -1 if error is None else len(error),
        )
    except (StructError, TypeError):
        return NEVER
    texts = f"{parameters}\n{value}\n{error}".encode()
    return _signed(crc32(texts, crc32(numbers, chain & 0xFFFFFFFF)))


def flow_checksum(flow_id: str, name_id: int, created_at_ms: int, seed: int, input_text: str) -> int:
    """Return the checksum of what never changes in a flow's row."""
    return _signed(crc32(f"{flow_id}\n{name_id},{created_at_ms},{seed}\n{input_text}".encode()))


def outcome_checksum(flow_id: str, status: int, result: str | None, error: str | None) -> int:
    """Return the checksum of how a flow ended."""
    return _signed(crc32(f"{flow_id}\n{status}\n{result}\n{error}".encode()))


def signal_checksum(flow_id: str, name: str, payload: str, sent_at_ms: int) -> int:
    """Return the checksum of a signal's row."""
    return _signed(crc32(f"{flow_id}\n{name}\n{sent_at_ms}\n{payload}".encode()))


def _signed(value: int) -> int:
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value
