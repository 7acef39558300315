"""What holds for every test."""

from __future__ import annotations

import gc
import os
import zlib

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile(
    "anywhere",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("anywhere")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run each test on both stores, and of one with many cases about every third on PostgreSQL.

    What a store must do is for the conformance suite, which runs whole on each. The long run runs all cases.
    Which ones is drawn by their names: every third in their order could be always the same kind.
    """
    if os.environ.get("PERSISTASAURUS_ALL_CASES"):
        return
    seen: set[str] = set()
    left_out: list[pytest.Item] = []
    for item in items:
        params = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        if params.get("database") == "postgres" and len(params) > 1:
            name = item.nodeid.partition("[")[0]
            if name in seen and zlib.crc32(item.nodeid.encode()) % 3:
                left_out.append(item)
            seen.add(name)
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare every collection of garbage from then on the walk over thousands of tests."""
    gc.collect()
    gc.freeze()
