"""Values that JSON text cannot carry there and back, or that are not what the annotation says.

Each is refused before anything is recorded, by an error that names the place in the value and the cure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import AwareDatetime

from persistasaurus import (
    FlowStatus,
    Persistasaurus,
    SerializationError,
    Signal,
    UsageError,
    flow,
    step,
    wait_for,
)
from tests.flows.kit import STORES, eventually, log_of, new_database
from tests.flows.unharmed import recorded, unharmed

CAP = 2_000_000


@pytest.fixture(scope="module", params=STORES)
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path | str]:
    """One for all tests of this file: what is refused leaves nothing in it."""
    with new_database(request.param, tmp_path_factory.mktemp("bad")) as place:
        yield place


@pytest.fixture(scope="module")
def app(database: Path) -> Iterator[Persistasaurus]:
    with Persistasaurus(database, max_payload=CAP) as entered:
        yield entered


class Opaque:
    """A class that nothing knows how to write."""


def nested(depth: int) -> list[Any]:
    outer: list[Any] = []
    inner = outer
    for _ in range(depth):
        inner.append([])
        inner = inner[0]
    return outer


def circle() -> list[Any]:
    within: list[Any] = []
    within.append(within)
    return within


WRONG: dict[str, tuple[Any, str]] = {
    "object": (Opaque(), r"{} is an Opaque, which plain JSON cannot hold. Annotate"),
    "NaN": (math.nan, r"{} is nan, which JSON cannot hold. Replace it"),
    "infinity": (math.inf, r"{} is inf, which JSON cannot hold. Replace it"),
    "nested infinity": (
        {"a": [1, {"b": -math.inf}]},
        r"{}\['a'\]\[1\]\['b'\] is -inf, which JSON cannot hold",
    ),
    "lone surrogate": ("x\ud800", r"{} holds a lone surrogate, which is no valid text. Replace it"),
    "surrogate as key": ({"\ud800": 1}, r"{} \(the key '\\ud800'\) holds a lone surrogate"),
    "int as key": ({1: 2}, r"{} \(the key 1\) is a key of type int, and JSON has only text keys. Annotate"),
    "tuple": ((1, 2), r"{} is a tuple, which plain JSON cannot hold. Annotate"),
    "set": ({1}, r"{} is a set, which plain JSON cannot hold. Annotate"),
    "bytes": (b"x", r"{} is a bytes, which plain JSON cannot hold. Annotate"),
    "datetime": (datetime.now(UTC), r"{} is a datetime, which plain JSON cannot hold. Annotate"),
    "enum": (FlowStatus.FAILED, r"{} is a FlowStatus, which plain JSON cannot hold. Annotate"),
    "function": (print, r"{} is a builtin_function_or_method, which plain JSON cannot hold. Annotate"),
    "100,000 deep": (nested(100_000), r"nested deeper than 200 levels. Replace it"),
    "itself": (circle(), r"contains itself"),
    "5000 digits": (10**5000, r"{} is an integer of more than 4300 digits. Replace it"),
    "too large": (
        "x" * (CAP + 1),
        r"takes 2,000,\d\d\d bytes .* more than the 2,000,000 bytes that max_payload allows",
    ),
}


@step
def give_wrong(kind: str) -> Any:
    return WRONG[kind][0]


@step
def take_any(value: Any) -> int:
    return 1


@flow
def takes_any(value: Any) -> Any:
    return value


@flow
def child_of_wrong(value: Any) -> Any:
    return value


@flow
def returns_wrong(kind: str) -> Any:
    take_any(1)
    return WRONG[kind][0]


@flow
def step_returns_wrong(kind: str) -> str:
    try:
        give_wrong(kind)
    except SerializationError as error:
        return f"{error} {take_any(2)}"
    return "recorded"


@flow
def passes_wrong(kind: str) -> str:
    told = ""
    for call in (take_any, take_any.submit, child_of_wrong, child_of_wrong.submit):
        try:
            call(WRONG[kind][0])
        except SerializationError as error:
            told += f"{error}\n"
    return f"{told} {take_any(2)}"


@pytest.mark.parametrize("kind", WRONG)
def test_an_argument_that_json_cannot_carry_starts_no_flow(
    app: Persistasaurus, database: Path, kind: str
) -> None:
    """Refused before anything is recorded; the same id can be started with a good value after it."""
    value, message = WRONG[kind]
    with unharmed(app, database), pytest.raises(SerializationError, match=message.format("value")) as caught:
        app.start(takes_any.options(flow_id=kind), value)
    assert str(caught.value).startswith("The input of flow 'takes_any' ")
    assert app.run(takes_any.options(flow_id=kind), "good") == "good"


def test_an_argument_of_100_mb_is_refused_by_default(database: Path) -> None:
    """The cap is a setting, and the message says so."""
    with Persistasaurus(database, worker=False) as client:
        told = "The input of flow 'takes_any' takes 100,000,012 bytes as JSON, more than the 16,000,000 bytes"
        with pytest.raises(SerializationError, match=told) as caught:
            client.start(takes_any, "x" * 100_000_000)
    assert str(caught.value).endswith("Store it elsewhere and pass its id, or raise max_payload.")
    assert not [row for row in recorded(database)["flow"] if len(row[2]) > CAP]


@pytest.mark.parametrize("kind", WRONG)
def test_a_result_that_json_cannot_carry_fails_its_flow_alone(app: Persistasaurus, kind: str) -> None:
    """What the flow's steps have done stays recorded."""
    handle = app.start(returns_wrong, kind)
    with pytest.raises(SerializationError, match=WRONG[kind][1].format("result")) as caught:
        handle.result()
    assert str(caught.value).startswith("The result of flow 'returns_wrong' ")
    assert handle.status() == FlowStatus.FAILED
    assert log_of(handle) == [(1, "take_any", "COMPLETE")]
    assert app.run(takes_any, 1) == 1


@pytest.mark.parametrize("kind", WRONG)
def test_a_steps_result_that_json_cannot_carry_fails_the_step(app: Persistasaurus, kind: str) -> None:
    """The flow may catch that and go on, as with any failure of a step."""
    handle = app.start(step_returns_wrong, kind)
    told = handle.result()
    assert told.startswith("The result of step 'give_wrong' ")
    assert re.search(WRONG[kind][1].format("result"), told)
    assert log_of(handle) == [(1, "give_wrong", "FAILED"), (2, "take_any", "COMPLETE")]


@pytest.mark.parametrize("kind", WRONG)
def test_an_argument_that_json_cannot_carry_takes_no_step_number(app: Persistasaurus, kind: str) -> None:
    """The call never happened, for steps and child flows alike; the next one has the number."""
    handle = app.start(passes_wrong, kind)
    *told, last = handle.result().splitlines()
    assert [line.split(" '")[0] for line in told] == ["The input of step"] * 2 + ["The input of flow"] * 2
    for line in told:
        assert re.search(WRONG[kind][1].format("value"), line)
    assert last.strip() == "1"
    assert log_of(handle) == [(1, "take_any", "COMPLETE")]


@step
def same(value: str) -> str:
    return value


@flow
def all_the_way(value: str) -> str:
    return same(value)


@pytest.mark.parametrize("value", ["a\0b", "\0", "", "\x1b\x7f\u2028\ufeff\U0010ffff"], ids=ascii)
def test_every_valid_text_goes_through(app: Persistasaurus, value: str) -> None:
    """NUL too, which text columns of other stores refuse."""
    handle = app.start(all_the_way, value)
    assert handle.result() == value
    assert handle.record().input == {"value": value}
    assert handle.steps()[0].return_value == value


@flow
def typed(name: str, count: int = 1, *, shares: list[float] | None = None) -> str:
    return f"{name}{count}{shares}"


@flow
def at_an_instant(at: AwareDatetime) -> AwareDatetime:
    return at


MISFITS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], str]] = {
    "int for str": (
        typed,
        (3,),
        {},
        "name is an int but should be a valid string. Pass what the annotation says",
    ),
    "bytes for str": (typed, (b"x",), {}, "name is a bytes but should be a valid string"),
    "None for str": (typed, (None,), {}, "name should be a valid string"),
    "str for int": (typed, ("x", "3"), {}, "count is a str but should be a valid integer"),
    "float for int": (typed, ("x", 3.5), {}, "count is a float but should be a valid integer"),
    "str in a list": (
        typed,
        ("x",),
        {"shares": [1.0, "a"]},
        r"shares\[1\] is a str but should be a valid number",
    ),
    "NaN in a list": (typed, ("x",), {"shares": [math.nan]}, r"shares\[0\] is nan, which JSON cannot hold"),
    "naive datetime": (at_an_instant, (datetime(2025, 1, 1),), {}, "at should have timezone info. Pass what"),
    "text for datetime": (
        at_an_instant,
        ("2025-01-01T00:00:00Z",),
        {},
        "at is a str but should be a valid datetime",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_argument_must_be_what_the_annotation_says(app: Persistasaurus, database: Path, kind: str) -> None:
    """Strictly where Python is strict, and before anything is recorded."""
    function, args, kwargs, message = MISFITS[kind]
    with unharmed(app, database), pytest.raises(SerializationError, match=message):
        app.start(function, *args, **kwargs)


MISCALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "missing": ((), {}, r"typed\(\) missing 1 required positional argument: 'name'"),
    "too many": (("a", 1, 2), {}, r"typed\(\) takes from 1 to 2 positional arguments but 3 were given"),
    "unknown": (("a",), {"what": 1}, r"typed\(\) got an unexpected keyword argument 'what'"),
    "twice": (("a",), {"name": "b"}, r"typed\(\) got multiple values for argument 'name'"),
}


@pytest.mark.parametrize("kind", MISCALLS)
def test_missing_and_extra_arguments_are_pythons_own_type_error(
    app: Persistasaurus, database: Path, kind: str
) -> None:
    """In the words that the call itself would get."""
    args, kwargs, message = MISCALLS[kind]
    with unharmed(app, database), pytest.raises(TypeError, match=f"^{message}$"):
        app.start(typed, *args, **kwargs)
    with pytest.raises(TypeError, match=f"^{message}$"):
        typed(*args, **kwargs)


@flow
def unwritable_annotation(value: Opaque) -> None: ...


def test_an_annotation_that_has_no_json_form_names_the_class_and_the_cure(
    app: Persistasaurus, database: Path
) -> None:
    """Nothing is pickled instead."""
    with (
        unharmed(app, database),
        pytest.raises(
            SerializationError, match="value is annotated with Opaque, which has no JSON form"
        ) as caught,
    ):
        app.start(unwritable_annotation, Opaque())
    assert str(caught.value).endswith(
        "Make the class a dataclass or a pydantic model, or pass an id instead."
    )


numbers_sent = Signal("numbers of bad values", int)
anything_sent = Signal[Any]("anything of bad values", Any)  # type: ignore[arg-type]


@step
def confirm_number(number: int) -> int:
    return number


@flow
def gets_a_number() -> int:
    return numbers_sent.wait()


@flow
def gets_anything() -> Any:
    return anything_sent.wait()


@flow
def gets_confirmed() -> int:
    return wait_for(confirm_number)


@pytest.mark.parametrize("by_name", [False, True], ids=["typed", "by name"])
@pytest.mark.parametrize(
    "wrong", ["x", 1.5, None, [1], math.nan, Opaque()], ids=lambda wrong: type(wrong).__name__
)
def test_a_signal_of_the_wrong_type_is_refused_at_the_sender(
    app: Persistasaurus, database: Path, wrong: Any, by_name: bool
) -> None:
    """Nothing is consumed and nothing queued: the flow waits on, and a right one brings it on."""
    handle = app.start(gets_a_number)
    eventually(lambda: handle.status() == FlowStatus.WAITING_FOR_SIGNAL)
    with (
        unharmed(app, database),
        pytest.raises(SerializationError, match=r"^The value of signal 'numbers of bad"),
    ):
        handle.send(numbers_sent.name if by_name else numbers_sent, wrong)
    handle.send(numbers_sent, 3)
    assert handle.result(timeout=10) == 3


@pytest.mark.parametrize("kind", WRONG)
def test_a_signal_that_json_cannot_carry_is_refused_at_the_sender(
    app: Persistasaurus, database: Path, kind: str
) -> None:
    """Also before its flow exists."""
    value, message = WRONG[kind]
    handle = app.handle("not yet")
    with unharmed(app, database), pytest.raises(SerializationError, match=message.format("value")):
        handle.send(anything_sent, value)
    with unharmed(app, database), pytest.raises(SerializationError, match=message.format("value")):
        handle.send("a signal that nobody has declared", value)


def test_a_resume_with_wrong_arguments_is_refused_and_the_flow_waits_on(
    app: Persistasaurus, database: Path
) -> None:
    """By the step's own signature."""
    handle = app.start(gets_confirmed)
    eventually(lambda: handle.status() == FlowStatus.WAITING_FOR_SIGNAL)
    with (
        unharmed(app, database),
        pytest.raises(SerializationError, match="number is a str but should be a valid int"),
    ):
        handle.resume(confirm_number, "x")  # type: ignore[arg-type]
    with (
        unharmed(app, database),
        pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"),
    ):
        handle.resume(confirm_number)  # type: ignore[call-arg]
    handle.resume(confirm_number, 4)
    assert handle.result(timeout=10) == 4


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 257], ids=["empty", "NUL", "surrogate", "long"])
def test_a_signal_is_sent_under_a_name_that_can_be_kept(
    app: Persistasaurus, database: Path, name: str
) -> None:
    """The same rule as for a declared one."""
    with (
        unharmed(app, database),
        pytest.raises(UsageError, match=r"cannot be kept\. Give a text of 1 to 256"),
    ):
        app.handle("not yet").send(name, 1)
