"""A flow, and a class of flows that must be registered."""

from __future__ import annotations

import os

from persistasaurus import Persistasaurus, flow, step


@step
def count_letters(name: str) -> int:
    return len(name)


@flow(name="dev-greet")
def greet(name: str) -> int:
    return count_letters(name)


def register(app: Persistasaurus) -> None:
    print("registered in", os.getpid())
