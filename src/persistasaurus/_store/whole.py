"""A store as a whole: what is read to verify, back up or promote it, and whether it is in service.

The rows are the same on every store, column by column, so that a copy of them is a store again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias

from persistasaurus._store.service import Mark

Row: TypeAlias = tuple[Any, ...]
Key: TypeAlias = tuple[int, ...]

_LOWEST = -(1 << 63)
_PAGE_ROWS = 1_000
_PAGE_LETTERS = 4_000_000


class Unreadable(NamedTuple):
    """In place of a row that is there and cannot be read."""

    key: Key
    problem: str


class Table(NamedTuple):
    """What there is to copy of a table; its rows begin with their key."""

    name: str
    columns: tuple[str, ...]
    keys: int = 1

    @property
    def start(self) -> Key:
        """A key before all others."""
        return (_LOWEST,) * self.keys

    def key_of(self, row: Row | Unreadable) -> Key:
        """Return the key of a row."""
        return row.key if isinstance(row, Unreadable) else row[: self.keys]


NAME = Table("name", ("name_id", "class_name", "method_name"))
FLOW = Table(
    "flow",
    tuple(
        """
        flow_key flow_id name_id status created_at_ms updated_at_ms seed input result error reason owner idle
        due_at_ms pokes crashes lost_claims parent_key parent_step cancel_requested_at_ms cancel_event
        cancel_event_at_ms checksum outcome_checksum trace
        """.split()  # noqa: SIM905
    ),
)
STEP = Table(
    "step",
    tuple(
        """
        flow_key step kind name_id status attempts asked started_at_ms ended_after_ms delay_ms due_at_ms event
        attempts_before parameters return_value error checksum
        """.split()  # noqa: SIM905
    ),
    keys=2,
)
SIGNAL = Table("signal", ("signal_id", "flow_id", "name", "payload", "sent_at_ms", "rejected", "checksum"))
TABLES = (NAME, FLOW, STEP, SIGNAL)
"""In the order in which they are copied. Workers are not: what they left is free in a copy."""


class Snapshot(Protocol):
    """All rows of a store at one moment, whatever is written meanwhile."""

    def count(self, table: Table) -> int:
        """Return how many rows there are."""
        ...

    def rows(self, table: Table, *, after: Key | None = None) -> Iterator[Row | Unreadable]:
        """Yield the rows in the order of their keys, those behind `after`; a few of them are in memory.

        Raises:
            StoreError: the rest of the table cannot be read.
        """
        ...

    def sequences(self) -> Mapping[str, int]:
        """Return for each table that numbers its rows the highest number that was ever given."""
        ...

    def strays(self) -> Iterator[tuple[str | None, str]]:
        """Yield what fits nowhere: a flow's id where it is one flow's, and the problem.

        Also what the database itself reports about its own structure.
        """
        ...


class State(Enum):
    """What there is at a store's address."""

    MISSING = "missing"
    OLD = "old"
    """It is to be migrated first; an empty file, too."""
    CURRENT = "current"


class WholeStore(Protocol):
    """A store's tables, and its place in service. Each method is one transaction.

    Raises:
        StoreError: the database cannot be used; nothing of the call was applied.
    """

    @property
    def shown(self) -> str:
        """Its address as others are told: where it is, never a password."""
        ...

    def state(self) -> State:
        """Look at what is there, also where the store is not open; nothing is made or changed.

        Raises:
            StoreVersionError: a newer library wrote it.
            StoreError: it is another program's, or cannot be read.
        """
        ...

    def open(self, *, create: bool = False) -> None:
        """Open the database, whether or not it is in service.

        With `create` it is made or migrated where it has to be; else that is an error, so that a slip in an
        address makes nothing.
        """
        ...

    def close(self) -> None:
        """Close every connection."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Hold what the store is now, for reading."""
        ...

    def mark(self) -> Mark | None:
        """Return what a promotion has left here."""
        ...

    def is_empty(self) -> bool:
        """Whether nobody has put anything into it and no worker is on it."""
        ...

    def take_out_of_service(self, mark: Mark, *, instead_of: Mark | None, empty: bool) -> None:
        """Leave the mark; from then on everybody's writes are refused, also of those who have it open.

        Raises:
            StoreError: a worker is on it, it is not `empty` where it has to be, or its mark is another one.
        """
        ...

    def set_mark(self, mark: Mark | None, *, instead_of: Mark) -> None:
        """Replace the mark; with none, or one that is in service, everybody is let in.

        Raises:
            StoreError: its mark is another one by now.
        """
        ...

    def last_key(self, table: Table) -> Key | None:
        """Return the highest key of a table."""
        ...

    def receive(self, table: Table, rows: Sequence[Row], *, after: Key | None, token: str | None) -> None:
        """Add rows behind those that end with the key `after`.

        With a token the store has to be out of service for the promotion of that token; without one it is
        a copy that nobody else knows of.

        Raises:
            StoreError: the promotion was given up, or the table does not end there, for another process
                writes here too.
        """
        ...

    def receive_sequences(self, sequences: Mapping[str, int], *, token: str | None) -> None:
        """Number what comes later from behind these."""
        ...

    def clear(self, token: str) -> None:
        """Delete all rows of a promotion that was given up."""
        ...


def in_order(
    table: Table, page: Callable[[Key, int], Sequence[Row | Unreadable]], after: Key | None
) -> Iterator[Row | Unreadable]:
    """Yield the rows of pages, which are the smaller the larger the rows are.

    `page` gives up to so many rows behind a key.
    """
    last, limit = after or table.start, 100
    while rows := page(last, limit):
        yield from rows
        last = table.key_of(rows[-1])
        mean = sum(map(letters, rows)) // len(rows) + 1
        limit = max(1, min(_PAGE_ROWS, _PAGE_LETTERS // mean))


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Part rows into lists of bounded size."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += letters(row)
        if len(batch) == 2 * _PAGE_ROWS or size >= _PAGE_LETTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def letters(row: Row | Unreadable) -> int:
    """Return about how much room a row's texts take."""
    return sum([len(value) for value in row if isinstance(value, str)])
