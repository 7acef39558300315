"""The testing kit: a clock that a test moves, an app in memory, crashes at named points, a pytest plugin."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persistasaurus import (
    FlowHandle,
    FlowStatus,
    Persistasaurus,
    UsageError,
    WrongContextError,
    flow,
    now,
    sleep,
    step,
)
from persistasaurus._store.base import Store
from persistasaurus.testing import CrashAt, MovableClock, crash_points, effect, memory_app

pytest_plugins = "pytester"

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

gate = threading.Event()


@step
def note_the_time() -> str:
    return "noted"


@step
def hang() -> None:
    gate.wait(30)


@flow
def thrice_a_day(times: int) -> list[datetime]:
    seen = []
    for _ in range(times):
        sleep(8 * HOUR)
        seen.append(now())
        note_the_time()
    return seen


@flow
async def thrice_a_day_too(times: int) -> list[datetime]:
    seen = []
    for _ in range(times):
        await asyncio.sleep(8 * 3600)
        seen.append(now())
        await note_the_time.submit()
    return seen


@flow
def parent(times: int) -> list[datetime]:
    sleep(HOUR)
    return thrice_a_day(times)


@flow
def hanging() -> None:
    hang()


@flow
def hour_long() -> str:
    sleep(HOUR)
    return "woke"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(START)


# The clock.


def test_the_clock_stands_still_between_moves(clock: MovableClock) -> None:
    """Real time passes, the clock shows the same."""
    before = clock.now_ms()
    time.sleep(0.01)

    assert clock.now_ms() == before
    assert clock.now() == START


def test_the_clock_starts_at_the_present_unless_told_otherwise() -> None:
    """As a test expects that compares with `datetime.now`."""
    assert abs(MovableClock().now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_clock_takes_no_naive_start() -> None:
    """A naive datetime names no instant."""
    with pytest.raises(ValueError, match="naive"):
        MovableClock(datetime(2030, 1, 1))


@pytest.mark.parametrize("move", ["advance_sync", "set_forward", "set_back"])
@pytest.mark.parametrize("duration", [-1, timedelta(seconds=-1), float("nan")])
def test_a_move_by_less_than_nothing_is_refused(
    clock: MovableClock, move: str, duration: float | timedelta
) -> None:
    """There is a word for each direction."""
    with pytest.raises(ValueError, match=f"the duration of {move.removesuffix('_sync')} is"):
        getattr(clock, move)(duration)

    assert clock.now() == START


def test_setting_the_clock_moves_it_in_one_step(clock: MovableClock) -> None:
    """Forward and back, as an administrator does."""
    clock.set_forward(HOUR)
    assert clock.now() == START + HOUR

    clock.set_back(3 * HOUR)
    assert clock.now() == START - 2 * HOUR


def test_leases_go_by_real_time(clock: MovableClock) -> None:
    """Else a jump of the clock would take every worker's flows away."""
    before = clock.steady()
    clock.set_forward(timedelta(days=365))
    time.sleep(0.002)

    assert 0 < clock.steady() - before < 10


@pytest.mark.parametrize("each", [thrice_a_day, thrice_a_day_too], ids=["sync", "async"])
def test_a_loop_of_sleeps_sees_each_of_its_own_times(each: object, clock: MovableClock) -> None:
    """A month is advanced at once, and every eighth hour of it is seen, to the millisecond."""
    with memory_app(clock=clock) as app:
        handle = app.start(each, 90)

        clock.advance_sync(timedelta(days=30))

        assert handle.status() == FlowStatus.COMPLETE
        assert handle.result() == [START + 8 * HOUR * i for i in range(1, 91)]
        assert clock.now() == START + timedelta(days=30)


def test_time_goes_no_further_than_it_was_advanced(clock: MovableClock) -> None:
    """What becomes due a millisecond later is left for the next move."""
    with memory_app(clock=clock) as app:
        handle = app.start(thrice_a_day, 3)

        clock.advance_sync(16 * HOUR - timedelta(milliseconds=1))
        assert [row.method_name for row in handle.steps()] == ["sleep", "note_the_time", "sleep"]

        clock.advance_sync(timedelta(milliseconds=1))
        assert len(handle.steps()) == 5


def test_children_are_driven_too(clock: MovableClock) -> None:
    """What starts only on the way becomes due on the way."""
    with memory_app(clock=clock) as app:
        handle = app.start(parent, 2)

        clock.advance_sync(timedelta(days=1))

        assert handle.status() == FlowStatus.COMPLETE
        assert handle.result() == [START + 9 * HOUR, START + 17 * HOUR]


async def test_an_app_on_the_tests_own_loop_is_driven_while_advance_is_awaited(clock: MovableClock) -> None:
    """The loop is free meanwhile."""
    async with memory_app(clock=clock) as app:
        handle = await app.start_async(thrice_a_day_too, 3)

        await clock.advance(timedelta(days=1))

        assert await handle.status_async() == FlowStatus.COMPLETE


async def test_advance_sync_on_the_apps_own_loop_is_refused(clock: MovableClock) -> None:
    """It would wait for the loop that it blocks."""
    async with memory_app(clock=clock):
        with pytest.raises(WrongContextError, match=r"await clock\.advance"):
            clock.advance_sync(HOUR)

    assert clock.now() == START


def test_advance_by_nothing_runs_what_is_due_already(clock: MovableClock) -> None:
    """After the clock was set forward there is something to wait for."""
    with memory_app(clock=clock) as app:
        handle = app.start(hour_long)
        clock.advance_sync(0)
        clock.set_forward(HOUR)

        clock.advance_sync(0)

        assert handle.status() == FlowStatus.COMPLETE


def test_several_apps_go_by_one_clock(clock: MovableClock, tmp_path: Path) -> None:
    """Two that share a file, and one of its own."""
    with (
        Persistasaurus(tmp_path / "shared.db", clock=clock) as one,
        Persistasaurus(tmp_path / "shared.db", clock=clock) as two,
        memory_app(clock=clock) as three,
    ):
        handles = [app.start(thrice_a_day, 3) for app in (one, two, three)]

        clock.advance_sync(timedelta(days=1))

        assert [handle.status() for handle in handles] == ["COMPLETE"] * 3


def test_an_app_that_was_left_is_not_waited_for(clock: MovableClock) -> None:
    """It drives nothing any more."""
    with memory_app(clock=clock) as app:
        app.start(hour_long)

    clock.advance_sync(HOUR)

    assert clock.now() == START + HOUR


def test_a_step_that_hangs_is_named(clock: MovableClock) -> None:
    """After `patience` of real seconds in which nothing was recorded, the test fails instead of hanging."""
    impatient = MovableClock(START, patience=0.2)
    gate.clear()
    with memory_app(clock=impatient, drain=0) as app:
        app.start(hanging.options(flow_id="stuck"))
        try:
            with pytest.raises(TimeoutError, match=r"'stuck' still ran 0\.2 real seconds"):
                impatient.advance_sync(HOUR)
        finally:
            gate.set()


def test_the_clock_is_where_the_flows_went_when_patience_ends() -> None:
    """It does not claim that time has passed which nobody could use."""
    impatient = MovableClock(START, patience=0.2)
    gate.clear()
    with memory_app(clock=impatient, drain=0) as app:
        app.start(hanging)
        try:
            with pytest.raises(TimeoutError):
                impatient.advance_sync(HOUR)
        finally:
            gate.set()

    assert impatient.now() == START


# The app in memory.


def test_an_app_in_memory_forgets_when_it_is_left(clock: MovableClock) -> None:
    """Each test starts with nothing."""
    with memory_app(clock=clock) as app:
        app.start(hour_long)

    with memory_app(clock=clock) as app:
        assert list(app.flows()) == []


def test_an_app_in_memory_takes_every_setting() -> None:
    """It is a `Persistasaurus` like any other."""
    with memory_app(worker=False) as app:
        handle: FlowHandle[str] = app.start(hour_long)

        assert handle.status() == FlowStatus.PENDING


# Crash points.


@flow
def three_effects(journal: str) -> str:
    for name in ("one", "two", "three"):
        write_line(journal, name)
    return "done"


@step
def write_line(journal: str, line: str) -> None:
    with effect(), Path(journal).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


CHILD = """
import sys
sys.path[:0] = sys.argv[1:3]
from persistasaurus import Persistasaurus
from persistasaurus.testing import CrashAt
from test_testing_kit import three_effects

app = Persistasaurus(sys.argv[3])
CrashAt.arm_from_environment(app)
with app:
    app.run(three_effects.options(flow_id="f"), sys.argv[4])
"""


def test_every_call_of_the_store_is_a_crash_point() -> None:
    """Before and after each, and each effect."""
    methods = {name for name, member in vars(Store).items() if callable(member) and not name.startswith("_")}

    names = {point.partition(":")[0] for point in crash_points()}

    assert names == methods | {"effect"}
    assert len(crash_points()) == 2 * len(names)


@pytest.mark.parametrize("point", ["", "commit", "commit:during", "nothing:before"])
def test_a_point_that_does_not_exist_is_refused(point: str) -> None:
    """A misspelt crash would never happen, and the test would pass."""
    with pytest.raises(UsageError, match="crash_points"):
        CrashAt(point)


def test_there_is_no_time_before_the_first() -> None:
    """Counting starts at 1."""
    with pytest.raises(UsageError, match="first time is 1"):
        CrashAt("commit:after", nth=0)


def test_a_crash_is_armed_before_the_app_is_entered() -> None:
    """Later the store is in use already and would not be watched."""
    with memory_app() as app, pytest.raises(UsageError, match="before the app is entered"):
        CrashAt("commit:after").arm(app)


def test_an_environment_without_a_crash_arms_none() -> None:
    """The same program runs with and without."""
    assert CrashAt.arm_from_environment(memory_app(), {}) is None


@pytest.mark.usefixtures("_disarmed")
def test_a_crash_travels_through_the_environment() -> None:
    """From the test to its child."""
    crash = CrashAt("claim:before", nth=7)

    assert CrashAt.arm_from_environment(memory_app(), crash.environment()) == crash


@pytest.mark.usefixtures("_disarmed")
@pytest.mark.parametrize("text", ["commit:after*", "commit:after"])
def test_the_first_time_need_not_be_named(text: str) -> None:
    """A hand-written environment may say the point alone."""
    armed = CrashAt.arm_from_environment(memory_app(), {"PERSISTASAURUS_CRASH_AT": text})

    assert armed == CrashAt("commit:after")


def test_a_garbled_environment_is_refused() -> None:
    """Else the crash would silently not happen."""
    with pytest.raises(UsageError, match="write it like"):
        CrashAt.arm_from_environment(memory_app(), {"PERSISTASAURUS_CRASH_AT": "commit:after*soon"})


@pytest.fixture
def _disarmed() -> Iterator[None]:
    yield
    CrashAt._armed = None


def test_an_effect_does_nothing_where_no_crash_is_armed() -> None:
    """The mark may stay in the code."""
    with effect():
        done = True

    assert done


@pytest.mark.crash
@pytest.mark.parametrize(
    "crash, written",
    [
        (CrashAt("open:after"), []),
        (CrashAt("commit:before"), []),
        (CrashAt("commit:after"), ["one", "two", "three"]),
        (CrashAt("effect:before", nth=2), ["one", "two", "three"]),
        (CrashAt("effect:after", nth=2), ["one", "two", "two", "three"]),
    ],
    ids=lambda value: f"{value.point}*{value.nth}" if isinstance(value, CrashAt) else "",
)
def test_a_child_dies_where_it_was_told_to(crash: CrashAt, written: list[str], tmp_path: Path) -> None:
    """It exits as one that was killed, and a flow that was started goes on in the next app."""
    database, journal = tmp_path / "flows.db", tmp_path / "journal"
    paths = [str(ROOT / "src"), str(Path(__file__).parent), str(database), str(journal)]

    died = subprocess.run(
        [sys.executable, "-c", CHILD, *paths], env={**os.environ, **crash.environment()}, check=False
    )
    with Persistasaurus(database) as app:
        known = [record.flow_id for record in app.flows()]
        for flow_id in known:
            app.handle(flow_id).result(30)

    assert died.returncode == 137
    assert known == (["f"] if written else [])
    assert (journal.read_text("utf-8").split() if journal.exists() else []) == written


# The pytest plugin.

PROJECT = """
import asyncio
from datetime import timedelta

from persistasaurus import flow, sleep, step

@step(delay=timedelta(days=3))
def remind(name: str) -> str:
    return f"reminded {name}"

@flow
def trial(name: str) -> str:
    return remind(name)

def test_three_days_take_milliseconds(app, clock):
    handle = app.start(trial, "alice")
    clock.advance_sync(timedelta(days=3))
    assert handle.result(5) == "reminded alice"

def test_in_async_code_too(app, clock):
    async def main():
        handle = await app.start_async(trial, "bob")
        await clock.advance(timedelta(days=3))
        assert await handle == "reminded bob"
    asyncio.run(main())

def test_each_test_has_an_app_of_its_own(app):
    assert list(app.flows()) == []
"""

OWN_FIXTURE = """
import pytest

@pytest.fixture
def app():
    return "my own"
"""


def _options() -> list[str]:
    """Return what makes pytest load the plugin where it is not installed, and no other's complaints."""
    installed = importlib.metadata.entry_points(group="pytest11", name="persistasaurus")
    return [
        "-p",
        "no:asyncio",
        "-p",
        "no:schemathesis",
        "-W",
        "error",
        *([] if installed else ["-p", "_persistasaurus_pytest"]),
    ]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project beside which Persistasaurus is installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def test_a_fresh_project_has_the_fixtures(project: pytest.Pytester) -> None:
    """Nothing needs to be configured."""
    project.makepyfile(PROJECT)

    result = project.runpytest_subprocess(*_options())

    result.assert_outcomes(passed=3)


def test_a_projects_own_fixture_of_that_name_wins(project: pytest.Pytester) -> None:
    """`app` is a common name."""
    project.makeconftest(OWN_FIXTURE)
    project.makepyfile("def test_it(app): assert app == 'my own'")

    result = project.runpytest_subprocess(*_options())

    result.assert_outcomes(passed=1)


def test_a_project_that_does_not_use_it_does_not_pay_for_it(project: pytest.Pytester) -> None:
    """The plugin imports nothing of the library until a fixture is asked for."""
    project.makepyfile(
        """
        import sys
        def test_it():
            assert "_persistasaurus_pytest" in sys.modules
            assert not {"persistasaurus", "pydantic", "apsw"} & set(sys.modules)
        """
    )

    result = project.runpytest_subprocess(*_options())

    result.assert_outcomes(passed=1)


def test_the_plugin_is_declared() -> None:
    """Under the module's name, which is not in the package."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    assert declared["project"]["entry-points"]["pytest11"] == {"persistasaurus": "_persistasaurus_pytest"}
    assert (
        "src/_persistasaurus_pytest.py" in declared["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    )
