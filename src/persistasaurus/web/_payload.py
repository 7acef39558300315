"""What somebody else wrote, as a page shows it: inert, laid out, and no more of it than a person reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MOST_SHOWN = 4_000


# Longer JSON is shown as it is stored: laying it out takes longer than reading its beginning is worth.
MOST_LAID_OUT = 64_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The beginning of a text, how long all of it is, and whether that is more."""

    text: str
    length: int

    @property
    def cut(self) -> bool:
        return self.length > MOST_SHOWN


def shown(value: Any) -> Shown:
    """Return the beginning of a plain JSON value, laid out."""
    return shown_text(laid_out(value))


def shown_json(text: str) -> Shown:
    """Return the beginning of JSON text, laid out where it is short; also of what is damaged and no JSON."""
    if len(text) > MOST_LAID_OUT:
        return shown_text(text)
    try:
        return shown(json.loads(text))
    except ValueError:
        return shown_text(text)


def shown_text(text: str) -> Shown:
    """Return the beginning of a text."""
    return Shown(text=inert(text[:MOST_SHOWN]), length=len(text))


def laid_out(value: Any) -> str:
    """Return all of a plain JSON value, laid out."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def inert(text: str) -> str:
    """Return a text with what cannot be seen as escapes, but for line ends and tabs.

    Terminal codes, marks of the writing direction and lone surrogates would hide or reorder what is shown.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)
