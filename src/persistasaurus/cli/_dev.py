"""`persistasaurus dev`: hands over to the AppHost, which is another extra."""

from __future__ import annotations

import importlib

import click

from persistasaurus.cli._command import BareCommand
from persistasaurus.cli._exit import Exit, Refusal


@click.command(cls=BareCommand)
@click.argument("target", metavar="FILE|MODULE:NAME")
def dev(target: str) -> int:
    """Start everything that an AppHost describes, with its dashboard."""
    try:
        module = importlib.import_module("persistasaurus.dev")
    except ModuleNotFoundError as error:
        raise Refusal(
            f"persistasaurus dev needs {error.name}, which is not installed. Install it: "
            "pip install 'persistasaurus[dev]'",
            Exit.FAILED,
        ) from error
    return int(module.main(target) or Exit.OK)
