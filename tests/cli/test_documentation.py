"""The commands in docs/cli.md are commands, and its first example does what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from persistasaurus.cli._main import commands
from tests.cli.kit import Shell

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text("utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("persistasaurus ")
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_is_one(line: str) -> None:
    """Its name, options and arguments are parsed, and nothing is run."""
    words = shlex.split(line)[1:]
    command: click.Command = commands
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found

    command.make_context(line, words)


def test_commands_are_found() -> None:
    """Every one is on the page."""
    named = {line.split()[1] for line in LINES}

    assert {name for name in commands.commands if name not in named} == {"dev"}
    assert "persistasaurus dev" in PAGE


def test_the_example_of_the_page_runs(shell: Shell) -> None:
    """The module of the page, with a worker in its folder and the commands as they stand there."""
    module = re.search(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert module is not None
    (shell.folder / "shop.py").write_text(module[1], "utf-8")
    started = next(line for line in LINES if "--id order-7" in line)
    resumed = next(line for line in LINES if "resume" in line)

    with shell.worker("shop:setup"):
        assert shell(*shlex.split(started)[1:]).out == "order-7\n"
        shell.until("order-7", "WAITING_FOR_SIGNAL")
        assert shell(*shlex.split(resumed)[1:]).code == 0
        assert shell.until("order-7", "COMPLETE")["result"] == "2 x lamp, approved by ann"
        refund = shell("start", "Refund.give_back", "-m", "shop", "-a", "amount=5", "--wait")
        assert refund.out == '"5 by the bank"\n'
