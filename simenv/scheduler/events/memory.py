"""Watch of memory: a worker above its grant is ended and its task charged; the memory of the
service itself is bounded by `ClusterLimits.service_bytes`, above which new tasks are refused."""

from __future__ import annotations

from simenv.model import task_name
from simenv.model.calls import FUNCTIONS
from simenv.scheduler.core.actions import Action, KillWorker, RecordEvent
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.state.pools import Worker
from simenv.scheduler.state.state import SchedulerState
from simenv.text import size

GRANT_FACTOR = 1.5  # estimates of engines are that exact
GRANT_MARGIN_BYTES = 256 * 2**20
# Of each rank's process besides its tasks: interpreter, libraries, compiled kernels and plans.
PROCESS_BYTES = 512 * 2**20
GPU_PROCESS_BYTES = 4 * 2**30  # the same with the context and the libraries of a GPU
OVER_BEATS = 2  # consecutive heartbeats above the bound: a peak of less than a second may pass


def granted_bytes(worker: Worker) -> int:
    """Return the resident memory of all ranks of a worker that its grants account for.

    The memory of a function is not known before: it may take that of its worker's slots.
    """
    each = GPU_PROCESS_BYTES if worker.gpus else PROCESS_BYTES
    tasks_bytes = worker.reserved + worker.memory_bytes
    if any(record.batch.terms.engine == FUNCTIONS for record in worker.held.values()):
        node = worker.host.node
        slots_bytes = max(1, worker.slots) * (node.memory_bytes // max(1, node.slots))
        tasks_bytes = max(tasks_bytes, slots_bytes)
    return worker.ranks * (each + tasks_bytes) + worker.kept_bytes


def excess(state: SchedulerState, worker: Worker, record: TaskRecord) -> str:
    """Return the reason to end a worker that runs this task, by its last heartbeats; "" if there is
    none."""
    granted, used = granted_bytes(worker), worker.rss_bytes
    if used <= max(GRANT_FACTOR * granted, granted + GRANT_MARGIN_BYTES):
        worker.over_beats = 0
        return ""
    if state.pools[worker.pool].is_exclusive:  # a provider's library is granted no memory
        return ""
    worker.over_beats += 1
    if worker.over_beats < OVER_BEATS:
        return ""
    return (
        f"{task_name(record.number)} used {size(used)} of memory where {size(granted)} were granted"
    )


def end_worker(worker: Worker, record: TaskRecord, reason: str) -> list[Action]:
    """Kill a worker whose running task took too much memory. The task is then charged with the
    loss of the worker."""
    record.announced = True  # the heartbeat names it: no other task is a suspect
    return [
        RecordEvent("worker.over_memory", worker.name, reason),
        KillWorker(worker.name, reason, worker.start),
    ]


def service_memory(state: SchedulerState, used_bytes: int) -> list[Action]:
    """Record the resident memory of the service; report when it passes the limit, and when it is
    below again."""
    limit, before = state.limits.service_bytes, state.service_bytes
    state.service_bytes = used_bytes
    if not limit or (used_bytes > limit) == (before > limit):
        return []
    is_above = used_bytes > limit
    text = f"the service uses {size(used_bytes)} of memory; its limit is {size(limit)}"
    return [RecordEvent(f"service.memory_{'full' if is_above else 'freed'}", "service", text)]
