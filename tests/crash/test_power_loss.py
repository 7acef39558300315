"""The power goes at any moment, and with it whatever was not synced."""

from __future__ import annotations

from pathlib import Path

import pytest

from persistasaurus import Persistasaurus, UsageError, flow, step
from persistasaurus.testing import PowerLoss
from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.power import power_loss

pytestmark = pytest.mark.crash


@step
def double(number: int) -> int:
    return 2 * number


@flow
def doubles(number: int) -> list[int]:
    return [double(n) for n in range(number)]


@pytest.mark.parametrize("seed", range(10))
def test_what_was_acknowledged_survives_a_power_loss(zygote: Zygote, files: Place, seed: int) -> None:
    """100 losses in all, at any write from the making of the file on; then every flow goes on to its end."""
    power_loss(zygote, files, seed)


def _lost(tmp_path: Path, seed: int, durability: str) -> int:
    """Return how many of ten acknowledged flows are gone after a power loss; what is left must be sound."""
    db = tmp_path / f"{seed}.db"
    power = PowerLoss(seed)
    app = Persistasaurus(db, durability=durability)  # type: ignore[arg-type]
    power.arm(app)
    with app:
        for number in range(10):
            assert app.run(doubles.options(flow_id=str(number)), 3) == [0, 2, 4]
        power.cut()
    with Persistasaurus(db) as app:
        left = sorted(int(record.flow_id) for record in app.flows())
        assert left == list(range(len(left))), "what is lost is the end, not the middle"
        for number in range(10):
            assert app.run(doubles.options(flow_id=str(number)), 3) == [0, 2, 4]
    return 10 - len(left)


def test_without_full_durability_a_power_loss_takes_the_last_commits(tmp_path: Path) -> None:
    """The simulation bites: only the default promises more than a clean prefix."""
    lost = [_lost(tmp_path, seed, "may-lose-last-commits-on-power-loss") for seed in range(20)]
    assert len([number for number in lost if number]) > 5, lost

    assert [_lost(tmp_path / "..", 100 + seed, "full") for seed in range(5)] == [0] * 5


def test_nothing_is_acknowledged_once_the_power_is_off(tmp_path: Path) -> None:
    """The app that ran goes nowhere: who asks it hears that its file is gone."""
    power = PowerLoss()
    app = Persistasaurus(tmp_path / "flows.db")
    power.arm(app)
    with app:
        app.run(doubles, 1)
        power.cut()
        with pytest.raises(Exception, match=r"the power is off|was moved, deleted or replaced"):
            app.run(doubles, 2)
    with Persistasaurus(tmp_path / "flows.db") as app:
        assert len(list(app.flows())) == 1


def test_a_power_loss_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """In memory there is nothing to lose; and a disk belongs to one app."""
    with pytest.raises(UsageError, match="the first write is 1"):
        PowerLoss(at=0)
    with pytest.raises(UsageError, match="needs an app on a SQLite file"):
        PowerLoss().arm(Persistasaurus(":memory:"))
    with pytest.raises(UsageError, match="arm an app first"):
        PowerLoss().cut()
    with Persistasaurus(tmp_path / "flows.db") as app, pytest.raises(UsageError, match="before the app is"):
        PowerLoss().arm(app)
    power = PowerLoss()
    power.arm(Persistasaurus(tmp_path / "flows.db"))
    with pytest.raises(UsageError, match="armed already"):
        power.arm(Persistasaurus(tmp_path / "flows.db"))
