"""What is SQLite's own: opening, locks, files, faults, and the view that anyone can read."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from persistasaurus._model import CANCELLED, COMPLETE, FAILED, PENDING, WAITING
from persistasaurus._store import _sqlite_claim, _sqlite_file, _sqlite_open
from persistasaurus._store.base import Batch, FlowFilter
from persistasaurus._store.sqlite import SqliteStore
from persistasaurus.errors import DamagedRecordError, StoreError
from tests.store.rows import FAR, LEASE_MS, T0, new_flow, start, start_one, step, update, worker
from tests.store.rows import signal as letter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    opened.open()
    with closing(opened):
        opened.intern("", "hello")
        yield opened


def refusal(path: str | Path) -> str:
    """Open a store that cannot be opened and return what it says."""
    with pytest.raises(StoreError) as refused:
        SqliteStore(path, busy_timeout_s=0).open()
    return str(refused.value)


def child(code: str, *arguments: object, expect: int = 0) -> str:
    """Run code in a new process with some of this module's names, and return what it prints."""
    head = (
        "import os, signal, sys, apsw\n"
        "from persistasaurus._store.sqlite import SqliteStore\n"
        "from persistasaurus._store.base import Batch, FlowFilter\n"
        "from persistasaurus.errors import *\n"
        "from tests.store.rows import LEASE_MS, new_flow, signal as letter, start_one, step, update, worker\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout


# --- what cannot be a store ----------------------------------------------------------------------------


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """Also the empty path, which is the current directory."""
    assert "is a directory. Give the path of a file in it" in refusal(tmp_path)
    assert "is a directory" in refusal("")


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """It is not created: a typing error would go unnoticed."""
    assert f"There is no directory '{tmp_path}/no' for the database" in refusal(tmp_path / "no" / "f.db")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("size", [2, 40, 600, 5000])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path, size: int) -> None:
    """Whether or not it is as long as SQLite's header."""
    path.write_text("x" * size)

    assert "not a SQLite database" in refusal(path)
    assert path.read_text() == "x" * size


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    """The parent is a file."""
    (tmp_path / "file").touch()

    assert "There is no directory" in refusal(tmp_path / "file" / "flows.db")


def test_what_is_no_file_is_refused(path: Path) -> None:
    """Devices and sockets."""
    assert "no regular file" in refusal("/dev/null")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        assert "no regular file" in refusal(path)


@pytest.mark.parametrize("odd", ["a\0b", "x" * 300 + "/" + "y" * 300])
def test_an_impossible_path_is_refused(odd: str, tmp_path: Path) -> None:
    """What the operating system says is passed on."""
    assert "Give another path" in refusal(f"{tmp_path}/{odd}")


def test_a_loop_of_links_is_refused(path: Path) -> None:
    """A link to itself resolves to nothing."""
    path.symlink_to(path)

    assert "Give another path" in refusal(path)


UNPRIVILEGED = """
if os.geteuid() == 0:
    os.setegid(65534), os.seteuid(65534)  # root may write whatever the permissions say
try:
    SqliteStore(sys.argv[1]).open()
except StoreError as error:
    print(error)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that a user without rights can reach."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)
        Path(made).chmod(0o755)


def test_a_read_only_file_is_refused(public: Path) -> None:
    """Seen as a user without root's rights."""
    SqliteStore(public / "flows.db").open()
    public.chmod(0o777)
    (public / "flows.db").chmod(0o444)

    assert "read-only for this user" in child(UNPRIVILEGED, public / "flows.db")


def test_a_read_only_directory_is_refused_for_old_and_new_files(public: Path) -> None:
    """SQLite's log is created beside the database."""
    with closing(SqliteStore(public / "flows.db")) as store:
        store.open()
    (public / "flows.db").chmod(0o666)
    public.chmod(0o555)

    for name in ["flows.db", "new.db"]:
        assert f"The directory '{public}' of the database is read-only" in child(UNPRIVILEGED, public / name)


def mount(place: str, kind: str, options: str = "rw") -> str:
    return f"36 35 98:0 / {place} rw,noatime master:1 - {kind} source {options}\n"


ROOT = mount("/", "ext4")


@pytest.mark.parametrize(
    "mountinfo, found",
    [
        (ROOT, None),
        (mount("/", "overlay"), None),
        (ROOT + mount("/data", "nfs4"), "nfs4"),
        (ROOT + mount("/data", "nfs4") + mount("/data/local", "xfs"), None),
        (ROOT + mount("/data", "xfs") + mount("/data/local", "cifs"), "cifs"),
        (ROOT + mount("/data", "nfs") + mount("/data", "tmpfs"), None),
        (ROOT + mount("/dat", "nfs"), None),
        (ROOT + mount("/data/local/flows", "nfs"), None),
        (ROOT + mount("/data", "fuse.sshfs"), "fuse.sshfs"),
        (ROOT + mount("/data", "fuse.s3fs"), "fuse.s3fs"),
        (ROOT + mount("/data", "fuse.mount-s3"), "fuse.mount-s3"),
        (ROOT + mount("/data", "fuse.glusterfs"), "fuse.glusterfs"),
        (ROOT + mount("/data", "fuse.fuse-overlayfs"), None),
        (ROOT + mount("/data", "fuseblk"), None),
        (ROOT + mount("/data", "virtiofs"), None),
        (ROOT + mount("/data", "ceph"), "ceph"),
        (ROOT + mount("/data", "lustre"), "lustre"),
        (mount("/", "9p", "rw,trans=fd,rfdno=4,wfdno=4"), None),
        (ROOT + mount("/data", "9p", "rw,trans=virtio"), None),
        (ROOT + mount("/data", "9p", "rw,access=client,trans=tcp,port=564"), "9p"),
        ("", None),
    ],
)
def test_network_file_systems_are_told_from_local_ones(mountinfo: str, found: str | None) -> None:
    """By the last and longest mount that holds the path."""
    assert _sqlite_open.network_file_system("/data/local/flows.db", mountinfo) == found


def test_a_mount_with_a_blank_in_its_name_is_found() -> None:
    """The kernel writes it as an octal number."""
    mountinfo = ROOT + mount("/my\\040data", "nfs")

    assert _sqlite_open.network_file_system("/my data/flows.db", mountinfo) == "nfs"
    assert _sqlite_open.network_file_system("/my", mountinfo) is None


def test_a_database_on_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a file is created there."""
    monkeypatch.setattr(_sqlite_open, "_mounts", lambda: ROOT + mount(str(path.parent), "nfs4"))

    assert "on a network file system (nfs4)" in refusal(path)
    assert not path.exists()


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.7.0"])
def test_a_sqlite_with_the_wal_reset_bug_is_refused(version: str) -> None:
    """The bug was fixed in 3.51.3."""
    with pytest.raises(StoreError, match="pip install -U apsw"):
        _sqlite_open.check_library(version)
    _sqlite_open.check_library("3.51.3")
    _sqlite_open.check_library("3.100.0")


def test_a_database_without_a_write_ahead_log_is_refused() -> None:
    """SQLite answers with the mode that it kept, and that is read."""
    with closing(apsw.Connection(":memory:")) as connection, pytest.raises(StoreError, match="'memory'"):
        _sqlite_open.switch_to_wal(connection, "/some/flows.db")


# --- how it is opened ----------------------------------------------------------------------------------


@pytest.mark.parametrize("durability, level", [("full", 2), ("may-lose-last-commits-on-power-loss", 1)])
def test_every_connection_is_as_durable_as_was_asked(path: Path, durability: str, level: int) -> None:
    """FULL unless the caller gives it up by its name."""
    with closing(SqliteStore(path, durability=durability)) as store:  # type: ignore[arg-type]
        store.open()
        writer = store._file._writer
        assert writer is not None
        assert writer.pragma("synchronous") == level
        assert writer.pragma("journal_mode") == "wal"
    assert SqliteStore(path)._file._durability == "full"


def test_readers_cannot_write(store: SqliteStore) -> None:
    """A mistake in a query cannot become a write without a fence."""
    with pytest.raises(StoreError, match="read-only"):
        store._file.read(lambda db: db.execute("DELETE FROM flow"))


def test_only_the_owner_may_read_the_files(store: SqliteStore, path: Path) -> None:
    """Payloads may be secret; whatever the umask says."""
    store.commit(Batch(signals=[letter()]))

    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"flows.db": 0o600, "flows.db-wal": 0o600, "flows.db-shm": 0o600}


def test_a_link_and_its_target_are_one_database(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """The log stands beside the real file, so both see the same commits."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)

    with closing(SqliteStore(link)) as other:
        other.open()
        store.commit(Batch(signals=[letter()]))
        assert len(other.signals("f")) == 1
        assert list(link.parent.iterdir()) == [link]


def test_the_last_one_to_close_leaves_one_file(path: Path) -> None:
    """Ready to be copied."""
    one, two = SqliteStore(path), SqliteStore(path)
    one.open()
    two.open()
    one.commit(Batch(signals=[letter()]))

    one.close()
    assert path.with_name("flows.db-wal").exists()
    two.close()

    assert list(path.parent.iterdir()) == [path]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_return_and_connections_are_bounded(path: Path) -> None:
    """However many threads read."""
    before = open_files()
    store = SqliteStore(path)
    store.open()
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda _: store.names(), range(500)))
        during = open_files()
    store.close()

    # Two for each connection, the database and its log; one log's index, and the guard's two.
    assert during - before <= 2 * (_sqlite_file.READERS + 2) + 3
    assert open_files() == before


def test_a_store_can_be_opened_again(store: SqliteStore) -> None:
    """After it was closed, with everything in it."""
    store.commit(Batch(signals=[letter()]))
    store.close()
    store.open()
    store.open()

    assert len(store.signals("f")) == 1


# --- locks ---------------------------------------------------------------------------------------------

HOLD_THE_LOCK = """
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


@pytest.fixture
def lock_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the write lock until its input ends."""
    SqliteStore(path).open()
    with subprocess.Popen(
        [sys.executable, "-c", "import apsw, sys\n" + HOLD_THE_LOCK, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close() if process.stdin else None


@pytest.mark.real_time
def test_a_new_file_whose_lock_is_held_is_opened_once_it_is_free(path: Path) -> None:
    """As where many processes start at once, and one of them takes long to make the file."""
    with closing(apsw.Connection(str(path))) as other, ThreadPoolExecutor(1) as pool:
        other.pragma("journal_mode", "wal")
        other.execute("BEGIN IMMEDIATE")
        store = SqliteStore(path)
        opening = pool.submit(store.open)
        time.sleep(1.3)  # longer than SQLite waits by itself
        assert not opening.done()
        other.execute("ROLLBACK")

        opening.result(timeout=5)
        assert store.workers() == []
        store.close()


@pytest.mark.real_time
def test_a_lock_that_is_held_for_seconds_is_waited_for(
    lock_holder: subprocess.Popen[str], path: Path
) -> None:
    """No "locked" reaches the caller; reading goes on meanwhile."""
    with closing(SqliteStore(path)) as store, ThreadPoolExecutor(1) as pool:
        store.open()
        began = time.monotonic()
        waiting = pool.submit(store.commit, Batch(signals=[letter()]))
        while time.monotonic() < began + 3:
            assert store.signals("f") == []
            assert not waiting.done()
            time.sleep(0.05)
        assert lock_holder.stdin is not None
        lock_holder.stdin.close()

        assert waiting.result(timeout=5).signals == [None]
        assert len(store.signals("f")) == 1


@pytest.mark.real_time
def test_a_lock_that_is_never_given_back_is_reported(lock_holder: subprocess.Popen[str], path: Path) -> None:
    """After the busy timeout, by its cause; the store goes on afterwards."""
    with closing(SqliteStore(path, busy_timeout_s=0.2)) as store:
        store.open()
        for batch in [Batch(signals=[letter()]), Batch(worker_id=1, steps=[step(1)])]:
            with pytest.raises(StoreError, match="held its lock for longer than the busy timeout"):
                store.commit(batch)
        assert lock_holder.stdin is not None
        lock_holder.stdin.close()
        lock_holder.wait()

        store.commit(Batch(signals=[letter()]))


def test_a_claim_of_nothing_takes_no_lock(lock_holder: subprocess.Popen[str], path: Path) -> None:
    """Idle workers do not stand in each other's way."""
    with closing(SqliteStore(path)) as store:
        store.open()
        assert lock_holder.stdin is not None
        lock_holder.stdin.close()
        lock_holder.wait()
        me = store.register_worker(worker(), lease_ms=LEASE_MS)
    with closing(SqliteStore(path, busy_timeout_s=0)) as store, closing(apsw.Connection(str(path))) as other:
        store.open()
        other.execute("BEGIN IMMEDIATE")

        assert store.claim(me, [1], now_ms=FAR, limit=9) == ((), (), None)


def test_a_claim_walks_indexes_only(store: SqliteStore) -> None:
    """100,000 due flows cost no sort, and those of unknown names are not looked at."""
    values = {"worker": 1, "now": T0, "names": "[1]", "share": 5}

    plan = store._file.read(
        lambda db: db.execute("EXPLAIN QUERY PLAN " + _sqlite_claim._LOOK, values).fetchall()
    )

    lines = [str(line[3]) for line in plan]
    assert not [line for line in lines if line.startswith(("SCAN flow", "SCAN free", "SCAN other"))]
    assert "SEARCH free USING INDEX flow_due (name_id=? AND due_at_ms<?)" in lines
    # The one sort is that of the suspects.
    assert len([line for line in lines if "TEMP B-TREE" in line]) <= 1


def test_threads_write_and_read_through_one_store(store: SqliteStore) -> None:
    """Each thread sees its own writes at once."""
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    keys = [start_one(store, me, f"f{index}") for index in range(6)]

    def drive(key: int) -> list[int]:
        seen = []
        for number in range(1, 41):
            store.commit(Batch(worker_id=me, steps=[step(key, number)]))
            history = store.load(key)
            seen.append(len(history.steps) if history else 0)
        return seen

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(drive, keys)) == [list(range(1, 41))] * 6


# --- the write-ahead log -------------------------------------------------------------------------------


def fill(store: SqliteStore, megabytes: int) -> None:
    for _ in range(megabytes):
        store.commit(Batch(signals=[letter(payload='"' + "x" * 1_000_000 + '"')]))


OTHER_TOOL = """
import sqlite3, sys
tool = sqlite3.connect(sys.argv[1], isolation_level=None)
if sys.argv[2] == "reads":
    tool.execute("BEGIN")
tool.execute("SELECT count(*) FROM flow").fetchall()
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_tool(path: Path, what: str) -> Iterator[None]:
    """Another process with the standard library's sqlite3: idle, or in the middle of reading."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_TOOL, str(path), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield
        process.stdin.close()


def test_the_log_stays_bounded_beside_an_idle_connection(store: SqliteStore, path: Path) -> None:
    """Ours, or one that another tool holds open."""
    with other_tool(path, "idles"):
        store.names()

        fill(store, 100)

        assert path.with_name("flows.db-wal").stat().st_size <= _sqlite_file.WAL_LIMIT_BYTES + 10_000_000


def test_the_log_stays_bounded_while_others_read_without_a_pause(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always a reader somewhere in the log, so that SQLite by itself would never start it anew."""
    monkeypatch.setattr(_sqlite_file, "WAL_LIMIT_BYTES", 5_000_000)
    done = threading.Event()
    with closing(SqliteStore(path)) as store, ThreadPoolExecutor(3) as pool:
        store.open()
        store.intern("", "hello")
        me = store.register_worker(worker(), lease_ms=LEASE_MS)
        key = start_one(store, me)
        store.commit(Batch(worker_id=me, steps=[step(key, number) for number in range(1, 2001)]))

        def read() -> None:
            while not done.is_set():
                store.load(key)

        reading = [pool.submit(read) for _ in range(3)]
        fill(store, 32)
        size = path.with_name("flows.db-wal").stat().st_size
        done.set()
        for each in reading:
            each.result()

    assert size < 16_000_000


def test_the_log_is_cut_once_a_long_reader_leaves(store: SqliteStore, path: Path) -> None:
    """It cannot be cut while somebody reads an old snapshot, and nobody waits for that."""
    wal = path.with_name("flows.db-wal")
    with other_tool(path, "reads"):
        fill(store, 80)
        assert wal.stat().st_size > 2 * _sqlite_file.WAL_LIMIT_BYTES

    fill(store, 40)

    assert wal.stat().st_size <= _sqlite_file.WAL_LIMIT_BYTES


def test_the_standard_librarys_sqlite3_in_this_process_takes_nothing_away(
    store: SqliteStore, path: Path
) -> None:
    """Two copies of SQLite in one process do not see each other's locks; ours is guarded against that."""
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    key = start_one(store, me)
    done = threading.Event()

    def peek() -> int:
        seen = 0
        while not done.is_set():
            with closing(sqlite3.connect(path, isolation_level=None)) as tool:
                ((count,),) = tool.execute("SELECT count(*) FROM execution_log").fetchall()
            # It may go back: the other copy's locks do not keep ours from starting the log over under it.
            seen = max(seen, count)
        return seen

    with ThreadPoolExecutor(1) as pool:
        peeking = pool.submit(peek)
        for number in range(1, 1001):
            store.commit(Batch(worker_id=me, steps=[step(key, number)]))
        done.set()
        assert peeking.result() > 1

    store.close()
    store.open()
    history = store.load(key)
    assert history is not None
    assert len(history.steps) == 1000


# --- files that go away --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["deleted", "moved", "replaced", "log deleted", "index deleted", "directory moved"]
)
def test_a_file_that_goes_away_is_noticed_before_a_commit_is_acknowledged(
    store: SqliteStore, path: Path, what: str
) -> None:
    """SQLite itself goes on writing into a file that nobody finds again."""
    # So long ago that the commits until then do not look at each file any more.
    os.utime(path.parent, (1, 1))
    store.commit(Batch(signals=[letter()]))
    if what == "deleted":
        path.unlink()
    elif what == "moved":
        path.rename(path.with_name("moved.db"))
    elif what == "replaced":
        path.with_name("other.db").write_bytes(path.read_bytes())
        path.with_name("other.db").replace(path)
    elif what == "log deleted":
        path.with_name("flows.db-wal").unlink()
    elif what == "index deleted":
        path.with_name("flows.db-shm").unlink()
    else:
        path.parent.rename(path.parent.with_name("moved"))

    for batch in [Batch(signals=[letter()]), Batch(starts=[new_flow(claim=False)])]:
        with pytest.raises(StoreError, match="moved, deleted or replaced"):
            store.commit(batch)
    with pytest.raises(StoreError, match=str(path)):
        store.check()


# --- fork ----------------------------------------------------------------------------------------------

FORK = """
import gc, warnings
warnings.simplefilter("ignore", DeprecationWarning)
store = SqliteStore(sys.argv[1])
store.open()
store.intern("", "hello")
me = store.register_worker(worker(), lease_ms=LEASE_MS)
key = start_one(store, me)
pid = os.fork()
if pid == 0:
    calls = [lambda: store.commit(Batch(signals=[letter()])), store.changes, store.check, store.names,
             lambda: store.claim(me, [1], now_ms=1, limit=1), lambda: store.intern("", "x"),
             lambda: store.commit(Batch(worker_id=me, steps=[step(key)])), store.open]
    for call in calls:
        try:
            call()
        except StoreError as error:
            assert "opened before fork()" in str(error), error
        else:
            print("no error", flush=True)
    store.close()
    with_its_own = SqliteStore(sys.argv[1])
    with_its_own.open()
    with_its_own.commit(Batch(signals=[letter()]))
    with_its_own.close()
    del store
    gc.collect()
    sys.exit(0)
print(os.waitpid(pid, 0)[1], flush=True)
store.commit(Batch(worker_id=me, steps=[step(key)]))
store._file._writer.execute("BEGIN IMMEDIATE")
pid = os.fork()
if pid == 0:
    del store
    gc.collect()
    sys.exit(0)
os.waitpid(pid, 0)
print("locked", flush=True)
sys.stdin.read()
store._file._writer.execute("ROLLBACK")
print(len(store.load(key).steps), len(store.signals("f")))
"""


def test_a_forked_child_refuses_the_store_and_leaves_the_parents_locks(path: Path) -> None:
    """The child may open its own; whatever it closes and collects, the parent's lock stays."""
    head = (
        "import os, sys\nfrom persistasaurus._store.sqlite import SqliteStore\n"
        "from persistasaurus._store.base import Batch\nfrom persistasaurus.errors import StoreError\n"
        "from tests.store.rows import LEASE_MS, signal as letter, start_one, step, worker\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", head + FORK, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        assert process.stdout.readline() == "locked\n"
        with closing(apsw.Connection(str(path))) as other, pytest.raises(apsw.BusyError):
            other.execute("BEGIN IMMEDIATE")
        process.stdin.close()
        assert process.stdout.read() == "1 1\n"


# --- faults --------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_the_batch_can_be_repeated(store: SqliteStore) -> None:
    """SQLITE_FULL, in the statement and in the transaction."""
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    key = start_one(store, me)
    store.commit(Batch(worker_id=me, steps=[step(key)]))
    writer = store._file._writer
    assert writer is not None
    writer.pragma("max_page_count", writer.pragma("page_count"))
    big = '"' + "x" * 100_000 + '"'
    steps = Batch(worker_id=me, steps=[step(key, 2, return_value=big)])
    mixed = Batch(worker_id=me, steps=[step(key, 3)], signals=[letter(payload=big)])

    for batch in [steps, mixed]:
        with pytest.raises(StoreError, match=r"full.*Free some space"):
            store.commit(batch)
    history = store.load(key)
    assert history is not None
    assert [each.step for each in history.steps] == [1]
    writer.pragma("max_page_count", 1_000_000)
    for batch in [steps, mixed]:
        store.commit(batch)

    history = store.load(key)
    assert history is not None
    assert [each.step for each in history.steps] == [1, 2, 3]
    assert len(store.signals("f")) == 1


NO_ROOM = """
import resource
store = SqliteStore(sys.argv[1])
store.open()
store.intern("", "hello")
me = store.register_worker(worker(), lease_ms=LEASE_MS)
key = start_one(store, me)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
acknowledged = 0
try:
    while True:
        big = step(key, acknowledged + 1, return_value='"' + 'x' * 9000 + '"')
        store.commit(Batch(worker_id=me, steps=[big]))
        acknowledged += 1
except StoreError as error:
    print(type(error.__cause__).__name__)
assert len(store.load(key).steps) == acknowledged
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.commit(Batch(worker_id=me, steps=[step(key, acknowledged + 1)]))
print(len(store.load(key).steps) - acknowledged)
"""


def test_a_file_that_may_not_grow_is_reported_and_goes_on_once_it_may(path: Path) -> None:
    """The operating system's own limit, hit in the write-ahead log."""
    assert child(NO_ROOM, path).split() == ["IOError", "1"]


FAILING_SYNC = """
class File(apsw.VFSFile):
    def xSync(self, flags):
        if broken:
            raise apsw.IOError("injected")
        return super().xSync(flags)
class Disk(apsw.VFS):
    def __init__(self):
        super().__init__("failing", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File("unix", name, flags)
broken = False
disk = Disk()
store, other = SqliteStore(sys.argv[1]), SqliteStore(sys.argv[1])
store.open(), other.open()
store.intern("", "hello")
me = store.register_worker(worker(), lease_ms=LEASE_MS)
key = start_one(store, me)
batches = [
    Batch(worker_id=me, steps=[step(key, 1)]),
    Batch(worker_id=me, steps=[step(key, 2)], signals=[letter()], starts=[new_flow("new")],
          updates=[update(key, release=True, due_at_ms=5)]),
]
for batch in batches:
    broken = True
    for attempt in range(3):
        try:
            store.commit(batch)
        except StoreError as error:
            print(type(error.__cause__).__name__)
        for each in store, other:
            assert len(each.load(key).steps) == batches.index(batch)
            assert each.signals("f") == [] and each.find("new") is None
    broken = False
    store.commit(batch)
assert len(other.load(key).steps) == 2 and len(other.signals("f")) == 1
"""


def test_a_commit_whose_sync_fails_has_not_happened(path: Path) -> None:
    """Nobody sees it, so the same batch may be repeated: also its signals, and an update that releases."""
    assert child(FAILING_SYNC, path).split() == ["IOError"] * 6


KILLED = """
class File(apsw.VFSFile):
    def xWrite(self, data, offset):
        die_if_its_time()
        return super().xWrite(data, offset)
    def xSync(self, flags):
        die_if_its_time()
        return super().xSync(flags)
class Disk(apsw.VFS):
    def __init__(self):
        super().__init__("deadly", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File("unix", name, flags)
left = int(sys.argv[2])
def die_if_its_time():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
disk = Disk()
store = SqliteStore(sys.argv[1])
store.open()
store.intern("", "hello")
me = store.register_worker(worker("me"), lease_ms=LEASE_MS)
key = start_one(store, me)
for number in range(1, 10_000):
    store.commit(Batch(worker_id=me, steps=[step(key, 2 * number)]))
    print(2 * number, flush=True)
    store.commit(Batch(worker_id=me, steps=[step(key, 2 * number + 1)], signals=[letter()]))
    print(2 * number + 1, flush=True)
"""


@pytest.mark.crash
@pytest.mark.parametrize("when", [1, 2, 3, 5, 8, 40, 41, 42, 43, 44, 45, 46, 47, 100, 1000, 3300, 5000])
def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_a_write(path: Path, when: int) -> None:
    """Killed at the n-th write or sync, also while the file is created and while it is checkpointed."""
    printed = child(KILLED, path, when, expect=-signal.SIGKILL).split()

    with closing(SqliteStore(path)) as store:
        store.open()
        row = store.find("f")
        history = store.load(row.flow_key) if row else None
        steps = [each.step for each in history.steps] if history else []
        assert steps[: len(printed)] == [int(each) for each in printed]
        assert len(steps) <= len(printed) + 1
        # Each odd step came with a signal, in one commit.
        assert len(store.signals("f")) == len([each for each in steps if each % 2])


# --- damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE step SET return_value = CAST(x'ff22' AS TEXT)",
        "UPDATE flow SET input = CAST(x'c328' AS TEXT) WHERE flow_id = 'f'",
        "UPDATE signal SET payload = x'00ff'",
        "UPDATE signal SET payload = CAST(x'ff22' AS TEXT)",
    ],
)
def test_a_damaged_row_is_named_and_the_other_flows_go_on(store: SqliteStore, path: Path, sql: str) -> None:
    """Only its own flow cannot be loaded."""
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    key, sound = start_one(store, me, "f"), start_one(store, me, "g")
    store.commit(Batch(worker_id=me, steps=[step(key)], signals=[letter()]))
    with closing(apsw.Connection(str(path))) as tool:
        tool.execute(sql)

    for _ in range(_sqlite_file.READERS + 1):
        with pytest.raises(DamagedRecordError, match=f"flow {key}.*damaged or edited"):
            store.load(key)

    assert not store.load_short([key, sound])
    assert store.load_short([sound]) == [store.load(sound)]
    store.commit(Batch(worker_id=me, steps=[step(sound)]))


def test_a_damaged_row_in_a_page_of_flows_is_reported(store: SqliteStore, path: Path) -> None:
    """A list cannot leave it out silently."""
    start_one(store, None, claim=False)
    with closing(apsw.Connection(str(path))) as tool:
        tool.execute("UPDATE flow SET reason = CAST(x'c328' AS TEXT)")

    with pytest.raises(DamagedRecordError):
        store.list_flows(FlowFilter(), before_key=None, limit=5)
    with pytest.raises(DamagedRecordError):
        store.find("f")


def test_a_damaged_file_is_reported_with_the_cure(path: Path) -> None:
    """By every call that meets the damaged page."""
    with closing(SqliteStore(path)) as store:
        store.open()
    pages_of_an_empty_store = path.stat().st_size // 4096
    with closing(SqliteStore(path)) as store:
        store.open()
        store.intern("", "hello")
        start(store, None, *[new_flow(f"f{index}", claim=False) for index in range(2000)])
    content = bytearray(path.read_bytes())
    for page in range(pages_of_an_empty_store, len(content) // 4096):
        content[page * 4096 : page * 4096 + 100] = b"\xa5" * 100
    path.write_bytes(content)

    with closing(SqliteStore(path)) as store:
        store.open()
        with pytest.raises(StoreError, match="damaged"):
            store.list_flows(FlowFilter(), before_key=None, limit=5000)
        with pytest.raises(StoreError, match=r"damaged.*restore it from a backup"):
            start(store, None, *[new_flow(f"new{index}", claim=False) for index in range(2000)])


# --- the view that anyone can read ---------------------------------------------------------------------


COLUMNS = (
    *("flow_id", "step", "timestamp", "class_name", "method_name", "delay", "status", "attempts"),
    *("parameters", "return_value", "error"),
)


def test_the_execution_log_can_be_read_by_any_tool(store: SqliteStore, path: Path) -> None:
    """Here by the standard library's sqlite3, while the store is open."""
    number = store.intern("Signup", "send")
    me = store.register_worker(worker(), lease_ms=LEASE_MS)
    key = start_one(store, me, "é😀")
    waiting = step(key, 2, name_id=number, status=WAITING, event=None, delay_ms=500, return_value=None)
    failed = step(key, 3, name_id=number, status=FAILED, error='{"type":"E"}', return_value=None, attempts=2)
    store.commit(Batch(worker_id=me, steps=[step(key), waiting, failed]))
    for flow_id, status in [("c", COMPLETE), ("f", FAILED), ("x", CANCELLED), ("w", WAITING), ("p", PENDING)]:
        other = start_one(store, me, flow_id)
        store.commit(Batch(worker_id=me, updates=[update(other, status=status, result="1", error="{}")]))

    with closing(sqlite3.connect(path)) as tool:
        tool.row_factory = sqlite3.Row
        log = tool.execute("SELECT * FROM execution_log WHERE flow_id = ? ORDER BY step", ("é😀",)).fetchall()
        of_flows = dict(tool.execute("SELECT flow_id, status FROM execution_log WHERE step = 0").fetchall())

    assert tuple(log[0].keys()) == COLUMNS
    assert [tuple(row) for row in log] == [
        ("é😀", 0, T0, "", "hello", None, "PENDING", 1, '{"name":"World"}', None, None),
        ("é😀", 1, T0, "", "hello", None, "COMPLETE", 1, '{"count":3}', "3", None),
        ("é😀", 2, T0, "Signup", "send", 500, "WAITING_FOR_SIGNAL", 1, '{"count":3}', None, None),
        ("é😀", 3, T0, "Signup", "send", None, "FAILED", 2, '{"count":3}', None, '{"type":"E"}'),
    ]
    assert of_flows == {
        "é😀": "PENDING",
        "c": "COMPLETE",
        "f": "FAILED",
        "x": "CANCELLED",
        "w": "PENDING",
        "p": "PENDING",
    }


def test_a_small_step_takes_few_bytes(path: Path) -> None:
    """Under 100 on the disk, indexes and all, for one with small values."""
    with closing(SqliteStore(path)) as store:
        store.open()
        store.intern("", "hello")
        me = store.register_worker(worker(), lease_ms=LEASE_MS)
        keys = [each.flow_key for each in start(store, me, *[new_flow(f"f{index}") for index in range(200)])]
        store.commit(
            Batch(worker_id=me, steps=[step(key, number) for key in keys for number in range(1, 51)])
        )

    assert path.stat().st_size / (200 * 50) < 100


def test_memory_is_shared_by_threads_and_gone_after_closing() -> None:
    """The same code on one connection."""
    store = SqliteStore(":memory:")
    store.open()
    name = store.intern("", "hello")
    seen: list[dict[int, tuple[str, str]]] = []
    thread = threading.Thread(target=lambda: seen.append(store.names()))
    thread.start()
    thread.join()
    assert seen == [{name: ("", "hello")}]
    store.close()
    store.open()
    assert store.names() == {}
    store.close()


def test_an_interrupted_read_leaves_nothing_taken(tmp_path: Path) -> None:
    """Ctrl-C comes between any two calls of the main thread; the file is still read, and closes, after it."""
    path = tmp_path / "flows.db"
    program = f"""
import random, signal
from persistasaurus._store.sqlite import SqliteStore

store = SqliteStore({str(path)!r})
store.open()

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
heard = 0
while heard < 2_000:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
        while True:
            store.names()
    except KeyboardInterrupt:
        heard += 1
assert store.names() == {{}}
store.close()
print("closed")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ran.stdout, ran.stderr) == ("closed\n", "")
