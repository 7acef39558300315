"""Whether a store is in service: the mark that a promotion leaves on both of its stores.

A store that is out of service is not opened, and refuses the writes of those who have it open already.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from persistasaurus.errors import StoreError


class Service(enum.StrEnum):
    """What a store is in a promotion."""

    LEAVING = "leaving"
    """Its flows are being copied."""
    LEFT = "left"
    """Its flows go on elsewhere."""
    ARRIVING = "arriving"
    """It is being filled."""
    ARRIVED = "arrived"
    """Its flows came from elsewhere; it is in service."""


class Mark(NamedTuple):
    """What a promotion leaves in a store."""

    state: Service
    place: str
    """The other store, as messages show it."""
    token: str
    """The same on both sides, and no other promotion's."""

    @property
    def in_service(self) -> bool:
        """Whether workers and clients may use the store."""
        return self.state == Service.ARRIVED


def check_mark(found: Mark | None, expected: Mark | None, shown: str) -> None:
    """Raise StoreError where the mark of a store is not what a promotion has left or seen there."""
    if found != expected:
        raise StoreError(
            f"Another process has begun, finished or given up a promotion of the database {shown} meanwhile. "
            "Nothing of this was written. Look which store is in service, and run the command again."
        )


def check_arriving(found: Mark | None, token: str, shown: str) -> None:
    """Raise StoreError where a store is not being filled by the promotion of that token."""
    if found is None or (found.state, found.token) != (Service.ARRIVING, token):
        raise StoreError(
            f"The database {shown} is not being filled by this promotion any more: somebody has given it up "
            "or finished it. Nothing of this was written."
        )


def refused(shown: str, mark: Mark) -> str:
    """Return why a store that is out of service cannot be used, and what to do."""
    place = mark.place
    match mark.state:
        case Service.LEFT:
            why = f"its flows were promoted to {place} and go on there. Give that address instead."
        case Service.LEAVING:
            why = (
                f"its flows are being promoted to {place}. Wait for the end; if it was interrupted, run "
                f"`persistasaurus db promote` with the same two addresses again, or add --abandon to put "
                "this store back in service."
            )
        case Service.ARRIVING | Service.ARRIVED:
            why = (
                f"it is being filled with the flows of {place}. Wait for the end; if it was interrupted, run "
                "`persistasaurus db promote` with the same two addresses again."
            )
    return f"The database {shown} is out of service: {why}"
