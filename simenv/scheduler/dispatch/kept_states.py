"""Memory grants for states that workers keep between the parts of a circuit, and the choice of such
a worker.

The memory is granted from the worker's node, in addition to the memory of its tasks. Each chunk
tells the worker the size of its grant. The worker drops a state by its own clock; the grant ends a
margin later. Small states need no grant.
"""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.state.pools import Pool, Worker
from simenv.scheduler.state.state import SchedulerState
from simulators.catalog.costs import FREE_STATES_BYTES, state_bytes

NODE_SHARE = 4  # all grants of a node take at most 1/NODE_SHARE of its memory


def grant(state: SchedulerState, worker: Worker, record: TaskRecord) -> None:
    """Grant memory for the state that a task will leave on this worker, if there is room.

    Without a grant the worker keeps no state, and the parts run again for the next task.
    """
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
    """Return the idle worker with a free slot that may have the state from which a task continues;
    None if there is none."""
    parts = record.batch.terms.parts
    worker = pool.workers.get(parts.worker) if parts is not None else None
    if worker is None or worker.state != WorkerState.IDLE or worker.leaving:
        return None
    host = worker.host
    if worker.reservation_id or host.free_slots - host.claimed_slots <= 0:
        return None
    return worker
