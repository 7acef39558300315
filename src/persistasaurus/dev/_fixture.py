"""A pytest fixture that holds a running application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from persistasaurus.dev._apphost import AppHost
from persistasaurus.dev._testing import RunningApp

Scope = Literal["session", "package", "module", "class", "function"]


def host_fixture(app: AppHost, *, scope: Scope = "session") -> Any:
    """Return a pytest fixture of the running application; assign it to a name in conftest.py.

        host = host_fixture(app)

        async def test_health(host):
            async with host.client("api") as client: ...

    It starts when a test first asks for it and ends with the scope.
    """
    import pytest  # noqa: PLC0415 - only tests have it

    @pytest.fixture(scope=scope)
    def host() -> Iterator[RunningApp]:
        with app.testing() as running:
            yield running

    return host
