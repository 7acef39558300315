"""Processes forked from one that has imported what they need: a new Python takes many times as long."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])


def run_module(
    module: str,
    arguments: Sequence[object],
    *,
    folder: Path,
    environment: Mapping[str, str],
    streams: Sequence[Path],
) -> ForkServerProcess:
    """Start `python -m module arguments` in a folder; each of its three streams is a file."""
    process = FORKS.Process(
        target=_be, args=(module, list(map(str, arguments)), folder, dict(environment), list(streams))
    )
    process.start()
    return process


def _be(
    module: str, arguments: list[str], folder: Path, environment: dict[str, str], streams: list[Path]
) -> None:
    for descriptor, file in enumerate(streams):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if descriptor else os.O_RDONLY
        os.dup2(os.open(file, flags, 0o600), descriptor)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    sys.path = [str(folder), *environment.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
