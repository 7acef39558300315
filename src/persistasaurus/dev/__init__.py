"""Everything of an application, started by one command or by a test. Needs the extra `dev`.

`AppHost` describes it, `run` and `main` run it in the foreground, `AppHost.testing` in a test.
"""

from persistasaurus.dev._apphost import AppHost, Asgi, Database, Postgres, Process, Resource, Sqlite, Worker
from persistasaurus.dev._fixture import host_fixture
from persistasaurus.dev._run import main, run
from persistasaurus.dev._state import State
from persistasaurus.dev._target import apphost_of
from persistasaurus.dev._testing import RunningApp

__all__ = [
    "AppHost",
    "Asgi",
    "Database",
    "Postgres",
    "Process",
    "Resource",
    "RunningApp",
    "Sqlite",
    "State",
    "Worker",
    "apphost_of",
    "host_fixture",
    "main",
    "run",
]
