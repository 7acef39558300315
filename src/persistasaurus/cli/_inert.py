"""Makes text that somebody else wrote harmless to a terminal."""

from __future__ import annotations

import json
from typing import Any


def inert(text: str) -> str:
    """Return the text with everything that a terminal could obey, or hide, as an escape.

    Control characters (also the eight-bit ones), marks of the writing direction, what takes no room, line
    separators and lone surrogates become backslash escapes; what can be seen stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def one_line(text: str) -> str:
    """Return the text inert and in one line."""
    return inert(" ".join(text.split()))


def as_json(value: Any) -> str:
    """Return a value's JSON for a person: one line, inert, letters as they are."""
    return inert(json.dumps(value, ensure_ascii=False))


def _escape(character: str) -> str:
    # As repr() writes them: \n, \x1b, \u202e.
    return repr(character)[1:-1]
