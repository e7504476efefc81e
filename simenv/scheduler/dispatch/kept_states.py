"""Memory grants for states that workers keep between the parts of a circuit, and the choice of such
a worker.

The memory is granted from the worker's node, in addition to the memory of its tasks, and charged to
the owner of the newest of these states. Each chunk tells the worker the size of its grant. The
worker drops a state by its own clock; the grant ends a margin later, or at once if a waiting task
needs the memory: a state that was dropped is computed again. Small states need no grant.
"""

from __future__ import annotations

from collections.abc import Iterator

from simenv.model import WorkerState
from simenv.scheduler.core.actions import Action, DropKeptStates
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.state import owner_usage
from simenv.scheduler.state.nodes import NodeState
from simenv.scheduler.state.pools import Pool, Worker, memory_for
from simenv.scheduler.state.state import SchedulerState
from simulators.catalog.costs import FREE_STATES_BYTES, state_bytes

NODE_SHARE = 4  # all grants of a node take at most 1/NODE_SHARE of its memory


def grant(state: SchedulerState, worker: Worker, record: TaskRecord) -> None:
    """Grant memory for the state that a task will leave on this worker, if there is room within the
    limit of its owner.

    Without a grant the worker keeps no state, and the parts run again for the next task.
    """
    parts = record.batch.terms.parts
    if parts is None or not parts.keep_s:
        return
    state_memory_bytes = state_bytes(record.route.num_qubits, record.batch.terms.precision)
    if state_memory_bytes <= FREE_STATES_BYTES:
        return
    host, missing_bytes = worker.host, max(0, state_memory_bytes - worker.kept_bytes)
    if _exceeds_limit(state, worker, record.batch.owner, worker.kept_bytes + missing_bytes):
        if not worker.held:  # its state must not use the grant of another owner
            state.release_kept_states(worker)
        return
    granted = sum(other.kept_bytes for other in state.workers.values() if other.host is host)
    free = host.free_memory - host.claimed_memory
    if missing_bytes > free or granted + missing_bytes > host.node.memory_bytes // NODE_SHARE:
        return
    host.free_memory -= missing_bytes
    worker.kept_bytes += missing_bytes
    worker.kept_owner = record.batch.owner
    worker.kept_s, worker.kept_until_ns = max(worker.kept_s, parts.keep_s), 0


def _exceeds_limit(state: SchedulerState, worker: Worker, owner: str, kept_bytes: int) -> bool:
    """Return whether states of `owner` would exceed the limit, with `kept_bytes` of this worker."""
    limit = state.quotas.of(owner).max_state_bytes
    if not limit:
        return False
    own = worker.kept_bytes if worker.kept_owner == owner else 0
    return owner_usage.state_bytes(state, owner) - own + kept_bytes > limit


def expire(state: SchedulerState, now_ns: int) -> None:
    """End the grants whose time is over. A worker drops states only while it waits for tasks."""
    for worker in state.workers.values():
        if 0 < worker.kept_until_ns <= now_ns and not worker.held:
            state.release_kept_states(worker)


def reclaim(state: SchedulerState) -> list[Action]:
    """Drop states that idle workers keep if the first waiting task of a pool or a reservation can
    start at once with their memory, and not without it."""
    if not any(worker.kept_bytes for worker in state.workers.values()):
        return []
    actions: list[Action] = []
    for pool in state.pools.values():
        if (
            pool.spec.ranks > 1
            or pool.spec.memory_bytes
            or pool.is_exclusive
            or not len(pool.queue)
        ):
            continue
        for reservation, workers in _ready_workers(pool).items():
            head = pool.queue.head(True, reservation)
            if head is not None:
                actions += _free_memory_for(state, workers, head)
    return actions


def _ready_workers(pool: Pool) -> dict[int, list[Worker]]:
    """Return the idle workers with a free slot by reservation; 0: without one."""
    workers: dict[int, list[Worker]] = {}
    for worker in pool.workers.values():
        if worker.state == WorkerState.IDLE and not worker.leaving and _has_slot(worker):
            workers.setdefault(worker.reservation_id, []).append(worker)
    return workers


def _has_slot(worker: Worker) -> bool:
    """Return whether a task could start; a worker of a reservation retains its slot."""
    return bool(worker.reservation_id) or worker.host.free_slots > worker.host.claimed_slots


def _free_memory_for(
    state: SchedulerState, workers: list[Worker], head: TaskRecord
) -> list[Action]:
    """Drop states on the node that lacks the least memory for the task."""
    lacking = {
        worker.host.node.name: (head.route.memory_bytes - memory_for(worker, head), worker.host)
        for worker in workers
    }
    for lack, host in sorted(lacking.values(), key=lambda item: item[0]):
        if lack <= 0:
            return []  # the task can start on this node as it is
        if lack <= idle_bytes(state, host):
            return drop(state, host, lack, head)
    return []


def idle_bytes(state: SchedulerState, host: NodeState) -> int:
    """Return the memory of a node that is granted to states of idle workers."""
    return sum(worker.kept_bytes for worker in _idle_workers_with_states(state, host))


def drop(
    state: SchedulerState, host: NodeState, need_bytes: int, head: TaskRecord | None = None
) -> list[Action]:
    """Free so much memory of idle workers' states, or all of it, in the order of their expiry; the
    state from which `head` continues comes last."""
    parts = None if head is None else head.batch.terms.parts
    own = "" if parts is None else parts.worker
    actions: list[Action] = []
    keepers = _idle_workers_with_states(state, host)
    for worker in sorted(keepers, key=lambda w: (w.name == own, w.kept_until_ns)):
        if need_bytes <= 0:
            break
        need_bytes -= worker.kept_bytes
        state.release_kept_states(worker)
        actions.append(DropKeptStates(worker.name))
    return actions


def _idle_workers_with_states(state: SchedulerState, host: NodeState) -> Iterator[Worker]:
    for worker in state.workers.values():
        if worker.kept_bytes and worker.host is host and worker.state == WorkerState.IDLE:
            yield worker


def worker_with_states(pool: Pool, record: TaskRecord, reservation: int = 0) -> Worker | None:
    """Return the idle worker with a free slot that may have the state from which a task continues;
    None if there is none. `reservation`: of the workers that may run the task; 0: of none."""
    parts = record.batch.terms.parts
    worker = pool.workers.get(parts.worker) if parts is not None else None
    if worker is None or worker.state != WorkerState.IDLE or worker.leaving:
        return None
    if worker.reservation_id != reservation or not _has_slot(worker):
        return None
    return worker
