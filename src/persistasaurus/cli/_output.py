"""What a command prints: JSON for programs, plain text or coloured tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from persistasaurus._model import FlowStatus
from persistasaurus.cli._inert import inert, one_line

GAP = 2
NARROWEST = 8

_STYLES: dict[str, str] = {
    FlowStatus.PENDING: "cyan",
    FlowStatus.WAITING_FOR_SIGNAL: "yellow",
    FlowStatus.COMPLETE: "green",
    FlowStatus.FAILED: "red",
    FlowStatus.CANCELLED: "magenta",
    FlowStatus.PARKED: "red",
}


class Column(NamedTuple):
    """A column of a table; `whole` ones are never shortened."""

    title: str
    whole: bool = False


class Output:
    """Where a command's results go. Nothing that is printed is ever read as markup."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.is_terminal = sys.stdout.isatty()
        for stream in (sys.stdout, sys.stderr):
            # A letter that the terminal does not have is no reason to fail.
            _reconfigure(stream, errors="backslashreplace")
        self._console = console(sys.stdout)

    def document(self, value: Any) -> None:
        """Print one JSON document."""
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def line(self, value: Any) -> None:
        """Print one line of JSON, at once."""
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Print a line for a person, at once."""
        sys.stdout.write(inert(text) + "\n")
        sys.stdout.flush()

    def aside(self, text: str) -> None:
        """Print a line that is no result on stderr."""
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Print names with their values, one a line."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            if self.is_terminal:
                self._console.print(Text(f"{name:<{width}}  ").append(_cell(value)))
            else:
                self.text(f"{name:<{width}}  {value}")

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under their columns' titles; on a terminal, long cells are shortened."""
        cells = [[inert(cell) for cell in row] for row in ([column.title for column in columns], *rows)]
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        if not self.is_terminal:
            for row in cells:
                self.text(_line(row, widths).plain)
            return
        fitted = _fitted(widths, columns, self._console.width)
        for place, row in enumerate(cells):
            line = _line(row, fitted)
            line.stylize("" if place else "bold")
            self._console.print(line, soft_wrap=True)


def _line(row: Sequence[str], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(row, widths, strict=True):
        shown = cell if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
        line.append(shown, style=_STYLES.get(cell, "")).append(" " * (width - cell_len(shown) + GAP))
    line.rstrip()
    return line


def _fitted(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Return widths that fit into the room, as far as the columns that may be shortened allow."""
    fitted = list(widths)
    over = sum(widths) + GAP * (len(widths) - 1) - room
    while over > 0:
        candidates = [n for n, column in enumerate(columns) if not column.whole and fitted[n] > NARROWEST]
        if not candidates:
            break
        widest = max(candidates, key=lambda n: fitted[n])
        fitted[widest] -= 1
        over -= 1
    return fitted


def by_lines(stream: TextIO) -> None:
    """Have a stream pass on each line when it is written, also through a pipe."""
    _reconfigure(stream, line_buffering=True)


def _reconfigure(stream: TextIO, **how: Any) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(**how)


def console(stream: TextIO) -> Console:
    """Return a console that colours only a terminal, and not where NO_COLOR is set."""
    terminal = stream.isatty()
    plain = not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system=None if plain else "auto",
        no_color=plain,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _cell(text: str) -> Text:
    return Text(inert(text), style=_STYLES.get(text, ""))
