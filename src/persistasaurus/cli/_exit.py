"""The exit codes, and which error has which."""

from __future__ import annotations

import enum
import sys

from persistasaurus.cli._inert import one_line
from persistasaurus.errors import (
    FlowCancelled,
    FlowConflict,
    FlowNotFound,
    FlowNotWaiting,
    SerializationError,
    UsageError,
)


class Exit(enum.IntEnum):
    """What a script can tell apart; 130 besides, where the user pressed Ctrl-C."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    TIMEOUT = 5


INTERRUPTED = 130

_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (FlowNotFound, Exit.NOT_FOUND),
    (FlowConflict, Exit.CONFLICT),
    (FlowNotWaiting, Exit.CONFLICT),
    (FlowCancelled, Exit.CONFLICT),
    (UsageError, Exit.USAGE),
    (SerializationError, Exit.USAGE),
    (ValueError, Exit.USAGE),
)


class Refusal(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code

    def show(self) -> None:
        """Write the line; what it quotes of a payload is inert."""
        sys.stderr.write(f"persistasaurus: {one_line(str(self))}\n")


def refusal(error: Exception) -> Refusal:
    """Return an error of the library, or of the user's own code, as one line and its exit code."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
    return Refusal(str(error) or type(error).__name__, code)
