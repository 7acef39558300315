"""How figures are taken and shown: in turn, so that a slow moment of the machine falls on all alike."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

Taken = TypeVar("Taken")
Measure = Callable[[str], float]
"""Takes one figure on a fresh database, by its path or URL."""


@dataclass
class Figure:
    """One line of the report."""

    section: str
    name: str
    value: float
    unit: str
    remark: str = ""


class Report:
    """Prints figures as they come, and keeps them."""

    def __init__(self, rounds: int = 1) -> None:
        self.rounds = rounds
        self.figures: list[Figure] = []
        self.notes: list[str] = []
        self._section = ""

    def section(self, name: str) -> None:
        """Begin a section."""
        self._section = name
        print(f"\n{name}", flush=True)

    def line(self, name: str, value: float, unit: str, remark: str = "") -> None:
        """Add a figure."""
        self.figures.append(Figure(self._section, name, value, unit, remark))
        print(f"  {name:40} {shown(value):>12} {unit:9} {remark}", flush=True)

    def note(self, text: str) -> None:
        """Say what no figure says."""
        self.notes.append(text)
        print(f"\n{text}", flush=True)

    def write(self, path: Path) -> None:
        """Write all figures and notes as JSON."""
        found = {
            "cores": os.cpu_count(),
            "memory_gib": _memory_gib(),
            "rounds": self.rounds,
            "notes": self.notes,
            "figures": [asdict(f) for f in self.figures],
        }
        path.write_text(json.dumps(found, indent=1) + "\n")


def shown(value: float) -> str:
    """Return a figure as people read it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}" if value >= 1 else f"{value:.3f}"


def in_turn(
    rounds: int, fresh: Callable[[], AbstractContextManager[str]], measures: Mapping[str, Measure]
) -> dict[str, list[float]]:
    """Take each figure once in every round, in a process of its own, and return them by name."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            with fresh() as database:
                taken[name].append(alone(measure, database))
    return taken


def alone(measure: Callable[[str], Taken], database: str) -> Taken:
    """Return what a function returns in a fresh process, where nothing is left of what ran before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        return child.submit(measure, database).result()


def median(figures: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(figures)


def beside(figures: Iterable[float], others: Iterable[float]) -> float:
    """Return the median of the ratios of two figures taken in the same rounds."""
    return statistics.median(one / other for one, other in zip(figures, others, strict=True))


def _memory_gib() -> int:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
