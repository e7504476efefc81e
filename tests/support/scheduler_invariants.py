"""The invariants of the scheduler's state."""

from collections import Counter

from simenv.model import WorkerState
from simenv.scheduler.core import ATTEMPT_BITS, RUNS, UNSENT, Phase, TaskRecord
from simenv.scheduler.dispatch.account_isolation import account_of
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.reservation import REQUESTED, ReservationEntry
from simenv.scheduler.state.nodes import Worker, gpus_by_host
from simenv.scheduler.state.pools import Pool
from simenv.scheduler.state.scheduler_state import SchedulerState


def check_reservations(state: SchedulerState) -> set[int]:
    """Check reservations; return the parked tasks. Raises AssertionError with the broken rule."""
    ledger = state.reservations
    live = {n: each for n, each in ledger.all.items() if not each.is_over}
    assert live == ledger.live, "a reservation is live and over"
    assert all(0 < number < ledger.next_id for number in ledger.all), "an id was not given out"
    by_task: dict[int, ReservationEntry] = {}
    parked: set[int] = set()
    for number, reservation in ledger.all.items():
        assert number == reservation.grant.id, f"reservation {number} has another id"
        _check_units(reservation)
        by_task.update(dict.fromkeys(reservation.holds, reservation))
        by_task.update(dict.fromkeys(reservation.parked, reservation))
        parked.update(reservation.parked)
        in_pools = Counter(record.route.pool for record, _ in reservation.parked.values())
        assert +reservation.parked_in == in_pools, f"reservation {number} miscounts what is parked"
        ending = number in ledger.emptying
        assert ending == (reservation.is_over and bool(reservation.parked)), (
            f"reservation {number} never empties"
        )
    assert by_task == ledger.by_task, "a task's reservation is off"
    for task, reservation in by_task.items():
        record = state.tasks[task]
        is_parked = task in reservation.parked
        assert (record.phase == Phase.PARKED) == is_parked, f"task {task} is parked by half"
        assert record.batch.terms.reservation == reservation.grant.id, f"task {task} is another's"
        assert record.batch.owner == reservation.grant.owner, f"task {task} is another owner's"
    _check_devices(state)
    return parked


def check_dedicated_workers(state: SchedulerState) -> None:
    """Check that dedicated workers run only tasks of their reservation, are not more than it
    requested, and are released at its end."""
    live = state.reservations.live
    assert state.dedicated.all.keys() <= live.keys(), "workers are kept for what is over"
    counts: Counter[tuple[str, int]] = Counter()
    for worker in state.cluster.workers.values():
        own = worker.dedication.reservation
        if not own:
            continue
        counts[worker.pool, own] += 1
        indexed = state.cluster.pools[worker.pool].workers.dedicated[own]
        assert indexed.get(worker.name) is worker, f"{worker.name} is in no index"
        assert not worker.leaving, f"{worker.name} leaves and is kept"
        assert worker.state in (WorkerState.IDLE, WorkerState.BUSY), f"{worker.name} is not there"
        for record in worker.held.values():
            is_own = record.batch.terms.reservation == own
            assert is_own or record.sent_ns <= worker.dedication.since_ns, (
                f"{worker.name} runs another's task"
            )
    indexed_count = sum(len(pool.workers.dedicated_to()) for pool in state.cluster.pools.values())
    assert indexed_count == counts.total(), "a worker that is not dedicated is indexed"
    for (pool, own), count in counts.items():
        dedicated = state.dedicated.requests[pool] if own == REQUESTED else state.dedicated.all[own]
        assert dedicated.pool == pool, f"reservation {own} keeps workers of another pool"
        assert count <= dedicated.workers, f"reservation {own} keeps {count} workers"


def _check_units(reservation: ReservationEntry) -> None:
    name = f"reservation {reservation.grant.id}"
    assert reservation.held == sum(reservation.holds.values()), f"{name}: what tasks hold is off"
    assert min(reservation.spent, reservation.held, reservation.returned) >= 0, (
        f"{name}: negative units"
    )
    assert reservation.units < 0 or reservation.is_over or reservation.free >= 0, (
        f"{name}: more than there is"
    )
    if reservation.units >= 0:
        assert reservation.spent + reservation.held + reservation.free == reservation.units, (
            f"{name}: units do not add up"
        )
    info = reservation.info(0)
    assert info.credits_consumed <= info.credits_reserved, f"{name}: credits overdrawn"
    assert info.rate_consumed <= info.rate_reserved, f"{name}: rate overdrawn"
    assert list(reservation.parked) == sorted(reservation.parked), (
        f"{name}: parked tasks are out of order"
    )
    assert (
        reservation.is_over
        or not reservation.parked
        or all(task < min(reservation.parked) for task in reservation.holds)
    ), f"{name}: a parked task was overtaken"


def _check_devices(state: SchedulerState) -> None:
    ledger = state.reservations
    for device, terms in ledger.devices.items():
        reserved = ledger.reserved(device)
        if terms.policy.name == "credit":
            assert reserved.credits <= policies.credit_capacity(terms), f"{device!r}: credits leak"
        if terms.policy.name == "rate":
            assert reserved.rate <= policies.rate_capacity(terms), f"{device!r}: rate leaks"


def check(state: SchedulerState) -> None:
    """Check all invariants. Raises AssertionError with the broken rule."""
    waiting: dict[int, TaskRecord] = {}
    for pool in state.cluster.pools.values():
        listed = list(pool.queue)
        assert len(listed) == len(pool.queue), f"{pool.spec.name}: queue count is off"
        numbers = {r.number: r for r in listed}
        assert len(numbers) == len(listed), "a task waits twice"
        waiting.update(numbers)
        assert pool.assigned == sum(len(w.held) for w in pool.workers.values()), "held tasks"
        waiting_of, backlog_us = _count(listed)
        assert pool.queue._waiting == waiting_of, f"{pool.spec.name}: associations are off"
        assert abs(pool.queue.backlog_us - backlog_us) < 1.0
        assert all(state.cluster.workers.get(n) is w for n, w in pool.workers.items()), (
            "stray worker"
        )
        assert {
            WorkerState.STARTING: pool.workers.starting,
            WorkerState.IDLE: pool.workers.idle,
            WorkerState.BUSY: pool.workers.busy,
            WorkerState.DRAINING: pool.workers.draining,
        } == {each: _in_state(pool, each) for each in list(WorkerState)[:4]}, "a state is off"
        leaving = {name: worker for name, worker in pool.workers.items() if worker.leaving}
        assert pool.workers.leaving == leaving, "a worker leaves and is counted"
        assert pool.workers.live() == sum(worker.is_live for worker in pool.workers.values())
    keepers = {name: worker for name, worker in state.cluster.workers.items() if worker.kept.bytes}
    assert state.cluster.state_keepers == keepers, "a worker keeps states and is not noted"
    held = {}
    for worker in state.cluster.workers.values():
        for number, record in worker.held.items():
            assert number not in held, f"task {number} is held twice"
            held[number] = record
            assert record.worker == worker.name, f"task {number} names another worker"
            assert record.phase in (Phase.SENT, Phase.RUNNING), f"held task {number} waits"
            fence = (state.epoch << ATTEMPT_BITS) + record.attempts
            assert record.fence == fence, f"task {number} has an old fence"
        assert bool(worker.held) == (worker.state == WorkerState.BUSY), f"{worker.name} state"
        if state.limits.isolates_accounts and not state.cluster.pools[worker.pool].is_exclusive:
            served = {account_of(record) for record in worker.held.values()}
            assert served <= {worker.dedication.account}, f"{worker.name} serves {served}"
        needs = bool(worker.held) or worker.dedication.reservation != 0
        needs = needs and not state.cluster.pools[worker.pool].is_exclusive
        assert needs == (worker.slots > 0), f"{worker.name} holds slots idly"
        assert not state.cluster.pools[worker.pool].is_exclusive or len(worker.held) <= 1, (
            "two at a time"
        )
        suspects = sum(bool(r.incident) for r in worker.held.values())
        assert not suspects or len(worker.held) == 1, "a suspect has company"
    assert not waiting.keys() & held.keys(), "a task waits and is held"
    parked = check_reservations(state)
    dependent = _check_dependencies(state)
    assert not parked & (waiting.keys() | held.keys()), "a parked task waits, or is held"
    unqueued = parked | dependent
    assert not dependent & (waiting.keys() | held.keys() | parked), "a dependent task is elsewhere"
    everywhere = waiting.keys() | held.keys() | unqueued | _check_paced(state)
    assert everywhere == state.tasks.keys(), "a task is nowhere, or unknown"
    _nodes(state)
    check_dedicated_workers(state)
    _check_counts(state)


def _count(listed: list[TaskRecord]) -> tuple[dict[str, int], float]:
    """Return the number of tasks of each association, and their expected microseconds."""
    counts: dict[str, int] = {}
    total_us, batch, association = 0.0, None, ""
    for record in listed:
        if record.batch is not batch:  # neighbours are mostly of one
            batch = record.batch
            association = batch.association
        counts[association] = counts.get(association, 0) + 1
        total_us += record.cost_us
    return counts, total_us


def _check_counts(state: SchedulerState) -> None:
    """Check what is counted of all tasks."""
    running = total_bytes = 0
    owned: dict[int, TaskRecord] = {}
    assigned: dict[str, int] = {}
    use: dict[tuple[str, str, int], list[int]] = {}
    batch, figures = None, None
    for number, record in state.tasks.items():
        if record.batch is not batch:  # neighbours are mostly of one
            batch, figures = record.batch, None
            if batch.account or batch.qos:
                key = batch.association, batch.qos, batch.terms.reservation
                figures = use.setdefault(key, [0, 0])
        size_bytes, phase = record.size_bytes, record.phase
        total_bytes += size_bytes
        if figures is not None:
            figures[0] += 1
            figures[1] += size_bytes
        if batch.owner:
            owned[number] = record
        if phase in RUNS:
            running += 1
        if phase not in UNSENT:
            assigned[batch.association] = assigned.get(batch.association, 0) + 1
    assert state.tasks.running == running, f"{state.tasks.running} running, {running} found"
    noted = {n: r for tasks in state.tasks.by_owner._records.values() for n, r in tasks.items()}
    assert noted == owned, "an owner's are off"
    assert state.shares.fair_share._running == assigned, "expected units of tasks are off"
    counted = {key: [u.tasks, u.size_bytes] for key, u in state.tasks.by_association._all.items()}
    assert counted == use, "the use of an account is off"
    assert state.tasks.queued_bytes == total_bytes, "queued bytes are off"


def _check_dependencies(state: SchedulerState) -> set[int]:
    """Check that dependent tasks wait for unfinished tasks, or are about to be queued or ended.

    Return the tasks in phase DEPENDENT.
    """
    table = state.tasks.dependencies
    groups = {id(group): group for group in table.by_task.values()}
    listed = {number: group for group in groups.values() for number in group.tasks}
    assert listed == table.by_task, "a task is in another group"
    for group in groups.values():
        ready, failed = group in table.ready, group in table.failed
        assert ready + failed + bool(group.parents) == 1, "a group waits, is ready or has failed"
        assert failed == bool(group.failed_parent), "a group failed without a parent"
        for number, record in group.tasks.items():
            assert record is state.tasks.get(number), f"task {number} is not there"
            assert record.phase in (Phase.PARKED, Phase.DEPENDENT), f"task {number} does not wait"
            assert group.parents <= set(record.batch.terms.after), f"task {number} has others"
    by_parent: dict[int, set[int]] = {}
    for group in groups.values():
        for parent in group.parents:
            assert parent in state.tasks, f"task {parent} has ended and is waited for"
            assert parent < min(group.tasks), f"task {parent} comes after its child"
            by_parent.setdefault(parent, set()).add(id(group))
    entries = {parent: {id(group) for group in each} for parent, each in table.by_parent.items()}
    assert entries == by_parent, "parents and children are off"
    assert {id(g) for g in (*table.ready, *table.failed)} <= groups.keys(), "an empty group stays"
    assert table.count("") == len(table.by_task), "dependent tasks of pools are off"
    return {n for n, r in state.tasks.items() if r.phase == Phase.DEPENDENT}


def _check_paced(state: SchedulerState) -> set[int]:
    """Check that runs of paced devices do not overlap. Return the tasks of held results."""
    for name, device in state.devices.paced.all.items():
        end_ns = 0
        for number, run in device.runs.items():
            assert run.record is state.tasks.get(number), f"{name}: a run of an ended task"
            assert run.begin_ns >= max(end_ns, run.earliest_ns), f"{name}: runs overlap"
            end_ns = run.end_ns
            is_held = number in state.devices.paced.held
            assert is_held == (run.timing is not None), f"{name}: {number} is held by half"
            assert is_held == (run.record.phase == Phase.HELD), f"{name}: {number} has no place"
            waits = number in device.waiting
            assert waits == (run.record.phase == Phase.WAITING), f"{name}: {number} is not sent"
    runs = {number for device in state.devices.paced.all.values() for number in device.runs}
    assert state.devices.paced.held.keys() <= runs, "a result is held for no run"
    assert state.devices.paced.stored.keys() == runs, "a run is not stored, or one that is over is"
    return set(state.devices.paced.held)


def _in_state(pool: Pool, state: WorkerState) -> dict[str, Worker]:
    return {name: worker for name, worker in pool.workers.items() if worker.state == state}


def _nodes(state: SchedulerState) -> None:
    """Check that the resources of workers on each node agree with the node table."""
    hosts = state.cluster.nodes.hosts
    slots, memory, reserved, ranks, ganged = (dict.fromkeys(hosts, 0) for _ in range(5))
    on_demand = dict.fromkeys(hosts, 0)
    for worker in state.cluster.workers.values():
        assert sum(n for _, n in worker.host_ranks) == worker.ranks, f"{worker.name} lacks ranks"
        assert [s.node for s in worker.shares] == [h.node.name for h, _ in worker.host_ranks]
        assert worker.slots in (0, worker.ranks) or worker.ranks == 1, "a part of a gang's slots"
        for host, count in worker.host_ranks:
            name = host.node.name
            assert hosts.get(name) is host, f"{worker.name} is on an unknown node {name!r}"
            assert not host.lost, f"{worker.name} is on a lost node"
            assert worker.leaving or not host.drained, f"{worker.name} stays on a drained node"
            slots[name] += worker.slots if worker.ranks == 1 else count * bool(worker.slots)
            reserved[name] += count * worker.reserved
            ranks[name] += count
            ganged[name] += count * (worker.ranks > 1)
            on_demand[name] += count * bool(state.cluster.pools[worker.pool].base)
            assert count <= host.node.slots, f"{worker.name} could never run on {name}"
        memory[worker.host.node.name] += worker.memory_bytes + worker.kept.bytes
    for host in hosts.values():
        assigned_gpus = [
            gpu
            for worker in state.cluster.workers.values()
            for place, gpus in gpus_by_host(worker.host_ranks, worker.gpus)
            if place is host
            for gpu in gpus
        ]
        assert sorted([*assigned_gpus, *host.free_gpus]) == sorted(host.node.gpu_names), (
            f"GPUs of {host.node.name} are counted wrongly"
        )
    for name, host in hosts.items():
        assert slots[name] + host.free_slots == host.node.slots, f"{name}: slots leak"
        assert reserved[name] == host.reserved, f"{name}: reserved memory is off"
        used = memory[name] + reserved[name]
        assert used + host.free_memory == host.node.memory_bytes, f"{name}: memory leaks"
        assert host.free_slots >= 0, f"{name}: more slots granted than there are"
        assert host.free_memory >= 0, f"{name}: more memory granted than there is"
        assert (ranks[name], ganged[name]) == (host.ranks, host.ganged), f"{name}: ranks are off"
        assert on_demand[name] == host.on_demand, f"{name}: ranks made on demand are off"
        assert on_demand[name] <= host.node.slots, f"{name}: workers made on demand crowd"
        assert host.claimed_slots + host.backfill_slots <= host.node.slots, (
            f"{name}: two claims on its slots"
        )
