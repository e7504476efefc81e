"""Slots taken back from a running task for short tasks, and returned when these have ended.

A wide task alone on a node has all slots of the node. An engine whose card says `resizable` reads
its number of threads between sweeps, so a slot can be taken back while the task runs. The worker is
told in the same tick; until its current sweep ends, the node runs one thread more than it has
slots. Only short tasks take a slot from a running task, and never its last one.
"""

from __future__ import annotations

from simenv.scheduler.core.actions import Action, SetThreads
from simenv.scheduler.core.types import Phase, TaskRecord
from simenv.scheduler.dispatch.gang_scheduling import RECENT_NS
from simenv.scheduler.queueing.queue import LONG_US
from simenv.scheduler.state import owner_usage
from simenv.scheduler.state.pools import Pool, Worker, memory_for
from simenv.scheduler.state.state import SchedulerState
from simulators import catalog


def note_grant(state: SchedulerState, worker: Worker, record: TaskRecord) -> None:
    """Remember a worker whose task got several slots, if some may be taken back."""
    card = catalog.card(record.route.engine)
    if worker.slots > 1 and card is not None and card.parallel.resizable:
        worker.granted_slots = worker.slots
        state.multi_slot_workers[worker.name] = worker


def take_back(state: SchedulerState, pool: Pool, now_ns: int) -> Worker | None:
    """Free a slot for the pool's first short task and return the idle worker that is to run the
    task.

    Return None if no slot can be freed or no task needs one.
    """
    if not state.multi_slot_workers:
        return None
    record = pool.queue.head(False)
    if record is None or record.cost_us > LONG_US:
        return None
    idle = [
        worker
        for worker in pool.idle()
        if worker.host.free_slots <= 0 and record.route.memory_bytes <= memory_for(worker, record)
    ]
    for worker in state.multi_slot_workers.values():
        host, running = worker.host, _running(worker)
        if running is None or worker.slots < 2 or host.claimed_slots:
            continue
        idle_worker = next((candidate for candidate in idle if candidate.host is host), None)
        if idle_worker is not None:
            worker.slots -= 1
            host.free_slots += 1
            state.slot_taken_ns = now_ns
            state.deferred_actions.append(_set_threads(worker, running))
            return idle_worker
    return None


def return_slots(state: SchedulerState, now_ns: int) -> list[Action]:
    """Return slots that were taken back, unless one was taken within RECENT_NS.

    While short tasks arrive, one slot stays free on each node.
    """
    actions: list[Action] = []
    if not state.multi_slot_workers or now_ns - state.slot_taken_ns < RECENT_NS:
        return actions
    retained = now_ns - state.last_short_ns < RECENT_NS
    for worker in state.multi_slot_workers.values():
        host, running = worker.host, _running(worker)
        spare = host.free_slots - host.claimed_slots - host.backfill_slots - retained
        count = min(spare, worker.granted_slots - worker.slots)
        if state.quotas.caps_slots and running is not None:
            count = min(count, owner_usage.slots_left(state, running.batch.owner))
        if running is not None and count > 0:
            worker.slots += count
            host.free_slots -= count
            actions.append(_set_threads(worker, running))
    return actions


def _running(worker: Worker) -> TaskRecord | None:
    """Return the worker's task if it holds a single task that it has reported as running; else
    None."""
    if len(worker.held) != 1 or worker.leaving:
        return None
    (record,) = worker.held.values()
    return record if record.phase == Phase.RUNNING else None


def _set_threads(worker: Worker, record: TaskRecord) -> SetThreads:
    worker.resized = True
    return SetThreads(worker.name, record.number, record.fence, worker.slots)
