"""Chunks: tasks that travel together to one worker.

A chunk has up to CHUNK_US of expected work, or LONG_CHUNK_US of tasks that are not short or where
many wait; the rest of a turn makes it longer, up to MAX_WITH_REST of that. A task above ALONE_US
travels alone. To a paced device a task is sent shortly before it is free.
"""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.model.accounts import Waits
from simenv.scheduler import core
from simenv.scheduler.dispatch import account_isolation, held_back
from simenv.scheduler.dispatch.kept_states import grant
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
from simenv.scheduler.state import nodes, pools, scheduler_state


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
    worker: nodes.Worker,
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
            state, pool, chunk, count, max_us, max_bytes, reservation, worker.dedication.account
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
    worker.held.cost_us += total_us
    pool.assigned += len(chunk)
    worker.held.newest_tasks = len(chunk)
    if worker.state != WorkerState.BUSY and now_ns - worker.held.since_ns > PAUSE_NS:
        worker.held.since_ns = now_ns
    if worker.state != WorkerState.BUSY:
        worker.held.charged_ns = now_ns
        pool.workers.move(worker, WorkerState.BUSY)
    pool.workers.open[name] = worker
    worker.report.idle_beats = 0
    state.dispatch.grants += 1
    worker.held.grant = state.dispatch.grants
    is_limited = _is_limited(state, head.batch)
    if is_limited:  # then a chunk has tasks of one association
        worker.held.newest_of[head.batch.association] = chunk[-1]
    if is_limited or (state.shares.limits.budgets_left and head.batch.units):
        held_back.refresh(state, now_ns)
    slots = worker.held.slots = worker.slots if worker.ranks == 1 else 1
    memory_bytes = worker.reserved + worker.memory_bytes
    return core.AssignTasks(worker.name, slots, memory_bytes, announce, chunk, worker.kept.bytes)


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
    pool: pools.Pool,
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
    at before each chunk, or tasks are code of users, which must not run in the time of others. The
    next turn is not cut in two to fill the lesser part of a chunk, nor is a turn for its little
    rest."""
    head, queue = chunk[0], pool.queue
    batch, route = head.batch, head.route
    total_us, memory = head.cost_us, route.memory_bytes
    size = _bytes(head)
    one_association = (
        pool.runs_users_code or _is_limited(state, batch) or state.dispatch.deferred_gangs
    )
    others, ends = not one_association, False
    while len(chunk) < count and not ends:
        others = (
            others and len(chunk) < NEARLY_FULL * CHUNK_TASKS and total_us < NEARLY_FULL * max_us
        )
        lane, ahead = queue.lanes.upcoming(reservation, chunk[-1], others=others)
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
