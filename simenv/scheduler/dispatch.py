"""Which waiting tasks go to which worker, how many at once, on how many slots.

Small tasks travel in chunks of CHUNK_US of expected work, a second chunk ahead of each worker, so
that a worker never waits for the service (CONTROL_PLANE.md, rules 5 and 6). A task above ALONE_US
travels alone; above AHEAD_MAX_US nothing is sent ahead of it or behind it: the round trip is then
too small a part to be worth the loss of balance.
"""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.scheduler.estimate import PARALLEL_FROM_US, slots_for
from simenv.scheduler.pools import Pool, Worker
from simenv.scheduler.queue import LONG_US
from simenv.scheduler.state import State
from simenv.scheduler.values import Phase, Record, Send

CHUNK_US = 1_500.0
CHUNK_TASKS = 128
CHUNK_BYTES = 8 * 2**20  # of programs and bindings: no chunk may pass what a message can carry
ALONE_US = 1_000.0
AHEAD_MAX_US = 50_000.0
ANNOUNCE_US = 2_000.0  # from here a worker says Started before it runs
PATIENCE_NS = 10_000_000_000  # a long task may take a node's last slot after waiting so long
RECENT_NS = 1_000_000_000  # "others come in": within the last second


def assign(state: State, now_ns: int) -> list[Send]:
    """Send out all that can be sent now; each Send's records are already marked."""
    sends: list[Send] = []
    for pool in state.pools.values():
        while len(pool.queue):
            send = _next(state, pool, now_ns)
            if send is None:
                break
            sends.append(send)
    return sends


def _next(state: State, pool: Pool, now_ns: int) -> Send | None:
    idle = pool.idle()
    if idle and state.free_slots > 0:
        record = pool.queue.head(_may_be_long(state, pool, now_ns))
        if record is None or record.route.memory_bytes > state.free_memory:
            return None
        worker = idle[0]
        slots = 1
        if record.cost_us >= PARALLEL_FROM_US:  # else nothing need be counted
            slots = slots_for(
                record.cost_us,
                _slot_bound(state, record, now_ns),
                state.free_slots,
                len(pool.queue),
                max(len(idle), pool.spec.max - pool.live() + len(idle)),  # who could share them
            )
        state.free_slots -= slots
        worker.slots = slots
        return _send(state, pool, worker, record, len(idle), now_ns)
    ahead = _least_loaded(pool)
    if ahead is None:
        return None
    record = pool.queue.head(allow_long=False)
    if record is None or record.incident or record.cost_us > AHEAD_MAX_US:
        return None
    if record.route.memory_bytes > state.free_memory:
        return None
    return _send(state, pool, ahead, record, pool.live(), now_ns)


def _least_loaded(pool: Pool) -> Worker | None:
    """The busy worker with room for one more chunk, if any."""
    best = None
    for worker in pool.workers.values():
        if (
            worker.state != WorkerState.BUSY
            or worker.slots > 1
            or worker.held_us > AHEAD_MAX_US
            or (worker.held_us > CHUNK_US and len(worker.held) > 1)
        ):
            continue
        first = next(iter(worker.held.values()))
        if first.incident:
            continue  # a suspect travels alone
        if best is None or worker.held_us < best.held_us:
            best = worker
    return best


def _may_be_long(state: State, pool: Pool, now_ns: int) -> bool:
    """May the next task be a long one? Not on a node's last slot while short ones come in."""
    if state.free_slots > 1 or state.limits.slots == 1:
        return True
    record = pool.queue.head()
    if record is None or record.cost_us <= LONG_US:
        return True
    waited_ns = now_ns - record.batch.accepted_ns
    return waited_ns > PATIENCE_NS or not _others_come(state, pool, now_ns)


def _others_come(state: State, pool: Pool, now_ns: int) -> bool:
    return pool.queue.has_short() or now_ns - state.last_short_ns < RECENT_NS


def _slot_bound(state: State, record: Record, now_ns: int) -> int:
    """The most slots this task may get: a long one leaves a slot to the short ones."""
    bound = record.route.max_slots
    others = now_ns - state.last_short_ns < RECENT_NS
    if record.cost_us > LONG_US and state.limits.slots > 1 and others:
        bound = min(bound, max(1, state.free_slots - 1))
    return bound


def _send(
    state: State, pool: Pool, worker: Worker, head: Record, sharers: int, now_ns: int
) -> Send:
    """Fill a chunk; `sharers` workers could take a part of what waits."""
    queue = pool.queue
    queue.pop(head)
    chunk = [head]
    total_us = head.cost_us
    if head.cost_us < ALONE_US and not head.incident:
        share = -(-(len(queue) + 1) // sharers)
        size, batch = _bytes(head), head.batch
        while len(chunk) < min(CHUNK_TASKS, share):
            record = queue.head(allow_long=False)
            if (
                record is None
                or total_us + record.cost_us > CHUNK_US
                or record.incident
                or record.route.engine != head.route.engine
                or record.route.reason != head.route.reason
            ):
                break
            size += _bytes(record)
            if record.batch is not batch:  # its terms travel too
                size, batch = size + record.batch.share_bytes, record.batch
            if size > CHUNK_BYTES:
                break
            queue.pop(record)
            chunk.append(record)
            total_us += record.cost_us
    memory = max(record.route.memory_bytes for record in chunk)
    more = max(0, memory - worker.memory_bytes)  # one task runs at a time: the largest counts
    worker.memory_bytes += more
    state.free_memory -= more
    announce = total_us > ANNOUNCE_US or bool(head.incident)
    for record in chunk:
        record.phase = Phase.SENT
        record.attempts += 1
        record.fence = state.fence(record)
        record.worker = worker.name
        record.sent_ns = now_ns
        record.announced = announce
        worker.held[record.number] = record
    worker.held_us += total_us
    worker.state = WorkerState.BUSY
    worker.idle_beats = 0
    return Send(worker.name, worker.slots, worker.memory_bytes, announce, chunk)


def _bytes(record: Record) -> int:
    return len(record.spec.program) + len(record.spec.bindings)
