"""What flows that have ended leave in memory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from persistasaurus import Persistasaurus, flow, step
from persistasaurus._engine.run import Run


@step
async def add_async(a: int, b: int) -> int:
    return a + b


@step
def add(a: int, b: int) -> int:
    return a + b


@flow
async def forgotten_async(a: int) -> int:
    return await add_async(a, await add_async(a, 1))


@flow
def forgotten(a: int) -> int:
    return add(a, add(a, 1))


@pytest.mark.parametrize("chosen", [forgotten_async, forgotten], ids=["async", "sync"])
def test_a_flow_that_has_ended_leaves_nothing_to_the_garbage_collector(tmp_path: Path, chosen: Any) -> None:
    """A thousand flows a second would be a heap that grows until its next turn."""
    gc.disable()
    try:
        with Persistasaurus(tmp_path / "flows.db") as app:
            handles = [app.start(chosen, n) for n in range(50)]
            assert [handle.result(10) for handle in handles] == [2 * n + 1 for n in range(50)]
            app.run(chosen, 1)  # by now the loop has forgotten those before
            left = [found for found in gc.get_objects() if isinstance(found, Run)]
            assert len(left) <= 2
    finally:
        gc.enable()
