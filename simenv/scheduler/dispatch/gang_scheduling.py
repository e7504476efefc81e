"""Gang scheduling: slots of tasks of several ranks, and slots taken back from running tasks.

A task of several ranks gets one slot for each rank, on all its nodes at once. A task that lacks
slots claims them: on those nodes, other tasks get only slots beyond the claim. While a long task
blocks the claim, short tasks may use the claimed slots (backfill), as they hardly delay it. A gang
takes the last slots of the environment only while no short tasks arrive, or after it has waited
since its submission and since the end of the last gang; so neither kind starves. The oldest gang
chooses first, and a node has one claim at a time, so claims cannot deadlock.

With the policy `fair_share` gangs are chosen in the order of accounts, as tasks of one rank are. A
gang takes and claims nothing while a task of an account or user that goes before its own can start;
each task that starts raises the usage of its account, so the gang's turn comes. It takes slots that
nobody before it can use.

A wide task of one rank, alone on a node, has all slots of the node. An engine whose card says
`resizable` reads its number of threads between sweeps, so a slot can be taken back while the task
runs, and returned later. The worker is told in the same tick; until its current sweep ends, the
node runs one thread more than it has slots. Only short tasks take a slot from a running task, and
never its last one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from simenv.scheduler import core
from simenv.scheduler.dispatch import account_isolation, batching, held_back, planned_reservations
from simenv.scheduler.queueing.fair_share import FairShare
from simenv.scheduler.queueing.lane_heads import OWN_USER
from simenv.scheduler.queueing.lanes import LONG_US, aged_priority
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.state import nodes as state_nodes, pools as state_pools, scheduler_state
from simulators import catalog

LAST_SLOTS = "it would take the last slots: they are kept for short tasks for now"
PATIENCE_NS = 10_000_000_000  # wait after which a long task may take a node's last slot
RECENT_NS = 1_000_000_000  # short tasks count as arriving for this long after the last one

Head = tuple[PoolQueue, core.TaskRecord]  # the first task of a queue


# --- gangs ----------------------------------------------------------------------------------


def assign_gangs(
    state: scheduler_state.SchedulerState,
    singles: Iterable[state_pools.Pool],
    assignments: list[core.AssignTasks],
    now_ns: int,
) -> None:
    """Assign tasks of several ranks, and renew the claims of those that wait. `singles`: pools of
    one rank whose tasks may go before them."""
    state.cluster.nodes.forget_slot_claims()
    state.dispatch.deferred_gangs = False
    heads, shares = dict[str, Head](), state.shares.fair_share
    candidates = [pool for pool in state.cluster.gangs if _note_head(state, pool, heads, now_ns)]
    while candidates:
        first = first_gang(shares, (heads[pool.spec.name] for pool in candidates))
        pool, assignment = state.cluster.pools[first[1].route.pool], None
        if is_behind(shares, first, first_tasks(each for each in singles if each.workers.free())):
            state.dispatch.deferred_gangs = True
        else:
            assignment = _next_assignment(state, pool, now_ns)
        if assignment is not None:
            assignments.append(assignment)
        if assignment is None or not _note_head(state, pool, heads, now_ns):
            candidates.remove(pool)


def is_behind(shares: FairShare, gang: Head, singles: Iterable[Head]) -> bool:
    """Return whether one of the tasks of one rank goes before one of several ranks."""
    return any(precedes(shares, single, gang) for single in singles)


def first_gang(shares: FairShare, heads: Iterable[Head]) -> Head:
    """Return the task of several ranks that chooses first: by accounts, else by waiting time."""

    def compare(head: Head, other: Head) -> int:
        is_before = precedes(shares, head, other)
        if is_before is None:
            is_before = head[0].lanes.order.age_key(head[1]) < other[0].lanes.order.age_key(
                other[1]
            )
        return -1 if is_before else 1

    return min(heads, key=functools.cmp_to_key(compare))


def precedes(shares: FairShare, head: Head, other: Head) -> bool | None:
    """Return whether a task goes before one of another queue by the order of accounts, see
    `lane_heads`; None if both are of one association, or a queue has another policy."""
    (queue, record), (other_queue, rival) = head, other
    leaf, rival_leaf = record.batch.association, rival.batch.association
    if leaf == rival_leaf or not (queue.is_shared and other_queue.is_shared):
        return None
    for own, rest in ((record, rival), (rival, record)):
        priority = own.batch.priority if own.batch.association in OWN_USER else 0
        is_older = aged_priority(own)[0] <= rest.batch.accepted_ns
        if priority and is_older == (priority > 0):
            return is_older == (own is record)
    key, rival_key = shares.sort_key(leaf), shares.sort_key(rival_leaf)
    return record.number < rival.number if key == rival_key else key < rival_key


def first_tasks(pools: Iterable[state_pools.Pool]) -> list[Head]:
    """Return the first waiting tasks of pools of one rank whose tasks may go before a gang."""
    heads = ((each.queue, each.queue.head()) for each in pools if each.queue.is_shared)
    return [(queue, head) for queue, head in heads if head is not None]


def _note_head(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    heads: dict[str, Head],
    now_ns: int,
) -> bool:
    """Note the first task that waits in a pool; return False if no task can start."""
    if state.devices.controls.is_restricting and not state.devices.controls.assignable_tasks(pool):
        return False
    if pool.device in state.devices.outages:
        return False
    if pool.spec.pace and not batching.may_send(state, pool, now_ns):
        return False
    record = planned_reservations.head_in_time(state, pool, now_ns)
    if record is None:
        return False
    heads[pool.spec.name] = pool.queue, record
    return True


def _next_assignment(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, now_ns: int
) -> core.AssignTasks | None:
    """Assign the first task that waits in the pool, or claim slots for it."""
    record, idle = pool.queue.head(), pool.workers.free()
    if record is None or not idle or not may_use_last_slots(state, pool.spec.ranks, record, now_ns):
        return None
    if state.limits.isolates_accounts:
        pool.awaited_accounts = 0
        idle = [w for w in idle if account_isolation.serves(state, w, record)]
        if not idle:
            account_isolation.make_room(state, pool, record, now_ns)
            return None
    worker = min(
        idle, key=lambda w: (missing_slots(w), max(0, record.route.memory_bytes - w.reserved))
    )
    if missing_slots(worker):
        unclaimed = [w for w in idle if _may_claim(w)]
        if unclaimed:
            _claim(min(unclaimed, key=missing_slots))
        return None
    if not _has_memory(state, worker, record, now_ns):
        return None
    for host, ranks in worker.host_ranks:
        host.free_slots -= ranks
    worker.slots = worker.ranks
    return batching.build_chunk(state, pool, worker, record, 1, now_ns)


def _has_memory(
    state: scheduler_state.SchedulerState,
    worker: state_nodes.Worker,
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
    state_nodes.reserve(worker.host_ranks, missing_bytes)
    worker.reserved += missing_bytes
    return True


def _may_claim(worker: state_nodes.Worker) -> bool:
    """Return whether the worker's nodes are unclaimed and have enough slots. Slots of dedicated
    workers are not counted: they do not become free while their reservation lives, so a claim on
    them would only block other tasks."""
    return not any(
        claimed_slots(host) or host.node.slots - _reserved_slots(host) < ranks
        for host, ranks in worker.host_ranks
    )


def _reserved_slots(host: state_nodes.NodeState) -> int:
    workers = (w for w in host.workers.values() if w.dedication.reservation and w.host is host)
    return sum(w.slots > 0 for w in workers)


def _claim(worker: state_nodes.Worker) -> None:
    waits_long = any(
        host.node.slots - long_slots(host) < ranks for host, ranks in worker.host_ranks
    )
    for host, ranks in worker.host_ranks:
        if waits_long:
            host.backfill_slots += ranks
        else:
            host.claimed_slots += ranks


def claimed_slots(host: state_nodes.NodeState) -> int:
    """Return the claimed slots of a node, with and without backfill; see `NodeState`."""
    return host.claimed_slots + host.backfill_slots


def missing_slots(worker: state_nodes.Worker) -> int:
    """Return how many slots the worker lacks on its nodes, besides the claims of others."""
    return sum(max(0, ranks - h.free_slots + claimed_slots(h)) for h, ranks in worker.host_ranks)


# --- precedence of short tasks --------------------------------------------------------------


def may_use_last_slots(
    state: scheduler_state.SchedulerState, ranks: int, record: core.TaskRecord, now_ns: int
) -> bool:
    """Return whether slots remain for short tasks, or the task has waited long enough to take the
    last."""
    slots = sum(host.node.slots for host in state.cluster.nodes.up())
    gangs = sum(w.slots for pool in state.cluster.gangs for w in pool.workers.values())
    if slots - gangs > ranks or not short_tasks_arriving(state, now_ns):
        return True
    patience_ns = PATIENCE_NS if record.cost_us > LONG_US else round(record.cost_us * 1e3)
    return now_ns - max(record.batch.accepted_ns, state.dispatch.gang_ended_ns) > patience_ns


def short_tasks_arriving(state: scheduler_state.SchedulerState, now_ns: int) -> bool:
    """Return whether short tasks of one rank wait, or one was submitted within RECENT_NS."""
    if now_ns - state.dispatch.last_short_ns < RECENT_NS:
        return True
    return any(
        p.spec.ranks == 1 and p.queue.lanes.has_short() for p in state.cluster.pools.values()
    )


def long_slots(host: state_nodes.NodeState) -> int:
    """Return the slots of a node that long tasks have."""
    return sum(
        w.slots if w.ranks == 1 else n
        for w in host.workers.values()
        if w.slots and w.held.cost_us > LONG_US
        for h, n in w.host_ranks
        if h is host
    )


def long_memory(host: state_nodes.NodeState) -> int:
    """Return the bytes of a node that were granted to long tasks."""
    workers = (w for w in host.workers.values() if w.host is host)
    return sum(w.memory_bytes for w in workers if w.held.cost_us > LONG_US)


# --- slots taken back from running tasks ----------------------------------------------------


def note_resizable(
    state: scheduler_state.SchedulerState, worker: state_nodes.Worker, record: core.TaskRecord
) -> None:
    """Remember a worker whose task got several slots, if some may be taken back."""
    card = catalog.card(record.route.engine)
    if worker.slots > 1 and card is not None and card.parallel.resizable:
        worker.held.granted_slots = worker.slots
        state.cluster.multi_slot_workers[worker.name] = worker


def take_back_slot(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, now_ns: int
) -> state_nodes.Worker | None:
    """Free a slot for the pool's first short task and return the idle worker that is to run the
    task. Return None if no slot can be freed or no task needs one."""
    if not state.cluster.multi_slot_workers:
        return None
    record = pool.queue.head(False)
    if record is None or record.cost_us > LONG_US:
        return None
    idle = [
        worker
        for worker in pool.workers.free()
        if worker.host.free_slots <= 0
        and account_isolation.serves(state, worker, record)
        and record.route.memory_bytes <= state_nodes.memory_for(worker, record)
    ]
    for worker in state.cluster.multi_slot_workers.values():
        host, running = worker.host, _running(worker)
        if running is None or worker.slots < 2 or host.claimed_slots:
            continue
        idle_worker = next((candidate for candidate in idle if candidate.host is host), None)
        if idle_worker is not None:
            worker.held.resize(worker, now_ns)
            worker.slots -= 1
            host.free_slots += 1
            state.dispatch.slot_taken_ns = now_ns
            state.deferred_actions.append(_set_threads(worker, running))
            return idle_worker
    return None


def return_slots(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.Action]:
    """Return slots that were taken back, unless one was taken within RECENT_NS. While short tasks
    arrive, one slot stays free on each node."""
    actions: list[core.Action] = []
    if not state.cluster.multi_slot_workers or now_ns - state.dispatch.slot_taken_ns < RECENT_NS:
        return actions
    retained = now_ns - state.dispatch.last_short_ns < RECENT_NS
    for worker in state.cluster.multi_slot_workers.values():
        host, running = worker.host, _running(worker)
        spare = host.free_slots - host.claimed_slots - host.backfill_slots - retained
        count = min(spare, worker.held.granted_slots - worker.slots)
        if state.shares.limits.caps_slots and running is not None:
            count = min(count, held_back.slots_left(state, running.batch.association))
        if running is not None and count > 0 and state.calendar.planned:
            pool = state.cluster.pools[worker.pool]
            most = planned_reservations.spare_slots(state, pool, running, now_ns, besides=worker)
            count = min(count, most - worker.slots)
        if running is not None and count > 0:
            worker.held.resize(worker, now_ns)
            worker.slots += count
            host.free_slots -= count
            actions.append(_set_threads(worker, running))
    return actions


def _running(worker: state_nodes.Worker) -> core.TaskRecord | None:
    """Return the worker's task if it holds a single task that it has reported as running; else
    None."""
    if len(worker.held) != 1 or worker.leaving:
        return None
    (record,) = worker.held.values()
    return record if record.phase == core.Phase.RUNNING else None


def _set_threads(worker: state_nodes.Worker, record: core.TaskRecord) -> core.SetThreads:
    return core.SetThreads(worker.name, record.number, record.fence, worker.slots)
