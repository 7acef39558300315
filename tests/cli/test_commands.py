"""Each command as a process of its own, with a worker in another, on one SQLite file."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.kit import Shell

FLOW_KEYS = [
    "flow_id",
    "name",
    "status",
    "created_at",
    "updated_at",
    "input",
    "result",
    "error",
    "reason",
    "damaged",
]
STEP_KEYS = [
    "step",
    "class_name",
    "method_name",
    "status",
    "attempts",
    "delay",
    "timestamp",
    "parameters",
    "return_value",
    "error",
]


def test_a_started_flow_is_driven_by_a_worker_and_shown(shell: Shell) -> None:
    """The whole way: start, drive, show, steps, ls."""
    started = shell("start", "shop:total", "--input", '{"numbers": [1, 2]}', "--id", "t-1")
    assert (started.code, started.out) == (0, "t-1\n")
    assert "No living worker knows the flow 'cli_total'" in started.err

    with shell.worker():
        flow = shell.until("t-1", "COMPLETE")

    assert list(flow) == [*FLOW_KEYS, "waiting_for", "signals", "steps"]
    assert flow["name"] == "cli_total"
    assert flow["input"] == {"numbers": [1, 2], "label": "sum"}
    assert flow["result"] == "sum: 6"
    steps = shell("steps", "t-1", "--json").lines
    assert steps == flow["steps"]
    assert [list(step) for step in steps] == [STEP_KEYS, STEP_KEYS]
    assert [step["return_value"] for step in steps] == [2, 4]
    (listed,) = shell("ls", "--json").lines
    assert list(listed) == FLOW_KEYS
    assert listed["flow_id"] == "t-1"
    shown = shell("show", "t-1")
    assert "status   COMPLETE" in shown.out
    assert '{"number": 2}' in shown.out


def test_start_waits_for_the_result(shell: Shell) -> None:
    """The result is on stdout alone, so that a script can take it."""
    with shell.worker():
        text = shell("start", "shop:total", "-a", "numbers=[4]", "--id", "t-2", "--wait")
        document = shell("start", "shop:total", "-a", "numbers=[4]", "--id", "t-2", "--wait", "--json")

    assert (text.code, text.out, text.err.splitlines()[0]) == (0, '"sum: 8"\n', "flow t-2")
    assert list(document.json) == FLOW_KEYS
    assert document.json["result"] == "sum: 8"


def test_an_argument_is_json_where_that_fits_and_else_text(shell: Shell) -> None:
    """`3` for a text is a text; a list is a list."""
    started = shell("start", "shop:total", "-a", "numbers=[1]", "-a", "label=3", "--json")

    assert started.json["input"] == {"numbers": [1], "label": "3"}


def test_input_comes_from_a_file_or_from_stdin(shell: Shell) -> None:
    """For what is too long, or too secret, for a command line."""
    (shell.folder / "input.json").write_text('{"numbers": [7]}', "utf-8")

    of_file = shell("start", "shop:total", "-i", "@input.json", "--json")
    of_stdin = shell("start", "shop:total", "-i", "-", "--json", stdin='{"numbers": [8]}')

    assert of_file.json["input"]["numbers"] == [7]
    assert of_stdin.json["input"]["numbers"] == [8]


def test_a_flow_is_started_by_its_name(shell: Shell) -> None:
    """The name in the log, in a module that --module imports."""
    started = shell("start", "cli_total", "-m", "shop", "-a", "numbers=[1]", "--json")

    assert (started.code, started.json["name"]) == (0, "cli_total")


def test_a_flow_of_a_class_needs_its_factory_only_where_it_is_driven(shell: Shell) -> None:
    """A client makes no instance; the worker calls the function that registers the class."""
    started = shell("start", "shop:Greeter.greet", "-a", "name=World", "--id", "g-1")
    assert (started.code, started.out) == (0, "g-1\n"), started.err

    with shell.worker("shop:setup"):
        assert shell.until("g-1", "COMPLETE")["result"] == "Hello, World"


def test_a_waiting_flow_is_resumed(shell: Shell) -> None:
    """By the step's name; the module makes the argument a datetime, checked before anything is recorded."""
    with shell.worker():
        shell("start", "shop:confirmed", "--id", "c-1")
        assert shell.until("c-1", "WAITING_FOR_SIGNAL")["waiting_for"] == ["confirm"]

        wrong = shell("resume", "c-1", "confirm", "-m", "shop", "-a", "at=soon")
        assert (wrong.code, "at is a str" in wrong.err) == (2, True)
        missing = shell("resume", "c-1", "confirm", "-m", "shop")
        assert (missing.code, "at is missing" in missing.err) == (2, True), missing.err
        resumed = shell("resume", "c-1", "confirm", "-m", "shop", "-a", "at=2026-05-17T08:00Z")

        assert (resumed.code, resumed.out) == (0, "c-1: resumed confirm\n")
        assert shell.until("c-1", "COMPLETE")["result"] == "confirmed in 2026"


def test_a_waiting_flow_is_resumed_without_its_module(shell: Shell) -> None:
    """An operator may not have the code: the worker checks the JSON when the flow takes it."""
    with shell.worker():
        shell("start", "shop:confirmed", "--id", "c-2")
        shell.until("c-2", "WAITING_FOR_SIGNAL")
        assert shell("resume", "c-2", "confirm", "-i", '{"at": "2027-01-01T00:00:00Z"}').code == 0

        assert shell.until("c-2", "COMPLETE")["result"] == "confirmed in 2027"


def test_a_resume_that_does_not_fit_is_shown_as_rejected(shell: Shell) -> None:
    """The wait goes on, and `show` says why nothing happened."""
    with shell.worker():
        shell("start", "shop:confirmed", "--id", "c-3")
        shell.until("c-3", "WAITING_FOR_SIGNAL")
        assert shell("resume", "c-3", "confirm", "-i", '{"at": 1.5, "by": "me"}').code == 0

        def rejected() -> list[str]:
            return [one["rejected"] for one in shell("show", "c-3", "--json").json["signals"]]

        while None in rejected():
            pass
        assert "by" in rejected()[0]
        assert "rejected" in shell("show", "c-3").out


def test_a_resume_may_come_before_the_wait_where_the_module_is_known(shell: Shell) -> None:
    """Without the module a name that is not waited for may be a slip, and is refused."""
    shell("start", "shop:confirmed", "--id", "c-4")

    slip = shell("resume", "c-4", "confirm", "-a", "at=2026-05-17T08:00Z")
    early = shell("resume", "c-4", "confirm", "-m", "shop", "-a", "at=2026-05-17T08:00Z")

    assert (slip.code, "--module" in slip.err) == (4, True)
    assert early.code == 0
    with shell.worker():
        assert shell.until("c-4", "COMPLETE")["result"] == "confirmed in 2026"


def test_a_step_of_another_flow_is_not_resumed(shell: Shell) -> None:
    """Nobody would ever take it."""
    shell("start", "shop:confirmed", "--id", "c-5")

    assert shell("resume", "c-5", "no_such_step", "-m", "shop").code == 4


def test_a_signal_is_sent(shell: Shell) -> None:
    """With the module its type is checked; before the flow exists it is sent only when told so."""
    unknown = shell("signal", "a-1", "cli approval", "-i", "5")
    assert unknown.code == 3
    shell("db", "upgrade")
    unknown = shell("signal", "a-1", "cli approval", "-i", "5")
    assert (unknown.code, "No flow has the id 'a-1'" in unknown.err) == (3, True)
    wrong = shell("signal", "a-1", "cli approval", "-m", "shop", "-i", '"five"', "--early")
    assert (wrong.code, "cli approval" in wrong.err) == (2, True)

    sent = shell("signal", "a-1", "cli approval", "-m", "shop", "-i", "5", "--early", "--json")

    assert (sent.code, sent.json) == (0, {"flow_id": "a-1", "signal": "cli approval"})
    shell("start", "shop:approved", "--id", "a-1")
    with shell.worker():
        assert shell.until("a-1", "COMPLETE")["result"] == 5
    assert shell("signal", "a-1", "cli approval", "-i", "6").code == 4


def test_a_flow_is_cancelled(shell: Shell) -> None:
    """Twice is harmless; one that has ended otherwise is a conflict."""
    with shell.worker():
        shell("start", "shop:patient", "--id", "p-1")
        assert shell("cancel", "p-1").code == 0
        shell.until("p-1", "CANCELLED")
        shell("start", "shop:total", "-a", "numbers=[]", "--id", "p-2", "--wait")

        assert shell("cancel", "p-1").code == 0
        assert shell("cancel", "p-2").code == 4


def test_a_failed_flow_is_retried_at_its_failed_step(shell: Shell) -> None:
    """What was recorded before does not run again."""
    key = shell.folder / "key"
    with shell.worker():
        failed = shell("start", "shop:fragile", "-a", f"key={key}", "--id", "f-1", "--wait")
        assert failed.code == 1
        assert failed.err.splitlines()[-1] == (
            f"persistasaurus: Flow 'f-1' failed: FileNotFoundError: no key {key}"
        )
        assert "FileNotFoundError" in shell("show", "f-1").out

        key.touch()
        assert shell("retry", "f-1").out == "f-1: retried\n"

        steps = shell.until("f-1", "COMPLETE")["steps"]
        assert [(step["method_name"], step["attempts"]) for step in steps] == [
            ("double", 1),
            ("open_door", 2),
        ]
        assert shell("retry", "f-1").code == 4


def test_flows_are_listed_by_what_they_are(shell: Shell) -> None:
    """Filters, order, limit and columns."""
    for number in range(3):
        shell("start", "shop:patient", "--id", f"x-{number}")
    shell("start", "shop:approved", "--id", "y-0")
    shell("cancel", "x-1")

    def ids(*arguments: str) -> list[str]:
        return [flow["flow_id"] for flow in shell("ls", "--json", *arguments).lines]

    assert ids() == ["y-0", "x-2", "x-1", "x-0"]
    assert ids("--prefix", "x-") == ["x-2", "x-1", "x-0"]
    assert ids("--flow", "cli_approved") == ["y-0"]
    assert ids("--status", "cancelled") == ["x-1"]
    assert ids("--status", "pending", "--status", "cancelled", "--limit", "2") == ["y-0", "x-2"]
    assert ids("--since", "1h") == ["y-0", "x-2", "x-1", "x-0"]
    assert ids("--before", "1h") == []
    assert ids("--since", "2020-01-01", "--before", "2020-01-02T00:00Z") == []
    narrow = shell("ls", "--columns", "id,status", "--limit", "1")
    assert [line.split() for line in narrow.out.splitlines()] == [["id", "status"], ["y-0", "PENDING"]]
    assert "There are more" in narrow.err
    assert " s ago" in shell("ls", "--time", "relative").out
    assert shell("ls", "--flow", "nobody").err == "No flow fits.\n"
    assert shell("ls", "--since", "lately").code == 2
    assert shell("ls", "--columns", "colour").code == 2


def test_a_flow_is_followed_until_it_ends(shell: Shell) -> None:
    """Each step when it is recorded, at last the flow; a follower that gives up leaves with 5."""
    with shell.worker():
        shell("start", "shop:confirmed", "--id", "w-1")
        shell.until("w-1", "WAITING_FOR_SIGNAL")
        impatient = shell("tail", "w-1", "--timeout", "0.1", "--json")
        assert impatient.code == 5
        assert [next(iter(line)) for line in impatient.lines] == ["step", "flow"]

        shell("resume", "w-1", "confirm", "-a", "at=2026-05-17T08:00Z")
        followed = shell("tail", "w-1", "--json")

    assert followed.code == 0
    assert list(followed.lines[-1]["flow"]) == FLOW_KEYS
    assert followed.lines[-1]["flow"]["result"] == "confirmed in 2026"
    assert list(followed.lines[0]["step"]) == STEP_KEYS


def test_every_command_explains_itself(shell: Shell) -> None:
    """Also without a database."""
    names = shell("--help").out
    for command in (
        "dev",
        "worker",
        "start",
        "ls",
        "show",
        "steps",
        "tail",
        "resume",
        "signal",
        "cancel",
        "retry",
    ):
        assert command in names
        assert shell(command, "--help").code == 0
    assert shell("db", "verify", "--help").code == 0
    assert "0.1.0" in shell("--version").out


@pytest.mark.parametrize("runner", ["persistasaurus", "persistasaurus.dev"])
def test_dev_hands_what_follows_the_file_to_the_file(shell: Shell, runner: str) -> None:
    """Also what looks like an option, and also where the command line's extra is not installed."""
    (shell.folder / "apphost.py").write_text("import sys; sys.exit(f'it was given {sys.argv[1:]}')")
    command = [sys.executable, "-m", runner, *(["dev"] if runner == "persistasaurus" else [])]

    done = subprocess.run(
        [*command, "apphost.py", "postgres", "--debug"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "it was given ['postgres', '--debug']" in done.stderr


def test_completion_is_clicks_own(shell: Shell) -> None:
    """The script that the documentation has a shell load."""
    script = shell(_PERSISTASAURUS_COMPLETE="bash_source")
    words = shell(_PERSISTASAURUS_COMPLETE="bash_complete", COMP_WORDS="persistasaurus s", COMP_CWORD="1")

    assert "_persistasaurus_completion" in script.out
    assert {line.partition(",")[2] for line in words.out.splitlines()} == {"start", "show", "steps", "signal"}


def test_json_is_one_document_or_one_a_line(shell: Shell) -> None:
    """Every writing command answers in the shape of `show`, without the steps."""
    started = shell("start", "shop:patient", "--id", "j-1", "--json")
    cancelled = shell("cancel", "j-1", "--json")

    assert [list(json.loads(text)) for text in (started.out, cancelled.out)] == [FLOW_KEYS, FLOW_KEYS]
