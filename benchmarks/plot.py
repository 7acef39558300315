"""Draws the plot of docs/benchmarks.md: `python plot.py benchmarks.json benchmarks.svg`.

Run by the interpreter that has the peers' packages.

One panel for each side by side in steps a second. The colours are readable on white and on black.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

TEXT, OURS, PEER, RAW = "#767676", "#1a9850", "#6a86c9", "#d9772b"
SETTINGS = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Text stays text, and two runs with the same figures give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
}


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    found = json.loads(source.read_text())
    sections = [
        (name, list(figures)) for name, figures in groupby(found["figures"], key=lambda each: each["section"])
    ]
    panels = [
        (name.removeprefix("Side by side, "), figures)
        for name, figures in sections
        if name.startswith("Side by side") and any(each["unit"] == "steps/s" for each in figures)
    ]
    with mpl.rc_context(SETTINGS):
        rows = -(-len(panels) // 2)
        figure, axes = plt.subplots(
            rows, 2, figsize=(10, 0.5 + 1.9 * rows), squeeze=False, layout="constrained"
        )
        # Down the first column, then the second: one store a column.
        for place, axis in enumerate(axes.T.flat):
            if place < len(panels):
                draw(axis, *panels[place])
            else:
                axis.set_axis_off()
        figure.savefig(target, transparent=True, metadata={"Date": None, "Creator": None})


def draw(axis: Any, title: str, figures: list[dict[str, Any]]) -> None:
    """Draw bars for the libraries and a line for the database alone."""
    bars = [figure for figure in figures if figure["unit"] == "steps/s"]
    names = [figure["name"] for figure in bars]
    values = [figure["value"] for figure in bars]
    colours = [OURS if name.startswith("Persistasaurus") else PEER for name in names]
    drawn = axis.barh(names, values, color=colours, height=0.7)
    axis.bar_label(drawn, labels=[f"{value:,.0f}" for value in values], padding=3, color=TEXT)
    label = "steps/s"
    for figure in figures:
        if figure["unit"] == "rows/s":
            axis.axvline(figure["value"], color=RAW, linestyle="--")
            label += f"; dashed: {figure['name']}"
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlim(10, 1_000_000)
    axis.minorticks_off()
    axis.set_title(title, loc="left", fontsize=10, color=TEXT)
    axis.set_xlabel(label)


if __name__ == "__main__":
    main()
