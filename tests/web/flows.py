"""Flows that the tests of the routes start, resume, break and cancel."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from persistasaurus import Signal, flow, step, wait_for


@dataclass(frozen=True)
class Part:
    sku: str
    parts: list[Part] = field(default_factory=list["Part"])


@dataclass(frozen=True)
class Answer:
    by: str
    granted: bool


granted = Signal("web-granted", Answer)
broken = {"now": True}


@step
def web_confirm(at: datetime) -> datetime:
    return at


@step
def web_mend() -> str:
    if broken["now"]:
        raise RuntimeError("<script>alert(1)</script>")
    return "mended"


@flow
def web_greet(name: str = "World") -> str:
    """Greets somebody."""
    return f"Hello, {name}"


@flow
async def web_order(part: Part, count: int = 1) -> str:
    """Orders a part, once somebody has granted it."""
    answer = await granted
    return f"{count} {part.sku}, says {answer.by}"


@flow
def web_wait() -> int:
    return wait_for(web_confirm).year


@flow
def web_break() -> str:
    return web_mend()


@flow
def web_many(steps: int) -> int:
    return sum(web_count(i) for i in range(steps))


@step
def web_count(number: int) -> int:
    return number
