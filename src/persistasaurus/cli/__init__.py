"""The command `persistasaurus`: starts, drives, shows and mends flows from a shell."""

from __future__ import annotations

import importlib
import sys

NEEDED = ("click", "rich")


def main() -> None:
    """Run the command with the arguments of this process, and exit with its code.

    Raises:
        SystemExit: always; the code is 1 where the extra `cli` is not installed.
    """
    try:
        commands = importlib.import_module("persistasaurus.cli._main")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in NEEDED:
            raise
        sys.stderr.write(
            f"The command persistasaurus needs {package}, which is not installed. "
            "Install it: pip install 'persistasaurus[cli]'\n"
        )
        sys.exit(1)
    sys.exit(commands.run())
