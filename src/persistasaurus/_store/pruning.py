"""What of a store may be removed, and how much of it at a time.

A flow that no other flow has called is removed together with all flows below it, once each of them has ended:
a parent that is retried asks for its children again, and a child that is retried wakes its parent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

MOST_ROWS = 2_000
"""Of one transaction, but for a family that has more by itself: so long does a commit wait for it."""


class Pruned(NamedTuple):
    """What one call has removed, and when there is more."""

    flows: int
    """How many flows were removed, children too; 0 where there is nothing left to remove."""
    next_end_ms: int | None
    """When the next of the flows ended that were too young, None where there is none."""


class Pruning(Protocol):
    """The part of a store that forgets."""

    def prune(self, before_ms: int, *, limit: int) -> Pruned:
        """Remove flows that ended at or before `before_ms`, those that ended first, up to `limit`.

        Each goes whole, in one transaction with all that is its own: its row, its steps, its signals, and its
        child flows with theirs. It stays while it, or one of those, has not ended or ended later; one that is
        parked has not ended. Where any may go, at least one family does, of whatever size.

        A crash undoes what was not committed, and the call may be made again at any time.
        """
        ...

    def prunable(self, before_ms: int) -> int:
        """Return how many flows `prune` would remove, called until nothing is left."""
        ...


class Family(NamedTuple):
    """A flow that no other has called, with all flows below it."""

    flow_key: int
    flows: int
    rows: int
    """About how many rows of flows and steps they have."""


def portion(families: Iterable[Family], limit: int) -> list[int]:
    """Return the keys of those that one transaction takes: the first one, and more while they are small."""
    chosen: list[int] = []
    flows = rows = 0
    for family in families:
        flows += family.flows
        rows += family.rows
        if chosen and (flows > limit or rows > MOST_ROWS):
            break
        chosen.append(family.flow_key)
    return chosen
