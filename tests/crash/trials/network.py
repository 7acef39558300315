"""A network that loses connections at the end of transactions, and a server that crashes."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field

from tests import postgres
from tests.crash.checker import Recorded, check, explained
from tests.crash.places import Place
from tests.crash.processes import Process, Zygote
from tests.crash.trials.story import Outcome, Story
from tests.proxy import proxied

CUTS = 25
FLOWS = 12
WORKERS = 4
FLOWS_A_KILL = 67
LEASE_S = 2.0
PATIENCE_S = 120.0


def lost_connections(zygote: Zygote, place: Place, seed: int) -> Outcome:
    """A commit is not sent, sent by half, or not answered, 25 times: no step runs again, nothing is lost.

    Nor does anybody hear of it, but of a read that loses two connections one after the other.
    """
    rng = random.Random(seed)
    cuts = flows = 0
    while cuts < CUTS:
        with proxied(postgres.server_url()) as proxy:
            direct = place.database("lost")
            story = Story(zygote, direct, rng, flows=FLOWS)
            story.reached_by = direct.replace(postgres.server_url(), proxy.url)
            process = story.begin()
            zygote.wait_for(what="entered", serial=process.serial)
            while process.poll() is None:
                if not proxy.is_armed():
                    time.sleep(0.1)  # what is asked for again is not to be lost again
                    proxy.cut(rng.choice(["before", "amid", "after"]), after=rng.choice([0, 0, 1, 5, 20]))
                time.sleep(0.001)
            assert process.wait() == 0, f"seed {seed}, after {proxy.cuts} cuts"
            story.look()
            cuts += proxy.cuts
            story.reached_by = direct
            flows += story.end(seed)
    return Outcome(cuts, flows)


@dataclass
class Cluster:
    """Four workers on one server of their own."""

    zygote: Zygote
    server: postgres.Server
    db: str
    workers: list[Process] = field(default_factory=list[Process])
    slowest_s: float = 0.0
    """The longest that flows of a killed worker still belonged to it."""

    def fill(self) -> None:
        while len(self.workers) < WORKERS:
            self.workers.append(self.zygote.start("drive_all", db=self.db, lease=LEASE_S))

    def kill_one(self, rng: random.Random, *, crash: bool) -> None:
        """Kill a worker, and with `crash` the server too; else see it taken over. Start another."""
        killed = self.workers.pop(rng.randrange(WORKERS))
        entered = self.zygote.those(what="entered", serial=killed.serial)
        killed.kill()
        killed_at = time.monotonic()
        if crash:
            self.server.restart(signal.SIGQUIT)
        elif entered:
            while self._knows(entered[0]["worker"]):
                assert time.monotonic() < killed_at + 2 * LEASE_S, f"{entered[0]} is still there"
                time.sleep(0.02)
            self.slowest_s = max(self.slowest_s, time.monotonic() - killed_at)
        self.fill()

    def _knows(self, worker: int) -> bool:
        return bool(postgres.in_schema(self.db, "SELECT 1 FROM worker WHERE worker_id = %s", (worker,)))

    def unfinished(self) -> str:
        """Say which flows have not ended, and who could drive them."""
        flows = postgres.in_schema(
            self.db, "SELECT flow_id, status, owner, idle, due_at_ms FROM flow WHERE status <> 1"
        )
        return f"flows {flows}, workers {postgres.in_schema(self.db, 'SELECT worker_id FROM worker')}"

    def leave(self) -> list[int]:
        """End the workers in good order, once the youngest one can and no killed one is left to take over."""
        for worker in self.workers:
            self.zygote.wait_for(what="entered", serial=worker.serial)
        living = [worker.pid for worker in self.workers]
        until = time.monotonic() + PATIENCE_S
        while postgres.in_schema(self.db, "SELECT 1 FROM worker WHERE NOT pid = ANY (%s)", (living,)):
            assert time.monotonic() < until, "a killed worker is still there"
            time.sleep(0.02)
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        return [worker.wait() for worker in self.workers]


def cluster(zygote: Zygote, place: Place, seed: int, *, kills: int = 5, crashes: int = 1) -> Outcome:
    """Flows of five steps on four workers; one is killed each second, and the server crashes now and then.

    Every flow completes, no recorded step runs twice, none is stranded, and what a killed worker owned is
    taken over within two lengths of a lease.
    """
    zygote.fresh()
    rng = random.Random(seed)
    flows = kills * FLOWS_A_KILL
    server = postgres.Server().start()
    try:
        party = Cluster(zygote, server, postgres.with_schema(server.url, "cluster"))
        party.fill()
        client = zygote.start("start_evenly", db=party.db, count=flows, seconds=float(kills))
        crashing = set(rng.sample(range(kills), crashes))
        for number in range(kills):
            time.sleep(1)
            party.kill_one(rng, crash=number in crashing)
        code = client.wait(PATIENCE_S)
        assert code == 0, f"seed {seed}: the client ended with {code}, {party.unfinished()}"
        codes = party.leave()
        assert codes == [0] * WORKERS, f"seed {seed}: the workers ended with {codes}"
        reports, recorded = zygote.settle(), Recorded(party.db)
    finally:
        server.remove()
    violations = check(reports, recorded)
    assert not violations, f"seed {seed}: " + explained(violations, reports)
    left = [(row["flow_id"], row["status"], row["owner"]) for row in recorded.flows if row["status"] != 1]
    assert not left, f"seed {seed}: these did not complete: {left}"
    assert len(recorded.flows) == flows, f"seed {seed}: {len(recorded.flows)} of {flows} flows are there"
    print(f"taken over within {party.slowest_s * 1000:.0f} ms")
    return Outcome(kills + crashes, flows)
