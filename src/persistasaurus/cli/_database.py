"""The database of a command: looked at before it is opened, so that looking never makes or changes one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import SystemClock
from persistasaurus._store._sqlite_open import MEMORY
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus._store.urls import make_store, whole_store
from persistasaurus._store.whole import State
from persistasaurus.cli._command import Here
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.cli._keys import cipher_here
from persistasaurus.cli._modules import register_all


@contextmanager
def client(here: Here) -> Generator[Persistasaurus, None, None]:
    """Enter an app on the command's existing database that drives nothing.

    Raises:
        Refusal: there is no database, or an older library made it.
    """
    app = new_client(here)
    check_there(here.settings.url)
    with app:
        yield app


def new_client(here: Here) -> Persistasaurus:
    """Return an app that drives nothing, with the modules imported; entering it creates the database.

    Raises:
        Refusal: a module cannot be imported, or the database would be in memory.
    """
    file_of(here.settings.url)
    app = Persistasaurus(here.settings.url, worker=False, cipher=cipher_here())
    register_all(app, here.settings.modules)
    return app


def check_there(url: str) -> None:
    """Refuse a database that does not exist or is to be migrated first; an existing one is not changed.

    Raises:
        Refusal: it says how to make, migrate or name it.
        StoreError: it cannot be used at all.
    """
    file_of(url)
    store = whole_store(url)
    state = store.state()
    if state is State.MISSING:
        raise Refusal(
            f"There is no database {store.shown}. Name another with --db, or let `persistasaurus start`, "
            "`worker` or `db upgrade` create it.",
            Exit.NOT_FOUND,
        )
    if state is State.OLD:
        raise Refusal(
            f"The database {store.shown} is empty or of an older library. Run `persistasaurus db upgrade` "
            "first.",
            Exit.FAILED,
        )


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite address, None where the store is no file of this machine.

    Raises:
        Refusal: it is in memory, where no other process finds it.
    """
    store = make_store(url, durability="full", clock=SystemClock())
    if not isinstance(store, SqliteStore):
        return None
    path = store._file.path
    if path == MEMORY:
        raise Refusal(
            "A database in memory ends with this command. Give the path of a file with --db.", Exit.USAGE
        )
    return Path(path)
