"""What is meant by a target of `persistasaurus dev`: a file with an AppHost, or an attribute of a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from persistasaurus.dev._apphost import AppHost
from persistasaurus.dev._environment import import_folder
from persistasaurus.errors import UsageError

DEFAULT_ATTRIBUTE = "app"


def apphost_of(target: str, *, folder: Path | None = None, arguments: Sequence[str] = ()) -> AppHost:
    """Return the AppHost of a file, or of "module:attribute", or one made around an ASGI app there.

    Modules are looked for in `folder`, the current one by default, which is put on `sys.path`. While the
    target is imported, `sys.argv` holds it and the arguments, as if it had been started by itself.

    Raises:
        UsageError: there is none, or more than one.
    """
    with _argv(target, *arguments):
        if target.endswith(".py"):
            return _of_file(Path(target))
        return _of_module(target, Path.cwd() if folder is None else folder)


@contextmanager
def _argv(*words: str) -> Generator[None]:
    before, sys.argv = sys.argv, [*words]
    try:
        yield
    finally:
        sys.argv = before


def _of_file(path: Path) -> AppHost:
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r}. Name a file that makes an AppHost.")
    sys.path.insert(0, str(import_folder(path.parent)))
    spec = importlib.util.spec_from_file_location(f"apphost of {path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is no Python file. Name a file that makes an AppHost.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return _only_one(module, str(path))


def _only_one(module: ModuleType, where: str) -> AppHost:
    found = {id(value): value for value in vars(module).values() if isinstance(value, AppHost)}
    if len(found) == 1:
        return next(iter(found.values()))
    raise UsageError(
        f"{where!r} holds {len(found) or 'no'} AppHost{'s' if found else ''}, and one is needed at its top "
        'level: app = AppHost("my-app").'
    )


def _of_module(target: str, folder: Path) -> AppHost:
    module_name, _, attribute = target.partition(":")
    attribute = attribute or DEFAULT_ATTRIBUTE
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found: Any = attrgetter(attribute)(importlib.import_module(module_name))
    except ModuleNotFoundError as error:
        # A module that the target itself misses is the user's to see, with its traceback.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"There is no module {module_name!r} in {str(folder)!r}. Go to the folder that it lies in, or "
            "name a file: persistasaurus dev apphost.py."
        ) from error
    except AttributeError as error:
        raise UsageError(f"{target!r}: {error}. Name an AppHost or an ASGI app.") from error
    if isinstance(found, AppHost):
        return found
    if not callable(found):
        raise UsageError(f"{target!r} is neither an AppHost nor an ASGI app, but {found!r:.80}.")
    app = AppHost(module_name.rpartition(".")[2].replace("_", "-").strip("-") or "app", folder=folder)
    database = app.sqlite("flows.db")
    app.asgi("api", f"{module_name}:{attribute}", health=None).uses(database)
    return app
