"""The app, handles, instances and records: what a user holds and asks."""

from __future__ import annotations

import inspect
import logging
import uuid
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

import persistasaurus
from persistasaurus import (
    DuplicateNameError,
    FlowConflict,
    FlowNotFound,
    FlowStatus,
    InvalidFlowIdError,
    NotMarkableError,
    Persistasaurus,
    SerializationError,
    Signal,
    UnknownFlowError,
    UsageError,
    errors,
    flow,
    step,
)
from tests.flows import foreign
from tests.flows.kit import eventually, log_of, ran, sql, start, until_waiting

go = Signal("api-go", str)


@step
def say(name: str, count: int) -> int:
    ran.append(f"Hello, {name} ({count})")
    return count


@flow
def greets(name: str = "World", times: int = 3) -> int:
    return sum(say(name, i) for i in range(times))


@flow
async def waits() -> str:
    return await go


# Starting.


def test_run_starts_waits_and_returns(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert app.run(greets, "World") == 3
    assert ran == [f"Hello, World ({n})" for n in range(3)]


def test_the_same_id_flow_and_input_is_the_same_instance(database: Path) -> None:
    with Persistasaurus(database) as app:
        first = app.start(greets.options(flow_id="f"), "World", 3)
        again = app.start(greets.options(flow_id="f"), times=3, name="World")
        by_default = app.start(greets.options(flow_id="f"))
        assert first.result(10) == again.result(10) == by_default.result(10) == 3
    assert len(ran) == 3


@pytest.mark.peer("an id reused with another function")
def test_another_input_or_another_flow_is_a_conflict(database: Path) -> None:
    with Persistasaurus(database) as app:
        app.run(greets.options(flow_id="f"), "World")
        with pytest.raises(FlowConflict, match="another input"):
            app.start(greets.options(flow_id="f"), "Moon")
        with pytest.raises(FlowConflict, match="another flow"):
            app.start(waits.options(flow_id="f"))
        with pytest.raises(FlowConflict):
            app.get_flow(greets, "f").run(lambda f: f("Moon"))


@pytest.mark.parametrize("bad", [(3,), ("x", "3"), ("x", 1.5), (None,)])
def test_arguments_are_checked_before_anything_is_recorded(database: Path, bad: tuple[Any, ...]) -> None:
    with Persistasaurus(database) as app:
        with pytest.raises(SerializationError, match="greets"):
            app.start(greets, *bad)
        assert list(app.flows()) == []


@pytest.mark.parametrize("bad", [("a", 1, 2), ()])
def test_arguments_that_do_not_bind_are_a_type_error(database: Path, bad: tuple[Any, ...]) -> None:
    with Persistasaurus(database) as app, pytest.raises(TypeError):
        app.start(needs_two, *bad)


@flow
def needs_two(a: str, b: int) -> str:
    return a * b


def test_what_is_no_flow_is_refused(database: Path) -> None:
    with Persistasaurus(database) as app:
        for wrong in (say, len, "greets", None):
            with pytest.raises(UsageError):
                app.start(wrong)  # type: ignore[call-overload]


# Ids.


@pytest.mark.parametrize(
    "good", ["f", "x" * 512, "ünï/code 🦕", uuid.UUID(int=5), "../../etc", "'; DROP TABLE flow"]
)
def test_an_id_is_any_short_text(database: Path, good: Any) -> None:
    with Persistasaurus(database) as app:
        app.run(greets.options(flow_id=good))
        assert app.handle(good).record().flow_id == str(good)


@pytest.mark.parametrize("bad", ["", "x" * 513, "a\0b", "\ud800", 3, b"x", "x" * 10_000])
def test_an_id_that_no_database_holds_is_refused(database: Path, bad: Any) -> None:
    with Persistasaurus(database) as app:
        for use in (lambda: app.start(greets.options(flow_id=bad)), lambda: app.handle(bad)):
            with pytest.raises((InvalidFlowIdError, TypeError)):
                use()
        with pytest.raises((InvalidFlowIdError, TypeError)):
            app.get_flow(greets, bad)


def test_a_new_id_is_a_uuid_that_sorts_by_time(database: Path) -> None:
    with Persistasaurus(database) as app:
        ids = [app.start(waits).flow_id for _ in range(3)]
        instance = app.get_flow(greets)
        assert instance.run(lambda f: f("World")) == 3
    assert all(uuid.UUID(one).version == 7 for one in [*ids, instance.flow_id])


def test_an_unknown_id_is_not_found_at_the_first_question(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = app.handle("nobody")
        for question in (handle.status, handle.record, handle.steps, handle.retry, lambda: handle.result(1)):
            with pytest.raises(FlowNotFound, match="nobody"):
                question()


# Classes.


class Mailer:
    def __init__(self) -> None:
        self.sent: list[str] = []


class Onboarding:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer

    @flow
    def sign_up(self, user: str) -> str:
        user_id = self.create(user)
        self.welcome(user_id)
        return user_id

    @step
    def create(self, user: str) -> str:
        return f"id-{user}"

    @step
    def welcome(self, user_id: str) -> None:
        self.mailer.sent.append(user_id)


def test_a_class_with_dependencies_is_registered_with_a_factory(database: Path) -> None:
    mailer = Mailer()
    made: list[Onboarding] = []

    def make() -> Onboarding:
        made.append(Onboarding(mailer))
        return made[-1]

    app = Persistasaurus(database)
    app.register(Onboarding, make)
    with app:
        assert app.run(Onboarding.sign_up, "ann") == "id-ann"
        assert app.get_flow(Onboarding, "f").run(lambda f: f.sign_up("bob")) == "id-bob"
        assert app.handle("f").record().name == "Onboarding.sign_up"
        assert [row.class_name for row in app.handle("f").steps()] == ["Onboarding", "Onboarding"]
    # then each flow instance has an object of its own
    assert len(made) == 2
    assert mailer.sent == ["id-ann", "id-bob"]


def test_a_class_that_is_not_registered_is_refused_with_the_cure(database: Path) -> None:
    with Persistasaurus(database) as app:
        with pytest.raises(UnknownFlowError, match="register"):
            app.start(Onboarding.sign_up, "ann")
        # when it is registered after entering
        mailer = Mailer()
        app.register(Onboarding, lambda: Onboarding(mailer))
        assert app.run(Onboarding.sign_up, "ann") == "id-ann"


class Orders(Protocol):
    def place(self, item: str) -> str: ...


class Shop(ABC):
    @abstractmethod
    def open(self) -> str: ...


class Warehouse(Shop):
    @flow
    def place(self, item: str) -> str:
        return self.pick(item)

    @flow
    def open(self) -> str:
        return self.pick("open")

    @step
    def pick(self, item: str) -> str:
        return f"picked {item}"


class OtherWarehouse(Shop):
    @flow
    def place(self, item: str) -> str:
        return item

    @flow
    def open(self) -> str:
        return "other"


@pytest.mark.parametrize("interface", [Orders, Shop])
def test_an_interface_stands_for_its_one_implementation(database: Path, interface: Any) -> None:
    with Persistasaurus(database) as app:
        app.register(interface, Warehouse)
        instance = app.get_flow(interface, "f")
        method = (lambda f: f.place("x")) if interface is Orders else (lambda f: f.open())
        assert instance.run(method).startswith("picked")
        assert app.handle("f").record().name.startswith("Warehouse.")
        with pytest.raises(DuplicateNameError):
            app.register(interface, OtherWarehouse)
        with pytest.raises(UsageError, match="no subclass"):
            app.register(Shop, Onboarding)


def test_a_lambda_calls_one_flow(database: Path) -> None:
    with Persistasaurus(database) as app:
        instance = app.get_flow(Warehouse, "f")
        for wrong in (
            lambda f: None,
            lambda f: (f.place("a"), f.place("b")),
            lambda f: f.pick("a"),
        ):
            with pytest.raises(UsageError):
                instance.run(wrong)
        with pytest.raises(AttributeError):
            instance.run(lambda f: f.unknown())
        with pytest.raises(UsageError):
            app.get_flow(say)  # type: ignore[call-overload]


def test_a_function_flow_has_instances_too(database: Path) -> None:
    with Persistasaurus(database) as app:
        assert app.get_flow(greets, "f").run(lambda f: f("World", times=2)) == 1
        assert app.get_flow(greets, "f").run(lambda f: f("World", 2)) == 1
    assert len(ran) == 2


# Looking.


def test_flows_are_listed_newest_first_with_filters(database: Path) -> None:
    with Persistasaurus(database) as app:
        # given
        for n in range(3):
            app.run(greets.options(flow_id=f"done-{n}"))
        until_waiting(start(app, waits, "waits"))
        broken_at = datetime.now(UTC)

        def ids(**which: Any) -> list[str]:
            return [record.flow_id for record in app.flows(**which)]

        # then
        assert ids() == ["waits", "done-2", "done-1", "done-0"]
        assert ids(status=FlowStatus.COMPLETE) == ["done-2", "done-1", "done-0"]
        assert ids(status="WAITING_FOR_SIGNAL") == ["waits"]
        assert ids(status=[FlowStatus.FAILED, FlowStatus.PARKED]) == []
        assert ids(flow=waits) == ["waits"]
        assert ids(flow="greets") == ["done-2", "done-1", "done-0"]
        assert ids(flow="unknown") == []
        assert ids(id_prefix="done-") == ["done-2", "done-1", "done-0"]
        assert ids(created_before=broken_at - timedelta(hours=1)) == []
        assert len(ids(created_after=broken_at - timedelta(hours=1))) == 4
        with pytest.raises(ValueError, match="naive"):
            ids(created_after=datetime(2026, 1, 1))
        with pytest.raises(ValueError, match="status"):
            ids(status="DONE")


def test_flows_come_in_pages_and_all_of_them(database: Path) -> None:
    with Persistasaurus(database, worker=False) as app:
        for n in range(450):
            app._start(greets.options(flow_id=f"f{n}"), (), {}, "start")[0].result()
        listed = app.flows()
        assert inspect.isgenerator(listed) or hasattr(listed, "__next__")
        assert [record.flow_id for record in listed] == [f"f{n}" for n in reversed(range(450))]


def test_records_show_everything(database: Path) -> None:
    before = datetime.now(UTC)
    with Persistasaurus(database) as app:
        handle = start(app, greets, "f", "World", 2)
        handle.result(10)
        record = handle.record()
        steps = handle.steps()
    assert (record.flow_id, record.name, record.status) == ("f", "greets", FlowStatus.COMPLETE)
    assert record.input == {"name": "World", "times": 2}
    assert (record.result, record.error, record.reason) == (1, None, None)
    assert before - timedelta(seconds=1) < record.created_at <= record.updated_at
    assert record.created_at.tzinfo is not None
    first = steps[0]
    assert (first.step, first.class_name, first.method_name) == (1, "", "say")
    assert (first.status, first.attempts, first.delay) == (FlowStatus.COMPLETE, 1, None)
    assert (first.parameters, first.return_value) == ({"name": "World", "count": 0}, 0)
    assert first.timestamp.tzinfo is not None


@step(delay=timedelta(milliseconds=30))
def later() -> str:
    return "later"


@flow
def delayed() -> str:
    return later()


def test_the_execution_log_is_there_for_any_sql_tool(database: Path) -> None:
    with Persistasaurus(database) as app:
        app.run(delayed.options(flow_id="f"))
    rows = sql(
        database,
        "SELECT flow_id, step, class_name, method_name, delay, status, attempts, parameters, return_value,"
        " error FROM execution_log ORDER BY step",
    )
    assert rows == [
        ("f", 0, "", "delayed", None, "COMPLETE", 1, "{}", '"later"', None),
        ("f", 1, "", "later", 30, "COMPLETE", 1, "{}", '"later"', None),
    ]
    ((timestamp,),) = sql(database, "SELECT min(timestamp) FROM execution_log")
    assert abs(timestamp / 1000 - datetime.now(UTC).timestamp()) < 60


def test_the_log_shows_step_zero_as_pending_and_the_wait_as_waiting(database: Path) -> None:
    with Persistasaurus(database) as app:
        until_waiting(start(app, waits, "f"))
        rows = sql(database, "SELECT step, status FROM execution_log ORDER BY step")
        assert rows == [(0, "PENDING"), (1, "WAITING_FOR_SIGNAL")]


def test_a_result_that_is_late_is_a_timeout_and_the_flow_goes_on(database: Path) -> None:
    with Persistasaurus(database) as app:
        handle = start(app, waits, "f")
        with pytest.raises(TimeoutError, match="'f'"):
            handle.result(timeout=0.05)
        handle.send(go, "x")
        assert handle.result(timedelta(seconds=10)) == "x"
        with pytest.raises(ValueError, match="timeout"):
            handle.result(timeout=-1)


# Names.


def test_two_flows_of_one_name_are_an_error() -> None:
    with pytest.raises(DuplicateNameError, match="foreign_flow"):

        @flow(name="foreign_flow")
        def mine() -> None: ...

    assert foreign.foreign_flow is not None


def test_a_given_name_is_the_flows_name(database: Path) -> None:
    @step(name="a step's name")
    def odd() -> int:
        return 1

    @flow(name="a given name")
    def named() -> int:
        return odd()

    with Persistasaurus(database) as app:
        handle = start(app, named, "f")
        assert handle.result(10) == 1
        assert handle.record().name == "a given name"
        assert log_of(handle) == [(1, "a step's name", "COMPLETE")]


def test_a_flow_defined_after_entering_is_driven_and_recovered(database: Path) -> None:
    with Persistasaurus(database, flow_threads=1) as app:

        @flow(name="defined late")
        def late() -> str:
            return go.wait()

        handle = until_waiting(start(app, late, "f"))
        handle.send(go, "in time")
        assert handle.result(10) == "in time"


@pytest.mark.parametrize("marker", [flow, step])
def test_what_cannot_be_marked_is_refused(marker: Any) -> None:
    def generator() -> Any:
        yield 1

    async def async_generator() -> Any:
        yield 1

    for wrong in (generator, async_generator, lambda: 1, staticmethod(generator), 3, int):
        with pytest.raises(NotMarkableError):
            marker(wrong)


def test_every_error_is_exported() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined <= set(persistasaurus.__all__)


# Flows that no worker knows.


def test_a_flow_that_no_worker_knows_stays_pending_and_says_so(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a flow whose definition is gone
    @flow(name="soon unknown")
    def soon_unknown() -> str:
        return go.wait()

    from persistasaurus._engine import registry

    with Persistasaurus(database) as app:
        until_waiting(start(app, soon_unknown, "f"))
    with monkeypatch.context() as gone:
        gone.delitem(registry._defined, ("", "soon unknown"))
        with Persistasaurus(database) as app:
            # when
            app.handle("f").send(go, "x")
            # then
            reason = eventually(lambda: app.handle("f").record().reason)
            assert "soon unknown" in reason
            assert app.handle("f").status() in (FlowStatus.PENDING, FlowStatus.WAITING_FOR_SIGNAL)
    # when a worker knows it again
    with Persistasaurus(database) as app:
        assert app.handle("f").result(10) == "x"
        assert app.handle("f").record().reason is None


# Logging.


@flow
def secretive(secret: str) -> str:
    return whisper(secret)


@step
def whisper(secret: str) -> str:
    raise ValueError("hidden")


def test_the_log_has_fields_and_no_payloads(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="persistasaurus")
    with Persistasaurus(database) as app:
        handle = start(app, secretive, "f", "pa55word")
        with pytest.raises(ValueError, match="hidden"):
            handle.result(10)
        start(app, greets, "g", "pa55word").result(10)
    mine = [record for record in caplog.records if getattr(record, "flow_id", None) == "f"]
    assert mine
    assert all("pa55word" not in str(vars(record)) for record in caplog.records)
