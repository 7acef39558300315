"""What holds for every test."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile(
    "anywhere",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("anywhere")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare every collection of garbage from then on the walk over thousands of tests."""
    gc.collect()
    gc.freeze()
