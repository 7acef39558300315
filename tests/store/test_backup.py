"""A backup is a database: one moment of a store in one file, whatever goes on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from persistasaurus import Persistasaurus, StoreError
from persistasaurus._clock import SystemClock
from persistasaurus._store.backup import Backup, back_up
from persistasaurus._store.urls import make_store
from tests import postgres
from tests.store import moving
from tests.store.moving import T0, digest_of, fill, opened


@pytest.fixture(params=["sqlite", "postgres"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a store that does not exist yet."""
    moving.ran.clear()
    if request.param == "sqlite":
        yield str(tmp_path / "flows.db")
        return
    with postgres.new_schema() as url:
        yield url


def back_up_to(source: str, target: Path, *, force: bool = False) -> Backup:
    """Back a store up as the command does."""
    with opened(source) as store:
        return back_up(store, target, force=force, now_ms=lambda: T0, progress=lambda *_: None)


def test_a_backup_holds_every_row(source: str, tmp_path: Path) -> None:
    """In one private file, with nothing left beside it; its digest is that of the store at rest."""
    fill(source, 50)
    folder = tmp_path / "backups"
    folder.mkdir()

    made = back_up_to(source, folder / "copy.db")

    assert (made.flows, made.findings) == (50, [])
    assert made.digest == digest_of(source) == digest_of(made.path)
    assert [each.name for each in folder.iterdir()] == ["copy.db"]
    assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    assert made.size == (folder / "copy.db").stat().st_size


def test_a_backup_is_one_moment_while_flows_go_on(source: str, tmp_path: Path) -> None:
    """Starts are written in order: those that a backup has are the first ones, without a gap."""
    fill(source, 2000)
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        with Persistasaurus(source) as app:
            while not stop.is_set():
                app.run(moving.complete.options(flow_id=f"run-{len(written)}"))
                written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = []
        for number in range(3):
            until, seen = time.monotonic() + 20, len(written)
            while len(written) < seen + 5 and time.monotonic() < until:
                time.sleep(0.005)
            made.append((len(written), back_up_to(source, tmp_path / f"copy-{number}.db")))
    finally:
        stop.set()
        writer.join(20)

    for before, backup in made:
        assert backup.findings == []
        with Persistasaurus(backup.path, worker=False) as app:
            runs = [flow.flow_id for flow in app.flows() if flow.flow_id.startswith("run-")]
        assert sorted(runs) == sorted(f"run-{n}" for n in range(len(runs)))
        assert len(runs) >= before


def test_what_ran_during_the_backup_goes_on_in_it(source: str, tmp_path: Path) -> None:
    """With another attempt, for the step may have run; the crash that it was not counts for nothing."""
    marker = tmp_path / "marker"

    def run() -> None:
        with Persistasaurus(source) as app:
            app.start(moving.interrupted.options(flow_id="i"), str(marker))
            time.sleep(60)

    pid = moving.in_a_child(run)
    try:
        until = time.monotonic() + 20
        while not marker.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        made = back_up_to(source, tmp_path / "copy.db")
    finally:
        moving.kill(pid)

    with closing(make_store(made.path, durability="full", clock=SystemClock())) as store:
        store.open()
        found = store.find("i")
        assert found is not None
        assert (found.owner, found.crashes, found.lost_claims) == (None, 0, 1)
        assert store.workers() == []
    with Persistasaurus(made.path) as app:
        assert app.handle("i").result(timeout=20) == "survived"
    assert moving.ran == ["killed 2"]


def test_an_existing_file_is_kept_but_by_force(source: str, tmp_path: Path) -> None:
    """A slip in a name is not to cost an older backup."""
    fill(source, 2)
    target = tmp_path / "copy.db"
    target.write_text("precious")

    with pytest.raises(StoreError, match=r"exists.*--force"):
        back_up_to(source, target)
    assert target.read_text() == "precious"

    assert back_up_to(source, target, force=True).flows == 2
    assert digest_of(str(target)) == digest_of(source)


def test_a_database_that_is_open_is_not_replaced(source: str, tmp_path: Path) -> None:
    """Its log would be taken for that of the backup."""
    fill(source, 2)
    target = tmp_path / "copy.db"
    with Persistasaurus(target), pytest.raises(StoreError, match=r"copy\.db-(wal|shm)'.*has that one open"):
        back_up_to(source, target, force=True)


def test_a_backup_of_a_damaged_store_says_so(tmp_path: Path) -> None:
    """It is made all the same: half a store is more than none."""
    source = tmp_path / "flows.db"
    fill(str(source), 3)
    connection = apsw.Connection(str(source))
    connection.execute("UPDATE step SET return_value = '0' WHERE flow_key = 2 AND step = 1")
    connection.close()

    made = back_up_to(str(source), tmp_path / "copy.db")

    assert [(each.flow_id, each.problem) for each in made.findings] == [
        ("many-1", "Step 1 does not match its checksum.")
    ]


def test_a_backup_that_is_killed_leaves_no_file_of_its_name(source: str, tmp_path: Path) -> None:
    """What is left ends in .partial, and the next one does not mind it."""
    fill(source, 3000)
    folder = tmp_path / "backups"
    folder.mkdir()

    for delay in (0.01, 0.05, 0.1, 0.15, 0.2):
        pid = moving.in_a_child(lambda: back_up_to(source, folder / "copy.db"))
        time.sleep(delay)
        moving.kill(pid)
        finished = [each for each in folder.iterdir() if each.name == "copy.db"]
        for each in finished:
            assert digest_of(str(each)) == digest_of(source)
            each.unlink()
        assert all(".partial" in each.name for each in folder.iterdir())

    assert back_up_to(source, folder / "copy.db").flows == 3000


def test_a_backup_into_the_database_itself_is_refused(tmp_path: Path) -> None:
    """Also by force, and by way of a link."""
    source = tmp_path / "flows.db"
    fill(str(source), 1)
    link = tmp_path / "link.db"
    link.symlink_to(source)

    with pytest.raises(StoreError, match="into itself"):
        back_up_to(str(source), link, force=True)
    assert source.stat().st_size > 0
