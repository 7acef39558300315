"""Flows that carry a marker through everything that is stored, and ways to look for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from persistasaurus import Persistasaurus, Retry, Signal, flow, step, wait_for
from persistasaurus.crypto import AesGcm

MARKER = "s3kr1t-marker"
OLD, NEW = bytes(range(32)), bytes(range(1, 33))

note = Signal("security_note", str)


class Declined(Exception):
    """A failure that carries what it was about."""


@step
def looked_up(text: str) -> dict[str, str]:
    return {"found": text}


@step(retry=Retry(attempts=2, wait=0))
def declined(text: str) -> None:
    raise Declined(f"not {text}")


@step
def confirmed(text: str) -> str:
    return text


@flow(name="security_child")
def child(text: str) -> str:
    return looked_up(text)["found"]


@flow(name="security_failing_child")
def failing_child(text: str) -> None:
    declined(text)


@flow(name="security_busy")
def busy(text: str) -> str:
    """Uses every kind of operation that stores a value."""
    found = looked_up(text)["found"]
    try:
        declined(text)
    except Declined as error:
        found += str(error)
    try:
        failing_child(text)
    except Declined as error:
        found += str(error)
    return found + child(text) + note.wait() + str(wait_for(confirmed))


@flow(name="security_busy_async")
async def busy_async(text: str) -> str:
    return (await child_async(text)) + await note


@flow(name="security_child_async")
async def child_async(text: str) -> str:
    return (await looked_up.submit(text))["found"]


@flow(name="security_waiting")
def waiting(text: str) -> str:
    """Has a recorded step behind it and waits for a note."""
    return looked_up(text)["found"] + note.wait()


class Gate(threading.Event):
    """Holds a step until the test lets it go, and counts who came."""

    entered = 0


gate = Gate()


@step
def held(text: str) -> str:
    gate.entered += 1
    gate.wait(10)
    return text


@flow(name="security_gated")
def gated(text: str) -> str:
    return held(text)


@flow(name="security_failing")
def failing(text: str) -> None:
    declined(text)


def run_busy(app: Persistasaurus, flow_id: str = "busy") -> str:
    """Run the busy flow to its end."""
    handle = app.start(busy.options(flow_id=flow_id), MARKER)
    handle.send(note, MARKER)
    handle.resume(confirmed, MARKER)
    result: str = handle.result(20)
    return result


def files(database: Path) -> list[Path]:
    """Return the database's file with those beside it."""
    return sorted(database.parent.glob(database.name + "*"))


def on_disk(database: Path, text: str = MARKER) -> list[str]:
    """Return the names of the files that hold a text."""
    return [path.name for path in files(database) if text.encode() in path.read_bytes()]


def ciphers(**keys: bytes) -> AesGcm:
    """Return a cipher with these keys, the newest last."""
    return AesGcm(keys)


def mode(path: Path) -> int:
    """Return a file's permissions."""
    return path.stat().st_mode & 0o777


def texts_of(value: Any) -> str:
    """Return all of a record as a text."""
    return repr(value)
