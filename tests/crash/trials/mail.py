"""Signals from many senders, some sent twice, before the wait, at its timeout, and at a cancel."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from contextlib import suppress
from typing import Any, cast

from persistasaurus import FlowCancelled, FlowHandle, Persistasaurus, Signal, flow
from tests.crash.checker import Recorded
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.story import Outcome

letter = Signal("letter", str)
SENDERS = 8
FLOWS = 8
LAST = "last"


@flow
async def hasty_reader() -> list[str]:
    """Take letters while its waits time out all the time, until the last one has come."""
    taken: list[str] = []
    while LAST not in taken:
        try:
            async with asyncio.timeout(0.005):
                taken.append(await letter)
        except TimeoutError:
            continue
    return taken


@flow
async def reader() -> list[str]:
    taken: list[str] = []
    while LAST not in taken:
        taken.append(await letter)
    return taken


def letters(zygote: Zygote, place: Place, seed: int, *, count: int = 2_000) -> Outcome:
    """Each letter is taken once or is pending still, in its sender's order; also over a restart."""
    rng = random.Random(seed)
    db = place.database(f"letters-{seed}")
    kinds: dict[str, Any] = {f"flow-{n}": (reader, hasty_reader)[n % 8 == 0] for n in range(FLOWS)}
    sent: dict[str, list[list[str]]] = {flow_id: [[] for _ in range(SENDERS)] for flow_id in kinds}

    def send(app: Persistasaurus, number: int, share: int) -> None:
        mine = random.Random(f"{seed}/{number}/{share}")
        for _ in range(share):
            flow_id = mine.choice(list(kinds))
            # Sent twice is sent twice: a sender that is in doubt repeats itself, and each counts.
            value = f"{number}.{len(sent[flow_id][number])}"
            app.handle(flow_id).send(letter, value)
            sent[flow_id][number].append(value)

    share = count // SENDERS // 2
    for life in range(2):
        with Persistasaurus(db) as app:
            threads = [threading.Thread(target=send, args=(app, n, share)) for n in range(SENDERS)]
            for thread in threads:
                thread.start()
            for flow_id, kind in kinds.items():
                app.start(kind.options(flow_id=flow_id))
            for thread in threads:
                thread.join()
            if life:
                _end(app, kinds, db, sent, f"seed {seed}", cancelled=rng.choice(list(kinds)[1:]))
    return Outcome(2 * share * SENDERS, FLOWS)


def _end(
    app: Persistasaurus,
    kinds: dict[str, Any],
    db: str,
    sent: dict[str, list[list[str]]],
    when: str,
    *,
    cancelled: str,
) -> None:
    app.handle(cancelled).cancel()
    for flow_id in kinds:
        app.handle(flow_id).send(letter, LAST)
    for flow_id in kinds:
        taken = _taken(app.handle(flow_id))
        left = _pending(db, flow_id)
        for number, values in enumerate(sent[flow_id]):
            got = [value for value in taken if value.startswith(f"{number}.")]
            kept = [value for value in left if value.startswith(f"{number}.")]
            assert got + kept == values, f"{when}, {flow_id}: sent {values}, took {got}, pending {kept}"
        assert (flow_id == cancelled) or taken[-1] == LAST


def _taken(handle: FlowHandle[Any]) -> list[str]:
    with suppress(FlowCancelled):
        return cast("list[str]", handle.result(60))
    # Of a plain reader: where a wait is left at its timeout, the log shows its letter a second time, in the
    # row of the wait that was given it.
    steps = [row for row in handle.steps() if row.method_name == "letter" and row.status == "COMPLETE"]
    return [row.return_value for row in steps]


def _pending(db: str, flow_id: str) -> list[str]:
    pending = sorted(Recorded(db).signals, key=lambda row: row["signal_id"])
    return [json.loads(row["payload"]) for row in pending if row["flow_id"] == flow_id]
