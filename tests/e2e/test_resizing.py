"""A short circuit beside a wide one that has all slots of the node."""

import time

from busy_circuits import ENDLESS, HEAD

import simenv
from simenv.model import PoolSpec, TaskState

WAIT_S = 60.0
SMALL = f"{HEAD}qreg q[3];\ncreg c[3];\nh q;\nmeasure q -> c;\n"


def test_wide_task_on_all_slots_gives_up_slots_for_short_tasks() -> None:
    pool = PoolSpec("main", "statevector", 2, 2)
    with simenv.local(slots=2, pools=(pool,)) as env:
        wide = env.submit(ENDLESS, shots=10)
        deadline = time.monotonic() + WAIT_S
        while (state := wide.state) is not TaskState.RUNNING:
            assert state is TaskState.QUEUED
            assert time.monotonic() < deadline, "it does not begin"
        assert [worker.slots for worker in env.workers() if worker.task] == [2]
        slots = [2]
        while slots != [1]:  # given again when no short task has come for a second
            assert time.monotonic() < deadline, "it keeps its slots"
            task = env.submit(SMALL, shots=10, seed=1)
            assert sum(task.result(timeout_s=WAIT_S).counts.values()) == 10
            assert wide.state is TaskState.RUNNING
            slots = [worker.slots for worker in env.workers() if worker.task == wide.id]
        wide.cancel()
