"""Chunks of tasks, grants for kept states, and the clock of a paced device.

Memory grants for states that workers keep between the parts of a circuit, and the choice of such a
worker. The memory is granted from the worker's node, in addition to the memory of its tasks, and
charged to the owner of the newest of these states. Each chunk tells the worker the size of its
grant. The worker drops a state by its own clock; the grant ends a margin later, or at once if a
waiting task needs the memory: a state that was dropped is computed again. Small states need no
grant.

Chunks: tasks that travel together to one worker. A chunk has up to CHUNK_US of expected work, or
LONG_CHUNK_US of tasks that are not short or where many wait; the rest of a turn makes it longer, up
to MAX_WITH_REST of that. A task above ALONE_US travels alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from simenv.model import WorkerState
from simenv.model.accounts import Waits
from simenv.scheduler import core
from simenv.scheduler.dispatch import account_isolation, held_back
from simenv.scheduler.queueing.lanes import (
    ALONE_US,
    CHUNK_TASKS,
    CHUNK_US,
    LONG_CHUNK_US,
    MEDIUM_US,
    balanced_us,
    most_us,
)
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.state import pools, scheduler_state
from simulators.catalog.costs import FREE_STATES_BYTES, state_bytes

NODE_SHARE = 4  # all grants of a node take at most 1/NODE_SHARE of its memory


def grant(
    state: scheduler_state.SchedulerState, worker: pools.Worker, record: core.TaskRecord
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
    host, missing_bytes = worker.host, max(0, state_memory_bytes - worker.kept_bytes)
    if _exceeds_limit(state, worker, record.batch.owner, worker.kept_bytes + missing_bytes):
        if not worker.held:  # its state must not use the grant of another owner
            state.cluster.release_kept_states(worker)
        return
    granted = sum(other.kept_bytes for other in host.workers.values() if other.host is host)
    free = host.free_memory - host.claimed_memory
    if missing_bytes > free or granted + missing_bytes > host.node.memory_bytes // NODE_SHARE:
        return
    host.free_memory -= missing_bytes
    worker.kept_bytes += missing_bytes
    state.cluster.state_keepers[worker.name] = worker
    worker.kept_owner = record.batch.owner
    worker.kept_s, worker.kept_until_ns = max(worker.kept_s, parts.keep_s), 0


def _exceeds_limit(
    state: scheduler_state.SchedulerState, worker: pools.Worker, owner: str, kept_bytes: int
) -> bool:
    """Return whether states of `owner` would exceed the limit, with `kept_bytes` of this worker."""
    limit = state.shares.limits.of(owner).max_state_bytes
    if not limit:
        return False
    own = worker.kept_bytes if worker.kept_owner == owner else 0
    return state.cluster.state_bytes(owner) - own + kept_bytes > limit


def expire(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """End the grants whose time is over. A worker drops states only while it waits for tasks."""
    for worker in list(state.cluster.state_keepers.values()):
        if 0 < worker.kept_until_ns <= now_ns and not worker.held:
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


def _ready_workers(pool: pools.Pool) -> dict[int, list[pools.Worker]]:
    """Return the idle workers with a free slot by reservation; 0: without one."""
    workers: dict[int, list[pools.Worker]] = {}
    for worker in pool.idle_workers.values():
        if not worker.leaving and _has_slot(worker):
            workers.setdefault(worker.reservation_id, []).append(worker)
    return workers


def _has_slot(worker: pools.Worker) -> bool:
    """Return whether a task could start; a worker of a reservation retains its slot."""
    return bool(worker.reservation_id) or worker.host.free_slots > worker.host.claimed_slots


def _free_memory_for(
    state: scheduler_state.SchedulerState, workers: list[pools.Worker], head: core.TaskRecord
) -> list[core.Action]:
    """Drop states on the node that lacks the least memory for the task."""
    lacking = {
        worker.host.node.name: (
            head.route.memory_bytes - pools.memory_for(worker, head),
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


def idle_bytes(host: pools.NodeState) -> int:
    """Return the memory of a node that is granted to states of idle workers."""
    return sum(worker.kept_bytes for worker in _idle_workers_with_states(host))


def drop(
    state: scheduler_state.SchedulerState,
    host: pools.NodeState,
    need_bytes: int,
    head: core.TaskRecord | None = None,
) -> list[core.Action]:
    """Free so much memory of idle workers' states, or all of it, in the order of their expiry; the
    state from which `head` continues comes last."""
    parts = None if head is None else head.batch.terms.parts
    own = "" if parts is None else parts.worker
    actions: list[core.Action] = []
    keepers = _idle_workers_with_states(host)
    for worker in sorted(keepers, key=lambda w: (w.name == own, w.kept_until_ns)):
        if need_bytes <= 0:
            break
        need_bytes -= worker.kept_bytes
        state.cluster.release_kept_states(worker)
        actions.append(core.DropKeptStates(worker.name))
    return actions


def _idle_workers_with_states(host: pools.NodeState) -> Iterator[pools.Worker]:
    for worker in host.workers.values():
        if worker.kept_bytes and worker.host is host and worker.state == WorkerState.IDLE:
            yield worker


def worker_with_states(
    pool: pools.Pool, record: core.TaskRecord, reservation: int = 0
) -> pools.Worker | None:
    """Return the idle worker with a free slot that may have the state from which a task continues;
    None if there is none. `reservation`: of the workers that may run the task; 0: of none."""
    parts = record.batch.terms.parts
    worker = pool.workers.get(parts.worker) if parts is not None else None
    if worker is None or worker.state != WorkerState.IDLE or worker.leaving:
        return None
    if worker.reservation_id != reservation or not _has_slot(worker):
        return None
    if worker.account not in (None, account_isolation.account_of(record)):
        return None
    return worker


def may_send(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> bool:
    """Return whether the clock of a paced device allows the pool's next task to be sent. True if
    the device is free soon, or if the task already has a run on the device."""
    device = state.devices.paced.all[pool.device]
    if device.is_open(now_ns):
        return True
    head = pool.queue.head() if device.waiting else None
    return head is not None and head.number in device.waiting


def reserve(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    records: list[core.TaskRecord],
    now_ns: int,
) -> None:
    """Reserve the device's time for tasks that are being sent."""
    for record in records:
        state.devices.paced.reserve(
            pool.device, record, core.expected_ns(record.route, record.spec), now_ns
        )


LEAST_CHUNK_US = 300.0  # less work in a chunk costs the service more than it saves
CHUNK_ASSIGNS = 16  # a chunk costs the service as much as so many of its tasks
NEARLY_FULL = 7 / 8  # such a chunk is not filled from the next turn
MAX_WITH_REST = 5 / 4  # of the work of a chunk, with all that is left of a turn
CHUNK_BYTES = 8 * 2**20  # of programs and bindings: no chunk may pass what a message can carry
PAUSE_NS = 2_000_000  # between two chunks of a worker for which others wait
WAITED_NS = 1_000_000  # the reasons of a shorter wait are not kept
ANNOUNCE_US = 2_000.0  # from here a worker says Started before it runs


def ahead_us(cost_us: float) -> float:
    """Work that a worker may hold, of tasks of that cost, when it is sent the next chunk."""
    return CHUNK_US if cost_us < MEDIUM_US else LONG_CHUNK_US / 2


def build_chunk(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    worker: pools.Worker,
    head: core.TaskRecord,
    sharers: int,
    now_ns: int,
    reservation: int = 0,
) -> core.AssignTasks:
    """Take a chunk that begins with `head` from the queue and mark its tasks as sent. `sharers`:
    workers that could take a share of the waiting tasks. `reservation`: take from the lanes of this
    reservation."""
    queue, host, exclusive = pool.queue, worker.host, pool.is_exclusive
    granted = worker.reserved + worker.memory_bytes  # one task runs at a time: the largest counts
    max_bytes = granted
    if worker.ranks == 1:
        max_bytes += max(0, host.free_memory - host.claimed_memory)
    queue.pop(head)
    account_isolation.begin_account(state, worker, head, now_ns)
    chunk = [head]
    total_us = head.cost_us
    memory = head.route.memory_bytes
    is_single = exclusive or (pool.spec.pace and bool(pool.spec.drift))
    if queue.count and head.cost_us < ALONE_US and not (head.incident or is_single):
        share = -(-(len(queue) + 1) // sharers)
        # While workers are idle, all small tasks in flight wait for the service: they count too.
        # That long ones of the pool count with them costs few that come alone at most CHUNK_US.
        waiting = len(queue) + 1
        if worker.state != WorkerState.BUSY:
            waiting += pool.assigned
        share = max(share, _least_tasks(head.cost_us, waiting))
        count = min(CHUNK_TASKS, share, state.devices.controls.assignable_tasks(pool))
        max_us = most_us(head.cost_us, len(queue) + 1)
        total_us, memory = _add_similar_tasks(
            state, queue, chunk, count, max_us, max_bytes, reservation, worker.account
        )
    state.dispatch.assigns_left -= CHUNK_ASSIGNS + len(chunk)
    if state.devices.controls.is_restricting:
        state.devices.controls.count_assigned(pool, len(chunk))
    if memory > granted:
        worker.memory_bytes += memory - granted
        host.free_memory -= memory - granted
    if head.batch.terms.parts is not None:
        grant(state, worker, head)
    announce = head.cost_us > ANNOUNCE_US or bool(head.incident) or exclusive
    if pool.spec.pace:
        reserve(state, pool, chunk, now_ns)
    batch: core.SubmitBatch | None = None
    leaf, waits = head.batch.association, _waits(queue, head.batch, now_ns)
    fence, name, held = state.epoch << core.ATTEMPT_BITS, worker.name, worker.held
    for record in chunk:
        if record.batch is not batch:
            batch = record.batch
            if batch.association != leaf:
                leaf, waits = batch.association, _waits(queue, batch, now_ns)
        record.phase = core.SENT
        record.attempts += 1
        record.fence = fence + record.attempts
        record.worker = name
        record.sent_ns = now_ns
        record.announced = announce
        if waits:
            record.waits += waits
        held[record.number] = record
    worker.held_us += total_us
    pool.assigned += len(chunk)
    worker.newest_tasks = len(chunk)
    if worker.state != WorkerState.BUSY and now_ns - worker.working_since_ns > PAUSE_NS:
        worker.working_since_ns = now_ns
    if worker.state != WorkerState.BUSY:
        pool.move(worker, WorkerState.BUSY)
    pool.open_workers[name] = worker
    worker.idle_beats = 0
    state.dispatch.grants += 1
    worker.granted = state.dispatch.grants
    is_limited = _is_limited(state, head.batch)
    if is_limited:  # then a chunk has tasks of one association
        worker.newest_of[head.batch.association] = chunk[-1]
    if is_limited or (state.shares.limits.budgets_left and head.batch.units):
        held_back.refresh(state, now_ns)
    slots = worker.slots if worker.ranks == 1 else 1
    memory_bytes = worker.reserved + worker.memory_bytes
    return core.AssignTasks(worker.name, slots, memory_bytes, announce, chunk, worker.kept_bytes)


def _is_limited(state: scheduler_state.SchedulerState, batch: core.SubmitBatch) -> bool:
    """Return whether a limit of running slots holds for these tasks."""
    caps = state.shares.limits.caps_slots
    return caps and bool(state.shares.slot_limits(batch.association))


def _waits(queue: PoolQueue, batch: core.SubmitBatch, now_ns: int) -> Waits:
    """Return why the tasks of this association that are assigned now have waited, from the first
    one's batch on."""
    is_long = now_ns - batch.accepted_ns > WAITED_NS
    return queue.clock.read(batch.association, now_ns) if is_long else ()


def _least_tasks(cost_us: float, waiting: int) -> int:
    """Return the least number of tasks of a chunk, of that cost each."""
    if cost_us > LEAST_CHUNK_US:
        return 1
    least_us = max(LEAST_CHUNK_US, balanced_us(cost_us, waiting))
    return int(min(LONG_CHUNK_US, least_us) // max(1.0, cost_us))


def _add_similar_tasks(
    state: scheduler_state.SchedulerState,
    queue: PoolQueue,
    chunk: list[core.TaskRecord],
    count: int,
    max_us: float,
    max_bytes: int,
    reservation: int,
    account: str | None,
) -> tuple[float, int]:
    """Add tasks like the first one until the chunk has `count` tasks or `max_us` of work. Return
    its work in microseconds, and the memory of its largest task, which is at most `max_bytes`.
    `account`: the only one whose tasks are added; None: any. Tasks of the next turn follow, so that
    many users cost no more messages than one, unless limits of slots or turns of gangs are looked
    at before each chunk. The next turn is not cut in two to fill the lesser part of a chunk, nor is
    a turn for its little rest."""
    head = chunk[0]
    batch, route = head.batch, head.route
    total_us, memory = head.cost_us, route.memory_bytes
    size = _bytes(head)
    one_association = _is_limited(state, batch) or state.dispatch.deferred_gangs
    others, ends = not one_association, False
    while len(chunk) < count and not ends:
        others = (
            others and len(chunk) < NEARLY_FULL * CHUNK_TASKS and total_us < NEARLY_FULL * max_us
        )
        lane, ahead = queue.upcoming(reservation, chunk[-1], others=others)
        if not ahead:
            break
        with_ahead_us = total_us + ahead * lane[0].cost_us
        is_rest = ahead == len(lane) and with_ahead_us <= MAX_WITH_REST * max_us
        stop_us = MAX_WITH_REST * max_us if is_rest else max_us
        if lane[0].batch.association != batch.association:  # the turn is over
            is_half_full = 2 * len(chunk) > count or 2 * total_us > max_us
            fits = len(chunk) + ahead <= count and with_ahead_us <= stop_us
            if is_half_full and not fits:
                break
        old_count, old_us = len(chunk), total_us
        stop = min(count, old_count + ahead)
        while lane and len(chunk) < stop:
            record = lane[0]
            if record.phase != core.WAITING:
                lane.popleft()
                continue
            spec = record.spec
            size += len(spec.program) + len(spec.bindings)
            if record.batch is not batch:  # the terms of the batch travel too
                batch = record.batch
                size += batch.share_bytes
                # A state that it leaves must not use the grant of another owner.
                ends = (batch.terms.parts is not None and batch.owner != head.batch.owner) or (
                    batch.association != head.batch.association
                    and (one_association or _is_limited(state, batch))
                )
            if (
                ends
                or total_us + record.cost_us > stop_us
                or record.cost_us >= ALONE_US
                or record.incident
                or (account is not None and account_isolation.account_of(record) != account)
                or (
                    record.route is not route
                    and not _can_share_chunk(record.route, route, max_bytes)
                )
                or size > CHUNK_BYTES
            ):
                ends = True
                break
            if record.route is not route:
                route = record.route
                memory = max(memory, route.memory_bytes)
            total_us += record.cost_us
            chunk.append(lane.popleft())
        queue.remove_taken(chunk[-1], len(chunk) - old_count, total_us - old_us)
    return total_us, memory


def _can_share_chunk(route: core.Route, other: core.Route, max_bytes: int) -> bool:
    """Return whether tasks of these routes may share a chunk for a worker with `max_bytes`."""
    return (
        route.engine == other.engine
        and route.reason == other.reason
        and route.memory_bytes <= max_bytes
    )


def _bytes(record: core.TaskRecord) -> int:
    return len(record.spec.program) + len(record.spec.bindings)
