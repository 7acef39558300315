"""What all commands share: their options, their settings, and how an error ends them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import click

from persistasaurus.cli._exit import Refusal, refusal
from persistasaurus.cli._inert import inert
from persistasaurus.cli._output import Output
from persistasaurus.cli._settings import Settings, read_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What a command works with: the settings, and where its results go."""

    settings: Settings
    out: Output


def _db() -> click.Option:
    return click.Option(
        ["--db", "url"],
        metavar="PATH|URL",
        help="The database. [PERSISTASAURUS_URL, url in pyproject.toml; default: flows.db]",
    )


def _json() -> click.Option:
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs.")


def _module() -> click.Option:
    return click.Option(
        ["-m", "--module", "modules"],
        multiple=True,
        metavar="MODULE[:FUNCTION]",
        help="Import this module first, to know its flows and types; call the function with the app to "
        "register classes. May be repeated. [PERSISTASAURUS_MODULES, modules in pyproject.toml]",
    )


def _debug() -> click.Option:
    return click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")


class Command(click.Command):
    """A command with the shared options; errors of the library end it with one line and a code."""

    shared: ClassVar[Sequence[Any]] = (_db, _module, _json, _debug)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [option() for option in self.shared]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with a `Here` as its object."""
        debug = ctx.params.pop("debug")
        try:
            out = Output(as_json=ctx.params.pop("as_json", False))
            flags = {key: ctx.params.pop(key, None) for key in ("url", "modules", "drain", "lease")}
            ctx.obj = Here(settings=read_settings(flags), out=out)
            return super().invoke(ctx)
        except (Refusal, click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError) as error:
            if debug:
                _show_traceback(error.__cause__)
            raise
        except Exception as error:
            if debug:
                _show_traceback(error)
            raise refusal(error) from error


class DatabaseCommand(Command):
    """A command that imports no module by an option."""

    shared: ClassVar[Sequence[Any]] = (_db, _json, _debug)


class BareCommand(Command):
    """A command that has no database of its own."""

    shared: ClassVar[Sequence[Any]] = (_debug,)


def _show_traceback(error: BaseException | None) -> None:
    for line in traceback.format_exception(error) if error is not None else ():
        for part in line.splitlines():
            sys.stderr.write(inert(part) + "\n")
