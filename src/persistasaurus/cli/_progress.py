"""Progress bars, on stderr and only where someone watches: a pipe gets results and nothing else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from persistasaurus.cli._output import Output, console


class Bars:
    """A bar for each part of a long piece of work."""

    def __init__(self, out: Output) -> None:
        quiet = out.as_json or not sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=console(sys.stderr), disable=quiet, transient=True, redirect_stdout=False
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._progress.stop()

    def told(self, what: str, done: int, total: int) -> None:
        """Move the bar of a part, which begins with its first call."""
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._bars[what], completed=done, total=total)
