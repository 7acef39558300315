"""What goes wrong is one line on stderr, without a traceback, and has its exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import postgres
from tests.cli.kit import Done, Shell


def refused(done: Done, code: int, *parts: str) -> None:
    """Check the code, that nothing is on stdout, and that the line says these things."""
    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.err.splitlines()) == 1, done.err
    for part in parts:
        assert part in done.err


LOOKING = (
    ["ls"],
    ["show", "x"],
    ["steps", "x"],
    ["tail", "x"],
    ["resume", "x", "confirm"],
    ["signal", "x", "s"],
    ["cancel", "x"],
    ["retry", "x"],
    ["db", "verify"],
)


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
def test_a_missing_database_is_not_made(shell: Shell, arguments: list[str]) -> None:
    """A slip in the path would otherwise leave an empty database behind, and hide itself."""
    refused(shell(*arguments, "--db", "typo.db"), 3, "There is no database 'typo.db'", "--db")

    assert list(shell.folder.iterdir()) == []


def test_a_missing_schema_is_not_made(shell: Shell) -> None:
    """A slip in ?schema= would pass for an empty database."""
    with postgres.new_schema() as url:
        for arguments in LOOKING:
            shown = f"There is no database '{url.partition('?')[0]}' (schema {url.rpartition('=')[2]})"
            refused(shell(*arguments, "--db", url), 3, shown, "--db")
        sql = f"SELECT 1 FROM pg_namespace WHERE nspname = '{url.rpartition('=')[2]}'"
        assert postgres.by_sql(postgres.server_url(), sql) == []
        # when it is made
        assert shell("db", "upgrade", "--db", url, "--json").json["created"]
        # then that is said once
        assert shell("db", "upgrade", "--db", url).out.endswith(": up to date already\n")
        assert shell("ls", "--db", url).code == 0


def test_an_empty_file_is_not_made_a_database_by_looking(shell: Shell) -> None:
    """Nor is one of an older library migrated: that is for `db upgrade`, or a worker."""
    empty = shell.folder / "flows.db"
    empty.touch()

    refused(shell("ls"), 1, "persistasaurus db upgrade")

    assert empty.stat().st_size == 0
    assert shell("db", "upgrade", "--json").json == {
        "database": "flows.db",
        "created": False,
        "changed": True,
    }
    assert shell("db", "upgrade").out == "flows.db: up to date already\n"
    assert shell("ls").code == 0


def test_a_file_that_is_no_database_is_refused(shell: Shell) -> None:
    """By every command, and it keeps its content."""
    file = shell.folder / "flows.db"
    file.write_text("no database at all, " * 100, "utf-8")

    for arguments in (
        ["ls"],
        ["worker", "shop:setup"],
        ["start", "shop:patient"],
        ["db", "verify"],
        ["db", "upgrade"],
    ):
        refused(shell(*arguments), 1, "It is not a SQLite database")

    assert file.read_text("utf-8").startswith("no database")


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["steps"], ["tail"], ["resume", "confirm"], ["signal", "s"], ["cancel"], ["retry"]],
    ids=lambda arguments: arguments[0],
)
def test_an_unknown_id_is_not_found(shell: Shell, arguments: list[str]) -> None:
    """With 3, so that a script can tell it from a failure."""
    shell("db", "upgrade")
    command, *rest = arguments

    refused(shell(command, "nobody", *rest), 3, "No flow has the id 'nobody'")


def test_one_id_with_another_input_is_a_conflict(shell: Shell) -> None:
    """The same again is the same flow."""
    shell("start", "shop:total", "-a", "numbers=[1]", "--id", "same")

    assert shell("start", "shop:total", "-a", "numbers=[1]", "--id", "same").code == 0
    refused(shell("start", "shop:total", "-a", "numbers=[2]", "--id", "same"), 4, "with another input")
    refused(shell("start", "shop:approved", "--id", "same"), 4, "of another flow")


def test_a_wait_ends_with_5_when_its_time_is_over(shell: Shell) -> None:
    """The flow goes on."""
    with shell.worker():
        waited = shell("start", "shop:patient", "--id", "p", "--timeout", "0.1")

        assert (waited.code, waited.out) == (5, "")
        assert "has not ended in time" in waited.err
        assert shell("show", "p", "--json").json["status"] == "PENDING"


def test_a_flow_that_raised_a_timeout_of_its_own_has_failed(shell: Shell) -> None:
    """Its exit code is that of a failure, not that of our patience."""
    with shell.worker():
        assert shell("start", "shop:late", "--wait").code == 1


def test_input_that_does_not_fit_names_the_field(shell: Shell) -> None:
    """Nothing is recorded."""
    wrong = shell("start", "shop:total", "-i", '{"numbers": [1, "two"]}')
    unknown = shell("start", "shop:total", "-i", '{"numbers": [1], "colour": "red"}')
    missing = shell("start", "shop:total")
    broken = shell("start", "shop:total", "-i", '{"numbers": [1,')
    a_list = shell("start", "shop:total", "-i", "[1]")
    nameless = shell("start", "shop:total", "-a", "5")
    nowhere = shell("start", "shop:total", "-i", "@nowhere.json")
    deep = shell("start", "shop:total", "-i", "-", stdin="[" * 100_000)

    refused(wrong, 2, "numbers[1]")
    refused(unknown, 2, "colour")
    refused(missing, 2, "numbers")
    refused(broken, 2, "--input is no JSON", "column")
    refused(a_list, 2, "by name")
    refused(nameless, 2, "--arg name=value")
    refused(nowhere, 2, "nowhere.json")
    refused(deep, 2, "no JSON")
    assert not (shell.folder / "flows.db").exists()


def test_a_flow_or_module_that_is_not_there_is_named(shell: Shell) -> None:
    """With the flows that are."""
    (shell.folder / "broken.py").write_text("1 / 0", "utf-8")
    (shell.folder / "needy.py").write_text("import not_installed_here", "utf-8")

    refused(shell("start", "shop:nothing"), 2, "'shop:nothing'", "cli_total")
    refused(shell("start", "shop:double"), 2, "'shop:double'")
    refused(shell("start", "nothing", "-m", "shop"), 2, "'nothing'", "cli_total")
    refused(shell("start", "cli_total"), 2, "--module")
    refused(shell("start", "absent:flow"), 2, "There is no module 'absent'")
    refused(shell("start", "broken:flow"), 1, "'broken' could not be imported", "ZeroDivisionError")
    refused(shell("start", "needy:flow"), 1, "'needy' could not be imported", "not_installed_here")
    refused(shell("worker", "absent"), 2, "There is no module 'absent'")
    refused(shell("worker", "shop:double_or_nothing"), 2, "double_or_nothing")
    refused(shell("worker"), 2, "Name the modules")
    (shell.folder / "clumsy.py").write_text("def setup(app):\n    app.register(5)", "utf-8")
    refused(shell("worker", "clumsy:setup"), 1, "'clumsy:setup' failed to register", "UsageError")
    assert not (shell.folder / "flows.db").exists()
    (shell.folder / "barren.py").write_text("", "utf-8")
    refused(shell("worker", "barren"), 2, "no flow to drive in barren")


def test_wrong_usage_is_2(shell: Shell) -> None:
    """As click says it: with the usage."""
    assert shell("show").code == 2
    assert shell("no-such-command").code == 2
    assert shell("ls", "--status", "sleepy").code == 2
    assert "Usage" in shell("show").err
    refused(shell("ls", "--db", "mysql://x"), 2, "There is no store for the address")
    refused(shell("ls", "--db", ":memory:"), 2, "in memory")


def test_an_id_that_cannot_be_one_is_refused(shell: Shell) -> None:
    """It is the user's to mend."""
    refused(shell("start", "shop:patient", "--id", "x" * 600), 2, "512 characters")


def test_debug_shows_where_an_error_came_from(shell: Shell) -> None:
    """On request, and with the same code."""
    command = [sys.executable, "-m", "persistasaurus", "start", "shop:total", "--debug"]
    done = subprocess.run(
        command, cwd=shell.folder, env=shell.environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("persistasaurus: ")


def test_dev_says_which_extra_it_needs_where_its_part_is_missing(shell: Shell) -> None:
    """In a process that cannot import it, as where the extra was not installed."""
    program = (
        "import sys; sys.modules['persistasaurus.dev'] = None; sys.argv = ['persistasaurus', 'dev', 'x.py'];"
        "from persistasaurus.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=shell.folder, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "pip install 'persistasaurus[dev]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_its_extra_the_command_says_how_to_get_it(shell: Shell, package: str) -> None:
    """The entry point is installed with the library, what it stands on may not be."""
    program = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['persistasaurus', 'ls'];"
        "from persistasaurus.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=shell.folder, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert f"needs {package}" in done.stderr
    assert "pip install 'persistasaurus[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_library_alone_loads_nothing_of_the_command(shell: Shell) -> None:
    """A process that only runs flows does not pay for click and rich."""
    program = "import sys, persistasaurus; print({'click', 'rich', 'persistasaurus.cli'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
