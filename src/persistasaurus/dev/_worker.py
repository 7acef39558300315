"""Imports a module and drives its flows until it is told to stop or the AppHost is gone.

`PERSISTASAURUS_URL=flows.db python -m persistasaurus.dev._worker module`
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from operator import attrgetter
from typing import Any, cast

from persistasaurus import Persistasaurus, UsageError
from persistasaurus.dev._environment import WORKER_READY
from persistasaurus.dev._stdin import when_stdin_ends
from persistasaurus.otel import configure

# Whoever stops an AppHost waits for it. A step that is cut off runs again at the next start.
DRAIN_S = 0.5


def main(reference: str) -> None:
    """Run a worker: "module", "module:function" that registers classes, or "module:attribute" of an app."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    when_stdin_ends(stop)
    with _app_of(reference):
        sys.stdout.write(f"{WORKER_READY}\n")
        sys.stdout.flush()
        stopped.wait()


def _app_of(reference: str) -> Persistasaurus:
    module_name, _, attribute = reference.partition(":")
    module = importlib.import_module(module_name)
    found: Any = attrgetter(attribute)(module) if attribute else None
    if isinstance(found, Persistasaurus):
        return found
    url = os.environ.get("PERSISTASAURUS_URL")
    if not url:
        raise UsageError(
            f"The worker of {reference!r} knows no database: PERSISTASAURUS_URL is not set. Add "
            '.uses(app.sqlite("flows.db")) to it.'
        )
    # Before OpenTelemetry adds a handler of its own, beside which Python prints nothing by itself.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    app = Persistasaurus(url, drain=DRAIN_S, observer=configure())
    if callable(found):
        cast("Callable[[Persistasaurus], object]", found)(app)
    elif attribute:
        raise UsageError(
            f"{reference!r} is neither a Persistasaurus nor a function that takes one. Name the module "
            "alone, or such a function."
        )
    return app


if __name__ == "__main__":
    main(sys.argv[1])
