"""Chunks: tasks that travel together to one worker.

A chunk has up to CHUNK_US of expected work, or MEDIUM_CHUNK_US of tasks that are not short; a task
above ALONE_US travels alone.
"""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.scheduler.core.actions import AssignTasks
from simenv.scheduler.core.types import ATTEMPT_BITS, SENT, WAITING, Route, TaskRecord
from simenv.scheduler.dispatch import device_clock, kept_states
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.state import owner_usage
from simenv.scheduler.state.pools import Pool, Worker
from simenv.scheduler.state.state import SchedulerState

CHUNK_US = 1_500.0
MEDIUM_US = 500.0  # from here on a task is so long that few share a chunk:
MEDIUM_CHUNK_US = 5_000.0  # those have more work, and its worker returns a part of it on the way
CHUNK_TASKS = 128
CHUNK_BYTES = 8 * 2**20  # of programs and bindings: no chunk may pass what a message can carry
ALONE_US = 2_500.0
PAUSE_NS = 2_000_000  # between two chunks of a worker for which others wait
ANNOUNCE_US = 2_000.0  # from here a worker says Started before it runs


def ahead_us(cost_us: float) -> float:
    """Work that a worker may hold, of tasks of that cost, when it is sent the next chunk."""
    return CHUNK_US if cost_us < MEDIUM_US else MEDIUM_CHUNK_US / 2


def build_chunk(
    state: SchedulerState,
    pool: Pool,
    worker: Worker,
    head: TaskRecord,
    sharers: int,
    now_ns: int,
    reservation: int = 0,
) -> AssignTasks:
    """Take a chunk that begins with `head` from the queue and mark its tasks as sent.

    `sharers`: workers that could take a share of the waiting tasks. `reservation`: take from the
    lanes of this reservation.
    """
    queue, host, exclusive = pool.queue, worker.host, pool.is_exclusive
    granted = worker.reserved + worker.memory_bytes  # one task runs at a time: the largest counts
    max_bytes = granted
    if worker.ranks == 1:
        max_bytes += max(0, host.free_memory - host.claimed_memory)
    queue.pop(head)
    chunk = [head]
    total_us = head.cost_us
    memory = head.route.memory_bytes
    is_single = exclusive or (pool.spec.pace and bool(pool.spec.drift))
    if head.cost_us < ALONE_US and not (head.incident or is_single):
        share = -(-(len(queue) + 1) // sharers)
        count = min(CHUNK_TASKS, share, state.controls.assignable_tasks(pool))
        total_us, memory = _add_similar_tasks(queue, chunk, count, max_bytes, reservation)
    if state.controls.is_restricting:
        state.controls.count_assigned(pool, len(chunk))
    if memory > granted:
        worker.memory_bytes += memory - granted
        host.free_memory -= memory - granted
    if head.batch.terms.parts is not None:
        kept_states.grant(state, worker, head)
    announce = head.cost_us > ANNOUNCE_US or bool(head.incident) or exclusive
    if pool.spec.pace:
        device_clock.reserve(state, pool, chunk, now_ns)
    fence, name, held = state.epoch << ATTEMPT_BITS, worker.name, worker.held
    for record in chunk:
        record.phase = SENT
        record.attempts += 1
        record.fence = fence + record.attempts
        record.worker = name
        record.sent_ns = now_ns
        record.announced = announce
        held[record.number] = record
    worker.held_us += total_us
    if worker.state != WorkerState.BUSY and now_ns - worker.working_since_ns > PAUSE_NS:
        worker.working_since_ns = now_ns
    worker.state = WorkerState.BUSY
    worker.idle_beats = 0
    if state.quotas.caps_slots:
        owner_usage.refresh_held_back(state)
    slots = worker.slots if worker.ranks == 1 else 1
    memory_bytes = worker.reserved + worker.memory_bytes
    return AssignTasks(worker.name, slots, memory_bytes, announce, chunk, worker.kept_bytes)


def _add_similar_tasks(
    queue: PoolQueue, chunk: list[TaskRecord], count: int, max_bytes: int, reservation: int
) -> tuple[float, int]:
    """Add tasks like the first one until the chunk has `count` tasks.

    Return the work of the chunk in microseconds, and the memory of its largest task, which is at
    most `max_bytes`.
    """
    head = chunk[0]
    batch, route = head.batch, head.route
    total_us, memory = head.cost_us, route.memory_bytes
    size = _bytes(head)
    max_us = CHUNK_US if head.cost_us < MEDIUM_US else MEDIUM_CHUNK_US
    ends = False
    while len(chunk) < count and not ends:
        lane, ahead = queue.upcoming(reservation, batch.owner)
        if not ahead:
            break
        old_count, old_us = len(chunk), total_us
        stop = min(count, old_count + ahead)
        while lane and len(chunk) < stop:
            record = lane[0]
            if record.phase != WAITING:
                lane.popleft()
                continue
            spec = record.spec
            size += len(spec.program) + len(spec.bindings)
            if record.batch is not batch:  # the terms of the batch travel too
                size, batch = size + record.batch.share_bytes, record.batch
            if (
                total_us + record.cost_us > max_us
                or record.incident
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


def _can_share_chunk(route: Route, other: Route, max_bytes: int) -> bool:
    """Return whether tasks of these routes may share a chunk for a worker with `max_bytes`."""
    return (
        route.engine == other.engine
        and route.reason == other.reason
        and route.memory_bytes <= max_bytes
    )


def _bytes(record: TaskRecord) -> int:
    return len(record.spec.program) + len(record.spec.bindings)
