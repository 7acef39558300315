"""Apps for tests."""

from __future__ import annotations

from typing import Any

from persistasaurus._app import Persistasaurus


def memory_app(**settings: Any) -> Persistasaurus:
    """Return an app on a database in memory, not entered yet; `settings` are those of `Persistasaurus`.

    What it holds is gone when it is left. To see a flow go on after a restart, use a file in the test's
    own folder.
    """
    return Persistasaurus(":memory:", **settings)
