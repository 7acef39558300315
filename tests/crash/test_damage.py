"""Files that were damaged or edited."""

from __future__ import annotations

import pytest

from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.damage import damaged

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("part", range(5))
def test_what_is_damaged_is_found_and_never_believed(zygote: Zygote, files: Place, part: int) -> None:
    """100 damages of the file, its log and single rows: the right result, an error, or an earlier state."""
    for seed in range(part * 20, part * 20 + 20):
        damaged(zygote, files, seed)
