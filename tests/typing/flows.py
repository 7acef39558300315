"""The flows and steps that the other files of this folder use, and what decorating gives."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

from persistasaurus import Flow, Retry, Signal, Step, flow, step


@dataclass(frozen=True)
class Approval:
    by: str
    granted: bool


approval = Signal("typing-approval", Approval)
lines = Signal("typing-lines", list[str])


@step
def say(name: str, count: int = 1) -> int:
    return count


@step
async def fetch(url: str) -> bytes:
    return b""


@step(delay=timedelta(days=3), retry=Retry(attempts=5, on=(OSError, ValueError)), timeout=10, name="post")
async def send_mail(to: str) -> None:
    return None


@step()
def plain(value: float) -> str:
    return str(value)


@flow
def say_hello(name: str = "World") -> int:
    return say(name)


@flow
async def gather_pages(urls: list[str]) -> list[bytes]:
    return [await fetch(url) for url in urls]


@flow(name="renamed")
def renamed(count: int, /, *, loud: bool = False) -> str:
    return "x" * count


@flow(name="renamed-async")
async def renamed_async(count: int) -> str:
    return "x" * count


class Signup:
    def __init__(self, mailer: str) -> None:
        self.mailer = mailer

    @flow
    async def sign_up(self, user_name: str, email: str) -> int:
        return await self.create_user(user_name, email)

    @flow
    def sign_up_sync(self, user_name: str) -> int:
        return self.create_user_sync(user_name)

    @step
    async def create_user(self, user_name: str, email: str) -> int:
        return 1

    @step
    def create_user_sync(self, user_name: str) -> int:
        return 1

    @step(delay=3.5)
    async def welcome(self, user_id: int) -> None:
        return None

    @step
    async def confirm(self, confirmed_at: datetime) -> datetime:
        return confirmed_at


assert_type(say("a", 2), int)
assert_type(say.submit("a").result(), int)
assert_type(plain(1.5), str)
assert_type(say_hello("x"), int)
assert_type(renamed(1, loud=True), str)


async def outside() -> None:
    assert_type(await fetch("u"), bytes)
    assert_type(await gather_pages(["u"]), list[bytes])
    assert_type(await renamed_async(1), str)
    signup = Signup("m")
    assert_type(await signup.sign_up("a", "b"), int)
    assert_type(await signup.create_user("a", "b"), int)
    assert_type(signup.create_user_sync("a"), int)
    assert_type(await signup.welcome(1), None)


def takes_any_step(given: Step[..., Any]) -> None: ...


def takes_a_step(given: Step[[str], Coroutine[Any, Any, bytes]]) -> None: ...


def takes_a_flow(given: Flow[[list[str]], Coroutine[Any, Any, list[bytes]]]) -> None: ...


takes_any_step(say)
takes_any_step(Signup.confirm)

say(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
say("a", b=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
say.submit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
renamed(count=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Signup("m").create_user_sync(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
step(delay="3 days")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
step(retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
flow(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
