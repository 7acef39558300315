"""What is printed: plain into a pipe, coloured on a terminal, and never obeyed by one."""

from __future__ import annotations

import json
import subprocess

from tests.cli.kit import COMMAND, Shell

HOSTILE = "\x1b[31mred\x1b[0m \x07\x9b2J [red]markup[/red] :smile: \u202egnp.exe \r\n\u2028 é"


def test_a_hostile_payload_is_printed_inert(shell: Shell) -> None:
    """Escape codes, bells, writing directions, markup and line ends are text, in every command."""
    with shell.worker():
        document = f'{{"text": {json.dumps(HOSTILE)}}}'
        shell("start", "shop:echoed", "-i", document, "--id", "h-1", "--wait")
        failed = shell("start", "shop:complaint", "-i", document, "--id", "h-2", "--wait")
    columns = "id,input,result,error"
    texts = [
        shell("show", "h-1"),
        shell("show", "h-2"),
        shell("steps", "h-1"),
        shell("ls", "--columns", columns),
    ]

    for done in (*texts, failed):
        for text in (done.out, done.err):
            assert all(each.isprintable() for line in text.split("\n") for each in line), repr(text)
    for done in texts:
        assert "[red]markup[/red] :smile:" in done.out
        assert "\\x9b" in done.out
        assert "é" in done.out
    shown = shell.on_terminal("show", "h-1")
    assert "\\u001b[31mred" in shown
    assert "\x1b[31mred" not in shown
    assert "[red]markup[/red] :smile:" in shown
    assert not {"\x07", "\x9b", "\u202e", "\u2028"} & set(shown)


def test_json_carries_a_hostile_payload_there_and_back(shell: Shell) -> None:
    """As ASCII, whatever the terminal's encoding is."""
    document = f'{{"text": {json.dumps(HOSTILE)}}}'
    started = shell("start", "shop:echoed", "-i", document, "--json")

    assert started.out.isascii()
    assert started.json["input"]["text"] == HOSTILE


def test_a_hostile_id_is_inert_too(shell: Shell) -> None:
    """Ids come from outside as well."""
    shell("start", "shop:patient", "--id", "\x1b]0;owned\x07")

    for done in (shell("ls"), shell("show", "\x1b]0;owned\x07"), shell("show", "\x1b[2J")):
        assert "\x1b" not in done.out + done.err


def test_a_pipe_gets_no_escape_code_and_a_terminal_does(shell: Shell) -> None:
    """Also where FORCE_COLOR would have it otherwise: what reads a pipe is a program."""
    shell("start", "shop:patient", "--id", "p-1")

    for arguments in (["ls"], ["show", "p-1"], ["db", "verify"]):
        done = shell(*arguments, FORCE_COLOR="1", CLICOLOR_FORCE="1")
        assert "\x1b" not in done.out + done.err
        assert all(line == line.rstrip() for line in done.out.splitlines())
    assert "\x1b[" in shell.on_terminal("ls")


def test_no_color_is_honoured_on_a_terminal(shell: Shell) -> None:
    """By every command that would colour."""
    shell("start", "shop:patient", "--id", "p-1")

    for arguments in (["ls"], ["show", "p-1"]):
        assert "\x1b[" in shell.on_terminal(*arguments)
        assert "\x1b" not in shell.on_terminal(*arguments, NO_COLOR="1")


def test_a_narrow_terminal_shortens_payloads_but_never_ids(shell: Shell) -> None:
    """An id is there to be copied."""
    flow_id = "a-rather-long-identifier-0123456789"
    shell("start", "shop:echoed", "-a", f"text={'long ' * 100}", "--id", flow_id)

    shown = shell.on_terminal("ls", "--columns", "id,flow,input", COLUMNS="70", NO_COLOR="1")

    assert flow_id in shown
    assert all(len(line) <= 70 for line in shown.splitlines())
    assert "…" in shown


def test_a_reader_that_has_enough_is_no_error(shell: Shell) -> None:
    """`persistasaurus ls | head -1`."""
    for number in range(3):
        shell("start", "shop:patient", "--id", f"{number}-" + "x" * 500)
    with subprocess.Popen(
        [*COMMAND, "ls", "--json"],
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_an_ascii_terminal_is_no_reason_to_fail(shell: Shell) -> None:
    """What it cannot show becomes an escape."""
    shell("start", "shop:echoed", "-a", "text=é", "--id", "e")

    done = shell.anew("show", "e", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert (done.code, "\\xe9" in done.out) == (0, True)
