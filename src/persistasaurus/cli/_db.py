"""`db upgrade` and `db verify`: the database as a whole."""

from __future__ import annotations

import sys
from contextlib import closing

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from persistasaurus._clock import SystemClock
from persistasaurus._store.urls import make_store
from persistasaurus.cli._command import DatabaseCommand, Here
from persistasaurus.cli._database import check_there, file_of, is_upgraded
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.cli._output import console
from persistasaurus.cli._verify import Finding, Verification


@click.group()
def db() -> None:
    """Create, migrate and check a database."""


@db.command(cls=DatabaseCommand)
@click.pass_obj
def upgrade(here: Here, /) -> Exit:
    """Create the database, or bring it to the schema of the installed library.

    Any worker does so by itself when it starts; here it happens before a deploy.
    """
    url = here.settings.url
    path = file_of(url)
    existed = path is not None and path.exists()
    changed = path is None or not existed or not is_upgraded(path)
    with closing(make_store(url, durability="full", clock=SystemClock())) as store:
        store.open()
    if here.out.as_json:
        here.out.document({"database": url, "created": not existed, "changed": changed})
    else:
        became = "created" if not existed else "upgraded" if changed else "up to date already"
        here.out.text(f"{url}: {became}")
    return Exit.OK


@db.command(cls=DatabaseCommand)
@click.pass_obj
def verify(here: Here, /) -> Exit:
    """Check every flow's rows against their checksums, and the file's own structure.

    Prints each damaged flow (with --json a line of JSON each and one for the whole at the end), and exits
    with 1 where there is any. Workers may go on meanwhile.
    """
    url = here.settings.url
    check_there(url)
    path = file_of(url)
    if path is None:
        raise Refusal("This database has no file that could be verified.", Exit.USAGE)
    with Verification(path) as verification, _progress(here) as progress:
        bar = progress.add_task("flows", total=verification.count())
        findings = list(verification.findings(lambda: progress.advance(bar)))
        checked = verification.checked
    for finding in findings:
        _print(here, finding)
    damaged = len({finding.flow_id for finding in findings if finding.flow_id is not None})
    if here.out.as_json:
        here.out.line({"verified": checked, "damaged": damaged, "problems": len(findings)})
    else:
        here.out.text(f"{checked} flows checked, {damaged} damaged, {len(findings)} problems in all")
    return Exit.FAILED if findings else Exit.OK


def _progress(here: Here) -> Progress:
    # On stderr, and only where someone watches: a pipe gets results and nothing else.
    quiet = here.out.as_json or not sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(
        *columns, console=console(sys.stderr), disable=quiet, transient=True, redirect_stdout=False
    )


def _print(here: Here, finding: Finding) -> None:
    if here.out.as_json:
        here.out.line({"flow_id": finding.flow_id, "problem": finding.problem})
        return
    where = "the file" if finding.flow_id is None else f"flow {finding.flow_id}"
    here.out.text(f"{where}: {finding.problem}")
