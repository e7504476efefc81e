"""Workers dedicated to reservations.

A dedicated worker retains its slot while idle and runs only tasks of its reservation. Any worker
of the pool can serve: a lost one is replaced by the one that is free first. Requested workers
that are not available yet are held for a while, so that a repeated request succeeds.

The account of the reservation pays a slot of each, and its part of a paced device, for the whole
time, whatever they run: others could have used them. So its tasks pay only for what they use beyond
that: more slots and memory, other workers, more of the device, time after a worker has left it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simenv import text
from simenv.model import AdmissionReason, ReservationRequest, WorkerState
from simenv.model.accounts import Used, association
from simenv.scheduler import core
from simenv.scheduler.dispatch import planned_reservations
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import REQUESTED, DedicatedWorker
from simenv.scheduler.state import nodes as state_nodes, pools as state_pools, scheduler_state

if TYPE_CHECKING:
    from simenv.scheduler.reservations.reservation import ReservationEntry

SOON_US = 50_000.0  # a busy worker that is expected to be free sooner can be dedicated now
MIN_WAIT_NS = 20_000_000
MAX_REQUEST_NS = 5_000_000_000  # longest time that workers are held for a repeated request
RETRY_MARGIN_NS = 2_000_000_000  # added to the time that the decision states
CHARGED_US = 10_000_000  # time that is charged at once; what is less, at the end


def add_reservation(
    state: scheduler_state.SchedulerState, reservation: ReservationEntry, now_ns: int
) -> list[core.Action]:
    """Note the workers of a new reservation and give it lanes of its own; `find_workers` finds the
    workers."""
    request, number = reservation.grant.ask, reservation.grant.id
    pool = _pool_of(state, request)
    if not request.workers or pool is None:
        return []
    state.dedicated.all[number] = DedicatedWorker(
        pool.spec.name, request.workers, request.account, reservation.grant.owner
    )
    pool.queue.add_dedicated_lanes(number)
    return _release_requested(state, pool, now_ns)


def remove_reservation(
    state: scheduler_state.SchedulerState, number: int, now_ns: int
) -> list[core.Action]:
    """Release the workers of a reservation that is over, and charge the rest of their time."""
    dedicated = state.dedicated.all.get(number)
    if dedicated is None:
        return []
    pool = state.cluster.pools[dedicated.pool]
    charges = _charge(state, pool, number, dedicated, now_ns)
    pool.queue.merge_dedicated_lanes(number)
    for record, ran_ns in _device_runs(state, pool, number, now_ns):
        simulated_us, _ = record.prepaid or (0, 0)
        record.prepaid = simulated_us, dedicated.taken_ns(ran_ns)
    for worker in pool.workers.dedicated_to(number):
        state.cluster.release_from_reservation(worker)
    del state.dedicated.all[number]
    return charges


def hold_for_request(
    state: scheduler_state.SchedulerState,
    request: ReservationRequest,
    owner: str,
    wait_ns: int,
    now_ns: int,
) -> list[core.Action]:
    """Hold the requested workers, as soon as they are available, for a repetition of the
    request."""
    pool = _pool_of(state, request)
    if pool is None or not request.workers:
        return []
    name, charges = pool.spec.name, list[core.Action]()
    held = state.dedicated.requests.get(name)
    if held is None or (held.account, held.owner) != (request.account, owner):
        if held is not None:
            charges = _charge(state, pool, REQUESTED, held, now_ns)
        held = DedicatedWorker(name, request.workers, request.account, owner)
        state.dedicated.requests[name] = held
    held.workers = request.workers
    held.until_ns = now_ns + min(wait_ns, MAX_REQUEST_NS) + RETRY_MARGIN_NS
    return charges


def _release_requested(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, now_ns: int
) -> list[core.Action]:
    """Release the workers of a pool that are held for a repeated request."""
    held = state.dedicated.requests.pop(pool.spec.name, None)
    charges = [] if held is None else _charge(state, pool, REQUESTED, held, now_ns)
    for worker in pool.workers.dedicated_to(REQUESTED):
        state.cluster.release_from_reservation(worker)
    return charges


def release_held(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.Action]:
    """Release workers held for requests that were not repeated in time."""
    charges: list[core.Action] = []
    for name, dedicated in list(state.dedicated.requests.items()):
        if now_ns >= dedicated.until_ns:
            charges += _release_requested(state, state.cluster.pools[name], now_ns)
    return charges


def find_workers(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Find workers for reservations that lack some: idle ones, else the busy ones that are free
    first."""
    for pool in list(state.cluster.pools.values()):
        has_more = True  # of workers that can be dedicated
        for number, dedicated in state.dedicated.of(pool.spec.name):
            own = pool.workers.dedicated_to(number)
            for _ in range(dedicated.workers - len(own) if has_more else 0):
                worker = _next_worker(pool)
                has_more = worker is not None
                if worker is None:
                    break
                _dedicate(pool, worker, number, now_ns)
            for worker in own:
                if _is_engaged(worker) and not _exchanged(state, pool, worker, now_ns):
                    break


def _dedicate(pool: state_pools.Pool, worker: state_nodes.Worker, number: int, now_ns: int) -> None:
    if worker.state == WorkerState.IDLE and not pool.is_exclusive:
        worker.host.free_slots -= 1
        worker.slots = 1
    pool.workers.dedicate(worker, number)
    worker.dedication.since_ns = worker.dedication.counted_ns = now_ns


def _is_engaged(worker: state_nodes.Worker) -> bool:
    """Return whether the dedicated worker still runs other tasks for longer than SOON_US."""
    if worker.held.cost_us <= SOON_US or not worker.held:
        return False
    first = next(iter(worker.held.values()))
    return first.batch.terms.reservation != worker.dedication.reservation


def _exchanged(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    engaged: state_nodes.Worker,
    now_ns: int,
) -> bool:
    """Replace a worker that runs other tasks by one that is free sooner; return False if there is
    none."""
    sooner = _next_worker(pool)
    if sooner is None or sooner.held.cost_us > SOON_US:
        return False
    number = engaged.dedication.reservation
    state.cluster.release_from_reservation(engaged)
    _dedicate(pool, sooner, number, now_ns)
    return True


def missing_workers(state: scheduler_state.SchedulerState, pool: state_pools.Pool) -> int:
    """Return how many workers the reservations of a pool lack."""
    pairs = state.dedicated.of(pool.spec.name) if state.dedicated else []
    return sum(max(0, each.workers - len(pool.workers.dedicated.get(n, ()))) for n, each in pairs)


def worker_count(state: scheduler_state.SchedulerState, number: int) -> int:
    """Return how many workers a reservation has now."""
    dedicated = state.dedicated.all.get(number)
    pool = None if dedicated is None else state.cluster.pools.get(dedicated.pool)
    return 0 if pool is None else len(pool.workers.dedicated.get(number, ()))


def _next_worker(pool: state_pools.Pool) -> state_nodes.Worker | None:
    """Return the worker to dedicate next, the one that is free first; None if there is none."""
    workers = [worker for worker in pool.workers.values() if _can_dedicate(pool, worker)]
    return min(
        workers,
        key=lambda each: (each.held.cost_us, each.dedication.account is not None),
        default=None,
    )


def _can_dedicate(pool: state_pools.Pool, worker: state_nodes.Worker) -> bool:
    if worker.dedication.reservation or worker.leaving:
        return False
    if worker.state == WorkerState.IDLE:
        return pool.is_exclusive or worker.host.free_slots > worker.host.claimed_slots
    return worker.state == WorkerState.BUSY


def _available_workers(pool: state_pools.Pool) -> list[state_nodes.Worker]:
    """Return the workers that could all be dedicated; of idle ones on a node, at most one per free
    slot."""
    workers: list[state_nodes.Worker] = []
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


# --- charges -------------------------------------------------------------------------------------


def charge_reserved(
    state: scheduler_state.SchedulerState, now_ns: int, least_us: int = 1
) -> list[core.Action]:
    """Charge the time since the last call for which reservations had their workers, to each that
    has `least_us` or more of it."""
    state.shares.fair_share.at(now_ns)
    charges: list[core.Action] = []
    for pool in state.cluster.pools.values():
        for number, dedicated in state.dedicated.of(pool.spec.name):
            charges += _charge(state, pool, number, dedicated, now_ns, least_us)
    return charges


def _charge(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    number: int,
    dedicated: DedicatedWorker,
    now_ns: int,
    least_us: int = 1,
) -> list[core.Action]:
    """Charge the time until now for which a reservation had its workers, if it is `least_us` or
    more."""
    _count_held(state, pool, number, dedicated, now_ns)
    held_us = round(dedicated.held_us)
    if held_us < least_us:
        return []
    account, owner = dedicated.account, dedicated.owner
    dedicated.held_us -= held_us
    used, units = charge_of(state, pool, held_us)
    leaf = association(account, owner)
    if account:
        state.shares.fair_share.name(leaf, account, owner)
    state.shares.fair_share.charge(leaf, units)
    return [core.ChargeReserved(pool.spec.name, account, owner, used, units)]


def _count_held(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    number: int,
    dedicated: DedicatedWorker,
    now_ns: int,
) -> None:
    """Count the time until now for which a reservation had its workers."""
    can_idle, part = not starts_nothing(state, pool), max(1, pool.spec.max)
    for worker in pool.workers.dedicated_to(number):
        since_ns = worker.dedication.counted_ns
        until_ns = worker.dedication.counted_ns = max(now_ns, since_ns)  # a close may come earlier
        first = next(iter(worker.held.values())) if worker.held else None
        # Not while it still runs tasks of others, and not where its holder cannot use it.
        if can_idle if first is None else first.batch.terms.reservation == number:
            dedicated.held_us += (until_ns - since_ns) / 1e3
            dedicated.device_ns += (until_ns - since_ns) // part if pool.spec.pace else 0


def starts_nothing(state: scheduler_state.SchedulerState, pool: state_pools.Pool) -> bool:
    """Return whether no task may start: the device is paused, drained or in an outage, or the
    service shuts down."""
    is_closed = bool(state.devices.controls.closed_state(pool.device))
    return is_closed or pool.device in state.devices.outages or state.draining


def paid_us(worker: state_nodes.Worker, record: core.TaskRecord, until_ns: int) -> int:
    """Return for how much of the run of a worker's task, in microseconds, its reservation has paid
    a slot: since the worker was dedicated."""
    if (
        worker.dedication.reservation
        and worker.dedication.reservation == record.batch.terms.reservation
    ):
        return max(0, until_ns - worker.dedication.since_ns) // 1000
    return 0 if record.prepaid is None else record.prepaid[0]


def take_device_time(
    state: scheduler_state.SchedulerState, record: core.TaskRecord, device_ns: int, now_ns: int
) -> None:
    """Note how much of a task's time on a paced device its reservation has paid."""
    pool, number = state.cluster.pools[record.route.pool], record.batch.terms.reservation
    dedicated = state.dedicated.all.get(number)
    if dedicated is not None and dedicated.pool == pool.spec.name:
        _count_held(state, pool, number, dedicated, now_ns)
        simulated_us, taken_ns = record.prepaid or (0, 0)
        taken_ns += dedicated.taken_ns(device_ns - taken_ns)
        record.prepaid = simulated_us, taken_ns


def use_of(
    state: scheduler_state.SchedulerState,
    record: core.TaskRecord,
    slots: float,
    run_us: int,
    device_ns: int,
    prepaid: tuple[int, int],
) -> tuple[Used, float]:
    """Return what an attempt used, and its billing units without those that its reservation has
    paid: of a slot for the run time, and of time on the device."""
    pool, factor = state.cluster.pools[record.route.pool], record.batch.usage_factor
    used, units = state.shares.meter(pool, record, slots)[run_us, device_ns]
    _, paid = state.shares.meter_of(pool, (1, 0, 1, factor))[
        min(run_us, prepaid[0]), min(device_ns, prepaid[1])
    ]
    return used, max(0.0, units - paid)


def paid_units(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    number: int,
    counts: Callable[[str], bool],
) -> float:
    """Return the billing units that a reservation has paid of the forecasts of its unfinished
    tasks, of the accounts that count."""
    now_ns, runs = state.last_tick_ns, list[tuple[core.TaskRecord, int, int]]()
    for worker in pool.workers.dedicated_to(number):
        first = next(iter(worker.held.values()), None)
        if first and first.phase == core.RUNNING:
            ran_us = max(0, now_ns - first.started_ns) // 1000
            runs.append((first, min(ran_us, paid_us(worker, first, now_ns)), 0))
    runs += [(each, 0, ran_ns) for each, ran_ns in _device_runs(state, pool, number, now_ns)]
    total = 0.0
    for record, ran_us, ran_ns in runs:
        batch = record.batch
        if counts(batch.account):
            price = state.shares.meter_of(pool, (1, 0, 1, min(1.0, batch.usage_factor)))
            total += min(batch.units, price[ran_us, ran_ns][1])
    return total


def _device_runs(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, number: int, now_ns: int
) -> list[tuple[core.TaskRecord, int]]:
    """Return the tasks of a reservation that a paced device has begun, each with its time there
    until now in ns."""
    device = state.devices.paced.all[pool.device] if pool.spec.pace else None
    return [
        (run.record, max(0, min(run.end_ns, now_ns) - run.begin_ns))
        for run in (() if device is None else device.runs.values())
        if run.begin_ns and run.record.batch.terms.reservation == number
    ]


def charge_of(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, worker_us: int
) -> tuple[Used, float]:
    """Return what dedicated workers use in this time of a worker, and its billing units. Of a paced
    device each worker that its pool may have is an equal part."""
    device_ns = worker_us * 1000 // max(1, pool.spec.max) if pool.spec.pace else 0
    return state.shares.meter_of(pool, (1, 0, 1, 1.0))[worker_us, device_ns]


# --- availability -------------------------------------------------------------------------------


def availability_verdict(
    state: scheduler_state.SchedulerState, request: ReservationRequest
) -> PolicyVerdict | None:
    """Return why the requested workers cannot be dedicated now, or None if they can. Changes
    nothing."""
    pool = _pool_of(state, request)
    if pool is None:
        names = ", ".join(pool.spec.name for pool in state.cluster.pools.values() if not pool.base)
        message = f"workers = {request.workers}: name their pool, one of {names}"
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    name, spec, requested = pool.spec.name, pool.spec, request.workers
    if spec.ranks > 1:
        message = (
            f"workers of pool {name} have {spec.ranks} ranks: only those of one can be reserved"
        )
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    max_workers, reserved = capacity(state, request)
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
    ttl_ns = request.ttl_ns or state.reservations.terms(request.device).profile.default_ttl_ns
    planned = planned_reservations.conflict(state, name, requested, ttl_ns, max_workers)
    if planned is not None:
        begins_s = (planned.begin_ns - state.last_tick_ns) / 1e9
        message = (
            f"a planned reservation needs {planned.needed} of the {max_workers} workers of pool "
            f"{name} in {text.duration(begins_s)}: end before, or take fewer"
        )
        wait_ns = planned.end_ns - state.last_tick_ns
        return PolicyVerdict(DELAYED, AdmissionReason.OVER_LIMIT, message, wait_ns=wait_ns)
    return _busy_verdict(state, pool, requested)


def _busy_verdict(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, requested: int
) -> PolicyVerdict | None:
    claimed = missing_workers(state, pool)
    repeated = state.dedicated.requests.get(pool.spec.name)
    if repeated is not None:  # workers held for this request are available to it
        claimed -= max(0, repeated.workers - len(pool.workers.dedicated.get(REQUESTED, ())))
    available = pool.workers.dedicated_to(REQUESTED) + _available_workers(pool)
    waits_us = sorted(worker.held.cost_us for worker in available)[claimed:]
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


def capacity(state: scheduler_state.SchedulerState, request: ReservationRequest) -> tuple[int, int]:
    """Return how many workers of the pool can be dedicated, and how many are reserved."""
    pool = _pool_of(state, request)
    if pool is None:
        return 0, 0
    slots = sum(host.node.slots for host in state.cluster.nodes.hosts.values())
    max_workers = pool.spec.max if pool.is_exclusive else min(pool.spec.max, slots)
    dedicated = state.dedicated.all.values()
    return max_workers, sum(each.workers for each in dedicated if each.pool == pool.spec.name)


def _pool_of(
    state: scheduler_state.SchedulerState, request: ReservationRequest
) -> state_pools.Pool | None:
    """Return the pool of a request; for the device "" only if the environment has one pool."""
    pools = [pool for pool in state.cluster.pools.values() if not pool.base]
    if not request.device and len(pools) == 1:
        return pools[0]
    return next((pool for pool in pools if pool.spec.name == request.device), None)
