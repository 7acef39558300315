"""The commands, put together."""

from __future__ import annotations

import os
import sys

import click

from persistasaurus.cli._act import cancel, resume, retry, signal
from persistasaurus.cli._db import db
from persistasaurus.cli._dev import dev
from persistasaurus.cli._exit import INTERRUPTED, Exit, Refusal
from persistasaurus.cli._look import ls, show, steps
from persistasaurus.cli._start import start
from persistasaurus.cli._tail import tail
from persistasaurus.cli._worker import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="persistasaurus")
def commands() -> None:
    """Durable flows: start, drive, show and mend them.

    Exit codes: 0 ok, 1 failed, 2 wrong usage or input, 3 not found, 4 conflict, 5 timeout.
    """


for _command in (dev, worker, start, ls, show, steps, tail, resume, signal, cancel, retry, db):
    commands.add_command(_command)


def run() -> int:
    """Run the command that this process was started with, and return its exit code."""
    try:
        return int(commands.main(prog_name="persistasaurus", standalone_mode=False) or Exit.OK)
    except click.Abort:
        return INTERRUPTED
    except Refusal as error:
        error.show()
        return error.code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # Whoever read this has enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
