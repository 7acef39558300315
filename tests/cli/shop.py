"""The flows that the commands under test start and drive; a module as a user would write it."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from persistasaurus import Persistasaurus, Signal, flow, sleep, step, wait_for

approval = Signal("cli approval", int)


@step
def double(number: int) -> int:
    return number * 2


@flow(name="cli_total")
def total(numbers: list[int], label: str = "sum") -> str:
    return f"{label}: {sum(double(number) for number in numbers)}"


@step
def confirm(at: datetime) -> str:
    return f"confirmed in {at.year}"


@flow(name="cli_confirmed")
def confirmed() -> str:
    return wait_for(confirm)


@flow(name="cli_approved")
def approved() -> int:
    return approval.wait()


@step
def open_door(key: str) -> str:
    if not Path(key).exists():
        raise FileNotFoundError(f"no key {key}")
    return "open"


@flow(name="cli_fragile")
def fragile(key: str) -> str:
    double(1)
    return open_door(key)


@flow(name="cli_patient")
def patient() -> str:
    sleep(3600)
    return "done"


@step
def slow(started: str, seconds: float) -> str:
    Path(started).touch()
    time.sleep(seconds)
    return "slept"


@flow(name="cli_slow")
def slowly(started: str, seconds: float) -> str:
    return slow(started, seconds)


@flow(name="cli_late")
def late() -> None:
    raise TimeoutError("the flow's own")


@step
def echo(text: str) -> str:
    return text


@flow(name="cli_echo")
def echoed(text: str) -> str:
    return echo(text)


@step
def complain(text: str) -> None:
    raise ValueError(text)


@flow(name="cli_complaint")
def complaint(text: str) -> None:
    complain(text)


class Greeter:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    @flow
    def greet(self, name: str) -> str:
        return self.say(name)

    @step
    def say(self, name: str) -> str:
        return f"{self.greeting}, {name}"


def setup(app: Persistasaurus) -> None:
    app.register(Greeter, lambda: Greeter("Hello"))
