"""The list of flows as its page shows it: rows by key, newest first, that do not jump while new ones come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from persistasaurus._app import Persistasaurus
from persistasaurus._clock import instant
from persistasaurus._engine.engine import Engine
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
    found: Sequence[FlowRow] = []
    newest = fresh = 0
    seen_key, below = _key(seen), _key(before)
    if not search.wrong:
        which = _filter(engine, search)
        latest = engine.store.list_flows(which, before_key=None, limit=PAGE + 1)
        newest = latest[0].flow_key if latest and seen_key is None else seen_key or 0
        fresh = sum(one.flow_key > newest for one in latest)
        if below is None and fresh:
            below = newest + 1
        found = latest if below is None else engine.store.list_flows(which, before_key=below, limit=PAGE + 1)
    asked = _asked(text)
    kept = [("seen", as_cursor(newest))]
    return Listing(
        text=text,
        search=search,
        rows=[_row(app, one) for one in found[:PAGE]],
        fresh=fresh,
        newest=_query(asked),
        following=_query([*asked, ("before", as_cursor(found[PAGE - 1].flow_key)), *kept])
        if len(found) > PAGE
        else None,
        refresh=_query([*asked, *([("before", before)] if before else []), *kept]),
        chips=_chips(search),
        names=sorted(display_name(name) for name in app._registry.known()),
    )


def _key(cursor: str | None) -> int | None:
    return None if cursor is None else from_cursor(cursor)


def _filter(engine: Engine, search: Search) -> FlowFilter:
    return FlowFilter(
        statuses=status_codes(search.statuses or None),
        names=None if search.name is None else _names(engine, search.name),
        id_prefix=checked_prefix(search.id_prefix),
    )


def _names(engine: Engine, text: str) -> list[tuple[str, str]]:
    """Return the names that are meant: the one that is spelled out, else all that contain the text."""
    every = list(engine.store.names().values())
    exact = [name for name in every if display_name(name) == text]
    return exact or [name for name in every if text.casefold() in display_name(name).casefold()]


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
