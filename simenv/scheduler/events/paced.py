"""Events of paced devices: a result is held, released, or restored with its place on the device."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from simenv.model import TaskState, Timing
from simenv.scheduler.core.actions import TaskEnded
from simenv.scheduler.core.cost_estimator import expected_ns
from simenv.scheduler.core.types import HELD, HELD_RESULT, RUNNING, TaskRecord
from simenv.scheduler.state.paced import StoredRun
from simenv.scheduler.state.pools import Pool
from simenv.scheduler.state.state import SchedulerState


def hold(state: SchedulerState, record: TaskRecord, timing: Timing, slots: int) -> bool:
    """Hold the result of a task until its time on the device is over; return False if its pool is
    not paced.

    `timing` includes the time on the device by the calibration of the attempt.
    """
    device = state.paced.all.get(state.pools[record.route.pool].device)
    run = None if device is None else device.runs.get(record.number)
    if device is None or run is None or record.stopping:
        return False
    run.timing, run.slots = timing, slots
    if run.length_ns != timing.device_ns:
        run.length_ns = timing.device_ns
        device.arrange()
    state.running += record.phase != RUNNING
    record.phase = HELD
    state.paced.held[record.number] = device
    return True


def withdraw(state: SchedulerState, record: TaskRecord, now_ns: int) -> None:
    """Remove the run of a task that ended without its time on the device; later runs move up."""
    if state.paced:
        state.paced.held.pop(record.number, None)
        for device in state.paced.all.values():
            device.withdraw(record.number, now_ns)
        state.paced.forget(record.number)


def lost(state: SchedulerState, pool: Pool, records: list[TaskRecord]) -> None:
    """Mark tasks of a lost worker to be sent again; their runs on the device keep their places."""
    device = state.paced.all.get(pool.device)
    if device is not None:
        device.waiting.update(device.runs.keys() & {record.number for record in records})


def release(state: SchedulerState, now_ns: int) -> list[TaskEnded]:
    """End the tasks whose time on their device is over."""
    paced = state.paced
    endings: list[TaskEnded] = []
    for device in paced.all.values():
        for run in device.pop_over(now_ns):
            endings.append(_ended(state, run.record, run.timing, run.begin_ns, run.slots))
    paced.note_current(now_ns)
    return endings


def _ended(
    state: SchedulerState, record: TaskRecord, timing: Timing | None, begin_ns: int, slots: int
) -> TaskEnded:
    assert timing is not None
    number = record.number
    begun_ns = begin_ns + state.paced.offset_ns
    timing = msgspec.structs.replace(timing, begun_ns=begun_ns)
    del state.paced.held[number]
    state.paced.forget(number)
    del state.tasks[number]
    if state.reservations.by_task:
        state.reservations.settle(number, timing.device_ns, done=True)
    state.finalize(record, TaskState.DONE)
    return TaskEnded(record, TaskState.DONE, slots, timing, HELD_RESULT)


def set_clock(state: SchedulerState, wall_ns: int, now_ns: int) -> None:
    """Relate the wall clock to the monotonic clock; called once at each start of the service."""
    state.paced.offset_ns = wall_ns - now_ns


def restore(state: SchedulerState, stored: Mapping[int, StoredRun]) -> None:
    """Restore the places of runs that devices had before a restart; their tasks run again.

    `stored`: by task number.
    """
    for number, run in sorted(stored.items(), key=lambda pair: pair[1].place):
        record = state.tasks.get(number)
        if (
            record is None
            or run.device not in state.paced.all
            or state.pool_of(record.route).device != run.device
        ):
            state.paced.changes[number] = None
            continue
        state.paced.restore(number, run, record, expected_ns(record.route, record.spec))
