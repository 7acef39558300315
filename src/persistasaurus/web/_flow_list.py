"""The list of flows as its page shows it: rows by key, newest first, that do not jump while new ones come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import instant
from persistasaurus._engine.listing import checked_prefix, status_codes
from persistasaurus._engine.registry import display_name
from persistasaurus._model import STATUS_BY_CODE, FlowStatus
from persistasaurus._store.base import FlowFilter, FlowRow
from persistasaurus.web._addresses import as_cursor, from_cursor, segment
from persistasaurus.web._search import Search, read_search

PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A flow in the list."""

    key: int
    flow_id: str
    address: str
    name: str
    status: FlowStatus
    reason: str | None
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of the list. Addresses are queries: what follows `flows`."""

    text: str
    search: Search
    rows: Sequence[Row]
    fresh: int
    """How many flows were started since the first page was made, at most one more than a page."""
    newest: str
    following: str | None
    refresh: str
    chips: Sequence[tuple[str, str, bool]]
    names: Sequence[str]


def listing(app: Persistasaurus, *, text: str, before: str | None, seen: str | None) -> Listing:
    """Return a page of the flows that a search asks for.

    `before` is a cursor: the flows behind it. `seen` is one too: none started since, but their number.

    Raises:
        ValueError: a cursor is none.
    """
    engine = app._engine_here("The list of flows")
    search = read_search(text)
    which = FlowFilter(
        statuses=status_codes(search.statuses or None),
        names=app._names_of(engine, search.name),
        id_prefix=checked_prefix(search.id_prefix),
    )
    seen_key = None if seen is None else from_cursor(seen)
    below = None if before is None else from_cursor(before)
    if below is None and seen_key is not None:
        below = seen_key + 1
    found: Sequence[FlowRow] = (
        [] if search.wrong else engine.store.list_flows(which, before_key=below, limit=PAGE + 1)
    )
    if seen_key is None:
        seen_key = found[0].flow_key if found and below is None else below or 0
    since: Sequence[FlowRow] = (
        [] if search.wrong else engine.store.list_flows(which, before_key=None, limit=PAGE + 1)
    )
    asked = [("q", text)] if text else []
    again = [*asked, ("before", before)] if before else asked
    return Listing(
        text=text,
        search=search,
        rows=[_row(app, one) for one in found[:PAGE]],
        fresh=sum(one.flow_key > seen_key for one in since),
        newest=_query(asked),
        following=_query([*asked, ("before", as_cursor(found[PAGE - 1].flow_key))])
        if len(found) > PAGE
        else None,
        refresh=_query([*again, ("seen", as_cursor(seen_key))]),
        chips=_chips(search),
        names=sorted(display_name(name) for name in app._registry.known()),
    )


def _row(app: Persistasaurus, row: FlowRow) -> Row:
    return Row(
        key=row.flow_key,
        flow_id=row.flow_id,
        address=segment(row.flow_id),
        name=display_name((row.class_name, row.method_name)),
        status=STATUS_BY_CODE[row.status],
        reason=app._reason_of(row),
        created=instant(row.created_at_ms),
        updated=instant(row.updated_at_ms),
    )


def _chips(search: Search) -> list[tuple[str, str, bool]]:
    """Return a link for each status: its name, the list with it alone, and whether that is this list."""
    every = [("all", _query(_asked(search.text(statuses=()))), not search.statuses)]
    for status in FlowStatus:
        query = _query(_asked(search.text(statuses=[status])))
        every.append((status.lower(), query, tuple(search.statuses) == (status,)))
    return every


def _asked(text: str) -> list[tuple[str, str]]:
    return [("q", text)] if text else []


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    return f"?{urlencode(pairs)}" if pairs else ""
