"""Connections that are lost, workers that are killed and a server that crashes, all while flows run."""

from __future__ import annotations

import pytest

from tests.crash.places import Place
from tests.crash.processes import Zygote
from tests.crash.trials.network import cluster, lost_connections

pytestmark = pytest.mark.crash


@pytest.mark.parametrize("seed", range(4))
def test_a_connection_that_is_lost_at_a_commit_costs_nobody_anything(
    zygote: Zygote, files: Place, seed: int
) -> None:
    """100 connections in all, before the commit is sent, amid it, and before it is answered."""
    lost_connections(zygote, Place(files.folder, "postgres"), seed)


def test_workers_that_are_killed_while_the_server_crashes_lose_nothing(zygote: Zygote, files: Place) -> None:
    """Five workers and the server once; the soak kills thirty and the server three times."""
    cluster(zygote, files, 1)
