"""Steps in parallel, a race and a time limit, written with nothing but asyncio.

Each completion is recorded in its order, so that after a crash the race has the same winner. What the flow
cancels shows as CANCELLED in the log.

    python examples/fan_out.py
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from persistasaurus import Persistasaurus, flow, step

SECONDS = {"near": 0.05, "far": 0.5, "moon": 60.0}


@step
async def weigh(parcel: str) -> int:
    await asyncio.sleep(0.05)  # in a step this is plain asyncio: the step talks to the world
    return len(parcel)


@step
async def quote(carrier: str, weight: int) -> str:
    await asyncio.sleep(SECONDS[carrier])
    return f"{carrier} takes {weight} kg"


@step
def write_label(text: str) -> str:
    return f"[{text}]"


@flow
async def ship(parcels: list[str]) -> list[str]:
    # All at once, the results in the order of the arguments.
    weights = await asyncio.gather(*(weigh(parcel) for parcel in parcels))
    total = sum(weights)

    # The first answer wins, the other carrier is cancelled.
    race = [asyncio.create_task(quote(carrier, total)) for carrier in ("far", "near")]
    done, pending = await asyncio.wait(race, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    found = [task.result() for task in done]

    # A durable time limit.
    try:
        async with asyncio.timeout(0.1):
            found.append(await quote("moon", total))
    except TimeoutError:
        found.append("the moon did not answer")

    # TaskGroup, and a sync step, which an async flow asks for by `submit`.
    async with asyncio.TaskGroup() as group:
        labels = [group.create_task(labelled(text)) for text in found]
    return [label.result() for label in labels]


async def labelled(text: str) -> str:
    return await write_label.submit(text)


async def main(database: Path) -> None:
    shipping = ship.options(flow_id="ship-1")
    async with Persistasaurus(database) as app:
        for line in await app.run_async(shipping, ["book", "lamp", "piano"]):
            print(line)

        print("-- execution log --")
        for row in await app.handle("ship-1").steps_async():
            print(row.step, row.method_name, row.parameters or "", row.status)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "flows.db")))
