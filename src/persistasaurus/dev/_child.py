"""One running process: what it prints, whether it is ready, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from persistasaurus.dev._environment import Plan
from persistasaurus.dev._health import complaint_of
from persistasaurus.dev._process import BEGINNING

LONGEST_LINE = 16_384
GRACE_S = 1.2
"""From SIGTERM to SIGKILL."""
_LOOK_AGAIN_S = 0.05
_LAST_WORDS_S = 0.2
_ALIVE_S = 0.25
"""A program of which nothing else is known is ready once it has lived for this."""


class Child:
    """A process in a group of its own. Closing its standard input tells it that the AppHost is gone."""

    def __init__(
        self, plan: Plan, process: asyncio.subprocess.Process, heard: Callable[[str, str], object]
    ) -> None:
        self.pid = process.pid
        self._plan = plan
        self._process = process
        self._heard = heard
        self._begun = asyncio.Event()
        self._said_ready = asyncio.Event()
        self._ears = [
            asyncio.create_task(self._listen("stdout", process.stdout)),
            asyncio.create_task(self._listen("stderr", process.stderr)),
        ]

    @classmethod
    async def start(cls, plan: Plan, heard: Callable[[str, str], object]) -> Child:
        """Start a plan's process; `heard` is called with each stream and line.

        Raises:
            OSError: the operating system does not start it.
        """
        process = await asyncio.create_subprocess_exec(
            *plan.command,
            cwd=plan.folder,
            env=os.environ | dict(plan.environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return cls(plan, process, heard)

    async def ready(self) -> None:
        """Return once it is ready: healthy, or has said so, or is simply still there."""
        if self._plan.ready_line is not None:
            await self._said_ready.wait()
        elif self._plan.port is None:
            await self._begun.wait()  # on a busy machine that alone may take longer
            await asyncio.sleep(_ALIVE_S)
        else:
            while await complaint_of(self._plan.port, self._plan.health):  # noqa: ASYNC110 - another process
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def ended(self) -> int:
        """Return its exit status once it and what it printed are done, and end what it left behind."""
        status = await self._process.wait()
        self._kill()  # what it started itself goes with it
        await asyncio.wait(self._ears, timeout=_LAST_WORDS_S)
        for ear in self._ears:
            ear.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status

    async def stop(self) -> None:
        """End it: SIGTERM to its group, and SIGKILL to what is left after a moment."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # nothing of it is left; macOS says the latter
            return

    async def _listen(self, name: str, stream: asyncio.StreamReader | None) -> None:
        if stream is None:
            return
        rest = b""
        while chunk := await stream.read(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(name, line)
            while len(rest) > LONGEST_LINE:  # whoever prints without an end is cut, not waited for
                self._hear(name, rest[:LONGEST_LINE])
                rest = rest[LONGEST_LINE:]
        if rest:
            self._hear(name, rest)

    def _hear(self, name: str, line: bytes) -> None:
        text = line[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r")
        if text == BEGINNING:
            self._begun.set()
            return
        if text == self._plan.ready_line:
            self._said_ready.set()
        self._heard(name, text)
