"""A worker process of the benchmark on PostgreSQL: drives flows until its input ends."""

from __future__ import annotations

import sys

from benchmarks import workloads
from persistasaurus import Persistasaurus


def main() -> None:
    """Enter the app, say so, and wait."""
    with Persistasaurus(sys.argv[1]):
        print("ready", workloads.hello_async, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
