"""A launcher that has lost its DVM too often gives up for a minute; pools go on when it is back."""

import pytest
from circuits import layered

from launcher.prte.dvm_supervisor import DELAYS_S, RETRY_AFTER_S
from testbed.cluster import Cluster
from testbed.cluster_environment import environment, wait_for

HOSTS = "node1:2,node2:2"
POOLS = ("--pool", "sv:engine=statevector,workers=2")
POOLS += ("--pool", "big:engine=statevector,workers=1,ranks=2")
GIVES_UP_S = 120.0
BACK_S = RETRY_AFTER_S + 90.0


@pytest.mark.slow  # the launcher's minute; the rule itself is in tests/simenv/scheduler
def test_pools_need_nobody_after_the_launcher_has_given_up(three: Cluster) -> None:
    with environment(three, "--hosts", HOSTS, *POOLS) as up, up.client() as env:
        seen = max(event.seq for event in env.events())
        tasks = [
            env.submit(layered(18, 40, seed), shots=10, seed=seed, pool=pool)
            for seed in range(20)
            for pool in ("sv", "big")
        ]

        def gave_up() -> bool:
            for daemon in up.of("prted"):
                daemon.kill()
            return any("given up after" in pool.reason for pool in env.pools().values())

        wait_for("the launcher gives up", gave_up, GIVES_UP_S)
        results = [task.result(BACK_S) for task in tasks]
        assert [result.shots for result in results] == [10] * len(tasks)

        def whole() -> bool:
            return all(pool.workers == pool.target for pool in env.pools().values())

        wait_for("all workers are back", whole, BACK_S)
        events = [event for event in env.events() if event.seq > seen]
        assert sum(event.kind == "dvm.lost" for event in events) >= len(DELAYS_S)
        kinds = {name: [e.kind for e in events if e.subject == name] for name in ("sv", "big")}
        assert all("pool.backoff" in each for each in kinds.values()), kinds
        for each in kinds.values():  # a quarantine, if there was one, has ended
            assert each.count("pool.quarantined") == each.count("pool.resumed"), kinds
