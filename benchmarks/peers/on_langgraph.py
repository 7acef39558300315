"""LangGraph's part of the benchmarks: `python on_langgraph.py WORKLOAD DATABASE OPTIONS`, the answer as JSON.

The functional API, on SQLite in WAL mode with `synchronous=FULL`, as its savers set it. One flow is sync
and many at once are async: the faster of the two in each case. `durability="sync"` is its strongest mode,
and still a task's result is written while the next task runs. It has no timer: a flow that sleeps is kept
in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task


@task
def say(name: str, count: int) -> int:
    return count


@task
async def say_async(name: str, count: int) -> int:
    return count


def hello(asked: dict[str, Any]) -> int:
    return sum(say(asked["name"], i).result() for i in range(asked["steps"]))


async def hello_async(asked: dict[str, Any]) -> int:
    total = 0
    for i in range(asked["steps"]):
        total += await say_async(asked["name"], i)
    return total


def replayed(asked: dict[str, Any]) -> int:
    total = hello(asked)
    if sys.argv[1] == "record":
        # The last result is still being written.
        time.sleep(0.5)
        os._exit(0)
    return total


def sequential(database: str, *, steps: int) -> float:
    """Return steps a second of one flow."""
    with SqliteSaver.from_conn_string(database) as saver:
        flow = entrypoint(checkpointer=saver)(hello)
        flow.invoke(asked(5), thread("first"), durability="sync")
        started = time.perf_counter()
        flow.invoke(asked(steps), thread("second"), durability="sync")
        return steps / (time.perf_counter() - started)


def concurrent(database: str, *, flows: int, steps: int) -> float:
    """Return steps a second of many flows, from the first start to the last result."""

    async def main() -> float:
        async with AsyncSqliteSaver.from_conn_string(database) as saver:
            flow = entrypoint(checkpointer=saver)(hello_async)
            await flow.ainvoke(asked(5), thread("first"), durability="sync")
            started = time.perf_counter()
            await asyncio.gather(
                *[flow.ainvoke(asked(steps), thread(str(uuid4())), durability="sync") for _ in range(flows)]
            )
            return flows * steps / (time.perf_counter() - started)

    return asyncio.run(main())


def record(database: str, *, steps: int) -> None:
    """Run a flow's steps and leave at once, before it ends."""
    with SqliteSaver.from_conn_string(database) as saver:
        entrypoint(checkpointer=saver)(replayed).invoke(asked(steps), thread("replayed"), durability="sync")


def replay(database: str, *, steps: int) -> float:
    """Return steps a second of a flow that is invoked again after its process was gone."""
    subprocess.run([sys.executable, __file__, "record", *sys.argv[2:]], check=True)
    started = time.perf_counter()
    with SqliteSaver.from_conn_string(database) as saver:
        flow = entrypoint(checkpointer=saver)(replayed)
        total = flow.invoke(None, thread("replayed"), durability="sync")
        seconds = time.perf_counter() - started
    assert total == sum(range(steps))
    return steps / seconds


def fill(database: str, *, flows: int, steps: int) -> float:
    """Record flows, for their size on disk."""
    return concurrent(database, flows=flows, steps=steps)


def sleeping(database: str, *, flows: int) -> None:
    """Answer with the memory and the threads that sleeping flows add to an app."""
    asyncio.run(put_to_sleep(database, flows=flows))


async def put_to_sleep(database: str, *, flows: int) -> None:
    awake, all_asleep = flows, asyncio.Event()

    @task
    async def nap() -> None:
        nonlocal awake
        awake -= 1
        if not awake:
            all_asleep.set()
        await asyncio.sleep(3600)

    async def napping(asked: dict[str, Any]) -> None:
        await nap()

    async with AsyncSqliteSaver.from_conn_string(database) as saver:
        await entrypoint(checkpointer=saver)(hello_async).ainvoke(asked(5), thread("first"))
        flow, before = entrypoint(checkpointer=saver)(napping), cost()
        tasks = [
            asyncio.create_task(flow.ainvoke(asked(0), thread(str(uuid4())), durability="sync"))
            for _ in range(flows)
        ]
        await all_asleep.wait()
        await asyncio.sleep(1)
        assert len(tasks) == flows
        # From within the loop, whose end would cancel what sleeps.
        answer({name: value - before[name] for name, value in cost().items()})


def asked(steps: int) -> dict[str, Any]:
    return {"name": "World", "steps": steps}


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def cost() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"mb": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"])}


def answer(found: float | dict[str, float] | None) -> None:
    """Print the answer and leave at once: sleeping flows would hold the process."""
    print(json.dumps(found), flush=True)
    os._exit(0)


WORKLOADS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (sequential, concurrent, record, replay, fill, sleeping)
}

if __name__ == "__main__":
    answer(WORKLOADS[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3])))
