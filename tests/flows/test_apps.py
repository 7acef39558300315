"""Apps: clients and workers on one file, the user's event loop, entering and leaving, settings."""

from __future__ import annotations

import asyncio
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import persistasaurus
from persistasaurus import (
    AppNotRunningError,
    FlowNotFound,
    FlowStatus,
    Persistasaurus,
    SerializationError,
    Signal,
    StoreError,
    UsageError,
    WrongContextError,
    current,
    flow,
    step,
)
from persistasaurus._engine import engine
from tests.flows.kit import eventually, ran, start

go = Signal("apps-go", str)


class Keys:
    """A cipher of a service that can be away."""

    away = False

    def encrypt(self, data: bytes, *, bound_to: bytes) -> tuple[str, bytes]:
        if self.away:
            raise ConnectionError("the keys are away")
        return "key", data[::-1]

    def decrypt(self, data: bytes, *, key_id: str, bound_to: bytes) -> bytes:
        return data[::-1]


KEYS = Keys()


@step
def takes_the_keys() -> int:
    ran.append(f"attempt {current().attempt}")
    KEYS.away = current().attempt == 1
    return 1


@flow
def apps_unwritable() -> int:
    return takes_the_keys()


def test_an_attempt_of_which_nothing_could_be_written_before_the_app_was_left_is_counted(
    database: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow is given back as after a crash: the step may have run, and has to know."""
    monkeypatch.setattr(engine, "GIVE_UP_S", 0.2)
    with Persistasaurus(database, cipher=KEYS, drain=0.1) as app:
        app.start(apps_unwritable.options(flow_id="f"))
        eventually(lambda: KEYS.away)
    KEYS.away = False
    with Persistasaurus(database, cipher=KEYS) as app:
        assert app.handle("f").result(10) == 1
    assert ran == ["attempt 1", "attempt 2"]


def test_an_error_that_nobody_expects_in_the_writer_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Persistasaurus(tmp_path / "flows.db") as app:

        def fails(_: object) -> None:
            raise MemoryError("none left")

        monkeypatch.setattr(app._engine_here("a test").store, "commit", fails)
        handle = app.handle("f")
        with pytest.raises(StoreError, match="none left"):
            app.start(apps_greets.options(flow_id="f")).result(10)
        with pytest.raises(StoreError, match="none left"):
            handle.result(10)
    with Persistasaurus(tmp_path / "flows.db") as app:
        assert app.run(apps_greets.options(flow_id="f")) == 3


@step
def greet(name: str, count: int) -> int:
    ran.append(f"{name} {count}")
    return count


@flow
def apps_greets(name: str = "World", times: int = 3) -> int:
    return sum(greet(name, i) for i in range(times))


@flow
async def apps_waits() -> str:
    return await go


# Clients, and several apps.


def test_a_client_starts_and_a_worker_in_another_app_drives(database: Path) -> None:
    with Persistasaurus(database, worker=False) as client:
        handle = start(client, apps_greets, "f")
        with pytest.raises(TimeoutError):
            handle.result(0.1)
        assert ran == []
        with Persistasaurus(database):
            assert handle.result(10) == 3
            assert client.run(apps_greets, "again") == 3
            waiting = start(client, apps_waits, "w")
            waiting.send(go, "from the client")
            assert waiting.result(10) == "from the client"


def test_two_apps_share_a_file_and_each_flow_runs_once(database: Path) -> None:
    with Persistasaurus(database) as one, Persistasaurus(database) as two:
        handles = [(one, two)[n % 2].start(apps_greets.options(flow_id=f"f{n}"), f"n{n}") for n in range(30)]
        assert all(handle.result(20) == 3 for handle in handles)
        assert all(two.handle(handle.flow_id).result(10) == 3 for handle in handles)
    assert len(ran) == len(set(ran)) == 90


def test_a_signal_sent_by_one_app_reaches_the_flow_of_another(database: Path) -> None:
    with Persistasaurus(database) as one, Persistasaurus(database) as two:
        start(one, apps_waits, "f")
        two.handle("f").send(go, "over there")
        assert two.handle("f").result(10) == "over there"


def test_apps_on_different_files_know_nothing_of_each_other(tmp_path: Path) -> None:
    with Persistasaurus(tmp_path / "a.db") as one, Persistasaurus(tmp_path / "b.db") as two:
        one.run(apps_greets.options(flow_id="f"), "a")
        two.run(apps_greets.options(flow_id="f"), "b")
        assert two.handle("f").record().input["name"] == "b"


def test_two_hundred_racers_for_one_id_start_one_flow(database: Path) -> None:
    with Persistasaurus(database) as one, Persistasaurus(database) as two:
        found: list[Any] = []

        def race(app: Persistasaurus) -> None:
            for _ in range(25):
                found.append(app.start(apps_greets.options(flow_id="f"), "one").result(20))

        racers = [threading.Thread(target=race, args=(app,)) for app in (one, two) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert found == [3] * 200
    assert len(ran) == 3


# Async.


def test_async_code_runs_on_the_users_loop(database: Path) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        lock = asyncio.Lock()
        here.clear()
        here.update(loop=loop, lock=lock)
        async with Persistasaurus(database) as app:
            handle = await app.start_async(on_my_loop.options(flow_id="f"))
            found = [await handle, await app.run_async(apps_greets, "x"), await handle.status_async()]
            record = await handle.record_async()
            found.append(record.flow_id)
            found.append(len(await handle.steps_async()))
            instance = app.get_flow(apps_waits, "w")
            waiting = asyncio.create_task(instance.run_async(lambda f: f()))
            await app.handle("w").send_async(go, "sent")
            found.append(await waiting)
            with pytest.raises(TimeoutError):
                await (await app.start_async(apps_waits)).result_async(timeout=0.05)
        return found

    assert asyncio.run(main()) == [["same loop", "locked"], 3, FlowStatus.COMPLETE, "f", 1, "sent"]


here: dict[str, Any] = {}


@step
async def use_the_loop() -> list[str]:
    async with here["lock"]:
        same = asyncio.get_running_loop() is here["loop"]
        return ["same loop" if same else "another", "locked"]


@flow
async def on_my_loop() -> list[str]:
    return await use_the_loop()


async def test_blocking_calls_on_the_apps_own_loop_say_the_cure(database: Path) -> None:
    async with Persistasaurus(database) as app:
        with pytest.raises(WrongContextError, match="run_async"):
            app.run(apps_greets)
        handle = await app.start_async(apps_greets)
        with pytest.raises(WrongContextError, match="await handle"):
            handle.result()
        with pytest.raises(WrongContextError, match="run_async"):
            app.get_flow(apps_greets).run(lambda f: f())
        assert await handle == 3


async def test_cancel_and_retry_have_async_forms(database: Path) -> None:
    async with Persistasaurus(database) as app:
        handle = await app.start_async(apps_waits)
        await handle.cancel_async()
        with pytest.raises(persistasaurus.FlowCancelled):
            await handle
        await handle.retry_async()
        with pytest.raises(FlowNotFound):
            await app.handle("nobody").cancel_async()


# Before, after, and inside.


def test_an_app_that_is_not_entered_says_so(database: Path) -> None:
    app = Persistasaurus(database)
    with pytest.raises(AppNotRunningError, match="with app"):
        app.run(apps_greets)
    with app, pytest.raises(UsageError, match="entered already"), app:
        pass
    with pytest.raises(AppNotRunningError, match="left"):
        app.start(apps_greets)
    # when it is entered again
    with app:
        assert app.run(apps_greets) == 3


@flow
def starts_another() -> int:
    return inside["app"].run(apps_greets)


inside: dict[str, Any] = {}


def test_the_app_is_not_for_the_body_of_a_flow(database: Path) -> None:
    with Persistasaurus(database) as app:
        inside["app"] = app
        with pytest.raises(WrongContextError, match="child flow"):
            app.run(starts_another)


@step
def starts_in_a_step() -> int:
    return inside["app"].run(apps_greets, "nested")


@flow
def steps_may_start() -> int:
    return starts_in_a_step()


def test_a_step_may_use_the_app(database: Path) -> None:
    with Persistasaurus(database) as app:
        inside["app"] = app
        assert app.run(steps_may_start) == 3


def test_current_outside_of_a_flow_is_an_error() -> None:
    with pytest.raises(WrongContextError):
        current()


# Settings.


@pytest.mark.parametrize(
    "bad",
    [
        {"drain": -1},
        {"lease": 0},
        {"lease": float("nan")},
        {"max_payload": 0},
        {"crash_limit": 0},
        {"flow_threads": 0},
        {"step_threads": True},
        {"capacity": 1.5},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(database: Path, bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        Persistasaurus(database, **bad)


def test_a_payload_over_the_cap_is_refused(database: Path) -> None:
    with Persistasaurus(database, max_payload=100) as app:
        with pytest.raises(SerializationError, match="100"):
            app.start(apps_greets, "x" * 200)
        with pytest.raises(SerializationError):
            app.handle("f").send(go, "x" * 200)
        assert list(app.flows()) == []


class AppsDated:
    def __init__(self, year: int) -> None:
        self.year = year

    @flow
    def day(self) -> date:
        return date(self.year, 5, 6)


class AppsDatedAnew(AppsDated):
    """Inherits the flow, which has its own name there."""


@pytest.mark.parametrize("cls", [AppsDated, AppsDatedAnew])
def test_a_result_has_its_type_also_where_its_flow_cannot_run(database: Path, cls: type[AppsDated]) -> None:
    """A client that was not told how an instance is made reads what another app has written."""
    with Persistasaurus(database) as app:
        app.register(cls, lambda: cls(2026))
        assert app.get_flow(cls, "d").run(lambda f: f.day()) == date(2026, 5, 6)

    with Persistasaurus(database, worker=False) as client:
        assert client.handle("d").result() == date(2026, 5, 6)


class AppsBase:
    @flow
    def apps_inherited(self) -> str:
        return f"{self.apps_word()} {go.wait()}"

    @step
    def apps_word(self) -> str:
        return "base"


def apps_cell(word: str) -> Any:
    """Define a class as a notebook's cell does, each time it is run."""

    class AppsSub(AppsBase):
        @step
        def apps_word(self) -> str:
            return word

    AppsSub.__qualname__ = "AppsSub"
    return AppsSub


def test_a_flow_that_is_recovered_runs_on_the_class_that_was_defined_last(tmp_path: Path) -> None:
    """As one that is started; the class before it may live on, by a cache or an old instance."""
    old, new = apps_cell("old"), apps_cell("new")
    with Persistasaurus(tmp_path / "flows.db", worker=False) as app:
        app.start(new.apps_inherited.options(flow_id="f"))
    with Persistasaurus(tmp_path / "flows.db") as app:
        app.handle("f").send(go, "word")
        assert app.handle("f").result(10) == "new word"
    assert old is not new
