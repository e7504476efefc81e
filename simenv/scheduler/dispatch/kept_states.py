"""Memory for states that workers keep between the parts of a circuit, and the choice of a worker.

The memory is granted from the worker's node, in addition to the memory of its tasks, and charged to
the owner of the newest of these states. Each chunk tells the worker the size of its grant. The
worker drops a state by its own clock; the grant ends a margin later, or at once if a waiting task
needs the memory: a state that was dropped is computed again. Small states need no grant.
"""

from __future__ import annotations

from collections.abc import Iterator

from simenv.model import WorkerState
from simenv.scheduler import core
from simenv.scheduler.dispatch import account_isolation
from simenv.scheduler.state import nodes, pools, scheduler_state
from simulators.catalog.costs import FREE_STATES_BYTES, state_bytes

NODE_SHARE = 4  # all grants of a node take at most 1/NODE_SHARE of its memory


def grant(
    state: scheduler_state.SchedulerState, worker: nodes.Worker, record: core.TaskRecord
) -> None:
    """Grant memory for the state that a task will leave on this worker, if there is room within the
    limit of its owner. Without a grant the worker keeps no state, and the parts run again for the
    next task."""
    parts = record.batch.terms.parts
    if parts is None or not parts.keep_s:
        return
    state_memory_bytes = state_bytes(record.route.num_qubits, record.batch.terms.precision)
    if state_memory_bytes <= FREE_STATES_BYTES:
        return
    host, missing_bytes = worker.host, max(0, state_memory_bytes - worker.kept.bytes)
    if _exceeds_limit(state, worker, record.batch.owner, worker.kept.bytes + missing_bytes):
        if not worker.held:  # its state must not use the grant of another owner
            state.cluster.release_kept_states(worker)
        return
    granted = sum(other.kept.bytes for other in host.workers.values() if other.host is host)
    free = host.free_memory - host.claimed_memory
    if missing_bytes > free or granted + missing_bytes > host.node.memory_bytes // NODE_SHARE:
        return
    host.free_memory -= missing_bytes
    worker.kept.bytes += missing_bytes
    state.cluster.state_keepers[worker.name] = worker
    worker.kept.owner = record.batch.owner
    worker.kept.lifetime_s, worker.kept.until_ns = max(worker.kept.lifetime_s, parts.keep_s), 0


def _exceeds_limit(
    state: scheduler_state.SchedulerState, worker: nodes.Worker, owner: str, kept_bytes: int
) -> bool:
    """Return whether states of `owner` would exceed the limit, with `kept_bytes` of this worker."""
    limit = state.shares.limits.of(owner).max_state_bytes
    if not limit:
        return False
    own = worker.kept.bytes if worker.kept.owner == owner else 0
    return state.cluster.state_bytes(owner) - own + kept_bytes > limit


def expire(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """End the grants whose time is over. A worker drops states only while it waits for tasks."""
    for worker in list(state.cluster.state_keepers.values()):
        if 0 < worker.kept.until_ns <= now_ns and not worker.held:
            state.cluster.release_kept_states(worker)


def reclaim(state: scheduler_state.SchedulerState) -> list[core.Action]:
    """Drop states that idle workers keep if the first waiting task of a pool or a reservation can
    start at once with their memory, and not without it."""
    if not state.cluster.state_keepers:
        return []
    actions: list[core.Action] = []
    for pool in state.cluster.pools.values():
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


def _ready_workers(pool: pools.Pool) -> dict[int, list[nodes.Worker]]:
    """Return the idle workers with a free slot by reservation; 0: without one."""
    workers: dict[int, list[nodes.Worker]] = {}
    for worker in pool.workers.idle.values():
        if not worker.leaving and _has_slot(worker):
            workers.setdefault(worker.dedication.reservation, []).append(worker)
    return workers


def _has_slot(worker: nodes.Worker) -> bool:
    """Return whether a task could start; a worker of a reservation retains its slot."""
    return bool(worker.dedication.reservation) or worker.host.free_slots > worker.host.claimed_slots


def _free_memory_for(
    state: scheduler_state.SchedulerState, workers: list[nodes.Worker], head: core.TaskRecord
) -> list[core.Action]:
    """Drop states on the node that lacks the least memory for the task."""
    lacking = {
        worker.host.node.name: (
            head.route.memory_bytes - nodes.memory_for(worker, head),
            worker.host,
        )
        for worker in workers
    }
    for lack, host in sorted(lacking.values(), key=lambda item: item[0]):
        if lack <= 0:
            return []  # the task can start on this node as it is
        if lack <= idle_bytes(host):
            return drop(state, host, lack, head)
    return []


def idle_bytes(host: nodes.NodeState) -> int:
    """Return the memory of a node that is granted to states of idle workers."""
    return sum(worker.kept.bytes for worker in _idle_workers_with_states(host))


def drop(
    state: scheduler_state.SchedulerState,
    host: nodes.NodeState,
    need_bytes: int,
    head: core.TaskRecord | None = None,
) -> list[core.Action]:
    """Free so much memory of idle workers' states, or all of it, in the order of their expiry; the
    state from which `head` continues comes last."""
    parts = None if head is None else head.batch.terms.parts
    own = "" if parts is None else parts.worker
    actions: list[core.Action] = []
    keepers = _idle_workers_with_states(host)
    for worker in sorted(keepers, key=lambda w: (w.name == own, w.kept.until_ns)):
        if need_bytes <= 0:
            break
        need_bytes -= worker.kept.bytes
        state.cluster.release_kept_states(worker)
        actions.append(core.DropKeptStates(worker.name))
    return actions


def _idle_workers_with_states(host: nodes.NodeState) -> Iterator[nodes.Worker]:
    for worker in host.workers.values():
        if worker.kept.bytes and worker.host is host and worker.state == WorkerState.IDLE:
            yield worker


def worker_with_states(
    pool: pools.Pool, record: core.TaskRecord, reservation: int = 0
) -> nodes.Worker | None:
    """Return the idle worker with a free slot that may have the state from which a task continues;
    None if there is none. `reservation`: of the workers that may run the task; 0: of none."""
    parts = record.batch.terms.parts
    worker = pool.workers.get(parts.worker) if parts is not None else None
    if worker is None or worker.state != WorkerState.IDLE or worker.leaving:
        return None
    if worker.dedication.reservation != reservation or not _has_slot(worker):
        return None
    if worker.dedication.account not in (None, account_isolation.account_of(record)):
        return None
    return worker
