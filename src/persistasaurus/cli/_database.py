"""The database of a command: looked at before it is opened, so that looking never makes or changes one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import SystemClock
from persistasaurus._store._sqlite_errors import explained
from persistasaurus._store._sqlite_open import MEMORY, connect, resolve
from persistasaurus._store.migrate import is_current
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus._store.urls import make_store
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
    path = file_of(url)
    if path is None:
        return
    if not path.exists():
        raise Refusal(
            f"There is no database {str(path)!r}. Name another with --db, or let `persistasaurus start`, "
            "`worker` or `db upgrade` create it.",
            Exit.NOT_FOUND,
        )
    if not is_upgraded(path):
        raise Refusal(
            f"The database {str(path)!r} is empty or of an older library. Run `persistasaurus db upgrade` "
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


def is_upgraded(path: Path) -> bool:
    """Whether an existing file has this library's schema.

    Raises:
        StoreError: it is no database of this library, or of a newer one.
    """
    real = resolve(path)
    with explained(real), closing(connect(real, durability="full", writing=False)) as connection:
        return is_current(connection, real)
