"""Files that cannot be a database, and databases that go wrong while the app runs.

Nothing that was acknowledged is lost, and nothing that would be lost is acknowledged.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from persistasaurus import FlowStatus, Persistasaurus, StoreError, StoreVersionError, flow, step
from persistasaurus._store._sqlite_open import network_file_system
from tests.flows.kit import eventually, log_of, ran
from tests.flows.unharmed import child_process, flow_that_goes_on, recorded

# Files that are none, or none of ours.


def a_directory(place: Path) -> Path:
    return place


def a_text_file(place: Path) -> Path:
    (place / "notes.txt").write_text("These are notes, not flows.\n" * 500)
    return place / "notes.txt"


def a_short_text_file(place: Path) -> Path:
    (place / "notes.txt").write_text("hi")
    return place / "notes.txt"


def a_device(place: Path) -> Path:
    return Path("/dev/null")


def a_missing_folder(place: Path) -> Path:
    return place / "missing" / "flows.db"


def a_file_as_folder(place: Path) -> Path:
    (place / "file").touch()
    return place / "file" / "flows.db"


def a_surrogate(place: Path) -> Path:
    return place / "\ud8a0.db"


def made_by_sql(place: Path, statement: str) -> Path:
    with closing(apsw.Connection(str(place / "other.db"))) as connection:
        connection.execute(statement)
    return place / "other.db"


def anothers_database(place: Path) -> Path:
    return made_by_sql(place, "CREATE TABLE invoice (number); INSERT INTO invoice VALUES (1)")


def anothers_empty_database(place: Path) -> Path:
    return made_by_sql(place, "PRAGMA application_id = 77; PRAGMA user_version = 3")


def a_newer_schema(place: Path) -> Path:
    with Persistasaurus(place / "other.db") as app:
        app.run(flow_that_goes_on, 1)
    return made_by_sql(place, "PRAGMA user_version = 99; INSERT INTO migration VALUES (99, '7.5')")


UNUSABLE: dict[Callable[[Path], Path], str] = {
    a_directory: "is a directory. Give the path of a file in it.",
    a_text_file: r"could not be used. It is not a SQLite database \(.*\). Give the path of another",
    a_short_text_file: "could not be used. It is not a SQLite database .* Give the path of another file",
    a_device: "The database path '/dev/null' is no regular file. Give the path of a file on a local disk.",
    a_missing_folder: "There is no directory '.*/missing' for the database. Create it, or give another path.",
    a_file_as_folder: "There is no directory '.*/file' for the database. Create it, or give another path.",
    a_surrogate: "cannot be used: .*surrogates not allowed. Give another path.",
    anothers_database: "belongs to another program: .* Nothing was changed. Give the path",
    anothers_empty_database: "belongs to another program: .* Nothing was changed. Give the path",
    a_newer_schema: "has schema version 99, .*: a newer library wrote it. Nothing was changed. Install",
}


def contents(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
def test_what_is_no_database_of_ours_is_refused_unchanged(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """On entering; the message has path, cause and cure. No file is changed, and none is left behind."""
    path = make(tmp_path)
    before = contents(tmp_path)
    app = Persistasaurus(path)
    with pytest.raises(StoreError, match=UNUSABLE[make]) as caught, app:
        pass
    assert isinstance(caught.value, StoreVersionError) == (make is a_newer_schema)
    assert contents(tmp_path) == before
    with Persistasaurus(":memory:") as other:
        assert other.run(flow_that_goes_on, 1) == 2


def test_an_empty_file_becomes_a_database(database: Path) -> None:
    """As `mktemp` makes it."""
    database.touch()
    with Persistasaurus(database) as app:
        assert app.run(flow_that_goes_on, 1) == 2


READ_ONLY = """
import os, sys
from pathlib import Path
from persistasaurus import Persistasaurus, StoreError
from tests.flows.unharmed import flow_that_goes_on

place = Path(sys.argv[1])
with Persistasaurus(place / "flows.db") as app:  # also loads whatever is loaded late
    app.run(flow_that_goes_on, 1)
before = (place / "flows.db").read_bytes()
(place / "flows.db").chmod(0o444 if sys.argv[2] == "file" else 0o666)
place.chmod(0o555 if sys.argv[2] == "folder" else 0o777)
if os.geteuid() == 0:
    os.seteuid(65_534)  # permissions do not bind root
try:
    with Persistasaurus(place / "flows.db"):
        print("entered")
except StoreError as error:
    print(error)
    assert (place / "flows.db").read_bytes() == before
"""


@pytest.mark.parametrize(
    "what, message",
    [
        ("file", "The database file '.*' is read-only for this user. Make it readable and writable."),
        (
            "folder",
            "The directory '.*' of the database is read-only for this user. .* make the directory",
        ),
        ("nothing", "entered"),
    ],
)
def test_a_read_only_file_is_refused(what: str, message: str, public_place: Path) -> None:
    """Or a read-only directory, in which SQLite could keep no log; tried as a user whom permissions bind."""
    assert re.match(message, child_process(READ_ONLY, public_place, what))


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)
        Path(name).chmod(0o777)


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /mnt/share rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2
41 22 0:41 / /mnt/my\040share rw,relatime - cifs //server/share rw
42 40 8:2 / /mnt/share/local rw,relatime - ext4 /dev/sdb1 rw
43 22 0:43 / /mnt/remote rw,nosuid - fuse.sshfs host: rw
44 22 0:44 / /mnt/disk rw,nosuid - fuse.unionfs unionfs rw
47 22 0:47 / /mnt/bucket rw,nosuid - fuse.mount-s3 bucket rw
45 22 0:45 / /mnt/vm rw - 9p share rw,trans=virtio
46 22 0:46 / /mnt/vmnet rw - 9p share rw,trans=tcp
"""


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/home/me/flows.db", None),
        ("/mnt/share/flows.db", "nfs4"),
        ("/mnt/share/local/flows.db", None),
        ("/mnt/bucket/flows.db", "fuse.mount-s3"),
        ("/mnt/shared.db", None),
        ("/mnt/my share/flows.db", "cifs"),
        ("/mnt/remote/flows.db", "fuse.sshfs"),
        ("/mnt/disk/flows.db", None),
        ("/mnt/vm/flows.db", None),
        ("/mnt/vmnet/flows.db", "9p"),
    ],
)
def test_a_network_file_system_is_told_by_the_table_of_mounts(path: str, kind: str | None) -> None:
    """SQLite's locks and shared memory do not work between machines."""
    assert network_file_system(path, MOUNTS) == kind


# A full disk.

released = threading.Event()


@step
def makes_much(size: int) -> str:
    ran.append("much")
    assert released.wait(20)
    return "x" * size


@flow
def fills_the_disk(size: int, ballast: str = "") -> int:
    return len(makes_much(size))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file: what is bad about a server is tested with the PostgreSQL store."""
    return tmp_path / "flows.db"


@pytest.fixture(autouse=True)
def _held() -> Iterator[None]:
    released.clear()
    yield
    released.set()


def on_a_full_disk(app: Persistasaurus, full: Callable[[], Any]) -> None:
    """Let a step end while the disk is full, and see that nothing is acknowledged until there is space."""
    handle = app.start(fills_the_disk.options(flow_id="big"), 300_000)
    eventually(lambda: log_of(handle) == [(1, "makes_much", "PENDING")])
    with full():
        released.set()
        with pytest.raises(StoreError, match=r"could not be used\. .*(free space|Free some space)"):
            app.start(fills_the_disk.options(flow_id="other"), 1, "x" * 300_000)
        with pytest.raises(StoreError, match=r"could not be used\. .*(free space|Free some space)"):
            handle.send("news", "x" * 300_000)
        with pytest.raises(TimeoutError, match=r"^Flow 'big' has not ended within 0\.2\. It goes on"):
            handle.result(timeout=0.2)
        assert handle.status() == FlowStatus.PENDING
        assert log_of(handle) == [(1, "makes_much", "PENDING")]
    assert handle.result(timeout=10) == 300_000
    assert ran == ["much"]
    assert app.run(flow_that_goes_on, 1) == 2


FILE_SIZE_LIMIT = """
import resource, sys
from contextlib import contextmanager
from pathlib import Path
from persistasaurus import Persistasaurus
from tests.flows.test_bad_databases import on_a_full_disk

database = Path(sys.argv[1])

@contextmanager
def full():
    size = Path(f"{database}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

with Persistasaurus(database) as app:
    on_a_full_disk(app, full)
print("went on")
"""


def test_a_step_that_ends_on_a_full_disk_is_recorded_once_there_is_space(database: Path) -> None:
    """Its outcome is kept and written again; the step does not run again. New work is refused meanwhile."""
    assert child_process(FILE_SIZE_LIMIT, database) == "went on"
    flows = {row[0]: row[1] for row in recorded(database)["flow"]}
    assert "big" in flows
    assert "other" not in flows
    assert recorded(database)["signal"] == []


def test_a_step_that_ends_at_the_quota_is_recorded_once_there_is_space(database: Path) -> None:
    """The same by SQLite's own word for it, SQLITE_FULL."""
    with Persistasaurus(database) as app:

        @contextmanager
        def full() -> Iterator[None]:
            writer = app._engine.store._file._writer  # type: ignore[union-attr]
            most = writer.pragma("max_page_count")
            writer.pragma("max_page_count", writer.pragma("page_count"))
            yield
            writer.pragma("max_page_count", most)

        on_a_full_disk(app, full)
    assert recorded(database)["signal"] == []


FULL_FROM_THE_START = """
import resource, sys
from persistasaurus import Persistasaurus, StoreError
from tests.flows.unharmed import flow_that_goes_on

app = Persistasaurus(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (12_288, resource.RLIM_INFINITY))
try:
    with app:
        print("entered")
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with app:
    print(app.run(flow_that_goes_on, 1))
"""


def test_an_app_cannot_be_entered_on_a_full_disk(database: Path) -> None:
    """The half-made database is no obstacle once there is space."""
    first, last = child_process(FULL_FROM_THE_START, database).splitlines()
    assert "could not be used" in first
    assert "free space" in first
    assert last == "2"


# A file that goes away, or becomes another, while the app runs.


def deleted(database: Path) -> None:
    database.unlink()


def replaced(database: Path) -> None:
    copy = database.with_suffix(".copy")
    shutil.copy(database, copy)
    copy.replace(database)


def moved(database: Path) -> None:
    database.rename(database.with_suffix(".moved"))


def log_deleted(database: Path) -> None:
    Path(f"{database}-wal").unlink()


@pytest.mark.parametrize(
    "happens", [deleted, replaced, moved, log_deleted], ids=lambda happens: happens.__name__
)
def test_nothing_is_acknowledged_into_a_file_that_nobody_finds_again(
    database: Path, happens: Callable[[Path], None]
) -> None:
    """Who waits and who asks hears of it, by name; the step's outcome is not acknowledged."""
    gone = "The database file '.*' or its log .* was moved, deleted or replaced while it was open: "
    with Persistasaurus(database) as app, Persistasaurus(":memory:") as other:
        app.run(flow_that_goes_on, 1)
        handle = app.start(fills_the_disk, 10)
        eventually(lambda: log_of(handle) == [(1, "makes_much", "PENDING")])
        threading.Timer(0.05, happens, [database]).start()
        with pytest.raises(StoreError, match=gone):
            handle.result(timeout=10)
        released.set()
        for ask in (
            lambda: app.start(flow_that_goes_on, 1),
            handle.status,
            lambda: handle.send("headlines", 1),
            app.flows,
        ):
            with pytest.raises(StoreError, match=gone):
                ask()
        assert other.run(flow_that_goes_on, 1) == 2


def test_a_file_that_is_gone_is_noticed_by_who_starts_a_flow(database: Path) -> None:
    """Before the heartbeat has looked: a start that returns is in the file that the path names."""
    with Persistasaurus(database) as app:
        app.run(flow_that_goes_on, 1)
        database.unlink()
        with pytest.raises(StoreError, match="was moved, deleted or replaced while it was open"):
            app.start(flow_that_goes_on, 1)
    with Persistasaurus(database) as app:
        assert list(app.flows()) == []
        assert app.run(flow_that_goes_on, 1) == 2
