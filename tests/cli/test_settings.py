"""Where settings come from: a flag, else the environment, else pyproject.toml, else the default."""

from __future__ import annotations

import pytest

from tests.cli.kit import Shell


def databases(shell: Shell) -> set[str]:
    """Return the databases in the folder."""
    return {file.name for file in shell.folder.rglob("*.db")}


def test_a_flag_comes_before_the_environment_and_that_before_pyproject(shell: Shell) -> None:
    """Each names a database of its own, so that the file made shows which was heard."""
    assert databases(shell) == set()
    shell("db", "upgrade")
    assert databases(shell) == {"flows.db"}
    (shell.folder / "pyproject.toml").write_text('[tool.persistasaurus]\nurl = "project.db"', "utf-8")
    shell("db", "upgrade")
    assert databases(shell) == {"flows.db", "project.db"}
    shell("db", "upgrade", PERSISTASAURUS_URL="environment.db")
    assert databases(shell) == {"flows.db", "project.db", "environment.db"}
    shell("db", "upgrade", "--db", "flag.db", PERSISTASAURUS_URL="other.db")
    assert databases(shell) == {"flows.db", "project.db", "environment.db", "flag.db"}


@pytest.mark.parametrize("url", ["project.db", "sqlite:///project.db"])
def test_a_path_in_pyproject_counts_from_its_folder(shell: Shell, url: str) -> None:
    """So that the command means the same database everywhere in a project."""
    (shell.folder / "pyproject.toml").write_text(f'[tool.persistasaurus]\nurl = "{url}"', "utf-8")
    below = Shell(shell.folder / "src" / "deep")
    below.folder.mkdir(parents=True)

    done = below("db", "upgrade")

    assert done.code == 0, done.err
    assert (shell.folder / "project.db").exists()
    assert databases(below) == set()


def test_modules_may_be_settings(shell: Shell) -> None:
    """A flow is then started by its name, and a worker needs no argument."""
    (shell.folder / "pyproject.toml").write_text('[tool.persistasaurus]\nmodules = ["shop:setup"]', "utf-8")

    assert shell("start", "cli_patient", "--id", "p-1").code == 0
    (shell.folder / "pyproject.toml").unlink()
    assert shell("start", "cli_patient", "--id", "p-2").code == 2
    assert shell("start", "cli_patient", "--id", "p-2", PERSISTASAURUS_MODULES="os, shop").code == 0


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("[tool.persistasaurus]\ndatabase = 'x.db'", "no setting 'database'"),
        ("[tool.persistasaurus]\nurl = 5", "url = 5 is not a text"),
        ("[tool.persistasaurus]\nmodules = 'shop'", "not a list of texts"),
        ("[tool.persistasaurus]\ndrain = 'long'", "not a number of seconds"),
        ("[tool]\npersistasaurus = 5", "no table"),
        ("[tool", "cannot be read"),
    ],
)
def test_a_slip_in_pyproject_is_named(shell: Shell, text: str, complaint: str) -> None:
    """With the file, and nothing is done."""
    (shell.folder / "pyproject.toml").write_text(text, "utf-8")

    done = shell("db", "upgrade")

    assert (done.code, complaint in done.err, "pyproject.toml" in done.err) == (2, True, True), done.err
    assert databases(shell) == set()


def test_a_slip_in_the_environment_is_named(shell: Shell) -> None:
    """By its variable."""
    done = shell("db", "upgrade", PERSISTASAURUS_DRAIN="soon")

    assert (done.code, "PERSISTASAURUS_DRAIN='soon'" in done.err) == (2, True)


def test_modules_are_imported_from_the_current_folder(shell: Shell) -> None:
    """Also by the installed command, which Python gives another first place to look."""
    (shell.folder / "here.py").write_text(
        "from persistasaurus import flow\n@flow\ndef hello() -> int:\n    return 1\n", "utf-8"
    )

    assert shell("start", "here:hello", PYTHONSAFEPATH="1").code == 0
