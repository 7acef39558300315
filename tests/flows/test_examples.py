"""The examples run as they stand and print what they are there to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

PRINTED = {
    "hello_world.py": """\
        Hello, World (0)
        Hello, World (1)
        failed: Uh oh
        -- the same id again, as after a restart --
        Hello, World (2)
        Hello, World (3)
        Hello, World (4)
        sum: 10
        -- execution log --
        1 say {'name': 'World', 'count': 0} COMPLETE 0 attempts=1
        2 say {'name': 'World', 'count': 1} COMPLETE 1 attempts=1
        3 say {'name': 'World', 'count': 2} COMPLETE 2 attempts=2
        4 say {'name': 'World', 'count': 3} COMPLETE 3 attempts=1
        5 say {'name': 'World', 'count': 4} COMPLETE 4 attempts=1
        """,
    "confirmation.py": """\
        user alice <alice@example.com> created
        -- the app was left, and is entered again --
        mail to alice@example.com: Welcome, user 42. Please confirm your address.
        -- the flow waits for a person --
        address confirmed in 2026
        user 42 is signed up since 2026
        result: 42
        -- execution log --
        1 create_user_record COMPLETE 42
        2 send_welcome_email COMPLETE None delay=0.3s
        3 confirm_email_address COMPLETE 2026-02-03T04:05:00Z
        4 finalize_signup COMPLETE None
        """,
    "approval.py": """\
        manager, may we buy a stapler?
        a stapler ordered, granted by manager
        manager, may we buy a yacht?
        director, may we buy a yacht?
        an answer that is no Decision was refused, nothing was recorded
        a yacht refused by director
        -- execution log --
        buy-stapler COMPLETE
          1 ask COMPLETE
          2 decision COMPLETE {'by': 'manager', 'granted': True}
          3 sleep COMPLETE
          4 order COMPLETE a stapler ordered, granted by manager
        buy-yacht COMPLETE
          1 ask COMPLETE
          2 decision FAILED
          3 ask COMPLETE
          4 decision COMPLETE {'by': 'director', 'granted': False}
        """,
    "fan_out.py": """\
        [near takes 13 kg]
        [the moon did not answer]
        -- execution log --
        1 weigh {'parcel': 'book'} COMPLETE
        2 weigh {'parcel': 'lamp'} COMPLETE
        3 weigh {'parcel': 'piano'} COMPLETE
        4 quote {'carrier': 'far', 'weight': 13} CANCELLED
        5 quote {'carrier': 'near', 'weight': 13} COMPLETE
        6 timer  COMPLETE
        7 quote {'carrier': 'moon', 'weight': 13} CANCELLED
        8 write_label {'text': 'near takes 13 kg'} COMPLETE
        9 write_label {'text': 'the moon did not answer'} COMPLETE
        """,
}


@pytest.mark.real_time
@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_shows(name: str, tmp_path: Path) -> None:
    """Each runs alone, from any folder, and leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert _lines(done.stdout) == _lines(PRINTED[name])
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_tested() -> None:
    """The one that kills itself has a test of its own, with the crash tests."""
    assert {path.name for path in EXAMPLES.glob("*.py")} - {"crash_and_resume.py"} == set(PRINTED)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]
