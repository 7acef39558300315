"""What `start`, `run` and handles take and give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type
from uuid import uuid4

from persistasaurus import FlowHandle, FlowRecord, FlowStatus, Persistasaurus, StepRecord
from tests.typing.flows import Approval, Signup, approval, gather_pages, renamed, say, say_hello

app = Persistasaurus("flows.db", drain=5, lease=timedelta(seconds=20), worker=False)
app.register(Signup, lambda: Signup("m"))


def starting() -> None:
    with app as entered:
        assert_type(entered, Persistasaurus)
    assert_type(app.start(say_hello, "x"), FlowHandle[int])
    assert_type(app.start(say_hello), FlowHandle[int])
    assert_type(app.start(gather_pages, ["u"]), FlowHandle[list[bytes]])
    assert_type(app.start(Signup.sign_up, "a", "b"), FlowHandle[int])
    assert_type(app.start(Signup.sign_up_sync, user_name="a"), FlowHandle[int])
    assert_type(app.start(say_hello.options(flow_id="h-1"), "x"), FlowHandle[int])
    assert_type(app.start(Signup.sign_up.options(flow_id=uuid4()), "a", email="b"), FlowHandle[int])
    assert_type(app.run(say_hello, "x"), int)
    assert_type(app.run(gather_pages, ["u"]), list[bytes])
    assert_type(app.run(Signup.sign_up, "a", "b"), int)
    assert_type(app.run(renamed, 3, loud=True), str)
    assert_type(app.run(gather_pages.options(flow_id="g"), []), list[bytes])


async def starting_async() -> None:
    async with app as entered:
        assert_type(entered, Persistasaurus)
    assert_type(await app.start_async(say_hello, "x"), FlowHandle[int])
    assert_type(await app.start_async(gather_pages, ["u"]), FlowHandle[list[bytes]])
    assert_type(await app.start_async(Signup.sign_up, "a", "b"), FlowHandle[int])
    assert_type(await app.run_async(say_hello, "x"), int)
    assert_type(await app.run_async(gather_pages, ["u"]), list[bytes])
    assert_type(await app.run_async(Signup.sign_up.options(flow_id="s"), "a", "b"), int)


def handles() -> None:
    handle = app.start(Signup.sign_up, "a", "b")
    assert_type(handle.flow_id, str)
    assert_type(handle.result(), int)
    assert_type(handle.result(timeout=60), int)
    assert_type(handle.result(timedelta(minutes=1)), int)
    assert_type(handle.status(), FlowStatus)
    assert_type(handle.record(), FlowRecord)
    assert_type(handle.steps(), list[StepRecord])
    assert_type(app.handle("h-1"), FlowHandle[Any])
    for record in app.flows(status=FlowStatus.FAILED, flow=say_hello, created_after=datetime.now(UTC)):
        assert_type(record, FlowRecord)
    app.flows(flow=Signup.sign_up, status=["FAILED", FlowStatus.PARKED])
    handle.resume(Signup.confirm, datetime.now(UTC))
    handle.resume(say, "a", count=2)
    handle.send(approval, Approval("a", granted=True))
    handle.send("typing-approval", {"by": "a", "granted": True})
    handle.cancel()
    handle.retry()


async def handles_async() -> None:
    handle = await app.start_async(Signup.sign_up, "a", "b")
    assert_type(await handle, int)
    assert_type(await handle.result_async(timeout=1.5), int)
    assert_type(await handle.status_async(), FlowStatus)
    assert_type(await handle.record_async(), FlowRecord)
    assert_type(await handle.steps_async(), list[StepRecord])
    await handle.resume_async(Signup.confirm, datetime.now(UTC))
    await handle.send_async(approval, Approval("a", granted=True))
    await handle.cancel_async()
    await handle.retry_async()


def refused() -> None:
    handle = app.start(say_hello)
    app.start(say_hello, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    app.start(Signup.sign_up, "a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    app.run(say_hello, "a", "b")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    app.run(say_hello, nme="a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    app.run(say, "a")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    handle.resume(Signup.confirm, "now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    handle.resume(Signup.confirm)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    handle.send(approval, True)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    handle.result("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    say_hello.options(flow_id=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Persistasaurus("f.db", durability="none")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
