"""A server with the flows' pages, for tests that stop it."""

from __future__ import annotations

import os

from persistasaurus.web import create_app

app = create_app(os.environ["PERSISTASAURUS_URL"])
