"""`db upgrade` and `db verify`: the database as a whole."""

from __future__ import annotations

from contextlib import closing

import click

from persistasaurus._clock import SystemClock
from persistasaurus._store.urls import make_store, shown, whole_store
from persistasaurus._store.verification import Verification
from persistasaurus._store.whole import FLOW, State
from persistasaurus.cli._command import DatabaseCommand, Here
from persistasaurus.cli._database import check_there, file_of
from persistasaurus.cli._db_backup import backup
from persistasaurus.cli._db_findings import show
from persistasaurus.cli._db_promote import promote
from persistasaurus.cli._db_prune import prune
from persistasaurus.cli._exit import Exit
from persistasaurus.cli._progress import Bars


@click.group()
def db() -> None:
    """Create, migrate, check, back up, prune and move a database."""


db.add_command(backup)
db.add_command(promote)
db.add_command(prune)


@db.command(cls=DatabaseCommand)
@click.pass_obj
def upgrade(here: Here, /) -> Exit:
    """Create the database, or bring it to the schema of the installed library.

    Any worker does so by itself when it starts; here it happens before a deploy.
    """
    url = here.settings.url
    file_of(url)
    state = whole_store(url).state()
    existed, changed = state is not State.MISSING, state is not State.CURRENT
    with closing(make_store(url, durability="full", clock=SystemClock())) as store:
        store.open()
    if here.out.as_json:
        here.out.document({"database": shown(url), "created": not existed, "changed": changed})
    else:
        became = "created" if not existed else "upgraded" if changed else "up to date already"
        here.out.text(f"{shown(url)}: {became}")
    return Exit.OK


@db.command(cls=DatabaseCommand)
@click.argument("place", metavar="[PATH|URL]", required=False)
@click.pass_obj
def verify(here: Here, /, place: str | None) -> Exit:
    """Check every row against its checksum, each flow's chain of events, and the file's own structure.

    Prints each damaged flow and row (with --json a line of JSON each and one for the whole at the end), and
    exits with 1 where there is any. Workers may go on meanwhile: one moment of the database is checked.
    """
    url = place or here.settings.url
    check_there(url)
    with closing(whole_store(url)) as store, Bars(here.out) as bars:
        store.open()
        with store.snapshot() as snapshot:
            total = snapshot.count(FLOW)
            verification = Verification(snapshot)
            findings = list(verification.findings(lambda: bars.told("flows", verification.checked, total)))
    for finding in findings:
        show(here.out, finding)
    damaged = len({finding.flow_id for finding in findings if finding.flow_id is not None})
    if here.out.as_json:
        here.out.line(
            {
                "verified": verification.checked,
                "damaged": damaged,
                "problems": len(findings),
                "digest": verification.digest,
            }
        )
    else:
        here.out.text(
            f"{verification.checked} flows checked, {damaged} damaged, {len(findings)} problems in all"
        )
        here.out.text(f"digest {verification.digest or 'none, for some rows cannot be read'}")
    return Exit.FAILED if findings else Exit.OK
