"""An approval with a time limit: a manager is asked first, then, where no answer comes, a director.

The answers are signals of a type of their own. The first is sent before its flow exists, and waits for it.

    python examples/approval.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from persistasaurus import FlowStatus, Persistasaurus, SerializationError, Signal, flow, sleep, step

PATIENCE = 0.3
"""Seconds that the manager has; days in earnest, and the flow would not mind."""


@dataclass(frozen=True)
class Decision:
    by: str
    granted: bool


decision = Signal("decision", Decision)


@step
def ask(whom: str, item: str) -> None:
    print(f"{whom}, may we buy {item}?")


@step
def order(item: str, granted_by: str) -> str:
    return f"{item} ordered, granted by {granted_by}"


@flow
def buy(item: str) -> str:
    ask("manager", item)
    try:
        answer = decision.wait(timeout=PATIENCE)
    except TimeoutError:
        ask("director", item)
        answer = decision.wait()
    if not answer.granted:
        return f"{item} refused by {answer.by}"
    sleep(0.05)  # the day of grace that the rules ask for
    return order(item, answer.by)


def main(database: Path) -> None:
    with Persistasaurus(database) as app:
        app.handle("buy-stapler").send(decision, Decision("manager", granted=True))
        print(app.run(buy.options(flow_id="buy-stapler"), "a stapler"))

        handle = app.start(buy.options(flow_id="buy-yacht"), "a yacht")
        while handle.status() != FlowStatus.WAITING_FOR_SIGNAL:
            time.sleep(0.02)
        try:
            handle.send("decision", {"by": "director", "granted": "perhaps"})
        except SerializationError:
            print("an answer that is no Decision was refused, nothing was recorded")
        handle.send(decision, Decision("director", granted=False))
        print(handle.result(timeout=10))

        print("-- execution log --")
        for record in sorted(app.flows(flow=buy), key=lambda record: record.flow_id):
            print(record.flow_id, record.status)
            for row in app.handle(record.flow_id).steps():
                print(" ", row.step, row.method_name, row.status, row.return_value or "")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder, "flows.db"))
