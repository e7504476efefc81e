"""Memory granted to states that workers keep between the parts of a circuit, and their preference.

The grant is of the worker's node, beside what its tasks need. It ends some time after the worker,
which drops the state by its own clock, has no use for it; each chunk tells the worker how much it
has. Small states need none.
"""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.state.pools import Pool, Worker
from simenv.scheduler.state.state import SchedulerState
from simulators.catalog.costs import FREE_STATES_BYTES, state_bytes

NODE_SHARE = 4  # all grants of a node are at most this part of its memory


def grant(state: SchedulerState, worker: Worker, record: TaskRecord) -> None:
    """Grant what a task that this worker is sent will keep, where there is room; else it keeps
    nothing, and the parts run again for the next one."""
    parts = record.batch.terms.parts
    if parts is None or not parts.keep_s:
        return
    need = state_bytes(record.route.num_qubits, record.batch.terms.precision)
    if need <= FREE_STATES_BYTES:
        return
    host, more = worker.host, max(0, need - worker.kept_bytes)
    granted = sum(other.kept_bytes for other in state.workers.values() if other.host is host)
    free = host.free_memory - host.claimed_memory
    if more > free or granted + more > host.node.memory_bytes // NODE_SHARE:
        return
    host.free_memory -= more
    worker.kept_bytes += more
    worker.kept_s, worker.kept_until_ns = max(worker.kept_s, parts.keep_s), 0


def expire(state: SchedulerState, now_ns: int) -> None:
    """End the grants whose time is over. A worker drops states only while it waits for tasks."""
    for worker in state.workers.values():
        if 0 < worker.kept_until_ns <= now_ns and not worker.held:
            worker.host.free_memory += worker.kept_bytes
            worker.kept_bytes = worker.kept_until_ns = 0
            worker.kept_s = 0.0


def keeper(pool: Pool, record: TaskRecord) -> Worker | None:
    """The worker that may have the state that a task goes on from, if it is idle and has a slot."""
    parts = record.batch.terms.parts
    worker = pool.workers.get(parts.worker) if parts is not None else None
    if worker is None or worker.state != WorkerState.IDLE or worker.leaving:
        return None
    host = worker.host
    if worker.reservation_id or host.free_slots - host.claimed_slots <= 0:
        return None
    return worker
