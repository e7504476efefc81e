"""Assignment of waiting tasks to workers, and of slots to tasks.

Each busy worker is sent a second chunk of small tasks ahead (prefetch), so that it never waits for
the service. Tasks above PREFETCH_MAX_US (`candidates`) are not prefetched: their round trip is a
small share of their time, and prefetch would unbalance the load. Pools take turns: the pool with
the fewest slots gets the next free one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from simenv.model import WorkerState
from simenv.model.accounts import WaitReason
from simenv.scheduler.core import UNLIMITED, AssignTasks, TaskRecord
from simenv.scheduler.dispatch import (
    account_isolation,
    batching,
    candidates,
    dedicated_workers,
    gang_scheduling,
    held_back,
    kept_states,
    planned_reservations,
)
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.state import nodes, pools, scheduler_state
from simenv.scheduler.state.candidates import Candidates

PARALLEL_FROM_US = 5_000.0  # below this time a second thread costs more than it saves
ASSIGNS = 2_048  # at most in one pass, of single-rank tasks; see `batching.CHUNK_ASSIGNS`
FEW = 4  # idle workers, of which the best one is found without a heap
FIRST_ASSIGNS = 512  # while the acceptance of more tasks than these waits for the end of the pass


def assign(state: scheduler_state.SchedulerState, now_ns: int) -> list[AssignTasks]:
    """Assign all tasks that can be assigned now; the returned tasks are already marked as sent."""
    assignments: list[AssignTasks] = []
    state.devices.paced.now_ns = now_ns
    candidates.begin_pass(state, now_ns)
    is_plain = not (state.dedicated or state.cluster.gangs or state.dispatch.deferred_gangs)
    if is_plain and not any(pool.queue.count for pool in state.cluster.pools.values()):
        return assignments
    limits = state.shares.limits
    if limits.caps_slots or limits.changed or limits.removed or limits.budgets_left:
        limits.changed = False
        held_back.refresh(state, now_ns)
    if state.devices.controls.is_restricting:
        _refresh_assignable_tasks(state)
    if state.dedicated:
        dedicated_workers.find_workers(state, now_ns)
        _to_all_dedicated(state, assignments, now_ns)
    waiting = [p for p in state.cluster.pools.values() if p.spec.ranks == 1 and _may_send(state, p)]
    if state.cluster.gangs:
        singles = [pool for pool in waiting if not pool.is_exclusive]
        gang_scheduling.assign_gangs(state, singles, assignments, now_ns)
    for pool in [pool for pool in waiting if pool.is_exclusive]:
        waiting.remove(pool)
        while _may_send(state, pool):
            assignment = _to_hardware(state, pool, now_ns)
            if assignment is None:
                break
            assignments.append(assignment)
    if len(waiting) > 1:
        _assign_round_robin(state, waiting, assignments, now_ns)
    elif waiting:
        pool = waiting[0]
        while _may_send(state, pool):
            _assign_deferred(state, waiting, assignments, now_ns)
            assignment = _next_assignment(state, pool, now_ns)
            if assignment is None:
                break
            assignments.append(assignment)
    _assign_deferred(state, (), assignments, now_ns)
    candidates.begin_pass(state, now_ns)
    return assignments


def _assign_deferred(
    state: scheduler_state.SchedulerState,
    singles: Iterable[pools.Pool],
    assignments: list[AssignTasks],
    now_ns: int,
) -> None:
    """Assign tasks of several ranks whose turn has come since they were deferred."""
    if state.dispatch.deferred_gangs:
        gang_scheduling.assign_gangs(state, singles, assignments, now_ns)
        state.dispatch.candidates.clear()


def note_waits(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Note for each queue why its next task was not assigned."""
    for pool in state.cluster.pools.values():
        queue = pool.queue
        if not queue.count:
            queue.clock.stop()
            continue
        if queue.clock.is_current(now_ns):
            continue
        head = queue.head()
        reason = WaitReason.LIMIT if head is None else _wait_reason(state, pool)
        first = "" if head is None else head.batch.association
        removed: Collection[str] = ()
        if state.shares.limits.removed:
            user_of, out = state.shares.fair_share.user, state.shares.limits.removed
            removed = {leaf for leaf in queue.lanes.held_back if user_of(leaf) in out}
        queue.clock.note(reason, first, queue.lanes.held_back, now_ns, removed)


def _wait_reason(state: scheduler_state.SchedulerState, pool: pools.Pool) -> WaitReason:
    """Return why the next task of a pool was not assigned."""
    if not _may_send(state, pool):
        return WaitReason.DEVICE
    if pool.awaited_accounts and (
        pool.switches_account
        or any(
            w.leaving == account_isolation.REASON and not w.held
            for w in pool.workers.leaving.values()
        )
    ):
        return WaitReason.ISOLATION
    if not (pool.workers.idle or pool.workers.busy):
        hosts = state.cluster.nodes.hosts.values()
        is_possible = any(host.is_up or host.node.pool for host in hosts)  # jobs bring their nodes
        return WaitReason.STARTING if is_possible else WaitReason.NODES
    if any(worker.state == WorkerState.IDLE for worker in pool.workers.dedicated_to()):
        return WaitReason.RESERVED
    if pool.spec.ranks == 1:
        return WaitReason.SLOTS
    singles = [p for p in state.cluster.pools.values() if p.spec.ranks == 1 and not p.is_exclusive]
    heads = gang_scheduling.first_tasks([pool, *singles])
    is_behind = pool.queue.is_shared and gang_scheduling.is_behind(
        state.shares.fair_share, heads[0], heads[1:]
    )
    return WaitReason.SHARE if is_behind else WaitReason.RANKS


def _may_send(state: scheduler_state.SchedulerState, pool: pools.Pool) -> bool:
    """Return whether a task waits in the pool and the controls, outages and clock of its device let
    it start."""
    if not pool.queue.count or (
        state.devices.controls.is_restricting and state.devices.controls.assignable_tasks(pool) <= 0
    ):
        return False
    if state.devices.outages and pool.device in state.devices.outages:
        return False
    return not pool.spec.pace or batching.may_send(state, pool, state.devices.paced.now_ns)


def _next_assignment(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> AssignTasks | None:
    assignment = None
    if pool.workers.idle or state.limits.isolates_accounts:  # which asks for an idle one
        assignment = _assigned_by(_to_worker, state, pool, now_ns)
    return assignment or _assigned_by(_prefetch_chunk, state, pool, now_ns)


def _refresh_assignable_tasks(state: scheduler_state.SchedulerState) -> None:
    """Recompute how many tasks may be assigned to the workers of each device."""
    state.devices.controls.set_assignable_tasks(
        {
            device: limit - sum(state.cluster.inflight(device)) if limit else UNLIMITED
            for device in {*state.devices.controls.all, *state.reservations.devices}
            for limit in (state.inflight_limit(device),)
        }
    )


def _assigned_by(
    assign: account_isolation.Assign,
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    now_ns: int,
) -> AssignTasks | None:
    if state.dispatch.assigns_left <= 0:  # the rest follows in the next pass, which comes at once
        return None
    if state.limits.isolates_accounts:
        return account_isolation.assign_by_account(state, pool, now_ns, assign)
    return assign(state, pool, now_ns)


def _to_worker(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> AssignTasks | None:
    """Assign a chunk to an idle worker with a slot; the slot may be taken back from a wide task."""
    head = pool.queue.head() if state.limits.isolates_accounts else None
    if head is None and (len(pool.workers.idle) > FEW or pool.spec.jobs is not None):
        found = candidates.idle(state, pool, _order(pool), now_ns)
        worker, idle = found.best(), found.count
    else:
        worker, idle = _worker_with_most_slots(state, pool, head, with_memory=False)
    if worker is not None:
        allow_long = pool.spec.pace or _may_be_long(state, pool, worker.host, now_ns)
        if not state.estimator.kernels_compiled and idle == 1 and pool.workers.live() > 1:
            allow_long = False  # it may compile for seconds
        return _to_idle(state, pool, worker, idle, now_ns, allow_long=allow_long)
    worker = gang_scheduling.take_back_slot(state, pool, now_ns)
    if worker is None:
        return None
    state.dispatch.candidates.clear()
    return _to_idle(state, pool, worker, 1, now_ns, allow_long=False)


def _order(pool: pools.Pool) -> str:
    """Return the order of idle workers by which a pass decides whether the next task may be long:
    a short one needs none besides that of nodes of jobs."""
    head = pool.queue.head() if pool.spec.jobs is not None else None
    is_short = head is not None and head.cost_us <= LONG_US
    return candidates.PACKED if is_short else candidates.SPREAD


def _to_all_dedicated(
    state: scheduler_state.SchedulerState, assignments: list[AssignTasks], now_ns: int
) -> None:
    """Assign tasks of reservations to their dedicated workers."""
    for pool in state.cluster.pools.values():
        for worker in pool.workers.dedicated_to():
            while worker.state == WorkerState.IDLE and _may_send(state, pool):
                assignment = _to_dedicated(state, pool, worker, now_ns)
                if assignment is None:
                    break
                assignments.append(assignment)
        for reservation in list(pool.workers.dedicated) if not pool.is_exclusive else ():
            while _may_send(state, pool):
                assignment = _prefetch_chunk(state, pool, now_ns, reservation)
                if assignment is None:
                    break
                assignments.append(assignment)


def _to_dedicated(
    state: scheduler_state.SchedulerState, pool: pools.Pool, worker: nodes.Worker, now_ns: int
) -> AssignTasks | None:
    """Assign a task to an idle dedicated worker, or to another worker of the reservation that keeps
    the state from which the task continues; a large task gets free slots in addition."""
    reservation = worker.dedication.reservation
    record = planned_reservations.head_in_time(state, pool, now_ns, reservation=reservation)
    if record is not None and record.batch.terms.parts is not None:
        preferred = kept_states.worker_with_states(pool, record, reservation)
        if preferred is not None and record.route.memory_bytes <= nodes.memory_for(
            preferred, record
        ):
            worker = preferred
    host = worker.host
    if record is None or record.route.memory_bytes > nodes.memory_for(worker, record):
        return None
    if nodes.is_late(host, pool.spec, record, now_ns):
        return None
    if not account_isolation.serves(state, worker, record):
        state.begin_retirement(worker, account_isolation.REASON, now_ns)
        return None
    if record.cost_us >= PARALLEL_FROM_US and not pool.is_exclusive:
        spare = host.free_slots - host.claimed_slots
        if record.cost_us > LONG_US:
            spare -= host.backfill_slots
        if state.calendar.planned:
            spare = min(spare, planned_reservations.spare_slots(state, pool, record, now_ns) - 1)
        if state.shares.limits.caps_slots:
            spare = min(spare, held_back.slots_left(state, record.batch.association) - 1)
        spare = max(0, spare)
        max_slots = min(record.route.max_slots, 1 + spare)
        slots = _slots_for(
            record.cost_us, max_slots, 1 + spare, len(pool.queue), pool.workers.live()
        )
        host.free_slots -= slots - worker.slots
        worker.slots = slots
    sharers = max(1, dedicated_workers.worker_count(state, reservation))
    return batching.build_chunk(state, pool, worker, record, sharers, now_ns, reservation)


def _to_hardware(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> AssignTasks | None:
    """Assign the next task to a worker that holds hardware; such a worker needs no slot."""
    for worker in pool.workers.free():
        record = planned_reservations.head_in_time(state, pool, now_ns)
        if record is not None and record.route.memory_bytes <= nodes.memory_for(worker, record):
            return batching.build_chunk(state, pool, worker, record, 1, now_ns)
    return None


def _assign_round_robin(
    state: scheduler_state.SchedulerState,
    waiting: list[pools.Pool],
    assignments: list[AssignTasks],
    now_ns: int,
) -> None:
    """Assign tasks of several pools: to idle workers first, in the pool with the fewest slots.
    Nothing is prefetched in a pool that has its fair share while another pool lacks slots for idle
    workers."""
    slots_of_pools = [_slots_granted(pool) for pool in waiting]
    candidates = list(range(len(waiting)))
    while candidates:
        index = min(candidates, key=slots_of_pools.__getitem__)
        pool = waiting[index]
        _assign_deferred(state, waiting, assignments, now_ns)
        assignment = None
        if _may_send(state, pool):
            assignment = _assigned_by(_to_worker, state, pool, now_ns)
        if assignment is None:
            candidates.remove(index)
        else:
            assignments.append(assignment)
            slots_of_pools[index] += assignment.slots
    if not any(_may_send(state, pool) for pool in waiting):
        return
    fair_share = sum(h.node.slots for h in state.cluster.nodes.up()) / len(waiting)
    starved = any(
        slots < fair_share and _may_send(state, pool) and pool.workers.free()
        for pool, slots in zip(waiting, slots_of_pools, strict=True)
    )
    for pool, slots in zip(waiting, slots_of_pools, strict=True):
        if starved and slots >= fair_share:
            continue
        while _may_send(state, pool):
            assignment = _assigned_by(_prefetch_chunk, state, pool, now_ns)
            if assignment is None:
                break
            assignments.append(assignment)


def _slots_granted(pool: pools.Pool) -> int:
    return sum(worker.slots for worker in pool.workers.values())


def _worker_with_most_slots(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    record: TaskRecord | None = None,
    *,
    with_memory: bool = True,
) -> tuple[nodes.Worker | None, int]:
    """Return the idle worker on the node with the most free slots, and the number of idle workers
    that could get a slot. With `record`, only workers that serve its account, those first that did
    so before, and, `with_memory`, that have enough memory for this task."""
    best, max_free, idle = None, -UNLIMITED, 0
    for worker in pool.workers.free():
        host = worker.host
        free = host.free_slots - host.claimed_slots
        if free <= 0 or not (record is None or account_isolation.serves(state, worker, record)):
            continue
        idle += 1
        free -= host.backfill_slots
        if worker.dedication.account is not None:
            free += UNLIMITED
        if free > max_free and (
            record is None
            or not with_memory
            or record.route.memory_bytes <= nodes.memory_for(worker, record)
        ):
            best, max_free = worker, free
    return best, idle


def _to_idle(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    worker: nodes.Worker,
    idle: int,
    now_ns: int,
    *,
    allow_long: bool,
) -> AssignTasks | None:
    host = worker.host
    record = planned_reservations.head_in_time(state, pool, now_ns, allow_long=allow_long)
    if pool.spec.jobs is not None:
        found, record = _long_enough(state, pool, record, now_ns, allow_long=allow_long)
        if found is None:
            return None
        worker, host = found, found.host
    if record is None or not account_isolation.serves(state, worker, record):
        return None
    if record.batch.terms.parts is not None:
        worker = kept_states.worker_with_states(pool, record) or worker
        host = worker.host
    if record.route.memory_bytes > nodes.memory_for(worker, record):
        other, _ = _worker_with_most_slots(state, pool, record)
        if other is None:
            return None
        worker, host = other, other.host
    slots, cost_us = 1, record.cost_us
    if pool.spec.pace or not state.estimator.kernels_compiled:
        # A simulation may be far shorter than the time on the device, or than its compilation.
        cost_us = state.estimator.simulation_us(record.route, record.spec)
    if cost_us >= PARALLEL_FROM_US and record.route.max_slots > 1:  # a shorter task gets one slot
        slots = _slots_for(
            cost_us,
            _slot_bound(state, pool, record, host, now_ns),
            sum(max(0, h.free_slots - h.claimed_slots) for h in state.cluster.nodes.up()),
            len(pool.queue),
            max(
                idle, pool.spec.max - pool.workers.live() + idle
            ),  # workers that could share the slots
        )
    host.free_slots -= slots
    worker.slots = slots
    if slots > 1:
        gang_scheduling.note_resizable(state, worker, record)
    assignment = batching.build_chunk(state, pool, worker, record, idle, now_ns)
    candidates.taken(state, worker)
    return assignment


def _long_enough(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    record: TaskRecord | None,
    now_ns: int,
    *,
    allow_long: bool,
) -> tuple[nodes.Worker | None, TaskRecord | None]:
    """Return the first task that an idle worker has time and memory for, and that worker: on the
    node with the fewest free slots, of these the one whose job ends first, so that others become
    idle and end. Tasks for which the rest of all idle workers' jobs is too short are set aside."""
    best = candidates.idle(state, pool, candidates.PACKED, now_ns).best()
    if (
        record is not None
        and best is not None
        and not nodes.is_late(best.host, pool.spec, record, now_ns)
        and record.route.memory_bytes <= nodes.memory_for(best, record)
    ):
        return best, record
    idle = [w for w in pool.workers.free() if w.host.free_slots > w.host.claimed_slots]
    while record is not None and idle:
        in_time = [w for w in idle if not nodes.is_late(w.host, pool.spec, record, now_ns)]
        required_bytes = record.route.memory_bytes
        fitting = [w for w in in_time if required_bytes <= nodes.memory_for(w, record)]
        if fitting:
            return min(fitting, key=lambda w: (w.host.free_slots, w.host.end_ns)), record
        if in_time:
            break
        pool.late_until_ns = max(pool.late_until_ns, *(w.host.end_ns for w in idle))
        pool.queue.postpone(record)
        record = pool.queue.head(allow_long)
    return None, None


def _prefetch_chunk(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int, reservation: int = 0
) -> AssignTasks | None:
    """Assign one more chunk to the least loaded worker that is busy with small tasks.
    `reservation`: among its dedicated workers; 0: among workers without a reservation."""
    if pool.spec.pace or not pool.queue.lanes.has_short():
        return None
    if reservation or state.limits.isolates_accounts:
        found = _ahead_of_few(state, pool, now_ns, reservation)
    else:
        found = candidates.ahead(state, pool, now_ns)
    best = found.best()
    if best is None:
        return None
    record = planned_reservations.head_in_time(
        state, pool, now_ns, allow_long=False, reservation=reservation
    )
    if record is None or record.incident or record.cost_us > candidates.PREFETCH_MAX_US:
        return None
    if not account_isolation.serves(state, best, record):  # the first ones were set aside
        return None
    if pool.runs_users_code and any(
        held.batch.association != record.batch.association for held in best.held.values()
    ):
        return None  # the task before would run in the time of this one, if it answered early
    host = best.host
    free = max(0, host.free_memory - host.claimed_memory)
    if record.route.memory_bytes > free + best.reserved + best.memory_bytes:
        return None
    assignment = batching.build_chunk(state, pool, best, record, found.count, now_ns, reservation)
    candidates.taken(state, best)
    return assignment


def _ahead_of_few(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int, reservation: int
) -> Candidates:
    """Return the candidates of `candidates.ahead` that serve one reservation, or the account of the
    first waiting task."""
    isolates = state.limits.isolates_accounts
    first = pool.queue.head(False, reservation) if isolates else None
    among = pool.workers.dedicated_to(reservation) if reservation else pool.workers.values()
    return candidates.ahead_among(
        [
            worker
            for worker in among
            if not worker.leaving
            and worker.dedication.reservation == reservation
            and (first is None or account_isolation.serves(state, worker, first))
        ],
        now_ns,
    )


def _may_be_long(
    state: scheduler_state.SchedulerState, pool: pools.Pool, host: nodes.NodeState, now_ns: int
) -> bool:
    """Return whether the next task may be long: not on a node's last slot while short tasks
    arrive."""
    free = host.free_slots - host.claimed_slots - host.backfill_slots
    if free <= 0:  # all free slots are claimed
        return False
    if free > 1 or host.node.slots == 1:
        return True
    record = pool.queue.head()
    if record is None or record.cost_us <= LONG_US:
        return True
    waited_ns = now_ns - record.batch.accepted_ns
    return waited_ns > gang_scheduling.PATIENCE_NS or not _short_tasks_arriving(state, pool, now_ns)


def _short_tasks_arriving(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int
) -> bool:
    return (
        pool.queue.lanes.has_short()
        or now_ns - state.dispatch.last_short_ns < gang_scheduling.RECENT_NS
    )


def _slot_bound(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    record: TaskRecord,
    host: nodes.NodeState,
    now_ns: int,
) -> int:
    """Return the most slots that a task may get; a long task leaves a slot to short ones."""
    free = host.free_slots - host.claimed_slots
    keeps_one = host.node.slots > 1 and (
        now_ns - state.dispatch.last_short_ns < gang_scheduling.RECENT_NS
        or not state.estimator.kernels_compiled
    )
    if record.cost_us > LONG_US:
        free = max(1, free - host.backfill_slots - keeps_one)
    if state.shares.limits.caps_slots:
        free = max(1, min(free, held_back.slots_left(state, record.batch.association)))
    if state.calendar.planned:
        free = min(free, planned_reservations.spare_slots(state, pool, record, now_ns))
    return min(record.route.max_slots, free)


def _slots_for(cost_us: float, max_slots: int, free: int, waiting: int, num_workers: int) -> int:
    """Return the number of slots for a task about to start: all free ones, or its share if others
    wait. `waiting` includes this task. `num_workers`: workers that could take a task now or
    soon."""
    if cost_us < PARALLEL_FROM_US or max_slots <= 1:
        return 1
    share = free // max(1, min(waiting, num_workers))
    return max(1, min(max_slots, share))
