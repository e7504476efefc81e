"""Slots of tasks: gangs of ranks, resizing, and workers dedicated to reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simenv.model import AdmissionReason, ReservationRequest, WorkerState
from simenv.scheduler import core
from simenv.scheduler.dispatch import batching
from simenv.scheduler.dispatch.batching import build_chunk
from simenv.scheduler.queueing.queue import LONG_US
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.state import pools as state_pools, scheduler_state
from simulators import catalog

if TYPE_CHECKING:
    from simenv.scheduler.reservations.reservation import ReservationEntry

# Gang scheduling: a task of several ranks gets one slot for each rank, on all its nodes at once.
#
# A task that lacks slots claims them: on those nodes, other tasks get only slots beyond the claim.
# While a long task blocks the claim, short tasks may use the claimed slots (backfill), as they
# hardly delay it. A gang takes the last slots of the environment only while no short tasks arrive,
# or after it has waited since its submission and since the end of the last gang; so neither kind
# starves. The oldest gang chooses first, and a node has one claim at a time, so claims cannot
# deadlock.

LAST_SLOTS = "it would take the last slots: they are kept for short tasks for now"


PATIENCE_NS = 10_000_000_000  # wait after which a long task may take a node's last slot
RECENT_NS = 1_000_000_000  # short tasks count as arriving for this long after the last one


def assign(
    state: scheduler_state.SchedulerState, assignments: list[core.AssignTasks], now_ns: int
) -> None:
    """Assign tasks of several ranks, and renew the claims of those that wait."""
    state.nodes.forget_slot_claims()
    heads: dict[str, tuple[int, int]] = {}
    candidates = [pool for pool in state.gangs if _note_head(state, pool, heads, now_ns)]
    while candidates:
        pool = min(candidates, key=lambda pool: heads[pool.spec.name])
        assignment = _next_assignment(state, pool, now_ns)
        if assignment is not None:
            assignments.append(assignment)
        if assignment is None or not _note_head(state, pool, heads, now_ns):
            candidates.remove(pool)


def _note_head(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    heads: dict[str, tuple[int, int]],
    now_ns: int,
) -> bool:
    """Note the sort key of the first task that waits in a pool; return False if no task can
    start."""
    if state.controls.is_restricting and not state.controls.assignable_tasks(pool):
        return False
    if pool.device in state.outages:
        return False
    if pool.spec.pace and not batching.may_send(state, pool, now_ns):
        return False
    while (record := pool.queue.head()) is not None:
        if not (state.limits.end_ns and too_late(state, record, now_ns)):
            heads[pool.spec.name] = pool.queue.order.age_key(record)
            return True
        pool.queue.postpone(record)
    return False


def _next_assignment(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, now_ns: int
) -> core.AssignTasks | None:
    """Assign the first task that waits in the pool, or claim slots for it."""
    record, idle = pool.queue.head(), pool.idle()
    if record is None or not idle or not may_use_last_slots(state, pool.spec.ranks, record, now_ns):
        return None
    worker = min(idle, key=lambda w: (missing(w), max(0, record.route.memory_bytes - w.reserved)))
    if missing(worker):
        unclaimed = [w for w in idle if _may_claim(state, w)]
        if unclaimed:
            _claim(state, min(unclaimed, key=missing))
        return None
    if not _has_memory(state, worker, record, now_ns):
        return None
    for host, ranks in worker.host_ranks:
        host.free_slots -= ranks
    worker.slots = worker.ranks
    return build_chunk(state, pool, worker, record, 1, now_ns)


def _may_claim(state: scheduler_state.SchedulerState, worker: state_pools.Worker) -> bool:
    """Return whether the worker's nodes are unclaimed and have enough slots.

    Slots of dedicated workers are not counted: they do not become free while their reservation
    lives, so a claim on them would only block other tasks.
    """
    return not any(
        claimed(host) or host.node.slots - _reserved_slots(state, host) < ranks
        for host, ranks in worker.host_ranks
    )


def _reserved_slots(state: scheduler_state.SchedulerState, host: state_pools.NodeState) -> int:
    workers = (w for w in state.workers.values() if w.reservation_id and w.host is host)
    return sum(w.slots > 0 for w in workers)


def _claim(state: scheduler_state.SchedulerState, worker: state_pools.Worker) -> None:
    waits_long = any(
        host.node.slots - long_slots(state, host) < ranks for host, ranks in worker.host_ranks
    )
    for host, ranks in worker.host_ranks:
        if waits_long:
            host.backfill_slots += ranks
        else:
            host.claimed_slots += ranks


def long_slots(state: scheduler_state.SchedulerState, host: state_pools.NodeState) -> int:
    """Return the slots of a node that long tasks have."""
    return sum(
        w.slots if w.ranks == 1 else n
        for w in state.workers.values()
        if w.slots and w.held_us > LONG_US
        for h, n in w.host_ranks
        if h is host
    )


def long_memory(state: scheduler_state.SchedulerState, host: state_pools.NodeState) -> int:
    """Return the bytes of a node that were granted to long tasks."""
    workers = (w for w in state.workers.values() if w.host is host)
    return sum(w.memory_bytes for w in workers if w.held_us > LONG_US)


def claimed(host: state_pools.NodeState) -> int:
    """Return the claimed slots of a node, with and without backfill; see `state.nodes`."""
    return host.claimed_slots + host.backfill_slots


def missing(worker: state_pools.Worker) -> int:
    """Return how many slots the worker lacks on its nodes, besides the claims of others."""
    return sum(max(0, ranks - h.free_slots + claimed(h)) for h, ranks in worker.host_ranks)


def may_use_last_slots(
    state: scheduler_state.SchedulerState, ranks: int, record: core.TaskRecord, now_ns: int
) -> bool:
    """Return whether slots remain for short tasks, or the task has waited long enough to take the
    last."""
    slots = sum(host.node.slots for host in state.nodes.up())
    gangs = sum(w.slots for pool in state.gangs for w in pool.workers.values())
    if slots - gangs > ranks or not short_tasks_arriving(state, now_ns):
        return True
    patience_ns = PATIENCE_NS if record.cost_us > LONG_US else round(record.cost_us * 1e3)
    return now_ns - max(record.batch.accepted_ns, state.gang_ended_ns) > patience_ns


def short_tasks_arriving(state: scheduler_state.SchedulerState, now_ns: int) -> bool:
    """Return whether short tasks of one rank wait, or one was submitted within RECENT_NS."""
    if now_ns - state.last_short_ns < RECENT_NS:
        return True
    return any(p.spec.ranks == 1 and p.queue.has_short() for p in state.pools.values())


def _has_memory(
    state: scheduler_state.SchedulerState,
    worker: state_pools.Worker,
    record: core.TaskRecord,
    now_ns: int,
) -> bool:
    """Return whether the worker can have the memory for this task; otherwise retire it, so that a
    larger one replaces it."""
    missing_bytes = record.route.memory_bytes - worker.reserved
    if missing_bytes <= 0:
        return True
    if any(
        n * missing_bytes > h.free_memory - h.claimed_memory - h.backfill_memory
        for h, n in worker.host_ranks
    ):
        state.begin_retirement(worker, "its pool needs one with more memory", now_ns)
        return False
    state_pools.reserve(worker.host_ranks, missing_bytes)
    worker.reserved += missing_bytes
    return True


def too_late(state: scheduler_state.SchedulerState, record: core.TaskRecord, now_ns: int) -> bool:
    """Return whether a task would end after the allocation, even on all the slots that it could
    get."""
    slots = 1
    if record.route.ranks == 1:
        max_slots = max((host.node.slots for host in state.nodes.up()), default=1)
        slots = max(1, min(record.route.max_slots, max_slots))
    end_ns = now_ns + record.cost_us * 1e3 / slots
    return end_ns > state.limits.end_ns - core.END_MARGIN_NS


# Slots taken back from a running task for short tasks, and returned when these have ended.
#
# A wide task alone on a node has all slots of the node. An engine whose card says `resizable` reads
# its number of threads between sweeps, so a slot can be taken back while the task runs. The worker
# is told in the same tick; until its current sweep ends, the node runs one thread more than it has
# slots. Only short tasks take a slot from a running task, and never its last one.


def note_grant(
    state: scheduler_state.SchedulerState, worker: state_pools.Worker, record: core.TaskRecord
) -> None:
    """Remember a worker whose task got several slots, if some may be taken back."""
    card = catalog.card(record.route.engine)
    if worker.slots > 1 and card is not None and card.parallel.resizable:
        worker.granted_slots = worker.slots
        state.multi_slot_workers[worker.name] = worker


def take_back(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, now_ns: int
) -> state_pools.Worker | None:
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
        if worker.host.free_slots <= 0
        and record.route.memory_bytes <= state_pools.memory_for(worker, record)
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


def return_slots(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.Action]:
    """Return slots that were taken back, unless one was taken within RECENT_NS.

    While short tasks arrive, one slot stays free on each node.
    """
    actions: list[core.Action] = []
    if not state.multi_slot_workers or now_ns - state.slot_taken_ns < RECENT_NS:
        return actions
    retained = now_ns - state.last_short_ns < RECENT_NS
    for worker in state.multi_slot_workers.values():
        host, running = worker.host, _running(worker)
        spare = host.free_slots - host.claimed_slots - host.backfill_slots - retained
        count = min(spare, worker.granted_slots - worker.slots)
        if state.quotas.caps_slots and running is not None:
            count = min(count, scheduler_state.slots_left(state, running.batch.owner))
        if running is not None and count > 0:
            worker.slots += count
            host.free_slots -= count
            actions.append(_set_threads(worker, running))
    return actions


def _running(worker: state_pools.Worker) -> core.TaskRecord | None:
    """Return the worker's task if it holds a single task that it has reported as running; else
    None."""
    if len(worker.held) != 1 or worker.leaving:
        return None
    (record,) = worker.held.values()
    return record if record.phase == core.Phase.RUNNING else None


def _set_threads(worker: state_pools.Worker, record: core.TaskRecord) -> core.SetThreads:
    worker.resized = True
    return core.SetThreads(worker.name, record.number, record.fence, worker.slots)


# Workers dedicated to reservations.
#
# A dedicated worker retains its slot while idle and runs only tasks of its reservation. Any worker
# of the pool can serve: a lost one is replaced by the one that is free first. Requested workers
# that are not available yet are held for a while, so that a repeated request succeeds.

SOON_US = 50_000.0  # a busy worker that is expected to be free sooner can be dedicated now
MIN_WAIT_NS = 20_000_000
MAX_REQUEST_NS = 5_000_000_000  # longest time that workers are held for a repeated request
RETRY_MARGIN_NS = 2_000_000_000  # added to the time that the decision states


def begin(state: scheduler_state.SchedulerState, reservation: ReservationEntry) -> None:
    """Note the workers of a new reservation and give it lanes of its own; `settle` finds the
    workers."""
    request = reservation.grant.ask
    pool = _pool_of(state, request)
    if request.workers and pool is not None:
        state.dedicated.all[reservation.grant.id] = state_pools.DedicatedWorker(
            pool.spec.name, request.workers
        )
        state.dedicated.requests.pop(pool.spec.name, None)
        for worker in _workers_of(pool, state_pools.REQUESTED):
            release(state, worker)
        pool.queue.add_dedicated_lanes(reservation.grant.id)


def end(state: scheduler_state.SchedulerState, number: int) -> None:
    """Release the workers of a reservation that is over."""
    dedicated = state.dedicated.all.pop(number, None)
    pool = None if dedicated is None else state.pools.get(dedicated.pool)
    if pool is not None:
        pool.queue.merge_dedicated_lanes(number)
        for worker in _workers_of(pool, number):
            release(state, worker)


def remember_request(
    state: scheduler_state.SchedulerState, request: ReservationRequest, wait_ns: int, wall_ns: int
) -> None:
    """Hold the requested workers, as soon as they are available, for a repetition of the
    request."""
    pool = _pool_of(state, request)
    if pool is not None and request.workers:
        until_ns = wall_ns + min(wait_ns, MAX_REQUEST_NS) + RETRY_MARGIN_NS
        state.dedicated.requests[pool.spec.name] = state_pools.DedicatedWorker(
            pool.spec.name, request.workers, until_ns
        )


def tick(state: scheduler_state.SchedulerState, wall_ns: int) -> None:
    """Release workers held for requests that were not repeated in time."""
    for name, dedicated in list(state.dedicated.requests.items()):
        if wall_ns >= dedicated.until_ns:
            del state.dedicated.requests[name]
            for worker in _workers_of(state.pools[name], state_pools.REQUESTED):
                release(state, worker)


def settle(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Find workers for reservations that lack some: idle ones, else the busy ones that are free
    first."""
    for pool in list(state.pools.values()):
        for number, requested in state.dedicated.of(pool.spec.name):
            own = _workers_of(pool, number)
            for _ in range(requested - len(own)):
                worker = _next_worker(pool)
                if worker is None:
                    break
                _dedicate(pool, worker, number, now_ns)
            for worker in own:
                if _is_engaged(worker) and not _exchanged(state, pool, worker, now_ns):
                    break


def _dedicate(pool: state_pools.Pool, worker: state_pools.Worker, number: int, now_ns: int) -> None:
    if worker.state == WorkerState.IDLE and not pool.is_exclusive:
        worker.host.free_slots -= 1
        worker.slots = 1
    worker.reservation_id, worker.reserved_since_ns = number, now_ns


def _is_engaged(worker: state_pools.Worker) -> bool:
    """Return whether the dedicated worker still runs other tasks for longer than SOON_US."""
    if worker.held_us <= SOON_US or not worker.held:
        return False
    first = next(iter(worker.held.values()))
    return first.batch.terms.reservation != worker.reservation_id


def _exchanged(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    engaged: state_pools.Worker,
    now_ns: int,
) -> bool:
    """Replace a worker that runs other tasks by one that is free sooner; return False if there is
    none."""
    sooner = _next_worker(pool)
    if sooner is None or sooner.held_us > SOON_US:
        return False
    number = engaged.reservation_id
    release(state, engaged)
    _dedicate(pool, sooner, number, now_ns)
    return True


def release(state: scheduler_state.SchedulerState, worker: state_pools.Worker) -> None:
    """Return a worker to its pool once the tasks that it holds have ended."""
    state.release_from_reservation(worker)


def lacking(state: scheduler_state.SchedulerState, pool: state_pools.Pool) -> int:
    """Return how many workers the reservations of a pool lack."""
    pairs = state.dedicated.of(pool.spec.name) if state.dedicated else []
    return sum(max(0, requested - len(_workers_of(pool, number))) for number, requested in pairs)


def count(state: scheduler_state.SchedulerState, number: int) -> int:
    """Return how many workers a reservation has now."""
    dedicated = state.dedicated.all.get(number)
    pool = None if dedicated is None else state.pools.get(dedicated.pool)
    return 0 if pool is None else len(_workers_of(pool, number))


def _workers_of(pool: state_pools.Pool, number: int) -> list[state_pools.Worker]:
    return [worker for worker in pool.workers.values() if worker.reservation_id == number]


def _next_worker(pool: state_pools.Pool) -> state_pools.Worker | None:
    """Return the worker to dedicate next, the one that is free first; None if there is none."""
    workers = [worker for worker in pool.workers.values() if _can_dedicate(pool, worker)]
    return min(workers, key=lambda worker: worker.held_us, default=None)


def _can_dedicate(pool: state_pools.Pool, worker: state_pools.Worker) -> bool:
    if worker.reservation_id or worker.leaving:
        return False
    if worker.state == WorkerState.IDLE:
        return pool.is_exclusive or worker.host.free_slots > worker.host.claimed_slots
    return worker.state == WorkerState.BUSY


def _available_workers(pool: state_pools.Pool) -> list[state_pools.Worker]:
    """Return the workers that could all be dedicated; of idle ones on a node, at most one per free
    slot."""
    workers: list[state_pools.Worker] = []
    taken: dict[str, int] = {}  # by node
    for worker in pool.workers.values():
        if not _can_dedicate(pool, worker):
            continue
        if worker.state == WorkerState.IDLE and not pool.is_exclusive:
            host = worker.host
            slots = taken[host.node.name] = taken.get(host.node.name, 0) + 1
            if slots > host.free_slots - host.claimed_slots:
                continue
        workers.append(worker)
    return workers


# --- availability -------------------------------------------------------------------------------


def veto(
    state: scheduler_state.SchedulerState, request: ReservationRequest
) -> PolicyVerdict | None:
    """Return why the requested workers cannot be dedicated now, or None if they can. Changes
    nothing."""
    pool = _pool_of(state, request)
    if pool is None:
        message = f"workers = {request.workers}: name their pool with device="
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    name, spec, requested = pool.spec.name, pool.spec, request.workers
    if spec.ranks > 1:
        message = (
            f"workers of pool {name} have {spec.ranks} ranks: only those of one can be reserved"
        )
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    max_workers, reserved = capacity_of(state, request)
    if requested > max_workers:
        message = (
            f"workers = {requested}: pool {name} has at most {max_workers} that can be reserved"
        )
        return PolicyVerdict(REJECTED, AdmissionReason.TOO_LARGE, message)
    if reserved + requested > max_workers:
        message = (
            f"reservations have {reserved} workers of pool {name}, which has at most {max_workers}"
        )
        return PolicyVerdict(DELAYED, AdmissionReason.OVER_LIMIT, message, missing=1)
    return _not_now(state, pool, requested)


def _not_now(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, requested: int
) -> PolicyVerdict | None:
    claimed = lacking(state, pool)
    repeated = state.dedicated.requests.get(pool.spec.name)
    if repeated is not None:  # workers held for this request are available to it
        claimed -= max(0, repeated.workers - len(_workers_of(pool, state_pools.REQUESTED)))
    available = _workers_of(pool, state_pools.REQUESTED) + _available_workers(pool)
    waits_us = sorted(worker.held_us for worker in available)[claimed:]
    if len(waits_us) >= requested and waits_us[requested - 1] <= SOON_US:
        return None
    wait_ns = core.START_NS
    if len(waits_us) >= requested:
        wait_ns = round((waits_us[requested - 1] - SOON_US / 2) * 1e3)
    ready = sum(wait_us <= SOON_US for wait_us in waits_us)
    message = f"{ready} of the {requested} workers of pool {pool.spec.name} can be reserved now"
    return PolicyVerdict(
        DELAYED, AdmissionReason.DEVICE_UNAVAILABLE, message, wait_ns=max(MIN_WAIT_NS, wait_ns)
    )


def pool_name(state: scheduler_state.SchedulerState, request: ReservationRequest) -> str:
    """Return the pool of the requested workers; "" if there is none."""
    pool = _pool_of(state, request)
    return "" if pool is None else pool.spec.name


def capacity_of(
    state: scheduler_state.SchedulerState, request: ReservationRequest
) -> tuple[int, int]:
    """Return how many workers of the pool can be dedicated, and how many are reserved."""
    pool = _pool_of(state, request)
    if pool is None:
        return 0, 0
    slots = sum(host.node.slots for host in state.nodes.hosts.values())
    max_workers = pool.spec.max if pool.is_exclusive else min(pool.spec.max, slots)
    dedicated = state.dedicated.all.values()
    return max_workers, sum(each.workers for each in dedicated if each.pool == pool.spec.name)


def _pool_of(
    state: scheduler_state.SchedulerState, request: ReservationRequest
) -> state_pools.Pool | None:
    """Return the pool of a request; for the device "" only if the environment has one pool."""
    pools = [pool for pool in state.pools.values() if not pool.base]
    if not request.device and len(pools) == 1:
        return pools[0]
    return next((pool for pool in pools if pool.spec.name == request.device), None)
