"""Exceptions as data: what a flow catches live it catches after a restart."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import textwrap
import types
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import RootModel

from persistasaurus._failure import (
    DEPTH_CAP,
    MESSAGE_CAP,
    NODE_CAP,
    TOTAL_CAP,
    TRACEBACK_CAP,
    convert,
    describe,
    rebuild_failure,
    record_failure,
)
from persistasaurus.errors import FlowFailed, SerializationError, StepFailed


class Declined(Exception):
    """Has an `__init__` of its own shape, and carries more than its message."""

    def __init__(self, order: int, *, reason: str) -> None:
        super().__init__(f"order {order} was declined: {reason}")
        self.order = order
        self.reason = reason
        self.request = object()


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


class NeedsNew(Exception):
    def __new__(cls, *, token: str) -> Self:
        return super().__new__(cls, token)

    def __init__(self, *, token: str) -> None:
        super().__init__(token)


class Fixed(Exception):
    """Forgets its arguments when it is made."""

    def __new__(cls, *args: object) -> Self:
        return super().__new__(cls, "fixed")


class ShowsWhatIsGone(Exception):
    def __init__(self) -> None:
        super().__init__()
        self.response = object()

    def __str__(self) -> str:
        return f"gone: {self.response!r}"


class Counting(Exception):
    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        super().__init__("counted")


class Outer:
    class Inner(Exception):
        pass


class Hostile(Exception):
    """Every way to look at it fails, and not politely."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise SystemExit

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise GeneratorExit

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError

    @property
    def __notes__(self) -> Any:
        raise RuntimeError


class OddText(str):
    __slots__ = ()

    def __radd__(self, other: object) -> str:
        raise RuntimeError

    def isascii(self) -> bool:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class Number(RootModel[int]):
    """Its ValidationError cannot be made by hand."""


def raised(exc: BaseException) -> BaseException:
    """Return an exception that has been through a raise, with its traceback."""
    try:
        raise exc
    except BaseException as caught:
        return caught


def caught(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    return pytest.fail("nothing was raised")


def again(exc: BaseException, missing: type[FlowFailed] = StepFailed) -> BaseException:
    return rebuild_failure(record_failure(exc), missing=missing)


def data_of(exc: BaseException) -> dict[str, Any]:
    return json.loads(record_failure(exc), parse_constant=pytest.fail)


class TestTheClass:
    @pytest.mark.parametrize(
        "exc",
        [
            ValueError("no"),
            KeyError("k"),
            StopIteration(5),
            asyncio.CancelledError("stop"),
            TimeoutError(),
            Outer.Inner("x"),
            Fixed("x", 1),
            json.JSONDecodeError("bad", "{", 0),
            subprocess.CalledProcessError(3, ["a", "b"]),
            StepFailed("no", type_name="x.Y", traceback_text="t"),
        ],
        ids=lambda exc: type(exc).__name__,
    )
    def test_an_exception_comes_back_as_itself(self, exc):
        """Its class, arguments, attributes and text."""
        rebuilt = again(raised(exc))

        assert type(rebuilt) is type(exc)
        assert rebuilt.args == exc.args
        assert str(rebuilt) == str(exc)
        assert vars(rebuilt) == vars(exc)

    def test_an_init_of_any_shape_is_not_run(self):
        """It may want what is not there, or do what was done."""
        exc = Declined(7, reason="no money")
        made = Counting.made

        rebuilt = again(exc)
        again(Counting())

        assert type(rebuilt) is Declined
        assert str(rebuilt) == "order 7 was declined: no money"
        assert (rebuilt.order, rebuilt.reason) == (7, "no money")
        assert not hasattr(rebuilt, "request")
        assert Counting.made == made + 1

    @pytest.mark.parametrize(
        "function, args, names",
        [
            (open, ("/nowhere/at-all",), ("errno", "strerror", "filename")),
            (b"\xffabc".decode, (), ("encoding", "object", "start", "end", "reason")),
            ("\xe9".encode, ("ascii",), ("encoding", "object", "start", "end", "reason")),
            (compile, ("a b", "f", "exec"), ("msg", "filename", "lineno", "text")),
            (__import__, ("nowhere_at_all",), ("name",)),
            (next, (iter([]),), ("value",)),
            (getattr, (3, "nope"), ("name",)),
        ],
    )
    def test_what_builtin_exceptions_keep_in_slots_comes_back(self, function, args, names):
        """Their text often needs it."""
        exc = caught(function, *args)

        rebuilt = again(exc)

        assert type(rebuilt) is type(exc)
        assert str(rebuilt) == str(exc)
        for name in names:
            assert getattr(rebuilt, name) == getattr(exc, name)

    def test_slots_of_a_users_class_come_back(self):
        """As attributes do."""
        assert again(Slotted(4)).code == 4

    @pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
    def test_what_acts_on_the_process_is_not_raised_in_a_flow(self, exc):
        """Only exceptions and cancellation are."""
        rebuilt = again(exc, FlowFailed)

        assert type(rebuilt) is FlowFailed
        assert rebuilt.type_name == type(exc).__name__

    @pytest.mark.parametrize(
        "make", [lambda: NeedsNew(token="t"), ShowsWhatIsGone, lambda: caught(Number, "x")]
    )
    def test_one_that_cannot_be_made_or_shown_is_told_about(self, make):
        """By `missing`, with type name, message and traceback."""
        exc = raised(make())

        rebuilt = again(exc)

        assert type(rebuilt) is StepFailed
        assert rebuilt.type_name == type(exc).__qualname__
        assert rebuilt.message == str(exc)
        assert rebuilt.traceback_text.startswith("Traceback (most recent call last):")

    def test_a_class_that_is_not_loaded_is_not_imported(self):
        """A stored name loads no code."""
        text = json.dumps({"type": "TarError", "module": "antigravity", "message": "m", "traceback": "t"})

        rebuilt = rebuild_failure(text, missing=FlowFailed)

        assert type(rebuilt) is FlowFailed
        assert (rebuilt.type_name, rebuilt.message, rebuilt.traceback_text) == ("TarError", "m", "t")
        assert "antigravity" not in sys.modules

    def test_a_lazy_module_is_not_woken(self, monkeypatch):
        """Nor is a module's `__getattr__` asked."""

        woken = []

        class Lazy(types.ModuleType):
            def __getattribute__(self, name: str) -> Any:
                woken.append(name)
                return super().__getattribute__(name)

        asking = types.ModuleType("asking")
        asking.__getattr__ = lambda name: ValueError  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
        monkeypatch.setitem(sys.modules, "asking", asking)

        for module in ("lazy", "asking"):
            text = json.dumps({"type": "Error", "module": module, "message": "m"})
            assert type(rebuild_failure(text, missing=StepFailed)) is StepFailed
        assert woken == []

    @pytest.mark.parametrize(
        "qualname", ["int", "print", "object", "type", "nope", "", "ValueError.args", "int.real"]
    )
    def test_what_is_no_exception_class_is_not_called(self, qualname):
        """Whatever a stored name leads to."""
        text = json.dumps({"type": qualname, "module": "builtins", "message": "m", "args": [1]})

        assert type(rebuild_failure(text, missing=StepFailed)) is StepFailed

    def test_a_class_inside_a_function_is_found_while_it_lives(self):
        """In one process live and replay agree; after a restart there is no place to look."""

        class Local(Exception):
            pass

        text = record_failure(Local("x"))
        assert type(rebuild_failure(text, missing=StepFailed)) is Local

        del Local
        gc.collect()

        assert type(rebuild_failure(text, missing=StepFailed)) is StepFailed

    def test_a_class_of_a_script_is_found_when_the_script_is_a_module_and_back(self, tmp_path):
        """`python app.py` records `__main__`; a worker that imports app finds it, and the other way."""
        (tmp_path / "app.py").write_text(
            textwrap.dedent("""
                import sys
                from persistasaurus._failure import record_failure, rebuild_failure
                from persistasaurus.errors import StepFailed
                class Declined(Exception): pass
                def act():
                    if sys.argv[1:] == ["record"]:
                        print(record_failure(Declined("x")))
                    else:
                        print(type(rebuild_failure(sys.stdin.read(), missing=StepFailed)) is Declined)
                if __name__ == "__main__":
                    act()
            """)
        )
        (tmp_path / "other.py").write_text("class Declined(Exception): pass\nimport app\napp.act()\n")

        def run(script: str, *args: str, stdin: str = "") -> str:
            command = [sys.executable, str(tmp_path / script), *args]
            return subprocess.run(
                command, input=stdin, capture_output=True, text=True, check=True
            ).stdout.strip()

        as_main, as_module = run("app.py", "record"), run("other.py", "record")

        assert json.loads(as_main)["module"] == "__main__"
        assert json.loads(as_module)["module"] == "app"
        for script in ("app.py", "other.py"):
            for text in (as_main, as_module):
                assert run(script, stdin=text) == "True"


class TestTheChain:
    def test_cause_context_and_notes_come_back(self):
        """All the way down, and a suppressed context does not."""

        def fail() -> None:
            try:
                try:
                    raise KeyError("first")
                except KeyError:
                    raise ValueError("second")  # noqa: B904
            except ValueError as error:
                error.add_note("a note")
                raise Declined(1, reason="third") from error

        rebuilt = again(caught(fail))

        assert rebuilt.__context__ is None
        assert type(rebuilt.__cause__) is ValueError
        assert rebuilt.__cause__.__notes__ == ["a note"]
        assert repr(rebuilt.__cause__.__context__) == "KeyError('first')"

    def test_raise_from_none_hides_the_context(self):
        """As Python shows it."""

        def fail() -> None:
            try:
                raise KeyError
            except KeyError:
                raise ValueError from None

        assert "context" not in data_of(caught(fail))

    def test_a_missing_class_keeps_its_cause(self):
        """The chain tells what happened."""
        exc = SystemExit(3)
        exc.__cause__ = ValueError("why")

        assert repr(again(exc).__cause__) == "ValueError('why')"

    def test_groups_come_back_as_groups(self):
        """With their parts, so that `except*` works on replay too."""
        inner = ExceptionGroup("inner", [KeyError("k"), Declined(1, reason="r")])
        exc = raised(ExceptionGroup("outer", [ValueError("v"), inner]))
        exc.add_note("a note")

        rebuilt = again(exc)

        assert isinstance(rebuilt, ExceptionGroup)
        assert str(rebuilt) == str(exc)
        assert rebuilt.__notes__ == ["a note"]
        assert isinstance(rebuilt.exceptions[1], ExceptionGroup)
        assert type(rebuilt.exceptions[1].exceptions[1]) is Declined

    def test_a_group_may_hold_a_cancellation(self):
        """And what may not be raised in a flow is told about."""
        rebuilt = again(BaseExceptionGroup("g", [asyncio.CancelledError(), SystemExit(1)]))

        assert isinstance(rebuilt, BaseExceptionGroup)
        assert [type(part) for part in rebuilt.exceptions] == [asyncio.CancelledError, StepFailed]

    def test_a_chain_that_bites_its_tail_ends(self):
        """Causes may be set to anything."""
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one

        assert again(one).__cause__.__cause__ is None

    def test_a_long_chain_is_cut(self):
        """Past the cap it costs more than it tells."""
        exc = ValueError("0")
        for number in range(1, 50):
            upper = ValueError(str(number))
            upper.__cause__ = exc
            exc = upper

        depth, rebuilt = 0, again(exc)
        while rebuilt.__cause__ is not None:
            depth, rebuilt = depth + 1, rebuilt.__cause__

        assert depth == DEPTH_CAP

    def test_a_chain_that_fans_out_stays_small(self):
        """Each with a cause and a context of its own, and a group of ten thousand."""

        def fan(depth: int) -> ValueError:
            exc = ValueError("x" * 100_000)
            if depth:
                exc.__cause__, exc.__context__ = fan(depth - 1), fan(depth - 1)
                exc.__suppress_context__ = False
            return exc

        for exc in (fan(7), ExceptionGroup("g", [ValueError("y" * 1000) for _ in range(10_000)])):
            text = record_failure(exc)
            assert len(text) < 2 * TOTAL_CAP
            assert text.count('"traceback":') <= NODE_CAP
            assert type(again(exc)) is type(exc)


class TestTheText:
    def test_it_is_canonical_json(self):
        """No raw NUL, no NaN, no lone surrogate, and as compact as the codec's."""
        exc = raised(ValueError("a\0b\ud800", float("nan"), [float("inf")]))
        exc.add_note("\udfff")
        exc.path = "\ud800"

        text = record_failure(exc)

        assert "\0" not in text
        assert text.encode()
        assert data_of(exc)["args"] == ["a\0b\ufffd", "nan", ["inf"]]
        assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))

    def test_arguments_that_are_not_plain_give_way_to_the_message(self):
        """What the flow can still see is the text."""
        exc = ValueError("because of", {1, 2})

        assert "args" not in data_of(exc)
        assert again(exc).args == (str(exc),)

    @pytest.mark.parametrize(
        "odd", [{1: 2}, (1,), b"", 10**5000, object(), OddText("x")], ids=lambda it: type(it).__name__
    )
    def test_attributes_that_are_not_plain_are_left_out(self, odd):
        """The rest stays."""
        exc = ValueError()
        exc.kept, exc.odd = [1, {"a": None}], odd

        assert data_of(exc)["attributes"] == {"kept": [1, {"a": None}]}

    def test_an_attribute_that_is_too_much_is_left_out(self):
        """It leaves its room to the others."""
        exc = ValueError()
        exc.huge, exc.kept = [0] * 1_000_000, "x"

        assert data_of(exc)["attributes"] == {"kept": "x"}

    def test_long_texts_are_cut_in_the_middle(self):
        """Head and tail tell most."""

        def fail(depth: int) -> None:
            if depth:
                (fail if depth % 2 else fail_too)(depth - 1)
            raise ValueError("a" * 300_000 + "z")

        def fail_too(depth: int) -> None:
            fail(depth - 1)

        data = data_of(caught(fail, 300))

        assert len(data["message"]) <= MESSAGE_CAP
        assert data["message"].startswith("aaa")
        assert data["message"].endswith("az")
        assert len(data["traceback"]) <= TRACEBACK_CAP
        assert data["traceback"].startswith("Traceback (most recent call last):\n")
        assert data["traceback"].endswith("az")

    def test_a_deep_traceback_is_cut_in_the_middle(self):
        """Its frames are left out before their lines are read."""

        def sink(depth: int) -> None:
            if depth == 0:
                raise ValueError("deep")
            (sink if depth % 2 else too)(depth - 1)

        def too(depth: int) -> None:
            sink(depth)

        traceback = data_of(caught(sink, 400))["traceback"]

        assert "frames left out" in traceback
        assert traceback.endswith("ValueError: deep")

    def test_a_recursion_error_is_recorded(self):
        """The commonest deep one."""

        def sink() -> None:
            sink()

        assert type(again(caught(sink))) is RecursionError

    def test_a_huge_argument_is_cut(self):
        """A failure is no way around the payload cap."""
        exc = ValueError("x" * 10_000_000, ["y"] * 1_000_000)

        assert len(record_failure(exc)) < 2 * TOTAL_CAP

    def test_describe_gives_type_and_message(self):
        """For logs, without making anything."""
        assert describe(record_failure(Outer.Inner("x"))) == ("Outer.Inner", "x")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"type":1,"message":"m"}', "[" * 100_000])
    def test_text_that_is_no_record_is_refused(self, text):
        """A damaged row is named as one."""
        for act in (describe, lambda it: rebuild_failure(it, missing=StepFailed)):
            with pytest.raises(SerializationError, match="cannot be read"):
                act(text)

    @pytest.mark.parametrize(
        "edit",
        [
            {"args": 3},
            {"args": {"a": 1}},
            {"attributes": [1]},
            {"notes": [1, "a"]},
            {"cause": "x"},
            {"module": 3},
            {"file": 3},
            {"traceback": None},
            {"type": "ExceptionGroup"},
            {"type": "ExceptionGroup", "group": "g", "exceptions": []},
            {"type": "UnicodeDecodeError", "attributes": {"object": "\u2026", "start": "x"}},
            {"attributes": {"args": 3, "__class__": 4, "__dict__": 5}},
        ],
    )
    def test_an_edited_record_breaks_nothing(self, edit):
        """What cannot be used is passed over."""
        data = {"type": "ValueError", "module": "builtins", "message": "m", "traceback": "t", **edit}

        assert isinstance(rebuild_failure(json.dumps(data), missing=StepFailed), Exception)


class TestHostileExceptions:
    def test_one_that_breaks_at_every_touch_is_recorded(self):
        """Recording never raises."""
        data = data_of(raised(Hostile("x")))

        assert data["type"] == "Hostile"
        assert data["message"] == "<its __str__ failed>"
        assert "Traceback" in data["traceback"]
        assert type(again(Hostile())) is StepFailed

    def test_a_text_that_is_none_is_recorded(self):
        """A str that overrides what it can."""

        class Says(Exception):
            def __str__(self) -> str:
                return OddText("said")

        assert data_of(Says())["message"] == "said"

    def test_a_name_that_is_none_is_recorded(self):
        """Classes may be called anything."""
        cls = type("Bad", (Exception,), {"__module__": 3, "__qualname__": "B\ud800d"})

        assert data_of(cls("x"))["type"] == "B\ufffdd"
        assert data_of(cls("x"))["module"] == "3"

    @given(
        args=st.lists(
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats()
                | st.text(st.characters(exclude_categories=[]))
                | st.binary()
                | st.sampled_from([object(), Hostile, OddText("x"), ..., 1j]),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
                ),
                max_leaves=5,
            ),
            max_size=3,
        ),
        cls=st.sampled_from(
            [
                ValueError,
                KeyError,
                OSError,
                StopIteration,
                UnicodeDecodeError,
                SyntaxError,
                Outer.Inner,
                ExceptionGroup,
                SystemExit,
            ]
        ),
        notes=st.lists(st.text(st.characters(exclude_categories=[])), max_size=2),
    )
    @settings(max_examples=150)
    def test_any_exception_is_recorded_and_what_it_gives_is_stable(self, args, cls, notes):
        """A rebuilt exception gives the record that it came from."""
        exc = cls.__new__(cls, *(args if cls is not ExceptionGroup else ("g", [ValueError(*args)])))
        for note in notes:
            exc.add_note(note)
        exc.extra = args

        text = record_failure(exc)
        rebuilt = rebuild_failure(text, missing=StepFailed)
        once = record_failure(rebuilt)

        assert text.encode()
        assert json.loads(text, parse_constant=pytest.fail)
        assert describe(once) == describe(record_failure(rebuild_failure(once, missing=StepFailed)))
        assert type(rebuild_failure(once, missing=StepFailed)) is type(rebuilt)
        assert str(rebuilt) is not None


class TestConvert:
    def test_live_and_replay_give_the_same(self):
        """But for the traceback object, which only the live one can have."""
        exc = raised(Declined(1, reason="r"))

        text, live = convert(exc, StepFailed)
        replayed = rebuild_failure(text, missing=StepFailed)

        assert live is not exc
        assert type(live) is type(replayed) is Declined
        assert (live.args, vars(live), str(live)) == (replayed.args, vars(replayed), str(replayed))
        assert live.__traceback__ is exc.__traceback__
        assert replayed.__traceback__ is None
