"""`db backup`: a copy of the database that is a database itself."""

from __future__ import annotations

from contextlib import closing

import click

from persistasaurus._clock import SystemClock
from persistasaurus._store.backup import back_up
from persistasaurus._store.urls import whole_store
from persistasaurus.cli._command import DatabaseCommand, Here
from persistasaurus.cli._database import check_there
from persistasaurus.cli._db_findings import show
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.cli._progress import Bars


@click.command(cls=DatabaseCommand)
@click.argument("places", nargs=-1, metavar="[PATH|URL] TARGET.db")
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
@click.pass_obj
def backup(here: Here, /, places: tuple[str, ...], *, force: bool) -> Exit:
    """Copy the database as it is now into a new SQLite file, verified; workers may go on meanwhile.

    The file is a database: it can be opened, verified and promoted. It holds the flows as they are at one
    moment, and nobody drives them until a worker is started on it.
    """
    if len(places) not in (1, 2):
        raise Refusal("Give the file to write, or the database and the file.", Exit.USAGE)
    url, target = places if len(places) == 2 else (here.settings.url, places[0])  # noqa: PLR2004
    check_there(url)
    with closing(whole_store(url)) as store, Bars(here.out) as bars:
        store.open()
        made = back_up(store, target, force=force, now_ms=SystemClock().now_ms, progress=bars.told)
    for finding in made.findings:
        show(here.out, finding)
    if here.out.as_json:
        here.out.line(
            {
                "backup": made.path,
                "bytes": made.size,
                "flows": made.flows,
                "problems": len(made.findings),
                "digest": made.digest,
            }
        )
    else:
        here.out.text(f"{made.path}: {made.flows} flows, {made.size} bytes, {len(made.findings)} problems")
        here.out.text(f"digest {made.digest or 'none, for some rows cannot be read'}")
    return Exit.FAILED if made.findings else Exit.OK
