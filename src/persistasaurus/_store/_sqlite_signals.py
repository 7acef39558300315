"""Signals, and the pokes by which a flow notices them; inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import apsw

from persistasaurus._store._sqlite_rows import read_rows, write
from persistasaurus._store.base import NewSignal


def send(connection: apsw.Connection, new: Sequence[NewSignal]) -> Sequence[int | None]:
    """Add signals and poke their flows; return for each the key of the flow that was poked."""
    write(
        connection,
        """
        INSERT INTO signal (flow_id, name, payload, sent_at_ms, checksum)
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)
        """,
        (json.dumps(new),),
    )
    rows = read_rows(
        connection,
        """
        SELECT flow_id, flow_key FROM flow
        WHERE flow_id IN (SELECT value FROM json_each(?)) AND +status IN (0, 2)
        """,
        (json.dumps([signal.flow_id for signal in new]),),
    )
    keys: dict[str, int] = dict(rows)
    due: dict[int, int] = {}
    for signal in new:
        if (key := keys.get(signal.flow_id)) is not None:
            due[key] = min(due.get(key, signal.sent_at_ms), signal.sent_at_ms)
    if due:
        poke(connection, due)
    return [keys.get(signal.flow_id) for signal in new]


def poke(connection: apsw.Connection, due: Mapping[int, int]) -> None:
    """Make each flow key due at its time, unless the flow has ended or is parked."""
    write(
        connection,
        """
        UPDATE flow SET
            pokes = flow.pokes + 1,
            due_at_ms = min(coalesce(flow.due_at_ms, poked.value ->> 1), poked.value ->> 1)
        FROM json_each(?) AS poked
        WHERE flow.flow_key = poked.value ->> 0 AND +flow.status IN (0, 2)
        """,
        (json.dumps(list(due.items())),),
    )


def consume(connection: apsw.Connection, signal_ids: Sequence[int]) -> None:
    """Delete signals that a flow has taken."""
    write(
        connection,
        "DELETE FROM signal WHERE signal_id IN (SELECT value FROM json_each(?))",
        (json.dumps(signal_ids),),
    )


def reject(connection: apsw.Connection, rejected: Sequence[tuple[int, str]]) -> None:
    """Set signals aside with the reason."""
    write(
        connection,
        """
        UPDATE signal SET rejected = given.value ->> 1 FROM json_each(?) AS given
        WHERE signal.signal_id = given.value ->> 0
        """,
        (json.dumps(rejected),),
    )
