"""Orders in which one pass of assignments prefers the workers of a pool.

Idle workers are those with a free slot: most free slots of their node first, as `SPREAD`, or for
nodes of jobs the fewest, as `PACKED`. `AHEAD` are busy workers that may be sent more small tasks,
those with the least work first; workers that have enough leave `Pool.workers.open` until some of
their tasks end. Who takes slots of a node within a pass calls `taken`; who gives some back clears
`DispatchState.candidates`. Between passes only workers that become idle change a large heap, if no
reservation, gang or account can.
"""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.scheduler.dispatch import batching
from simenv.scheduler.queueing.lanes import MEDIUM_US
from simenv.scheduler.state import nodes, pools, scheduler_state
from simenv.scheduler.state.candidates import Candidates, Key

PREFETCH_MAX_US = 50_000.0
PREFETCH_LATE_NS = 250_000_000  # a worker silent for longer gets no prefetched chunk
SPREAD, PACKED, AHEAD = "spread", "packed", "ahead"
_IDLE, _BUSY = WorkerState.IDLE, WorkerState.BUSY


def begin_pass(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Forget what another pass must find again."""
    if not state.dispatch.candidates:
        return
    kept = [
        each
        for each in state.dispatch.candidates.items()
        if each[0][1] != AHEAD and each[1].serves(now_ns)
    ]
    state.dispatch.candidates.clear()
    if kept and not (state.cluster.gangs or state.dedicated or state.limits.isolates_accounts):
        state.dispatch.candidates.update(kept)


def idle(
    state: scheduler_state.SchedulerState, pool: pools.Pool, order: str, now_ns: int
) -> Candidates:
    """Return the idle workers of a pool that could get a slot, as SPREAD or PACKED."""
    found = state.dispatch.candidates.get((pool.spec.name, order))
    if found is None:
        key_of = _packed if order == PACKED else _spread
        found = Candidates(pool.workers.idle.values(), key_of, now_ns)
        state.dispatch.candidates[pool.spec.name, order] = found
    return found


def ahead(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> Candidates:
    """Return the busy workers that may take tasks ahead; their `count` is that of all workers that
    share the tasks."""
    found = state.dispatch.candidates.get((pool.spec.name, AHEAD))
    if found is None:
        found = _ahead(pool, now_ns, has_reservations=bool(state.dedicated))
        state.dispatch.candidates[pool.spec.name, AHEAD] = found
    return found


def taken(state: scheduler_state.SchedulerState, worker: nodes.Worker) -> None:
    """Note that a worker was given a chunk, and a slot if it was idle."""
    for (pool, order), candidates in state.dispatch.candidates.items():
        if order != AHEAD:
            candidates.changed_on(worker.host, pool, worker)
        elif worker.pool == pool:
            candidates.changed(worker, counted=False)


def _spread(worker: nodes.Worker) -> Key | None:
    host = worker.host
    free = host.free_slots - host.claimed_slots
    if worker.state is not _IDLE or worker.leaving or worker.dedication.reservation or free <= 0:
        return None
    return (host.backfill_slots - free,)


def _packed(worker: nodes.Worker) -> Key | None:
    host = worker.host
    if worker.state is not _IDLE or worker.leaving or worker.dedication.reservation:
        return None
    return (host.free_slots, host.end_ns) if host.free_slots > host.claimed_slots else None


def _ahead(pool: pools.Pool, now_ns: int, *, has_reservations: bool) -> Candidates:
    """Return the workers without a reservation that may take tasks ahead; those that may not until
    some of their tasks have ended are forgotten until then."""
    workers = []
    for worker in list(pool.workers.open.values()):
        if not (worker.leaving or worker.dedication.reservation) and _takes_ahead(worker, now_ns):
            workers.append(worker)
        else:
            del pool.workers.open[worker.name]
    result = ahead_among(workers, now_ns)
    if workers:
        result.count = pool.workers.live()
        if has_reservations:
            result.count -= sum(map(len, pool.workers.dedicated.values()))
    return result


def ahead_among(workers: list[nodes.Worker], now_ns: int) -> Candidates:
    """Return those workers that may take tasks ahead; `count` is that of all given ones."""

    def key_of(worker: nodes.Worker) -> Key | None:
        if worker.host.free_slots < worker.host.claimed_slots:  # its slot is waited for
            return None
        return (worker.held.cost_us,) if _takes_ahead(worker, now_ns) else None

    result = Candidates(workers, key_of, now_ns)
    result.count = len(workers)
    return result


def _takes_ahead(worker: nodes.Worker, now_ns: int) -> bool:
    if (
        worker.state is not _BUSY
        or worker.slots > 1
        or worker.held.granted_slots  # it runs a wide task, whose slots will be returned
        or worker.held.cost_us > PREFETCH_MAX_US
        or now_ns - worker.held.since_ns > PREFETCH_LATE_NS
    ):
        return False
    first = next(iter(worker.held.values()))
    if first.incident:
        return False  # a suspect travels alone
    if len(worker.held) <= worker.held.newest_tasks and first.cost_us < MEDIUM_US:
        return True  # it holds one chunk, or its rest, whatever its work is
    return worker.held.cost_us <= batching.ahead_us(first.cost_us) or len(worker.held) <= 1
