"""The clock of a paced device while tasks are assigned."""

from __future__ import annotations

from simenv.scheduler.core.cost_estimator import expected_ns
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.state.pools import Pool
from simenv.scheduler.state.state import SchedulerState


def may_send(state: SchedulerState, pool: Pool, now_ns: int) -> bool:
    """Return whether the clock of a paced device allows the pool's next task to be sent.

    True if the device is free soon, or if the task already has a run on the device.
    """
    device = state.paced.all[pool.device]
    if device.is_open(now_ns):
        return True
    head = pool.queue.head() if device.waiting else None
    return head is not None and head.number in device.waiting


def reserve(state: SchedulerState, pool: Pool, records: list[TaskRecord], now_ns: int) -> None:
    """Reserve the device's time for tasks that are being sent."""
    for record in records:
        state.paced.reserve(pool.device, record, expected_ns(record.route, record.spec), now_ns)
