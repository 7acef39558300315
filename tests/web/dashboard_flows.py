"""Flows that the tests of the dashboard look at, resume and break."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from persistasaurus import Signal, current, flow, sleep, step, wait_for

HOSTILE = "<script>alert(1)</script>\"onerror=alert(1) '</textarea></pre>\x1b[31m\u202e&lt;"


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Parcel:
    size: Size
    count: int
    price: Decimal
    fragile: bool
    labels: list[str]
    note: str | None = None


packed = Signal("dash-packed", Parcel)
counted = Signal("dash-counted", int)
mended = threading.Event()


@step
def dash_create(user_name: str) -> int:
    return len(user_name)


@step
def dash_confirm(confirmed_at: datetime) -> datetime:
    return confirmed_at


@step
def dash_mend(what: str) -> str:
    if not mended.is_set():
        raise RuntimeError(what)
    return what


@flow
def dash_signup(user_name: str) -> str:
    dash_create(user_name)
    at = wait_for(dash_confirm)
    return f"{user_name} confirmed in {at.year}"


@flow
def dash_pack() -> str:
    parcel = packed.wait()
    return f"{parcel.count} {parcel.size} {parcel.price} {parcel.fragile} {parcel.labels} {parcel.note}"


@flow
def dash_count() -> int:
    return counted.wait() + 1


@flow
def dash_break(what: str) -> str:
    return dash_mend(what)


@flow
def dash_sleep() -> str:
    sleep(timedelta(days=3))
    return current().flow_id


@flow
def dash_echo(text: str) -> str:
    return text
