"""What browsers load: a fixed list of files from npm, put into the package at set-up and served by name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

STATIC = Path(__file__).parent / "static"
PAGES = Path(__file__).parent / "pages"


class Asset(NamedTuple):
    """A file to serve: its name, where npm puts it, and what it is."""

    name: str
    source: str
    media_type: str = "text/javascript; charset=utf-8"
    folder: Path = STATIC

    @property
    def path(self) -> Path:
        return self.folder / self.name


SCALAR = Asset("scalar.js", "@scalar/api-reference/dist/browser/standalone.js")
HTMX = Asset("htmx.js", "htmx.org/dist/htmx.min.js")
HTMX_SSE = Asset("htmx-sse.js", "htmx.org/dist/ext/hx-sse.min.js")
UPLOT = Asset("uplot.js", "uplot/dist/uPlot.iife.min.js")
UPLOT_CSS = Asset("uplot.css", "uplot/dist/uPlot.min.css", "text/css; charset=utf-8")

# Our own, which need no npm.
DASHBOARD_JS = Asset("dashboard.js", "", folder=PAGES)
DASHBOARD_CSS = Asset("dashboard.css", "", "text/css; charset=utf-8", PAGES)
CHART_JS = Asset("chart.js", "", folder=PAGES)
TAIL_JS = Asset("tail.js", "", folder=PAGES)

# What the pages of a dashboard may load.
PAGE_FILES = (DASHBOARD_JS, DASHBOARD_CSS, CHART_JS, TAIL_JS, UPLOT, UPLOT_CSS)

ASSETS = (SCALAR, HTMX, HTMX_SSE, UPLOT, UPLOT_CSS)

HOW_TO_GET = "Install Node.js 20 or newer with npm, and run `make assets` in a clone of the project."
