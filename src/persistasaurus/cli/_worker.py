"""`persistasaurus worker`: drives the flows of some modules until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

import click

from persistasaurus._app import Persistasaurus
from persistasaurus._store.urls import shown
from persistasaurus.cli._command import DatabaseCommand, Here
from persistasaurus.cli._database import file_of
from persistasaurus.cli._exit import INTERRUPTED, Exit, Refusal
from persistasaurus.cli._inert import inert
from persistasaurus.cli._keys import cipher_here
from persistasaurus.cli._modules import attribute, call_with, known_names, undrivable
from persistasaurus.cli._output import by_lines

LOOK_S = 0.2
FIELDS = ("flow_id", "flow", "step", "attempt", "signal")


@click.command(cls=DatabaseCommand)
@click.argument("references", nargs=-1, metavar="MODULE[:NAME]...")
@click.option("--drain", type=click.FloatRange(min=0), metavar="SECONDS", help="How long a stop waits. [10]")
@click.option("--lease", type=click.FloatRange(min=0.1), metavar="SECONDS", help="See the settings. [10]")
@click.pass_obj
def worker(here: Here, /, references: tuple[str, ...]) -> Exit:
    """Drive the flows of these modules until SIGTERM or Ctrl-C.

    MODULE:NAME names a function that is called with the app, to register classes, or an app to enter
    instead. Running steps get --drain seconds to end; a second Ctrl-C ends at once, and what was cut off
    goes on at the next start.
    """
    _log_to_stderr()
    app = _app_of(here, references or here.settings.modules)
    stop = _Stop()
    with app:
        _tell_ready(here, app)
        while not stop.asked.wait(LOOK_S):
            # Raises once the database file is gone.
            app._engine_here("worker")
    return Exit.OK


class _WithFields(logging.Formatter):
    """One inert line with the fields of a record that say which flow it is about."""

    def format(self, record: logging.LogRecord) -> str:
        fields = (f"{name}={vars(record)[name]}" for name in FIELDS if name in vars(record))
        return inert(" ".join([super().format(record), *fields]).replace("\n", " | "))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_WithFields("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Stop:
    """SIGTERM and SIGINT as an event; a second SIGINT ends the process."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.asked.is_set() and number == signal.SIGINT:
            # As after a crash: the next start goes on behind the last recorded step.
            os._exit(INTERRUPTED)
        self.asked.set()
        # Not by sys.stderr, whose lock the interrupted code may hold.
        os.write(2, b"persistasaurus: stopping, running steps may end; Ctrl-C again ends at once\n")


def _app_of(here: Here, references: Sequence[str]) -> Persistasaurus:
    if not references:
        raise Refusal(
            "Name the modules whose flows are to be driven: persistasaurus worker MODULE.", Exit.USAGE
        )
    found = [(attribute(reference), reference) for reference in references]
    apps = [one for one, _ in found if isinstance(one, Persistasaurus)]
    if len(apps) > 1:
        raise Refusal("Several of these are apps of their own. Start a worker for each.", Exit.USAGE)
    if apps:
        app = apps[0]
    else:
        settings = here.settings
        file_of(settings.url)
        app = Persistasaurus(settings.url, drain=settings.drain, lease=settings.lease, cipher=cipher_here())
    for one, reference in found:
        if one is not app:
            call_with(app, one, reference)
    _check_driven(here, app, references)
    return app


def _check_driven(here: Here, app: Persistasaurus, references: Sequence[str]) -> None:
    unmade = undrivable(app)
    if unmade:
        here.out.aside(
            f"persistasaurus: {', '.join(unmade)}: needs constructor arguments, so its flows are not driven "
            "here. Name a function that registers it: persistasaurus worker MODULE:FUNCTION."
        )
    if not known_names(app):
        raise Refusal(f"There is no flow to drive in {', '.join(references)}.", Exit.USAGE)


def _tell_ready(here: Here, app: Persistasaurus) -> None:
    # What steps print is to be seen when it is printed, also through a pipe.
    by_lines(sys.stdout)
    names = known_names(app)
    database = shown(os.fspath(app._url))
    if here.out.as_json:
        here.out.line({"ready": True, "pid": os.getpid(), "database": database, "flows": names})
        return
    here.out.text(f"persistasaurus worker ready: drives {', '.join(names)} on {database}")
