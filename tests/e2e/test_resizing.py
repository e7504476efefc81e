"""A short circuit beside a wide one that has all slots of the node."""

from __future__ import annotations

from busy_circuits import ENDLESS, HEAD

import simenv
from simenv.model import PoolSpec, TaskState

SMALL = f"{HEAD}qreg q[3];\ncreg c[3];\nh q;\nmeasure q -> c;\n"


def test_short_circuits_end_while_a_wide_one_runs_on_all_slots() -> None:
    pool = PoolSpec("main", "statevector", 2, 2)
    with simenv.local(slots=2, pools=(pool,)) as env:
        wide = env.submit(ENDLESS, shots=10)
        while wide.state is not TaskState.RUNNING:
            assert wide.state is TaskState.QUEUED
        assert [worker.slots for worker in env.workers() if worker.task] == [2]
        small = [env.submit(SMALL, shots=10, seed=seed) for seed in range(2)]
        for task in small:
            assert sum(task.result(timeout=60).counts.values()) == 10
        assert wide.state is TaskState.RUNNING
        assert [worker.slots for worker in env.workers() if worker.task == wide.id] == [1]
        wide.cancel()
