"""Outages of devices: a device starts nothing, and what it ran is run again after the outage.

A task that a worker simulates at the begin of an outage keeps its worker; its result is discarded.
Its next attempt begins after the outage, with the calibration that is then in force. On a paced
device those tasks are interrupted whose time there was not over.
"""

from __future__ import annotations

from simenv.model import task_name
from simenv.scheduler.core.actions import Action, DropHeldResult, RecordEvent
from simenv.scheduler.core.types import HELD, RUNNING, WAITING, TaskRecord
from simenv.scheduler.state.state import SchedulerState
from simenv.scheduler.views.pending_reason import outage_reason


def begin(state: SchedulerState, device: str, begun_ns: int | None) -> list[Action]:
    """A device starts nothing any more. `begun_ns`: when it failed; None: it did not, and what it
    runs goes on."""
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
