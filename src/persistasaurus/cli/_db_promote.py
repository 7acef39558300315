"""`db promote`: moves everything, flows in flight too, to another database."""

from __future__ import annotations

from contextlib import ExitStack, closing

import click

from persistasaurus._clock import SystemClock
from persistasaurus._engine.promotion import Promotion
from persistasaurus._store.urls import make_store, whole_store
from persistasaurus.cli._command import DatabaseCommand, Here
from persistasaurus.cli._database import check_there, file_of
from persistasaurus.cli._exit import Exit, Refusal
from persistasaurus.cli._progress import Bars


@click.command(cls=DatabaseCommand)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--abandon", is_flag=True, help="Give up an unfinished promotion: SOURCE is in service again.")
@click.pass_obj
def promote(here: Here, /, source: str, target: str, *, abandon: bool) -> Exit:
    """Move all flows, also those in flight, from SOURCE to the new or empty TARGET.

    SQLite files and PostgreSQL URLs, either way. No worker may be on SOURCE; it is out of service from then
    on and says where its flows went. They go on as soon as workers are started on TARGET, which holds the
    same rows, by a digest over all of them. Where the move is interrupted, the same command goes on with it.
    """
    check_there(source)
    file_of(target)
    driven = make_store(source, durability="full", clock=SystemClock())
    with ExitStack() as opened, Bars(here.out) as bars:
        old, new = [opened.enter_context(closing(whole_store(url))) for url in (source, target)]
        old.open()
        new.open(create=True)
        if old.shown == new.shown:
            raise Refusal("SOURCE and TARGET are the same database.", Exit.USAGE)
        promotion = Promotion(old, new, driven, progress=bars.told)
        if abandon:
            promotion.abandon()
            here.out.text(f"{old.shown} is in service again")
            return Exit.OK
        promoted = promotion.run()
    if here.out.as_json:
        here.out.document(
            {
                "source": old.shown,
                "target": new.shown,
                "flows": promoted.flows,
                "rows": promoted.rows,
                "digest": promoted.digest,
            }
        )
    else:
        here.out.text(f"{promoted.flows} flows ({promoted.rows} rows) are now in {new.shown}")
        here.out.text(f"digest {promoted.digest or 'compared by the call before this one'}")
    return Exit.OK
