"""How the processes under test say what they do: a line in a pipe that survives them."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from persistasaurus import current

_pipe = int(os.environ["CRASH_REPORTS"])
_serial = 0


def begin(serial: int) -> None:
    """Say which process this is."""
    globals()["_serial"] = serial


def serial() -> int:
    """Return which process this is."""
    return _serial


def report(what: str, **fields: Any) -> None:
    """Report a fact; a line below 4,096 bytes is written whole or not at all."""
    line = (
        json.dumps(
            {"what": what, "serial": _serial, "at": time.monotonic(), "ms": int(time.time() * 1000), **fields}
        )
        + "\n"
    )
    os.write(_pipe, line.encode())


def report_effect() -> str:
    """Report that a step's effect begins; return a value that no other attempt of any step has."""
    here = current()
    report("effect", flow=here.flow_id, step=here.step, attempt=here.attempt, key=here.idempotency_key)
    return f"{here.step}/{here.attempt}/{_serial}/{os.urandom(4).hex()}"


def report_end(value: str) -> str:
    """Report what an effect gives."""
    here = current()
    report("end", flow=here.flow_id, step=here.step, attempt=here.attempt, value=value)
    return value


def saw(value: str) -> str:
    """Report that the body of a flow has seen a step's value: it is recorded."""
    report("saw", flow=current().flow_id, step=int(value.partition("/")[0]), value=value)
    return value
