"""The search box of the list of flows: `status:failed name:signup id:abc`; a plain word begins an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from persistasaurus._model import FlowStatus

_TOKEN = re.compile(r'(?:(status|name|id):)?(?:"([^"]*)"|(\S+))', re.IGNORECASE)
_SHORT = {"WAITING": FlowStatus.WAITING_FOR_SIGNAL}
LONGEST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search asks for; `wrong` says what it could not make sense of."""

    statuses: Sequence[FlowStatus] = ()
    name: str | None = None
    id_prefix: str | None = None
    wrong: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.statuses or self.name or self.id_prefix or self.wrong)

    def text(self, *, statuses: Sequence[FlowStatus] | None = None) -> str:
        """Return the search as text again, with other statuses if some are given."""
        wanted = self.statuses if statuses is None else statuses
        parts = [f"status:{','.join(one.lower() for one in wanted)}"] if wanted else []
        parts += [f"name:{_quoted(self.name)}"] if self.name else []
        parts += [f"id:{_quoted(self.id_prefix)}"] if self.id_prefix else []
        return " ".join(parts)


def read_search(text: str) -> Search:
    """Return what a search asks for, and what is wrong with it."""
    statuses: list[FlowStatus] = []
    names: list[str] = []
    prefixes: list[str] = []
    wrong: list[str] = []
    for key, quoted, plain in _TOKEN.findall(text[:LONGEST]):
        value = quoted or plain
        if key.lower() == "status":
            statuses += _statuses(value, wrong)
        else:
            (names if key.lower() == "name" else prefixes).append(value)
    if len(names) > 1:
        wrong.append("A flow has one name: give name: once.")
    if len(prefixes) > 1:
        wrong.append('An id has one beginning: give one, in "quotes" if it has spaces.')
    return Search(
        statuses=tuple(dict.fromkeys(statuses)),
        name=names[0] if names else None,
        id_prefix=prefixes[0] if prefixes else None,
        wrong=" ".join(wrong),
    )


def _statuses(value: str, wrong: list[str]) -> list[FlowStatus]:
    found: list[FlowStatus] = []
    for one in filter(None, value.upper().split(",")):
        known = _SHORT.get(one) or FlowStatus.__members__.get(one)
        if known is None:
            names = ", ".join(each.lower() for each in FlowStatus)
            wrong.append(f"There is no status {one.lower()!r:.40}. Give some of {names}.")
        else:
            found.append(known)
    return found


def _quoted(text: str) -> str:
    return f'"{text}"' if re.search(r"\s", text) else text
