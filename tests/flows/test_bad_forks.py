"""An app in a forked process: no connection survives a fork, and the parent must not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persistasaurus import FlowStatus, Persistasaurus
from tests.flows.kit import new_database
from tests.flows.unharmed import child_process, flow_that_goes_on, recorded


@pytest.fixture
def another_database(database: Path | str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | str]:
    """One of the same kind, for the child's own app."""
    with new_database(
        "sqlite" if isinstance(database, Path) else "postgres", tmp_path_factory.mktemp("child")
    ) as place:
        yield place


FORKS = """
import gc, os, sys, threading, warnings
from pathlib import Path
from persistasaurus import AppNotRunningError, Persistasaurus, Signal, StoreError, flow, step
from tests.flows.test_bad_calls import USES, uses
from tests.flows.unharmed import flow_that_goes_on

warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on of any fork beside threads
database, another = sys.argv[1:]
is_file = not database.startswith("postgresql:")
go_on = threading.Event()


@step
def outlasts_the_fork() -> str:
    assert go_on.wait(30)
    return str(os.getpid())


@flow
def forked_meanwhile() -> str:
    return outlasts_the_fork()


def open_files() -> list[str]:
    links = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    ours = [link for link in links if link.startswith(str(database)) and not link.endswith(" (deleted)")]
    return sorted(ours)


def in_child(app, handle, iteration) -> None:
    inherited = open_files()
    for use in USES:
        try:
            uses(app)[use]()
        except AppNotRunningError as error:
            assert "was called in a forked process. Database connections do not survive" in str(error), error
        else:
            raise AssertionError(f"{use} did not raise")
    try:
        list(iteration)
    except (AppNotRunningError, StoreError):
        pass
    else:
        raise AssertionError("the iteration went on")
    app.__exit__(None, None, None)
    del app, handle, iteration
    gc.collect()
    assert open_files() == inherited, (inherited, open_files())
    with Persistasaurus(another) as own:
        assert own.run(flow_that_goes_on, 1) == 2


def forked(work) -> int:
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


with Persistasaurus(database) as app:
    app.run(flow_that_goes_on, 1)
    handle = app.start(forked_meanwhile.options(flow_id="meanwhile"))
    while not handle.steps():
        pass
    iteration = app.flows()
    log = Path(f"{database}-wal").stat() if is_file else None
    assert forked(lambda: in_child(app, handle, iteration)) == 0
    assert not is_file or Path(f"{database}-wal").stat().st_ino == log.st_ino
    assert app.run(flow_that_goes_on, 2) == 3
    go_on.set()
    assert handle.result(timeout=10) == str(os.getpid())
    assert len(list(iteration)) == 3

never_entered = Persistasaurus(database)


def enter() -> None:
    with never_entered:
        assert never_entered.run(flow_that_goes_on, 3) == 4


assert forked(enter) == 0
print("parent went on")
"""


def test_a_forked_process_cannot_use_the_app_and_does_it_no_harm(
    database: Path | str, another_database: Path | str
) -> None:
    """Every use is refused in the child, and leaving the app there closes nothing of the parent's.

    The parent goes on, with the flow that ran meanwhile. The child may enter an app of its own, and one that
    was made but not entered before the fork.
    """
    assert child_process(FORKS, database, another_database) == "parent went on"
    with Persistasaurus(database) as app:
        assert {record.status for record in app.flows()} == {FlowStatus.COMPLETE}
        assert app.run(flow_that_goes_on, 1) == 2
    assert len([row for row in recorded(database)["flow"] if row[0] == "meanwhile"]) == 1
