"""`get_flow` on classes, functions and interfaces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, Protocol, assert_type

from persistasaurus import FlowHandle, FlowInstance, Persistasaurus, flow, step
from tests.typing.flows import Signup, gather_pages, say_hello

app = Persistasaurus(":memory:")


class Mailing(Protocol):
    def send(self, to: str) -> int: ...


class Billing(ABC):
    @abstractmethod
    async def bill(self, amount: int) -> str: ...


class PostMailing:
    @flow
    def send(self, to: str) -> int:
        return 1

    @step
    def open_envelope(self, by: str) -> None:
        return None


def of_classes() -> None:
    signup = app.get_flow(Signup, "s-1")
    assert_type(signup, FlowInstance[Signup])
    assert_type(signup.run(lambda f: f.sign_up("a", "b")), int)
    assert_type(signup.run(lambda f: f.sign_up_sync("a")), int)
    assert_type(signup.start(lambda f: f.sign_up("a", "b")), FlowHandle[int])
    assert_type(signup.handle, FlowHandle[Any])
    signup.resume(lambda f: f.confirm(datetime.now(UTC)))
    signup.signal_resume(datetime.now(UTC))


async def of_classes_async() -> None:
    signup = app.get_flow(Signup)
    assert_type(await signup.run_async(lambda f: f.sign_up("a", "b")), int)
    assert_type(await signup.run_async(lambda f: f.sign_up_sync("a")), int)
    await signup.resume_async(lambda f: f.confirm(datetime.now(UTC)))
    await signup.signal_resume_async(datetime.now(UTC))


def of_functions() -> None:
    assert_type(app.get_flow(say_hello, "h-1").run(lambda f: f("World")), int)
    assert_type(app.get_flow(gather_pages, "g-1").run(lambda f: f(["u"])), list[bytes])


def of_interfaces() -> None:
    app.register(Mailing, PostMailing)
    app.register(Billing, lambda: None)
    assert_type(app.get_flow(Mailing, "m-1").run(lambda f: f.send("a")), int)
    assert_type(app.get_flow(Billing, "b-1").run(lambda f: f.bill(3)), str)


def refused() -> None:
    signup = app.get_flow(Signup, "s-1")
    signup.run(lambda f: f.sign_up("a"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportUnknownLambdaType]
    signup.resume(lambda f: f.sign_off())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    app.get_flow(say_hello).run(lambda f: f(3))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    app.get_flow("Signup")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
