"""What the tests of an AppHost share with those of the pages."""

from __future__ import annotations

from tests.web.conftest import axe, chromium

__all__ = ["axe", "chromium"]
