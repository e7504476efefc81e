"""Outages of devices: a device starts nothing, and interrupted tasks run again after the outage.

A task that a worker simulates at the begin of an outage keeps its worker, but its result is
discarded. Its next attempt begins after the outage, with the calibration of that time. On a paced
device, the tasks whose time on the device was not over are interrupted.
"""

from __future__ import annotations

from simenv.model import task_name
from simenv.scheduler.core.actions import Action, DropHeldResult, RecordEvent
from simenv.scheduler.core.types import HELD, RUNNING, WAITING, TaskRecord
from simenv.scheduler.state.state import SchedulerState
from simenv.scheduler.views.pending_reason import outage_reason


def begin(state: SchedulerState, device: str, begun_ns: int | None) -> list[Action]:
    """Begin an outage: the device starts nothing more.

    `begun_ns`: time of the failure; tasks that the device ran then are interrupted. None: the
    device did not fail, and its running tasks continue.
    """
    state.outages.add(device)
    if begun_ns is None:
        return []
    actions: list[Action] = []
    for record in _interrupted(state, device, begun_ns):
        if record.stopping:
            continue
        if record.phase == HELD:
            del state.paced.held[record.number]
            actions.append(DropHeldResult(record.number))
            requeue(state, [record])
        elif record.phase != WAITING:
            record.interrupted = True
        note = f"attempt {record.attempts + 1} ({outage_reason(state.pools[device])})"
        actions.append(RecordEvent("task.requeued", task_name(record.number), note))
    return actions


def requeue(state: SchedulerState, records: list[TaskRecord]) -> None:
    """Put interrupted tasks of one pool, which no worker holds, at the front of its queue."""
    for record in records:
        state.running -= record.phase in (RUNNING, HELD)
        record.phase = WAITING
        record.worker = ""
        record.interrupted = False
    if records:
        state.pools[records[0].route.pool].queue.requeue_front(records)


def _interrupted(state: SchedulerState, device: str, begun_ns: int) -> list[TaskRecord]:
    paced = state.paced.all.get(device)
    if paced is not None:
        results = [run.record for run in paced.interrupt(begun_ns)]
        for record in results:
            state.paced.forget(record.number)
        return results
    return [
        record
        for pool in state.pools.values()
        if pool.device == device
        for worker in pool.workers.values()
        for record in worker.held.values()
        if record.sent_ns <= begun_ns
    ]
