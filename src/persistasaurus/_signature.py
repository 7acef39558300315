"""A function's parameters: binding, JSON by name, and the way back into a call."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from inspect import Parameter, Signature
from typing import Any, Optional, cast

from persistasaurus._codec import ValueCodec, is_unannotated, object_codec, quick_kinds, value_codec
from persistasaurus._complaint import first_line
from persistasaurus._plain import LARGEST, QUICK, SCALARS, SHORT, find_unplain, is_plain, quoted, scalar_text
from persistasaurus.errors import SerializationError, UsageError

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_TEXT: frozenset[type] = frozenset({str})
_NUMBER: frozenset[type] = frozenset({int})
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def arguments_codec(
    function: Callable[..., Any], *, skip_self: bool, localns: Mapping[str, Any] | None = None
) -> ArgumentsCodec:
    """Return the codec of a function's parameters, without the first where `skip_self` is set.

    `localns` resolves annotations that name classes local to a function. The codec is not cached:
    keep it beside the function, so that both go together.

    Raises:
        UsageError: the function has no signature, or no parameter to skip.
    """
    return ArgumentsCodec(function, skip_self=skip_self, localns=localns)


class ArgumentsCodec:
    """Binds, checks and records the arguments of one function.

    Bound arguments are a dict in the order of the parameters, defaults applied, `*args` as a list
    and `**kwargs` as a dict under their own names. Annotations are resolved when a codec is first
    needed, so that they may name what is defined further down; binding needs none.
    """

    def __init__(
        self, function: Callable[..., Any], *, skip_self: bool, localns: Mapping[str, Any] | None
    ) -> None:
        parameters = _parameters(function, skip_self=skip_self)
        # A method that starts with *args takes self among them; the caller's arguments never hold it.
        skip = skip_self and parameters[0].kind is not Parameter.VAR_POSITIONAL
        self._function = function
        self._localns = localns
        self._hints: dict[str, Any] | None = None
        self._codec: ValueCodec | None = None
        self._plain_names: tuple[str, ...] = ()
        self._self: tuple[None, ...] = (None,) if skip else ()
        self._binder = _binder(function, parameters, skip=skip)
        self._writer: Callable[..., str | None] | None = None
        self._parameters = parameters[1:] if skip else parameters
        self._all_by_position = all(p.kind in _BY_POSITION for p in self._parameters)
        self._defaults = {p.name: p.default for p in self._parameters if p.default is not Parameter.empty}

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, as a call of the function would bind them.

        Raises:
            TypeError: the function cannot be called so, in Python's own words.
        """
        return self._binder(*self._self, *args, **kwargs)

    def unpack(self, bound: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return bound arguments as the args and kwargs of a call, without self."""
        if self._all_by_position:
            return tuple(bound.values()), {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter in self._parameters:
            value = bound[parameter.name]
            if parameter.kind is Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is Parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def write(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, what: str) -> str:
        """Return the JSON object of a call's arguments, as `encode(bind(...))` does.

        Raises:
            TypeError: the function cannot be called so, in Python's own words.
            SerializationError: one is not what its annotation says, or has no JSON text.
        """
        writer = self._writer
        if writer is not None:
            text = writer(*self._self, *args, **kwargs) if kwargs or self._self else writer(*args)
            if text is not None:
                return text
        return self.encode(self.bind(args, kwargs), what=what)

    def encode(self, bound: dict[str, Any], *, what: str) -> str:
        """Return the JSON object of bound arguments, without asking whether they come back as they were.

        Raises:
            SerializationError: one is not what its annotation says, or has no JSON text.
        """
        codec = self._codec or self._built(what)
        kinds = list(map(type, bound.values()))
        if SCALARS.issuperset(kinds):
            # Reading scalars back is cheaper than having the writer check their types.
            attempt = codec.attempt(bound)
            if attempt is not None and list(map(type, attempt[1].values())) == kinds:
                return attempt[0]
        self._refuse_unplain(bound, what)
        return codec.encode(bound, what=what, root="")

    def accept(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, what: str
    ) -> tuple[str, dict[str, Any]]:
        """Return what `validate` does of a call's arguments.

        Raises:
            TypeError: the function cannot be called so, in Python's own words.
            SerializationError: one is not what its annotation says (3 is no str), or cannot be recorded.
        """
        bound = self.bind(args, kwargs)
        text = None if self._writer is None else self._writer(*self._self, *args, **kwargs)
        return self.validate(bound, what=what) if text is None else (text, bound)

    def validate(self, bound: dict[str, Any], *, what: str) -> tuple[str, dict[str, Any]]:
        """Check bound arguments strictly; return their canonical JSON text and what it reads back as.

        Raises:
            SerializationError: one is not what its annotation says (3 is no str), or cannot be recorded.
        """
        codec = self._codec or self._built(what)
        self._refuse_unplain(bound, what)
        if self._parameters and self._parameters[-1].kind is Parameter.VAR_KEYWORD:
            # f(a=1, b=2) and f(b=2, a=1) are one call.
            name = self._parameters[-1].name
            bound = {**bound, name: dict(sorted(bound[name].items()))}
        return codec.validate(bound, what=what, root="")

    def decode(self, text: str, *, what: str = "The recorded arguments") -> dict[str, Any]:
        """Return the bound arguments of a recorded text; a parameter added since takes its default.

        Raises:
            SerializationError: the text does not fit the parameters.
        """
        codec = self._codec or self._built(what)
        return self._completed(codec.decode(text, what=what, root=""))

    def from_json(self, source: str | Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Return bound arguments from JSON of outside: text, or plain JSON values by name.

        Raises:
            SerializationError: it does not fit, or a name is missing or unknown.
        """
        codec = self._codec or self._built(what)
        if not isinstance(source, str):
            source = value_codec(Any).encode(dict(source), what=what, root="")
        return self._completed(codec.from_json(source, what=what, root=""))

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the object of arguments, with the defaults that JSON can tell.

        Raises:
            SerializationError: an annotation has none.
        """
        codec = self._codec or self._built("The form")
        schema = codec.json_schema()
        for name, default in self._defaults.items():
            # A default that JSON cannot tell is left out: the field is optional all the same.
            with suppress(SerializationError):
                text = value_codec(self._annotation(name)).encode(default, what=name)
                schema["properties"][name]["default"] = json.loads(text)
        return {**schema, "additionalProperties": False}

    def return_codec(self) -> ValueCodec:
        """Return the codec of what the function returns, or resolves to if it is awaited.

        Raises:
            UsageError: an annotation cannot be resolved.
        """
        hint = self._resolved().get("return", Parameter.empty)
        # A plain function may be annotated with the awaitable that it returns.
        if typing.get_origin(hint) in (Awaitable, Coroutine) and not inspect.iscoroutinefunction(
            self._function
        ):
            hint = typing.get_args(hint)[-1]
        return value_codec(hint)

    def _built(self, what: str) -> ValueCodec:
        hints = {p.name: self._annotation(p.name) for p in self._parameters}
        fields = {p.name: _field(p, hints[p.name]) for p in self._parameters}
        optional = {p.name for p in self._parameters if p.name in self._defaults or p.kind in _VARIADIC}
        codec = object_codec(self._function.__name__, fields, optional=optional, what=what)
        self._plain_names = tuple(name for name, hint in hints.items() if is_unannotated(hint))
        self._codec = codec
        self._writer = self._quick_writer(hints)
        return codec

    def _quick_writer(self, hints: Mapping[str, Any]) -> Callable[..., str | None] | None:
        """Write a function that tells the JSON object of a call whose arguments are all simple, else None."""
        kinds = {name: quick_kinds(hint) for name, hint in hints.items()}
        quick = all(kind in (_TEXT, _NUMBER, QUICK) for kind in kinds.values())
        if not quick or not self._all_by_position or any(name.endswith("_") for name in kinds):
            return None
        checks = [_check(name, index, kinds[name]) for index, name in enumerate(kinds)]
        fields = [f"{quoted(name)}:{{_text{index}_}}" for index, name in enumerate(kinds)]
        value = f"f'{{{{{','.join(fields)}}}}}' if {' and '.join(checks) or True} else None"
        parameters = _parameters(self._function, skip_self=bool(self._self))
        return _compiled(self._function, parameters, value)

    def _annotation(self, name: str) -> Any:
        hint = self._resolved().get(name, Any)
        return Any if is_unannotated(hint) else hint

    def _resolved(self) -> dict[str, Any]:
        if self._hints is None:
            self._hints = _hints(self._function, self._localns)
            # A frame's variables are let go once they have served.
            self._localns = None
        return self._hints

    def _refuse_unplain(self, bound: dict[str, Any], what: str) -> None:
        for name in self._plain_names:
            if is_plain(bound[name]):
                continue
            finding = find_unplain(bound[name])
            reason = finding.told(name) if finding else f"{name} is not plain JSON"
            raise SerializationError(
                f"{what} cannot be recorded: {reason}. Annotate the parameter, or pass plain JSON."
            )

    def _completed(self, given: dict[str, Any]) -> dict[str, Any]:
        """Put arguments in the order of the parameters, with defaults for those not given."""
        # The reader gives them in that order already.
        if len(given) == len(self._parameters):
            return given
        return {
            parameter.name: given[parameter.name] if parameter.name in given else self._default(parameter)
            for parameter in self._parameters
        }

    def _default(self, parameter: Parameter) -> Any:
        # A fresh one each time: the caller owns what it gets.
        if parameter.kind is Parameter.VAR_POSITIONAL:
            return []
        return {} if parameter.kind is Parameter.VAR_KEYWORD else self._defaults[parameter.name]


def _parameters(function: Callable[..., Any], *, skip_self: bool) -> list[Parameter]:
    name = getattr(function, "__qualname__", repr(function))
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} tells no signature ({error}). Wrap it in a function with one.") from error
    if skip_self and (
        not parameters or parameters[0].kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)
    ):
        raise UsageError(f"{name} takes no self. Give it one, or decorate a plain function.")
    return parameters


def _binder(
    function: Callable[..., Any], parameters: list[Parameter], *, skip: bool
) -> Callable[..., dict[str, Any]]:
    """Write a function with the same parameters that returns them by name.

    Python then binds at its own speed and refuses in its own words. The source holds nothing but
    the names of parameters, which are identifiers; defaults are handed over as objects.
    """
    pairs = [
        f"{p.name!r}: [*{p.name}]" if p.kind is Parameter.VAR_POSITIONAL else f"{p.name!r}: {p.name}"
        for p in parameters[skip:]
    ]
    return _compiled(function, parameters, f"{{{', '.join(pairs)}}}")


_TOOLS = {
    "_kind_": type,
    "_str_": str,
    "_int_": int,
    "_length_": len,
    "_quoted_": quoted,
    "_scalar_": scalar_text,
}
"""What the source of a quick writer uses. A parameter may not end like them: it would hide one."""


def _check(name: str, index: int, kinds: frozenset[type]) -> str:
    """Return the source that checks one argument and sets the text of its field, as `scalar_text` would."""
    given = f"_text{index}_"
    if kinds == _TEXT:
        short = f"{name}.isascii() and _length_({name}) < {SHORT}"
        return f"_kind_({name}) is _str_ and {short} and ({given} := _quoted_({name}))"
    if kinds == _NUMBER:
        return f"_kind_({name}) is _int_ and {-LARGEST} <= ({given} := {name}) <= {LARGEST}"
    return f"({given} := _scalar_({name})) is not None"


def _compiled(function: Callable[..., Any], parameters: list[Parameter], value: str) -> Callable[..., Any]:
    """Return a function with the parameters of `function` that returns `value`, an expression of them."""
    bare = [
        p.replace(
            annotation=Parameter.empty, default=Parameter.empty if p.default is Parameter.empty else None
        )
        for p in parameters
    ]
    scope: dict[str, Any] = dict(_TOOLS)
    exec(f"def binder{Signature(bare)}: return {value}", scope)  # noqa: S102
    binder = scope["binder"]
    defaults = [p for p in parameters if p.default is not Parameter.empty]
    binder.__defaults__ = tuple(p.default for p in defaults if p.kind is not Parameter.KEYWORD_ONLY)
    binder.__kwdefaults__ = {p.name: p.default for p in defaults if p.kind is Parameter.KEYWORD_ONLY}
    binder.__qualname__ = getattr(function, "__qualname__", type(function).__name__)
    return cast("Callable[..., Any]", binder)


def _hints(function: Callable[..., Any], localns: Mapping[str, Any] | None) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    names = None if localns is None else dict(localns)
    try:
        return typing.get_type_hints(function, localns=names, include_extras=True)
    # A string annotation is any expression, and fails in any way.
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise UsageError(
            f"The annotations of {name} cannot be resolved: {first_line(error)}. Import what they name at "
            f"the module's top level, not under TYPE_CHECKING, and define local classes before the function."
        ) from error


def _field(parameter: Parameter, hint: Any) -> Any:
    """Return the annotation of a parameter's recorded form."""
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return list[hint]
    if parameter.kind is Parameter.VAR_KEYWORD:
        # Unpack[Options] annotates all of them together.
        unpacked = str(typing.get_origin(hint)).endswith("Unpack")
        return typing.get_args(hint)[0] if unpacked else dict[str, hint]
    # `name: str = None` is common, and Python lets it pass.
    # `hint | None` fails on a hint that is a string or overloads the bar.
    return Optional[hint] if parameter.default is None and hint is not Any else hint  # noqa: UP045
