"""Runs an AppHost in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from persistasaurus.dev._apphost import AppHost
from persistasaurus.dev._state import ConsoleLine, State
from persistasaurus.dev._target import apphost_of
from persistasaurus.errors import UsageError

if TYPE_CHECKING:
    from persistasaurus.dev._host import Host

OK, FAILED, USAGE = 0, 1, 2


def main(target: str, *arguments: str) -> int:
    """Run the AppHost that `target` means and return the exit status: 0, or 2 where it means none.

    A target is a file that makes an AppHost, or "module:attribute" of an AppHost or of an ASGI app. It finds
    the arguments in `sys.argv`.
    """
    try:
        app = apphost_of(target, arguments=arguments)
        return run(app)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE


def run(app: AppHost, *, say: Callable[[str], object] | None = None) -> int:
    """Start everything, show what it prints, and end it on SIGINT or SIGTERM; return the exit status.

    `say` is called with each line to show, by default it is printed. Everything that was started has
    ended when this returns, and ends by itself within about a second where this process is killed.
    The status is 0, or 1 where a resource is failing at the end.

    Raises:
        UsageError: the application cannot be run as it is described.
    """
    with asyncio.Runner() as runner:
        return runner.run(_run(app, say or _print))


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(app: AppHost, say: Callable[[str], object]) -> int:
    from persistasaurus.dev._host import Host  # noqa: PLC0415 - needs the extra

    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked.set)

    def heard(line: ConsoleLine) -> None:
        say(f"{line.resource} | {line.text}")

    host = Host(app, heard=heard)
    failed = False
    try:
        await host.start()
        say(f"{app.name}: starting, dashboard at {host.server.link}")
        announcer = asyncio.create_task(_announce(host, say))
        await asked.wait()
        announcer.cancel()
        failed = any(status.state is State.FAILING for status in host.resources())
    finally:
        await host.stop()
    say(f"{app.name}: stopped")
    return FAILED if failed else OK


async def _announce(host: Host, say: Callable[[str], object]) -> None:
    for status in await host.settled():
        say(f"{status.name} is failing: {status.detail}")
    if all(status.state in (State.READY, State.FINISHED) for status in host.resources()):
        say(f"{host.app.name}: ready")
    for status in host.resources():
        for link in status.links:
            say(f"  {link.label}: {link.url}")
    say(f"  Dashboard: {host.server.link}")
