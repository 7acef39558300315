"""An exception's data made into an exception, of a class that this process has loaded."""

# Values of any type are walked here, and pyright calls what they hold unknown.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from persistasaurus.errors import FlowFailed

# What a flow may be handed: SystemExit, KeyboardInterrupt and their like act on the process.
_ALLOWED = (Exception, asyncio.CancelledError, BaseExceptionGroup)

# Nesting that no record of ours has; a row edited by hand may.
_DEPTH_CAP = 32

_BARE = (object, BaseException, Exception)

# An AttributeError's object is a live one, and a group's parts are handed to its `__new__`.
_NO_SLOTS = frozenset({"obj", "exceptions"})

_T = TypeVar("_T")

# The classes of exceptions seen in this process. Weak: a class lives as long as its code.
_seen: WeakValueDictionary[tuple[str, str], type[BaseException]] = WeakValueDictionary()


def rebuild(data: dict[str, Any], *, missing: type[FlowFailed], depth: int = 0) -> BaseException:
    """Return the exception that `data` describes, with its notes, cause and context.

    Where its class is not loaded, may not be raised in a flow, or cannot be made without running
    its `__init__`, that is an instance of `missing` with the same message and traceback text.
    """
    rebuilt = _instance(data, missing, depth)
    if rebuilt is None:
        rebuilt = missing(
            _text(data, "message"), type_name=_text(data, "type"), traceback_text=_text(data, "traceback")
        )
    notes = data.get("notes")
    if isinstance(notes, list):
        instance_dict(rebuilt)["__notes__"] = [note for note in notes if isinstance(note, str)]
    if depth < _DEPTH_CAP:
        # The cause last: setting it hides the context, as `raise from` does.
        if isinstance(data.get("context"), dict):
            rebuilt.__context__ = rebuild(data["context"], missing=missing, depth=depth + 1)
        if isinstance(data.get("cause"), dict):
            rebuilt.__cause__ = rebuild(data["cause"], missing=missing, depth=depth + 1)
    return rebuilt


def remember(cls: type[BaseException]) -> None:
    """Keep a class findable while it lives: one defined inside a function is in no module."""
    with contextlib.suppress(TypeError):
        _seen[cls.__module__, cls.__qualname__] = cls


def find_class(module: str, qualname: str, file: str | None) -> type[BaseException] | None:
    """Return the loaded exception class of this name; nothing is imported to find it."""
    path = qualname.split(".")
    for namespace in _namespaces(module, file):
        if (found := _looked_up(namespace, path)) is not None:
            return found
    return _seen.get((module, qualname))


def source_file(module: str) -> str | None:
    """Return the file of a user's module: `__main__` goes by another name when it is imported."""
    if module.partition(".")[0] in sys.stdlib_module_names and module != "__main__":
        return None
    file = _namespace(sys.modules.get(module)).get("__file__")
    return file if type(file) is str else None


def instance_dict(exc: BaseException) -> dict[str, Any]:
    """Return an exception's own attributes, also where its class hides them."""
    return cast("dict[str, Any]", BaseException.__dict__["__dict__"].__get__(exc))


def slots(cls: type[BaseException]) -> dict[str, Any]:
    """Return the descriptors of what a class keeps outside of `__dict__`, such as `OSError.filename`."""
    return {
        name: member
        for base in reversed(cls.__mro__)
        if base not in _BARE
        for name, member in vars(base).items()
        if isinstance(member, (MemberDescriptorType, GetSetDescriptorType))
        and not name.startswith("__")
        and name not in _NO_SLOTS
    }


def guarded(call: Callable[[], _T], default: _T) -> _T:
    """Return what foreign code of an exception returns, or the default, whatever it raises."""
    try:
        return call()
    # A `__str__` may raise KeyboardInterrupt just as well, and recording must not fail.
    except BaseException:  # noqa: BLE001
        return default


def _instance(data: dict[str, Any], missing: type[FlowFailed], depth: int) -> BaseException | None:
    found = find_class(_text(data, "module"), _text(data, "type"), _text(data, "file") or None)
    if found is None or not issubclass(found, _ALLOWED):
        return None
    return guarded(lambda: _made(found, data, missing, depth), None)


def _made(
    cls: type[BaseException], data: dict[str, Any], missing: type[FlowFailed], depth: int
) -> BaseException | None:
    """Make an instance without its `__init__`, which may want anything or do anything."""
    made: BaseException
    if issubclass(cls, BaseExceptionGroup):
        if depth >= _DEPTH_CAP:
            return None
        parts = [rebuild(part, missing=missing, depth=depth + 1) for part in data["exceptions"]]
        made = cls.__new__(cls, data["group"], parts)
    else:
        args = tuple(data.get("args", (_text(data, "message"),)))
        made = cls.__new__(cls, *args)
        BaseException.__dict__["args"].__set__(made, args)
    if not isinstance(made, cls):
        return None
    _restore(made, data.get("attributes", {}))
    # One that cannot even be shown would break whoever logs it.
    str(made)
    return made


def _restore(made: BaseException, attributes: dict[str, Any]) -> None:
    kept_elsewhere = slots(type(made))
    if isinstance(made, UnicodeDecodeError):
        # Its text needs the bytes, which are recorded as Latin-1.
        attributes = {**attributes, "object": str(attributes.get("object", "")).encode("latin-1", "replace")}
    own = instance_dict(made)
    for name, value in attributes.items():
        if name in kept_elsewhere:
            # Some are read-only, and set by `__new__` from the arguments.
            with contextlib.suppress(AttributeError, TypeError):
                kept_elsewhere[name].__set__(made, value)
        else:
            own[name] = value


def _looked_up(namespace: Any, path: list[str]) -> type[BaseException] | None:
    """Walk a qualified name by the tables themselves: a `__getattr__` on the way could import."""
    found: Any = None
    for name in path:
        found = namespace.get(name)
        # By type() and not isinstance(): a proxy's `__class__` is code too.
        if not issubclass(type(found), type):
            return None
        namespace = type.__dict__["__dict__"].__get__(found)
    return found if issubclass(found, BaseException) else None


def _namespaces(module: str, file: str | None) -> Iterator[dict[str, Any]]:
    main = _namespace(sys.modules.get("__main__"))
    if module != "__main__":
        yield _namespace(sys.modules.get(module))
        if file is not None and _same_file(main, file):
            yield main
        return
    # A script that moved, as with a deploy, is taken for the same; another script is not.
    if file is None or Path(file).name == Path(str(main.get("__file__"))).name:
        yield main
    if file is None:
        return
    for loaded in list(sys.modules.values()):
        namespace = _namespace(loaded)
        if _same_file(namespace, file):
            yield namespace


def _same_file(namespace: dict[str, Any], file: str) -> bool:
    other = namespace.get("__file__")
    if type(other) is not str or Path(other).name != Path(file).name:
        return False
    return guarded(lambda: Path(other).resolve() == Path(file).resolve(), False)  # noqa: FBT003


def _namespace(module: object) -> dict[str, Any]:
    # Past `__getattribute__`: a lazy module loads itself when it is asked for an attribute.
    names: Any = guarded(lambda: object.__getattribute__(module, "__dict__"), None)
    return names if type(names) is dict else {}


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
