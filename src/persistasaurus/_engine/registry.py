"""The flows and steps that this process knows, by name."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

from persistasaurus._codec import ValueCodec
from persistasaurus._engine.retry import ONCE, Retry
from persistasaurus._plain import a
from persistasaurus._signature import ArgumentsCodec, arguments_codec
from persistasaurus.errors import DuplicateNameError, NotMarkableError, UnknownFlowError, UsageError

Factory = Callable[[], Any]


@dataclass(eq=False, kw_only=True)
class Definition:
    """A function that a user has marked, with what the engine needs to call and record it."""

    function: Callable[..., Any]
    given_name: str | None
    is_async: bool
    is_method: bool
    owner: type | None = None
    """The class whose body it stands in; known once that class exists."""
    attribute: str = ""
    local_names: Mapping[str, Any] | None = None
    name_ids: dict[int, int] = field(default_factory=dict[int, int])
    """Its number in each open store, by the store's identity."""
    _log_name: tuple[str, str] | None = None

    @functools.cached_property
    def arguments(self) -> ArgumentsCodec:
        """Reads and writes the arguments as JSON; made at first use, when all names are defined."""
        return arguments_codec(self.function, skip_self=self.is_method, localns=self.local_names)

    @functools.cached_property
    def result(self) -> ValueCodec:
        """Reads and writes the result as JSON."""
        return self.arguments.return_codec()

    @property
    def log_name(self) -> tuple[str, str]:
        """The class name (empty for functions) and method name under which the log shows it."""
        if self._log_name is None:
            class_name = self.owner.__qualname__ if self.owner is not None else ""
            name = class_name, self.given_name or self.attribute or self.function.__qualname__
            if self.is_method and self.owner is None:
                return name  # the class does not exist yet
            self._log_name = name
        return self._log_name


@dataclass(eq=False, kw_only=True)
class StepDefinition(Definition):
    """A step: a function whose outcome is recorded."""

    retry: Retry = ONCE
    delay_ms: int | None = None
    timeout_ms: int | None = None

    @functools.cached_property
    def is_native(self) -> bool:
        """Whether it is an `async def` itself, not some object or plain function that is called like one."""
        code = self.function.__code__ if isinstance(self.function, FunctionType) else None
        return code is not None and bool(code.co_flags & inspect.CO_COROUTINE)

    @functools.cached_property
    def input_label(self) -> str:
        """What messages call its arguments."""
        return f"The input of step {self.log_name[1]!r}"

    @functools.cached_property
    def result_label(self) -> str:
        """What messages call its result."""
        return f"The result of step {self.log_name[1]!r}"

    @property
    def signal_name(self) -> str:
        """The name under which a resume of this step is queued."""
        class_name, method_name = self.log_name
        return f"step:{class_name}.{method_name}" if class_name else f"step:{method_name}"


@dataclass(eq=False, kw_only=True)
class FlowDefinition(Definition):
    """A flow: a function whose steps are recorded."""

    def name_in(self, owner: type | None) -> tuple[str, str]:
        """Return the class and method name of this flow where it is a method of `owner`."""
        if self.given_name is not None:
            return "", self.given_name
        if owner is None:
            return "", self.function.__qualname__
        return owner.__qualname__, self.attribute


class Target(NamedTuple):
    """A flow as it is started: its definition, and the class that its instance is made of."""

    definition: FlowDefinition
    owner: type | None

    @property
    def name(self) -> tuple[str, str]:
        return self.definition.name_in(self.owner)


def display_name(name: tuple[str, str]) -> str:
    """Return a flow's name as a user sees it."""
    return f"{name[0]}.{name[1]}" if name[0] else name[1]


def check_markable(function: object, marker: str) -> None:
    """Raise `NotMarkableError` where `function` cannot be a flow or a step."""
    kind = a(type(function))
    if isinstance(function, (staticmethod, classmethod)):
        raise NotMarkableError(
            f"@{marker} was put on {kind}, which has no instance to call its steps on. "
            "Use a module-level function or an ordinary method."
        )
    if not inspect.isfunction(function):
        raise NotMarkableError(
            f"@{marker} marks functions and methods, not {kind}: only they have a body to run again. "
            "Wrap it in a `def` and mark that."
        )
    name = function.__qualname__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise NotMarkableError(
            f"@{marker} cannot mark {name!r}: it is a generator, whose values would not be recorded. "
            "Return a list, or yield from an ordinary function that calls steps."
        )
    if function.__name__ == "<lambda>":
        raise NotMarkableError(
            f"@{marker} cannot mark a lambda: it has no name by which to find it after a restart. Use `def`."
        )


def check_in_class(definition: Definition, marker: str) -> None:
    """Raise `NotMarkableError` where another decorator hides a method's mark from its class."""
    if definition.is_method and definition.owner is None:
        raise NotMarkableError(
            f"The {marker} {definition.function.__qualname__!r} stands in a class that does not know it: "
            f"another decorator, such as staticmethod or classmethod, hides it. Put @{marker} on top, on "
            "an ordinary method or a module-level function."
        )


_defined: dict[tuple[str, str], Target] = {}
_steps: dict[tuple[str, str], StepDefinition] = {}
_owners: dict[type, None] = {}
_lock = threading.Lock()
_changes = itertools.count(1)
_last_change = 0


def _changed() -> None:
    global _last_change  # noqa: PLW0603 - what is defined is the process's, not an app's
    _last_change = next(_changes)


def define(target: Target) -> None:
    """Make a flow known to every app of this process.

    Raises:
        DuplicateNameError: another function, from another module, has the name.
    """
    with _lock:
        check_name(target.definition, target.name)
        _defined[target.name] = target
        if target.owner is not None:
            _owners[target.owner] = None
        _changed()


def define_step(definition: StepDefinition) -> None:
    """Make a step known by its name, for those who resume it by that."""
    _steps[definition.log_name] = definition


def known_step(name: tuple[str, str]) -> StepDefinition | None:
    """Return the step of a name, where this process has one."""
    return _steps.get(name)


def check_name(new: FlowDefinition, name: tuple[str, str]) -> None:
    """Raise `DuplicateNameError` where another flow has the name."""
    old = _defined.get(name)
    if old is None or _is_same(old.definition.function, new.function):
        return
    first, second = old.definition.function, new.function
    raise DuplicateNameError(
        f"Two flows are named {display_name(name)!r}: one in {first.__module__} "
        f"({first.__code__.co_filename}:{first.__code__.co_firstlineno}), one in {second.__module__} "
        f"({second.__code__.co_filename}:{second.__code__.co_firstlineno}). After a restart a flow is found "
        "by "
        "its name alone. Give one of them another: @flow(name=...)."
    )


def _is_same(old: Any, new: Any) -> bool:
    """Whether `new` is `old` defined again: a reload, a notebook's cell, or `__main__` imported by name."""
    return bool(old.__module__ == new.__module__ or old.__code__.co_filename == new.__code__.co_filename)


class Registry:
    """What one app can drive: every flow defined in this process, and the classes given to it."""

    def __init__(self) -> None:
        self._factories: dict[type, Factory] = {}
        self._implementations: dict[type, type] = {}

    @property
    def last_change(self) -> int:
        """A number that is another one once a flow was defined, or a class registered."""
        return _last_change

    def register(self, cls: type, maker: Factory | type | None = None) -> None:
        """Tell how instances of a flow's class are made, or which class implements an interface.

        Raises:
            UsageError: `cls` is no class, or `maker` neither a subclass nor a function without arguments.
            DuplicateNameError: the interface has another implementation already.
        """
        if not isinstance(cls, type):
            raise UsageError(
                f"app.register takes a class first, not {cls!r}. A function flow needs no registering."
            )
        _check_maker(cls, maker)
        if isinstance(maker, type):
            known = self._implementations.get(cls)
            if known is not None and known.__qualname__ != maker.__qualname__:
                raise DuplicateNameError(
                    f"{cls.__qualname__} is implemented by {known.__qualname__} already; "
                    f"{maker.__qualname__} would be a second implementation. Register one of them."
                )
            self._implementations[cls] = maker
            _changed()
            return
        self._factories[cls] = maker if maker is not None else cls
        _changed()

    def implementation(self, cls: type) -> type:
        """Return the class to instantiate for a class or interface."""
        return self._implementations.get(cls, cls)

    def make(self, cls: type) -> Any:
        """Return a new instance of a flow's class."""
        return self._factories.get(cls, cls)()

    def is_known(self, cls: type | None) -> bool:
        """Whether an instance can be made without being told how."""
        return cls is None or cls in self._factories or _needs_no_arguments(cls)

    def target(self, definition: FlowDefinition, owner: type | None) -> Target:
        """Return what to start for a flow that was named by its function or `Class.method`.

        Raises:
            UnknownFlowError: its class needs constructor arguments and is not registered.
            NotMarkableError: its class does not know it.
        """
        check_in_class(definition, "flow")
        if owner is not None:
            owner = self.implementation(owner)
            found = inspect.getattr_static(owner, definition.attribute, None)
            definition = getattr(found, "_definition", definition)
        if self.is_known(owner):
            return Target(definition, owner)
        name = owner.__qualname__ if owner is not None else ""
        raise UnknownFlowError(
            f"{name} needs constructor arguments and is not registered, so no instance can be made to run "
            f"{definition.attribute!r} on. Call app.register({name}, lambda: {name}(...)) first."
        )

    def find(self, name: tuple[str, str]) -> Target | None:
        """Return the flow of a name, to read what it has written: no instance can or need be made."""
        with _lock:
            found = _defined.get(name)
        return found if found is not None else self._all().get(name)

    def known(self) -> dict[tuple[str, str], Target]:
        """Return every flow that this app can drive, by name."""
        return {name: target for name, target in self._all().items() if self.is_known(target.owner)}

    def _all(self) -> dict[tuple[str, str], Target]:
        with _lock:
            found = dict(_defined)
            owners = [*_owners, *self._factories, *self._implementations.values()]
        for owner in owners:
            for cls in (owner, *_subclasses(owner)):
                for definition in _flows_of(cls):
                    found.setdefault(definition.name_in(cls), Target(definition, cls))
        return found


def _check_maker(cls: type, maker: Any) -> None:
    """Refuse now what could not make an instance later, when a flow needs one."""
    name = cls.__qualname__
    if isinstance(maker, type):
        # Whether a class has what a protocol asks for is for the type checker to say.
        if not getattr(cls, "_is_protocol", False) and not issubclass(maker, cls):
            raise UsageError(
                f"app.register({name}, {maker.__qualname__}): {maker.__qualname__} is no subclass of {name}. "
                "Give a subclass, or a function that makes an instance."
            )
        return
    if maker is None and not _needs_no_arguments(cls):
        raise UsageError(
            f"app.register({name}): an instance cannot be made without arguments. Say how it is made: "
            f"app.register({name}, lambda: {name}(...))."
        )
    if maker is not None and not (callable(maker) and _takes_no_arguments(maker)):
        raise UsageError(
            f"app.register({name}, {maker!r:.60}): instances are made by a function that can be called "
            "without "
            f"arguments. Give one, as in lambda: {name}(...), or a subclass."
        )


def _takes_no_arguments(maker: Any) -> bool:
    try:
        inspect.signature(maker).bind()
    except TypeError:
        return False
    except ValueError:  # some of C's callables tell no signature
        return True
    return True


def _flows_of(cls: type) -> Iterator[FlowDefinition]:
    for base in cls.__mro__:
        for value in vars(base).values():
            definition = getattr(value, "_definition", None)
            if isinstance(definition, FlowDefinition):
                yield definition


def _subclasses(cls: type) -> Iterator[type]:
    subclasses: list[type] = cls.__subclasses__()
    # The newest first: of a class that was defined again, as in a notebook, the old one may live on.
    for sub in reversed(subclasses):
        yield sub
        yield from _subclasses(sub)


_made_without_arguments: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
"""What was found once: to look at a signature takes longer than a commit."""


def _needs_no_arguments(cls: type) -> bool:
    known = _made_without_arguments.get(cls)
    if known is None:
        known = _made_without_arguments[cls] = _can_be_called(cls)
    return known


def _can_be_called(cls: type) -> bool:
    if inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        return False
    try:
        inspect.signature(cls).bind()
    except (TypeError, ValueError):
        return False
    return True
