"""Number and places of the workers of each pool.

Relocation of workers whose node has no slots or memory for the waiting tasks. A pool below its
maximum gets a worker elsewhere; else an idle one is evicted for it. Workers that reserve memory are
not relocated: their need is decided when they start.

Number of workers of each pool, and their nodes: started with the queue, retired when idle.
`launcher.placement` decides where a worker fits. If it fits nowhere now, idle workers that reserve
memory are evicted; memory still in use is claimed, so that it is not granted again when it is
freed. A starting process uses a core: about as many start at a time as there are slots.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from launcher import placement as launcher_placement
from simenv.model import WorkerState
from simenv.scheduler.core import START_NS, Action, StartWorker, TaskRecord, rank_gpus, slot_memory
from simenv.scheduler.dispatch import dedicated_workers, gang_scheduling, kept_states
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.scaling import jobs
from simenv.scheduler.state import nodes, pools, scheduler_state

PATIENCE_NS = 1_000_000_000  # resources expected to be free sooner are waited for


def nodes_for_head(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> list[nodes.NodeState]:
    """Return nodes where the first waiting task could start at once. The list is empty if the task
    should wait, or can run on a node of its pool's workers."""
    head = pool.queue.head()
    live = [w for w in pool.workers.values() if w.is_live]
    if head is None or not live or pool.spec.ranks > 1 or pool.spec.memory_bytes:
        return []
    if pool.is_exclusive:
        return []  # a worker that holds hardware needs no slot
    idle = bool(pool.workers.free())
    if any(w.state == WorkerState.STARTING or _serves(w, head, idle) for w in live):
        return []
    wide_enough = any(w.host.node.memory_bytes >= head.route.memory_bytes for w in live)
    if wide_enough and now_ns - head.batch.accepted_ns < PATIENCE_NS:
        return []
    return [
        host
        for host in state.cluster.nodes.up()
        if host.free_slots > host.claimed_slots
        and host.free_memory - _claimed(host, head) >= head.route.memory_bytes
        and launcher_placement.matches(
            pool.spec.nodes, launcher_placement.NodeResources.of(host.node)
        )
    ]


def _claimed(host: nodes.NodeState, head: TaskRecord) -> int:
    """Return the memory of a node that is claimed and not for this task."""
    return host.claimed_memory + host.backfill_memory * (head.cost_us > LONG_US)


def _serves(worker: nodes.Worker, head: TaskRecord, idle: bool) -> bool:
    """Return whether the task should wait for this worker. False if the worker is busy for long
    while another is idle, which could be relocated."""
    host = worker.host
    if head.route.memory_bytes > host.node.memory_bytes:
        return False
    if worker.state == WorkerState.BUSY:
        return not idle or worker.held.cost_us * 1e3 <= PATIENCE_NS
    return host.free_slots > host.claimed_slots


def evict_idle(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> list[Action]:
    """Retire an idle worker of a full pool, so that another can be started elsewhere."""
    idle = pool.workers.free()
    if not idle:
        return []
    worker = min(idle, key=lambda w: w.since_ns)
    return state.cluster.retire(worker, f"pool {pool.spec.name} needs one on another node", now_ns)


def memory_for_head(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    reclaimable: list[nodes.Worker],
    now_ns: int,
) -> list[Action]:
    """Retire idle workers whose memory the first waiting task needs on its pool's nodes. The
    workers retire at once if the task fits nowhere else, otherwise after PATIENCE_NS of idling."""
    head = pool.queue.head()
    if head is None:
        return []
    required_bytes = head.route.memory_bytes
    hosts = {w.host.node.name: w.host for w in pool.workers.values() if w.is_live}
    lacking = [
        host for host in hosts.values() if required_bytes > host.free_memory - _claimed(host, head)
    ]
    urgent = len(lacking) == len(hosts)
    for host in lacking:
        evictable = [
            w
            for w in reclaimable
            if (urgent or now_ns - w.since_ns > PATIENCE_NS)
            and any(h is host for h, _ in w.host_ranks)
        ]
        freed = sum(n * w.reserved for w in evictable for h, n in w.host_ranks if h is host)
        has_slot = host.free_slots > host.claimed_slots
        if has_slot and required_bytes <= host.free_memory - _claimed(host, head) + freed:
            reason = f"its node's memory is needed by pool {pool.spec.name}"
            return [action for w in evictable for action in state.cluster.retire(w, reason, now_ns)]
    return []


STARTS_PER_TICK = 8  # one start blocks the event loop for 1 to 3 ms
FIRST_STARTS = 4  # at a time for each slot, including first workers of pools


def resize(state: scheduler_state.SchedulerState, now_ns: int) -> list[Action]:
    """Resize all pools, and renew the claims of those that lack memory."""
    state.cluster.nodes.forget_claims()
    state.cluster.starts_left = STARTS_PER_TICK
    actions: list[Action] = []
    for pool in list(state.cluster.pools.values()):
        actions += jobs.resize(state, pool, now_ns)
        actions += grow(state, pool, now_ns)
        actions += shrink(state, pool, now_ns)
    return actions


def grow(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> list[Action]:
    """Start the missing workers, unless the pool backs off or is quarantined."""
    pool.shortage = ""
    if pool.starts.is_quarantined or now_ns < pool.starts.next_ns:
        return []
    actions: list[Action] = []
    lacking = dedicated_workers.missing_workers(state, pool)
    lacking += pool.awaited_accounts if len(pool.queue) else 0
    missing = pool.target(lacking) - pool.workers.live()
    controls = state.devices.controls
    if controls.is_restricting and controls.starts_nothing(pool.device):  # more would be idle
        missing = pool.spec.min - pool.workers.live()
    if pool.spec.jobs is not None:
        missing = jobs.workers_to_start(state, pool, missing)
    if missing > 0 and _should_wait(state, pool, now_ns):
        return []
    usable = _by_load(state, pool, now_ns) if missing > 0 and pool.spec.ranks == 1 else []
    for _ in range(min(missing, _may_start(state, pool))):
        rank_bytes = rank_memory(pool)
        request = launcher_placement.ResourceRequest(
            pool.spec.ranks,
            memory_bytes=rank_bytes,
            gpus=rank_gpus(pool.spec),
            nodes=pool.spec.nodes,
        )
        first = [host for *_, host in usable[:1]]
        placement = _find_placement(state, pool, request, now_ns, hosts=first)
        if first and not isinstance(placement, launcher_placement.Placement):
            usable.clear()
            placement = _find_placement(state, pool, request, now_ns)
        if not isinstance(placement, launcher_placement.Placement):
            pool.shortage = placement.message
            if len(pool.queue) and not pool.workers.live():
                actions += _reclaim_memory(state, pool, request, now_ns)
            break
        actions.append(_start(state, pool, placement, rank_bytes, now_ns))
        if usable:
            heapq.heapreplace(usable, _load(pool, *usable[0][1:]))
    if len(pool.queue) and not actions and pool.spec.jobs is None:
        actions += _relocate(state, pool, now_ns)
    return actions


def _may_start(state: scheduler_state.SchedulerState, pool: pools.Pool) -> int:
    """Return how many workers may be started now: one rank for each slot at a time, over all pools.
    At least one worker may start while none is starting. A pool without workers may add one, so
    that slow starts elsewhere do not delay it. Workers that hold hardware are not counted."""
    if pool.is_exclusive:
        return state.cluster.starts_left
    starting = sum(
        worker.ranks
        for each in state.cluster.pools.values()
        if not each.is_exclusive
        for worker in each.workers.starting.values()
    )
    max_starts = max(1, sum(host.node.slots for host in state.cluster.nodes.up()))
    allowed = (max_starts - starting) // pool.spec.ranks
    if not starting:
        allowed = max(1, allowed)
    if not pool.workers.live() and starting < FIRST_STARTS * max_starts:
        allowed = max(1, allowed)
    return max(0, min(allowed, state.cluster.starts_left))


def _should_wait(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> bool:
    """Return whether a worker would hold memory that others need before it can use it itself."""
    if pool.spec.ranks == 1 and not pool.spec.memory_bytes:
        return False
    head = pool.queue.head()
    if head is None:
        return any(other.shortage and len(other.queue) for other in state.cluster.pools.values())
    ready_ns = now_ns + START_NS
    if pool.spec.ranks > 1 and not gang_scheduling.may_use_last_slots(
        state, pool.spec.ranks, head, ready_ns
    ):
        pool.shortage = gang_scheduling.LAST_SLOTS
        return True
    return False


def _relocate(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> list[Action]:
    """Start a worker elsewhere, or make room for one, if the pool's workers cannot run the waiting
    task."""
    if not (pool.spec.ranks > 1 or pool.spec.memory_bytes):
        evicted = memory_for_head(state, pool, _reclaimable(state, pool, now_ns), now_ns)
        if evicted:
            return evicted
    hosts = nodes_for_head(state, pool, now_ns)
    if not hosts:
        return []
    if pool.workers.live() >= pool.spec.max:
        return evict_idle(state, pool, now_ns)
    placement = launcher_placement.place(
        launcher_placement.ResourceRequest(gpus=rank_gpus(pool.spec)),
        [host.available_resources(host.free_memory, host.node.slots) for host in hosts],
    )
    if not isinstance(placement, launcher_placement.Placement):
        return []
    return [_start(state, pool, placement, 0, now_ns)]


def rank_memory(pool: pools.Pool) -> int:
    """Return the memory that each rank of a new worker reserves; 0: memory is granted by task."""
    if pool.spec.memory_bytes:
        return pool.spec.memory_bytes
    head = pool.queue.head() if pool.spec.ranks > 1 else None
    return 0 if head is None else head.route.memory_bytes


def _start(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    placement: launcher_placement.Placement,
    rank_bytes: int,
    now_ns: int,
) -> StartWorker:
    name = _free_name(state, pool)
    restarts = pool.starts.by_name.get(name, 0)
    pool.starts.by_name[name] = restarts + 1
    host_ranks = state.cluster.nodes.host_ranks(placement.shares)
    nodes.occupy(host_ranks, rank_bytes, bool(pool.base))
    worker = nodes.Worker(
        name,
        pool.spec.name,
        WorkerState.STARTING,
        now_ns,
        now_ns,
        state.cluster.next_start,
        host_ranks,
        host_ranks[0][0],
        ranks=pool.spec.ranks,
        reserved=rank_bytes,
        gpus=nodes.take_gpus(host_ranks, rank_gpus(pool.spec)),
        process=nodes.WorkerProcess(restarts),
    )
    state.cluster.next_start += 1
    state.cluster.starts_left -= 1
    state.cluster.workers[name] = worker
    pool.workers.add(worker)
    for host, _ in host_ranks:
        host.workers[name] = worker
    return StartWorker(pool.spec.name, name, worker.start, placement.shares, worker.gpus)


def _free_name(state: scheduler_state.SchedulerState, pool: pools.Pool) -> str:
    number = pool.starts.names_below
    while (
        name := f"{pool.spec.name}-{number}"
    ) in pool.workers or name in state.cluster.unreaped_workers:
        number += 1
    pool.starts.names_below = number  # the caller takes it
    return name


_Load = tuple[tuple[float, int], int, nodes.NodeState]  # key, position, node


def _by_load(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> list[_Load]:
    """Return a heap of the nodes in use, the one where `place` puts a worker of one rank first. It
    is kept while workers are started, so that no start compares all nodes."""
    usable = [
        _load(pool, number, host)
        for number, host in enumerate(_hosts(state, pool))
        if host.is_up and host.avoid_until_ns <= now_ns
    ]
    heapq.heapify(usable)
    return usable


def _load(pool: pools.Pool, number: int, host: nodes.NodeState) -> _Load:
    free_memory = host.free_memory - host.claimed_memory - host.backfill_memory
    ranks = host.placed_ranks(_own_workers(pool, host))
    slots = host.node.slots - host.on_demand if pool.base else host.node.slots
    return launcher_placement.spread_key(ranks, slots, free_memory), number, host


def _hosts(state: scheduler_state.SchedulerState, pool: pools.Pool) -> list[nodes.NodeState]:
    return state.cluster.nodes.of_jobs(pool.spec.name if pool.spec.jobs is not None else "")


def _own_workers(pool: pools.Pool, host: nodes.NodeState) -> int:
    name = pool.spec.name
    return len([worker for worker in host.workers.values() if worker.pool == name])


def _find_placement(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    request: launcher_placement.ResourceRequest,
    now_ns: int,
    memory: Callable[[nodes.NodeState], int] = lambda host: host.free_memory,
    on_demand: Callable[[nodes.NodeState], int] = lambda host: host.on_demand,
    hosts: list[nodes.NodeState] | None = None,
) -> launcher_placement.Placement | launcher_placement.Infeasible | launcher_placement.Insufficient:
    """Return the placement of a worker, given the free memory and the ranks made on demand of each
    node. Nodes where a start failed lately are tried last. `hosts`: of these nodes alone; empty:
    all."""
    hosts = hosts or _hosts(state, pool)
    if pool.workers.live() and not (pool.base or pool.overcommit or state.limits.overcommit):
        resident = sum(host.ranks for host in hosts)
        any_up = any(host.is_up for host in hosts)
        hosts = [
            host
            for host in hosts
            if host.ranks < nodes.most_resident(host.node, request.memory_bytes)
        ]
        if any_up and not any(host.is_up for host in hosts):
            message = f"its nodes hold no more than the {resident} ranks of workers that they have"
            return launcher_placement.Insufficient("workers", resident + 1, resident, message)
    if pool.base:  # a rank is one slot and its memory
        hosts = [h for h in hosts if request.memory_bytes <= slot_memory(h.node, state.limits)]
    available = {
        h.node.name: h.available_resources(
            memory(h) - h.claimed_memory - h.backfill_memory,
            h.node.slots - on_demand(h) if pool.base else h.node.slots,
            _own_workers(pool, h),
        )
        for h in hosts
    }
    preferred = [available[h.node.name] for h in hosts if h.avoid_until_ns <= now_ns]
    placement = launcher_placement.place(request, preferred)
    if not isinstance(placement, launcher_placement.Placement) and len(preferred) < len(hosts):
        placement = launcher_placement.place(request, list(available.values()))
    return placement


def _reclaim_memory(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    request: launcher_placement.ResourceRequest,
    now_ns: int,
) -> list[Action]:
    """Retire idle workers on memory that this pool's task needs; claim memory that is in use."""
    reclaimable = _reclaimable(state, pool, now_ns)

    def freed(host: nodes.NodeState) -> int:
        reserved = sum(n * w.reserved for w in reclaimable for h, n in w.host_ranks if h is host)
        return reserved + kept_states.idle_bytes(host)

    def held(host: nodes.NodeState) -> int:
        return gang_scheduling.long_memory(host)

    def on_demand(host: nodes.NodeState) -> int:
        on_demand_workers = [w for w in reclaimable if state.cluster.pools[w.pool].base]
        return host.on_demand - sum(
            n for w in on_demand_workers for h, n in w.host_ranks if h is host
        )

    for step, memory in enumerate(
        (
            lambda host: host.free_memory + freed(host),
            lambda host: host.free_memory + freed(host) + host.granted - held(host),
            lambda host: host.free_memory + freed(host) + host.granted,
        )
    ):
        placement = _find_placement(state, pool, request, now_ns, memory, on_demand)
        if isinstance(placement, launcher_placement.Placement):
            waits_long = step == 2
            break
    else:
        return []
    actions: list[Action] = []
    for host, ranks in state.cluster.nodes.host_ranks(placement.shares):
        if waits_long:
            host.backfill_memory += ranks * request.memory_bytes
        else:
            host.claimed_memory += ranks * request.memory_bytes
        actions += kept_states.drop(state, host, ranks * request.memory_bytes - host.free_memory)
        for worker in reclaimable:
            if any(h is host for h, _ in worker.host_ranks):
                reason = f"its node's memory is needed by pool {pool.spec.name}"
                actions += state.cluster.retire(worker, reason, now_ns)
    return actions


def _reclaimable(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> list[nodes.Worker]:
    """Return workers of other pools that may be evicted, and all that are ending already."""
    return [
        w
        for w in state.cluster.workers.values()
        if w.state == WorkerState.DRAINING
        or (w.pool != pool.spec.name and _may_be_evicted(state, w, now_ns))
    ]


def _may_be_evicted(
    state: scheduler_state.SchedulerState, worker: nodes.Worker, now_ns: int
) -> bool:
    """Return whether the worker is idle on memory that its own pool does not need now."""
    if worker.state != WorkerState.IDLE or not worker.reserved or worker.dedication.reservation:
        return False
    head = state.cluster.pools[worker.pool].queue.head()
    if head is None:
        return True
    return worker.ranks > 1 and not gang_scheduling.may_use_last_slots(
        state, worker.ranks, head, now_ns + START_NS
    )


def shrink(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> list[Action]:
    """Retire workers above the pool's maximum, and those idle for long above its minimum."""
    spec, live = pool.spec, pool.workers.live()
    idle_ns = round(spec.idle_s * 1e9)
    actions: list[Action] = []
    has_too_many = live > spec.min and len(pool.queue) <= pool.queue.late
    idle = pool.workers.free() if has_too_many or live > spec.max else []
    if live > spec.max:  # includes dedicated workers
        idle += [
            w for w in pool.workers.dedicated_to() if w.state == WorkerState.IDLE and w.is_live
        ]
    for worker in idle:
        if live > spec.max:
            actions += state.cluster.retire(worker, f"pool {spec.name} was scaled down", now_ns)
        elif live <= spec.min or len(pool.queue) > pool.queue.late or worker.dedication.reservation:
            break
        elif now_ns - worker.since_ns > idle_ns:
            actions += state.cluster.retire(worker, f"idle for {spec.idle_s:g} s", now_ns)
        else:
            continue
        live -= 1
    is_paused = pool.starts.is_quarantined or now_ns < pool.starts.next_ns
    if pool.base and not (pool.workers or len(pool.queue) or is_paused):
        state.cluster.close_pool(pool)
    return actions
