"""`persistasaurus dev`: hands over to the AppHost, which is another extra."""

from __future__ import annotations

import importlib

import click

from persistasaurus.cli._command import BareCommand
from persistasaurus.cli._exit import Exit, Refusal


# What follows the target is the target's own, also where it looks like an option.
@click.command(
    cls=BareCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("target", metavar="FILE|MODULE:NAME")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def dev(target: str, arguments: tuple[str, ...]) -> int:
    """Start everything that an AppHost describes, with its dashboard.

    The target finds ARGS in sys.argv.
    """
    try:
        module = importlib.import_module("persistasaurus.dev")
    except ModuleNotFoundError as error:
        raise Refusal(
            f"persistasaurus dev needs {error.name}, which is not installed. Install it: "
            "pip install 'persistasaurus[dev]'",
            Exit.FAILED,
        ) from error
    return int(module.main(target, *arguments) or Exit.OK)
