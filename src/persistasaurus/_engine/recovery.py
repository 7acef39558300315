"""Whether other workers live, and how a failed or parked flow is made to go on."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from persistasaurus._engine.children import child_id
from persistasaurus._engine.history import failed_steps, reopen, verify
from persistasaurus._engine.results import not_found
from persistasaurus._engine.texts import ERROR, Texts
from persistasaurus._model import CANCELLED, FAILED, PARKED, Kind
from persistasaurus._store.base import History, Store, WorkerRow
from persistasaurus.errors import FlowCancelled

if TYPE_CHECKING:
    from collections.abc import Iterable

SUSPECT_AFTER = 2
"""After so many crashes in a row the suspects are driven one at a time."""


@functools.cache
def host_name() -> str:
    """Return what names this boot of this machine and this process namespace; with ":" at its end neither.

    Two workers whose host names are equal can see each other's processes; where only the boot differs,
    the other's processes are gone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{sys.platform}:{os.uname().nodename if hasattr(os, 'uname') else ''}:"
    return f"{boot}:{namespace}"


def process_started(pid: int) -> str:
    """Return when a process was started, in the kernel's own count; empty where it is not known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The second field is the name in parentheses, which may itself hold parentheses and spaces.
    return stat.rpartition(")")[2].split()[19]


def is_gone(worker: WorkerRow, *, one_machine: bool) -> bool:
    """Whether the worker's process has certainly ended.

    With `one_machine` nobody on another one uses the store: what ran in another boot is gone.
    """
    here = host_name()
    is_vague = here.endswith(":")
    if worker.host != here:
        another_boot = worker.host.partition(":")[0] != here.partition(":")[0]
        return one_machine and another_boot and not is_vague
    if is_vague and not one_machine:
        return False  # another machine may have the same name
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    started = process_started(worker.pid)
    if not started or not worker.process_started:
        return False
    return started != worker.process_started or _is_zombie(worker.pid)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def take_over_the_dead(store: Store, workers: Iterable[WorkerRow], *, me: int, now_ms: int) -> int:
    """Free the flows of workers that are gone or whose lease is over; returns how many flows."""
    freed = 0
    for worker in workers:
        if worker.worker_id == me:
            continue
        if is_gone(worker, one_machine=store.one_machine):
            freed += store.take_over(worker.worker_id, now_ms=now_ms, only_expired=False)
        elif worker.expired:
            freed += store.take_over(worker.worker_id, now_ms=now_ms, only_expired=True)
    return freed


def retry(store: Store, history: History, now_ms: int, *, texts: Texts, with_parent: bool = False) -> None:
    """Make a failed or parked flow due again, its failed steps pending; nothing else is forgotten.

    So are, before it, the child flows that it failed of or still waits for; those that were cancelled too,
    for that was their parent's doing. A flow in any other state is left alone.

    Raises:
        FlowCancelled: the flow was cancelled before it failed.
        FlowNotFound: it was removed meanwhile.
        DamagedRecordError: its record does not match its checksums.
        CipherError: its failure cannot be decrypted, so that nobody knows at which steps to go on.
    """
    flow = history.flow
    if flow.status == PARKED:
        store.reopen(flow, steps=(), dropped=(), now_ms=now_ms)
        return
    if flow.status != FAILED and not (with_parent and flow.status == CANCELLED):
        return
    if flow.cancel_event is not None and not with_parent:
        raise FlowCancelled(f"Flow {flow.flow_id!r} failed after it was cancelled. Start a new one instead.")
    name_ids = {name: number for number, name in store.names().items()}
    replay = verify(history, name_ids[flow.class_name, flow.method_name])
    error = None if flow.error is None else texts.open(flow.error, flow.flow_id, ERROR)
    changed = reopen(replay, failed_steps(error), now_ms)
    for row in history.steps:
        if row.kind == Kind.CHILD and (row.event is None or row.step in changed.children):
            _retry_child(store, child_id(flow.flow_id, row.step), now_ms, texts)
    # Last: a parent that is driven before would be told once more how its child had failed.
    reopened = store.reopen(flow, steps=changed.steps, dropped=(), now_ms=now_ms)
    if not reopened and store.find(flow.flow_id) is None:
        raise not_found(flow.flow_id)


def _retry_child(store: Store, flow_id: str, now_ms: int, texts: Texts) -> None:
    found = store.find(flow_id)
    history = store.load(found.flow_key) if found is not None else None
    if history is not None:
        retry(store, history, now_ms, texts=texts, with_parent=True)
