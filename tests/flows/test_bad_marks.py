"""What `@flow`, `@step`, `Retry`, `Signal` and `app.register` refuse, before anything can go wrong."""

from __future__ import annotations

import functools
import math
import types
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from persistasaurus import (
    DuplicateNameError,
    NotMarkableError,
    Persistasaurus,
    Retry,
    Signal,
    UnknownFlowError,
    UsageError,
    flow,
    sleep,
    step,
)
from tests.flows.unharmed import unharmed

MARKS = [pytest.param(flow, id="flow"), pytest.param(step, id="step")]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of this file: what is refused leaves nothing in it."""
    return tmp_path_factory.mktemp("bad") / "flows.db"


@pytest.fixture(scope="module")
def app(database: Path) -> Iterator[Persistasaurus]:
    with Persistasaurus(database) as entered:
        yield entered


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def plain() -> int:
    return 1


class Callables:
    def __call__(self) -> int:
        return 1

    def method(self) -> int:
        return 1


UNMARKABLE = {
    "generator": (
        generator,
        "cannot mark 'generator': it is a generator, whose values would not be recorded. ",
    ),
    "async generator": (
        async_generator,
        "cannot mark 'async_generator': it is a generator, .* Return a list",
    ),
    "lambda": (
        lambda: 1,
        "cannot mark a lambda: it has no name by which to find it after a restart. Use `def`.",
    ),
    "staticmethod": (
        staticmethod(plain),
        "was put on a staticmethod, which has no instance .* Use a module-level",
    ),
    "classmethod": (
        classmethod(plain),
        "was put on a classmethod, which has no instance .* Use a module-level",
    ),
    "class": (Callables, "marks functions and methods, not a type: .* Wrap it in a `def`"),
    "object": (Callables(), "marks functions and methods, not a Callables: .* Wrap it in a `def`"),
    "bound method": (Callables().method, "marks functions and methods, not a method: .* Wrap it in a `def`"),
    "builtin": (len, "marks functions and methods, not a builtin_function_or_method: .* Wrap it in a `def`"),
    "partial": (
        functools.partial(plain),
        "marks functions and methods, not a partial: .* Wrap it in a `def`",
    ),
    "property": (property(plain), "marks functions and methods, not a property: .* Wrap it in a `def`"),
    "integer": (3, "marks functions and methods, not an int: .* Wrap it in a `def`"),
    "step": (step(plain), "marks functions and methods, not a Step: .* Wrap it in a `def`"),
}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("what", UNMARKABLE)
def test_only_functions_and_methods_can_be_marked(mark: Any, what: str) -> None:
    """The mark refuses at once, where the mistake is, also as a TypeError; the message has the cure."""
    thing, message = UNMARKABLE[what]
    with pytest.raises(NotMarkableError, match=f"^@{mark.__name__} {message}") as caught:
        mark(thing)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize(
    "name", ["", "a\0b", "\ud800", "x" * 257, 3], ids=["empty", "NUL", "surrogate", "long", "int"]
)
def test_a_name_that_no_database_can_keep_is_refused(mark: Any, name: Any) -> None:
    """One flow of such a name would keep every app of the process from telling what it knows."""
    with pytest.raises(UsageError, match=r"no database can keep it\. Give a text of 1 to 256 characters"):
        mark(name=name)(plain)


class Hidden:
    @staticmethod
    @flow
    def static_flow() -> int:
        return 1

    @classmethod
    @flow
    def class_flow(cls) -> int:
        return 1

    @staticmethod
    @step
    def static_step() -> int:
        return 1


@flow
def calls_a_static_step() -> int:
    return Hidden.static_step()


@pytest.mark.parametrize(
    "hidden", [Hidden.static_flow, Hidden.class_flow], ids=["staticmethod", "classmethod"]
)
def test_a_flow_that_its_class_does_not_know_is_not_started(
    app: Persistasaurus, database: Path, hidden: Any
) -> None:
    """Another decorator hides it: after a restart it would not be found."""
    message = r"stands in a class that does not know it: another decorator, .* hides it\. Put @flow on top"
    with unharmed(app, database), pytest.raises(NotMarkableError, match=message):
        app.start(hidden)


def test_a_step_that_its_class_does_not_know_is_not_called(app: Persistasaurus) -> None:
    """The flow that calls it fails; outside of a flow it is a plain function."""
    assert Hidden.static_step() == 1
    with pytest.raises(NotMarkableError, match=r"The step 'Hidden\.static_step' .* Put @step on top"):
        app.run(calls_a_static_step)


def module_of(name: str, source: str) -> types.ModuleType:
    """Run source as a module of its own, as a second file or a reload would."""
    module = types.ModuleType(name)
    code = compile(f"from persistasaurus import flow, step\n{source}", f"/nowhere/{name}.py", "exec")
    exec(code, vars(module))
    return module


def test_two_flows_of_one_name_from_different_modules_are_an_error(
    app: Persistasaurus, database: Path
) -> None:
    """After a restart a flow is found by its name alone. The first one goes on."""
    first = module_of("twin_one", "@flow\ndef twin() -> int: return 1")
    with (
        unharmed(app, database),
        pytest.raises(
            DuplicateNameError, match=r"'twin': one in twin_one \(/nowhere.*@flow\(name="
        ) as caught,
    ):
        module_of("twin_two", "@flow\ndef twin() -> int: return 2")
    assert "twin_two" in str(caught.value)
    assert app.run(first.twin) == 1


def test_two_methods_of_one_name_from_different_modules_are_an_error(app: Persistasaurus) -> None:
    """A class is part of the name; the second class is refused before it exists."""
    source = "class Twins:\n    @flow\n    def go(self) -> int: return "
    first = module_of("twins_one", f"{source}1")
    with pytest.raises(DuplicateNameError, match=r"Two flows are named 'Twins\.go'"):
        module_of("twins_two", f"{source}2")
    assert app.run(first.Twins.go) == 1


def test_the_same_function_defined_again_replaces_the_old_one(app: Persistasaurus) -> None:
    """As a notebook's cell or a reload does."""
    module_of("reloaded", "@flow\ndef of_a_notebook() -> int: return 1")
    second = module_of("reloaded", "@flow\ndef of_a_notebook() -> int: return 2")
    assert app.run(second.of_a_notebook) == 2


def test_a_signal_carries_one_type_in_a_process() -> None:
    """A sender who knows only the name could not tell two types apart."""
    Signal("of one type", int)
    assert Signal("of one type", int).name == "of one type"
    with pytest.raises(
        DuplicateNameError, match="'of one type' carries <class 'int'> already and cannot carry"
    ):
        Signal("of one type", str)


@pytest.mark.parametrize(
    "name", ["", "a\0b", "\ud800", "x" * 257, 3], ids=["empty", "NUL", "surrogate", "long", "int"]
)
def test_a_signal_has_a_name_that_can_be_kept(name: Any) -> None:
    """So that it can be stored before anyone waits for it."""
    with pytest.raises(UsageError, match=r"cannot be kept\. Give a text of 1 to 256 characters"):
        Signal(name, int)


def test_a_signal_is_not_called_as_resumed_steps_are() -> None:
    """Both share one queue."""
    with pytest.raises(
        UsageError, match=r"begins with 'step:', which stands for resumed steps\. Use another name"
    ):
        Signal("step:confirm", int)


WRONG_DURATIONS = {
    "negative": (-1, ValueError, r"is negative \(-1\). Time only goes forward: give zero or more."),
    "negative timedelta": (timedelta(seconds=-1), ValueError, "is negative .* give zero or more."),
    "NaN": (math.nan, ValueError, "is nan. Give a finite number of seconds or a timedelta."),
    "infinite": (math.inf, ValueError, "is inf. Give a finite number of seconds or a timedelta."),
    "minus infinite": (-math.inf, ValueError, "is -inf. Give a finite number of seconds or a timedelta."),
    "huge float": (1e308, ValueError, "is longer than 10,000 years .* Give a shorter one."),
    "huge integer": (10**400, ValueError, "is longer than 10,000 years .* Give a shorter one."),
    "huge timedelta": (timedelta.max, ValueError, "is longer than 10,000 years .* Give a shorter one."),
    "text": ("3", TypeError, "is of type str. Give a number of seconds or a timedelta."),
    "bool": (True, TypeError, "is of type bool. Give a number of seconds or a timedelta."),
}
TAKE_A_DURATION: dict[str, Callable[[Any], object]] = {
    "@step(delay=...)": lambda wrong: step(delay=wrong),
    "@step(timeout=...)": lambda wrong: step(timeout=wrong),
    "Retry(wait=...)": lambda wrong: Retry(wait=wrong),
    "Retry(max_wait=...)": lambda wrong: Retry(max_wait=wrong),
    "the duration of sleep": sleep,
    "lease": lambda wrong: Persistasaurus(":memory:", lease=wrong),
    "drain": lambda wrong: Persistasaurus(":memory:", drain=wrong),
}


@pytest.mark.parametrize("wrong", WRONG_DURATIONS)
@pytest.mark.parametrize("place", TAKE_A_DURATION)
def test_a_duration_is_finite_and_not_negative(place: str, wrong: str) -> None:
    """The message names the place."""
    value, error, message = WRONG_DURATIONS[wrong]
    with pytest.raises(error) as caught:
        TAKE_A_DURATION[place](value)
    caught.match(f"{message}$")
    assert str(caught.value).startswith(f"{place} is ")


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": True},
        {"attempts": 2.5},
        {"attempts": "3"},
        {"backoff": 0.5},
        {"backoff": math.nan},
        {"backoff": "2"},
        {"jitter": -0.1},
        {"jitter": math.inf},
        {"jitter": "0.1"},
        {"on": "ValueError"},
        {"on": [ValueError]},
        {"on": int},
        {"unless": 3},
        {"unless": (ValueError, "KeyError")},
    ],
    ids=str,
)
def test_a_retry_that_makes_no_sense_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """Not in the moment in which the step fails, where nobody would hear of it."""
    with pytest.raises(ValueError, match=rf"^Retry\({next(iter(options))}=.*: give "):
        Retry(**options)


def test_a_step_takes_a_retry_and_nothing_else() -> None:
    """A bare number would be found out only by the first failure."""
    with pytest.raises(UsageError, match=r"@step\(retry=3\): give a Retry, as in retry=Retry\(attempts=3\)."):
        step(retry=3)(plain)  # type: ignore[call-overload]


class NeedsAMailer:
    def __init__(self, mailer: object) -> None:
        self.mailer = mailer

    @flow
    def sends(self) -> str:
        return str(self.mailer)


class Interface(ABC):
    @flow
    @abstractmethod
    def answer(self) -> int: ...


class Answers(Interface):
    @flow
    def answer(self) -> int:
        return 42


class AnswersToo(Interface):
    @flow
    def answer(self) -> int:
        return 43


class Contract(Protocol):
    def answer(self) -> int: ...


def test_a_flow_whose_class_is_not_registered_is_refused(app: Persistasaurus, database: Path) -> None:
    """No instance could be made to run it on. Once registered, it runs."""
    with (
        unharmed(app, database),
        pytest.raises(
            UnknownFlowError, match=r"NeedsAMailer needs constructor arguments and is not registered"
        ) as no,
    ):
        app.start(NeedsAMailer.sends)
    assert str(no.value).endswith("Call app.register(NeedsAMailer, lambda: NeedsAMailer(...)) first.")
    with unharmed(app, database), pytest.raises(UnknownFlowError, match="is not registered"):
        app.get_flow(NeedsAMailer, "mail").run(lambda f: f.sends())
    app.register(NeedsAMailer, lambda: NeedsAMailer("the mailer"))
    assert app.run(NeedsAMailer.sends) == "the mailer"


def test_an_interface_without_an_implementation_is_refused(app: Persistasaurus, database: Path) -> None:
    """It says which class to register; a second implementation is refused too."""
    with unharmed(app, database), pytest.raises(UnknownFlowError, match=r"app\.register\(Interface"):
        app.get_flow(Interface, "question").run(lambda f: f.answer())
    app.register(Interface, Answers)
    assert app.get_flow(Interface, "question").run(lambda f: f.answer()) == 42
    with pytest.raises(
        DuplicateNameError, match="Interface is implemented by Answers already; AnswersToo would be"
    ):
        app.register(Interface, AnswersToo)


WRONG_REGISTRATIONS = {
    "a flow": (flow(plain), None, "takes a class first, .* A function flow needs no registering"),
    "no subclass": (
        Interface,
        Callables,
        r"Callables is no subclass of Interface. Give a subclass, or a function",
    ),
    "no function": (
        Callables,
        3,
        r"app.register\(Callables, 3\): .* called without arguments. Give one, as in lambda",
    ),
    "arguments": (Callables, lambda mailer: Callables(), "called without arguments. Give one, as in lambda"),
    "nothing": (
        NeedsAMailer,
        None,
        r"Say how it is made: app.register\(NeedsAMailer, lambda: NeedsAMailer\(...\)\).",
    ),
    "an abstract class": (Interface, None, "an instance cannot be made without arguments. Say how"),
    "a protocol": (Contract, None, "an instance cannot be made without arguments. Say how"),
}


@pytest.mark.parametrize("what", WRONG_REGISTRATIONS)
def test_a_registration_that_could_make_no_instance_is_refused(what: str) -> None:
    """At once, and not when the first flow needs one."""
    cls, maker, message = WRONG_REGISTRATIONS[what]
    with pytest.raises(UsageError, match=message):
        Persistasaurus(":memory:").register(cls, maker)  # type: ignore[arg-type]
