"""Imports the user's modules, and finds flows in them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, cast

from persistasaurus._app import Persistasaurus
from persistasaurus._engine import registry
from persistasaurus._engine.registry import Target, display_name
from persistasaurus._flow import Flow
from persistasaurus.cli._exit import Exit, Refusal


def load(name: str) -> ModuleType:
    """Import a module, from the current directory or from where Python looks.

    Raises:
        Refusal: there is none, or importing it fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise Refusal(
                f"There is no module {name!r} in {here}, nor where Python looks. Go to the directory that "
                "holds it, or give its full name.",
                Exit.USAGE,
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def attribute(reference: str) -> Any:
    """Return what "MODULE:NAME" names, None for "MODULE" alone.

    Raises:
        Refusal: there is no such module or name.
    """
    module_name, _, path = reference.partition(":")
    module = load(module_name)
    if not path:
        return None
    try:
        return attrgetter(path)(module)
    except AttributeError:
        raise _unknown(f"Module {module_name!r} has no {path!r}", module_name) from None


def register_all(app: Persistasaurus, references: Iterable[str]) -> None:
    """Import modules for a client; a "MODULE:FUNCTION" is called with the app, to register classes."""
    for reference in references:
        found = attribute(reference)
        if not isinstance(found, Persistasaurus):
            call_with(app, found, reference)


def call_with(app: Persistasaurus, found: Any, reference: str) -> None:
    """Have the function that a reference names register its classes with the app."""
    if found is None:
        return
    if isinstance(found, Flow) or not callable(found):
        raise Refusal(
            f"{reference!r} is neither a function that takes an app, to register classes, nor an app itself. "
            "Name such a function, or the module alone.",
            Exit.USAGE,
        )
    try:
        cast("Callable[[Persistasaurus], object]", found)(app)
    except Exception as error:
        raise Refusal(
            f"{reference!r} failed to register its classes: {type(error).__name__}: {error}. Repair it; "
            "--debug shows where.",
            Exit.FAILED,
        ) from error


def flow_of(app: Persistasaurus, reference: str) -> Flow[..., Any]:
    """Return the flow of "MODULE:FLOW", or of a name that an imported module defines.

    Raises:
        Refusal: there is no such flow.
    """
    module_name, colon, name = reference.partition(":")
    module = load(module_name) if colon else None
    _let_be_named(app)
    found = _by_path(module, name)
    if isinstance(found, Flow):
        return cast("Flow[..., Any]", found)
    for target in app._registry.known().values():
        at_home = not colon or target.definition.function.__module__ == module_name
        if display_name(target.name) == (name if colon else reference) and at_home:
            return _flow(target)
    if not colon and not known_names(app):
        raise Refusal(
            f"No module was imported, so the flow {reference!r} is not known. Give MODULE:{reference}, or "
            "the module with --module.",
            Exit.USAGE,
        )
    raise _unknown(f"There is no flow {reference!r}", module_name if colon else None)


def known_names(app: Persistasaurus) -> list[str]:
    """Return the names of the flows that the app can drive, or start."""
    return sorted(display_name(name) for name in app._registry.known())


def undrivable(app: Persistasaurus) -> list[str]:
    """Return the names of the classes that have flows and of which no instance can be made."""
    owners = {owner for owner in _owners() if not app._registry.is_known(owner)}
    return sorted(owner.__qualname__ for owner in owners)


def _let_be_named(app: Persistasaurus) -> None:
    """Make flows of classes known that only a worker can make instances of: a client makes none."""
    for owner in list(_owners()):
        if not app._registry.is_known(owner):
            app.register(owner, _never_made)


def _owners() -> Iterator[type]:
    for owner in list(registry._owners):
        for cls in (owner, *registry._subclasses(owner)):
            # What an interface's flow is called is decided by the class that implements it.
            if not inspect.isabstract(cls) and not getattr(cls, "_is_protocol", False):
                yield cls


def _never_made() -> NoReturn:
    raise AssertionError("a client drives no flow")


def _flow(target: Target) -> Flow[..., Any]:
    return Flow[..., Any](target.definition)._bound(None, target.owner)


def _by_path(module: ModuleType | None, path: str) -> Any:
    try:
        return attrgetter(path)(module)
    except AttributeError:
        return None


def _unknown(what: str, module_name: str | None) -> Refusal:
    names = [
        display_name(name)
        for name, target in registry._defined.items()
        if module_name in (None, target.definition.function.__module__)
    ]
    there = f"There are {', '.join(sorted(names))}" if names else "It defines no flow"
    return Refusal(f"{what}. {there}.", Exit.USAGE)


def _broken(name: str, error: Exception) -> Refusal:
    return Refusal(
        f"Module {name!r} could not be imported: {type(error).__name__}: {error}. Repair it; --debug shows "
        "where.",
        Exit.FAILED,
    )
