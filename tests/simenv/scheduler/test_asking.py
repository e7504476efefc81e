"""Requests to the scheduler: lanes, wishes, routes, resident programs."""

import random
from contextlib import nullcontext

import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route, wide
from claimant import Claimant
from failing import fails
from simulation import Simulation

from simenv.errors import InsufficientError, NotReservedError, OptionError
from simenv.model import (
    AdmissionPolicy,
    AdmissionReason,
    DeviceProfile,
    PoolSpec,
    TaskOptions,
    TaskSpec,
    WorkerState,
    Workload,
)
from simenv.model.task import MAX_SHOTS
from simenv.scheduler.core import Phase, RetireWorker, Route, SubmitBatch, TaskRecord
from simenv.scheduler.queueing.lanes import STEP_NS, QueuePolicy
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.reservations import ledger as ledgers
from simenv.scheduler.views import cluster_info
from simenv.scheduler.views.cluster_info import node_infos, pool_infos, reservation_info
from simenv.scheduler.views.pending_reasons import pending_reason


def test_credit_capacity_is_shared_by_all_reservations(host: Claimant) -> None:
    assert host.reserve(6).status == "accepted"
    delayed = host.reserve(5, ttl_ns=30 * SECOND)
    assert (delayed.status, delayed.code, delayed.capacity_available) == ("delayed", 7, 4)
    assert delayed.retry_after_ns == 100 * SECOND, "until the first one expires"
    assert delayed.reservation == 0
    assert host.reserve(11).code == AdmissionReason.TOO_LARGE
    host.end(1)
    assert host.reserve(5).status == "accepted"


def test_credit_limit_of_environment_is_shared_by_its_pools(host: Claimant) -> None:
    host.policy("credit", device="", total_credits=12)
    assert host.reserve(8).status == "accepted"
    assert host.reserve(5, device="side").code == AdmissionReason.INSUFFICIENT_CREDITS
    result = host.reserve(4, device="side")
    assert (result.status, result.credits_required) == ("accepted", 4)
    assert host.reserve(1, device="").code == AdmissionReason.INSUFFICIENT_CREDITS


def test_rate_is_shared_and_rounding_loses_no_units() -> None:
    host = Claimant()
    host.policy("rate", device_rate=10, time_span_ns=SECOND)
    result = host.reserve(100, walltime_ns=100 * SECOND)
    assert (result.status, result.rate_required) == ("accepted", 1)
    assert host.reserve(100, walltime_ns=10 * SECOND).code == AdmissionReason.INSUFFICIENT_RATE
    tasks = host.under(result.reservation, 100)
    assert not host.ledger[1].parked, "a hundred tasks of a unit are what it was made for"
    assert reservation_info(host.state, host.ledger[1]).rate_consumed == 1
    host.under(result.reservation)
    assert len(host.ledger[1].parked) == 1
    host.keep(host.scheduler.cancel(tasks[:1], host.now_ns)[1])
    host.settle()
    assert not host.ledger[1].parked


def test_reservation_serves_only_its_pool_and_its_gangs(host: Claimant, number: int) -> None:
    fails(NotReservedError, "for 'main'; this is for pool 'side'", host.under, number, pool="side")
    assert host.ledger[number].covers("main.x4", "main")
    assert host.under(host.reserve(6, device="").reservation, pool="side")


def test_reservation_of_another_owner_looks_like_unknown_reservation(host: Claimant) -> None:
    number = host.reserve(6, owner="ada").reservation
    ledger = host.state.reservations
    entries, never = [], []
    for value, result in ((number, entries), (number + 1, never)):
        for ask in (
            lambda n: ledger.find(n, "eve"),
            lambda n: ledger.usable(n, "eve", host.wall_ns),
            lambda n: ledger.renew(n, "eve", SECOND, host.wall_ns),
            lambda n: host.under(n, owner="eve"),
            lambda n: host.under(n),  # the local user sees it, and may not use it
        ):
            result.append(str(fails(NotReservedError, "", ask, value)).replace(str(value), "N"))
    assert entries == never
    assert list(ledger.visible_to("eve")) == []
    assert [each.grant.id for each in ledger.visible_to("")] == [number]


def test_repeated_request_id_returns_same_reservation(host: Claimant) -> None:
    first = host.reserve(6, request_id="r1", owner="ada")
    before = host.digest()
    again = host.reserve(6, request_id="r1", owner="ada")
    assert again.reservation == first.reservation
    assert (again.status, again.credits_required) == ("accepted", 6)
    assert host.reserve(5, request_id="r1", owner="ada").code == AdmissionReason.EXISTS
    assert (host.digest(), host.reserve(4, request_id="r1", owner="eve").reservation) == (before, 2)
    host.end(1)
    assert host.reserve(6, request_id="r1", owner="ada").reservation == 3


def test_request_id_of_expired_reservation_makes_new_reservation(host: Claimant) -> None:
    host.policy("unlimited")
    first = host.reserve(6, request_id="r1", ttl_ns=SECOND).reservation
    host.now_ns += SECOND
    second = host.reserve(6, request_id="r1", ttl_ns=9 * SECOND).reservation
    assert second != first
    host.pass_time(0)
    assert host.ledger[first].state == "expired"
    assert host.reserve(6, request_id="r1", ttl_ns=9 * SECOND).reservation == second


def test_rates_of_different_time_spans_are_converted_before_addition() -> None:
    host = Claimant()
    host.policy("rate", device_rate=10, time_span_ns=SECOND)
    host.policy("rate", device="", device_rate=36_000, time_span_ns=3_600 * SECOND)
    result = host.reserve(60, walltime_ns=60 * SECOND)  # one a second
    assert (result.status, result.rate_required) == ("accepted", 3_600)
    ledger = host.state.reservations
    assert (ledger.reserved("main").rate, ledger.reserved("").rate) == (1, 3_600)
    more = host.reserve(9 * 60, walltime_ns=60 * SECOND)
    assert more.status == "accepted", more.message
    assert host.reserve(60, walltime_ns=60 * SECOND).code == AdmissionReason.INSUFFICIENT_RATE
    host.under(result.reservation, shots=30_000)
    table = {
        device: cluster_info.target_info(host.state, device).held.rate for device in ("main", "")
    }
    assert table == {"main": 1, "": 1_800}
    for rate, value in ((5, 10), (6, 6)):  # each is rounded up
        narrower = AdmissionPolicy("rate", device_rate=rate, time_span_ns=SECOND // 2)
        with pytest.raises(InsufficientError) if rate == 5 else nullcontext():
            ledger.set_policy("main", narrower, -1)
        assert ledger.reserved("main").rate == value


def test_retry_time_accounts_for_reservations_of_other_pools(host: Claimant) -> None:
    host.policy("unlimited")
    host.policy("credit", device="", total_credits=10)
    assert host.reserve(8, device="side", ttl_ns=50 * SECOND).status == "accepted"
    assert host.reserve(1, ttl_ns=90 * SECOND).status == "accepted"
    delayed = host.reserve(5)
    assert (delayed.status, delayed.retry_after_ns) == ("delayed", 50 * SECOND)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"device": "nowhere"}, AdmissionReason.DEVICE_NOT_FOUND),
        ({"device": "main.x2"}, AdmissionReason.DEVICE_NOT_FOUND),
        ({"bound_ns": SECOND}, AdmissionReason.UNSUPPORTED),
        ({"ttl_ns": -1}, AdmissionReason.INVALID_REQUEST),
        ({"ttl_ns": 2**63}, AdmissionReason.INVALID_REQUEST),
        ({"walltime_ns": 2**64 - 1}, AdmissionReason.INVALID_REQUEST),
        ({"walltime_ns": 1, "overhead_ns": 1}, AdmissionReason.WALLTIME_INFEASIBLE),
        ({"workload": Workload(count=0)}, AdmissionReason.INVALID_REQUEST),
        ({"workload": Workload(shots=2**62, gates_1q=2**62)}, AdmissionReason.TOO_LARGE),
        ({"workload": Workload(shots=MAX_SHOTS + 1)}, AdmissionReason.TOO_LARGE),
        ({"workload": Workload(shots=-1)}, AdmissionReason.INVALID_REQUEST),
        ({"workload_kind": "classical"}, AdmissionReason.INVALID_REQUEST),
        ({"user": "x" * 300}, AdmissionReason.INVALID_REQUEST),
    ],
)
def test_rejected_request(host: Claimant, asked: dict[str, object], code: AdmissionReason) -> None:
    before = host.digest()
    result = host.reserve(1, **asked)
    assert (result.status, result.code, result.reservation) == ("rejected", code, 0)
    assert result.message
    assert host.digest() == before


def test_number_of_reservations_is_limited(host: Claimant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_PER_OWNER", 2)
    monkeypatch.setattr(ledgers, "MAX_LIVE", 3)
    assert [host.reserve(owner="ada").status for _ in range(2)] == ["accepted"] * 2
    result = host.reserve(owner="ada")
    assert (result.status, result.code) == ("rejected", AdmissionReason.SCOPE_LIMIT)
    assert host.reserve(owner="eve").status == "accepted"
    crowded = host.reserve(owner="eve")
    assert (crowded.status, crowded.code) == ("delayed", AdmissionReason.OVER_LIMIT)
    host.end(1)
    assert host.reserve(owner="ada").status == "accepted"


def test_ended_reservations_are_bounded(host: Claimant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_OVER", 5)
    for _ in range(20):
        host.end(host.reserve().reservation)
    host.pass_time(0)
    assert list(host.ledger) == [16, 17, 18, 19, 20]
    assert host.rows.execute("select id from reservation").fetchall() == [(n,) for n in host.ledger]


def test_a_policy_below_what_is_reserved_is_refused(host: Claimant) -> None:
    host.reserve(6)
    before = host.digest()
    with pytest.raises(InsufficientError, match="have 6 units of credit; there would be 5"):
        host.policy("credit", total_credits=5)
    fails(InsufficientError, "6 units of credit", host.policy, "credit", device="", total_credits=5)
    assert host.digest() == before
    host.policy("credit", total_credits=6)
    assert host.state.reservations.terms("main").policy_version == 3


def test_policy_change_with_unexpected_version_is_refused(host: Claimant) -> None:
    before = host.digest()
    with pytest.raises(OptionError, match="has version 2, 7 was expected"):
        host.state.reservations.set_policy("main", AdmissionPolicy(), 7)
    assert host.digest() == before
    assert not host.state.reservations.set_policy(
        "main", AdmissionPolicy("credit", total_credits=10), 7
    ), "a repeat of what was done is no change"


def test_new_baseline_keeps_units_of_existing_reservations(host: Claimant, number: int) -> None:
    ledger = host.state.reservations
    half = Workload(1, 5, 10, 10, 5, 0, 1_000)  # 1.8 ms
    assert ledger.set_profile("main", DeviceProfile(baseline=half))
    assert (ledger.terms("main").policy.baseline, ledger.terms("main").policy_version) == (half, 3)
    host.under(number)
    assert host.ledger[number].held == 1, "in the units it was made in"
    assert host.reserve(1).credits_required == 5  # 8.6 / 1.8


def test_device_limits_apply_to_tasks_of_its_reservations(host: Claimant, number: int) -> None:
    host.state.reservations.set_profile("main", DeviceProfile(max_qubits=3, total_credits=10))
    fails(NotReservedError, "4 qubits; the device takes 3", host.under, number)
    host.state.reservations.set_profile("main", DeviceProfile(max_shots=900, total_credits=10))
    fails(NotReservedError, "1000 shots; the device takes 900", host.under, number)


def test_reservation_of_quarantined_pool_is_delayed(host: Claimant) -> None:
    host.state.cluster.pools["main"].starts.failures = 7
    result = host.reserve(1)
    assert (result.status, result.code) == ("delayed", AdmissionReason.DEVICE_UNAVAILABLE)


OWN = (1, 2)  # reservations whose workers are theirs alone
KEYS = [("shortest",), ("fifo",)]
ORDERS = (
    QueuePolicy("fifo"),
    QueuePolicy("round_robin"),
    *(QueuePolicy("ordered", keys) for keys in KEYS),
)
SPEC = TaskSpec(b"program", 100, 0)


def record(number: int, now_ns: int, priority: int, reservation: int, cost_us: float) -> TaskRecord:
    owner = "ada" if reservation else ("bob", "eve")[number % 2]
    terms = TaskOptions(priority=priority, reservation=reservation)
    batch = SubmitBatch(b"c", terms, "", 0, number, now_ns, owner=owner)
    return TaskRecord(number, SPEC, batch, route(cost_us), cost_us)


def popped(order: QueuePolicy, seed: int, priorities: tuple[int, ...]) -> list[int]:
    """The tasks in the order in which workers that all share take them; now and then one of a
    reservation's takes what is its own."""
    chance, queue, now_ns = random.Random(seed), PoolQueue(order), 0
    for reservation in OWN:
        queue.add_dedicated_lanes(reservation)
    entries: list[int] = []
    for number in range(1, 600):
        now_ns += chance.randrange(40) * SECOND
        reservation, cost_us = chance.choice((0, 0, 0, *OWN)), chance.choice((1e3, 2e3, 2e6))
        priority, own = priorities[chance.randrange(10) % len(priorities)], chance.choice((0, *OWN))
        queue.append([record(number, now_ns, priority, reservation, cost_us)])
        head = queue.head(
            allow_long=chance.random() < 0.8, reservation=own * (chance.random() < 0.2)
        )
        if head is not None and chance.random() < 0.9:
            queue.pop(head)
            head.phase = Phase.SENT
            entries.append(head.number)
    assert len(queue) + len(entries) == number
    return entries


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join((order.policy, *order.keys)))
@pytest.mark.parametrize("seed", range(5))
def test_priorities_change_no_policy_without_them(order: QueuePolicy, seed: int) -> None:
    alike = popped(order, seed, (0,))
    assert len(alike) > 400
    assert popped(order, seed, (0, 1, 60, -3, 10**6)) == alike


@pytest.mark.parametrize(("priority", "first"), [(0, 2), (1, 1)])
def test_priority_counts_for_reservation_tasks_as_for_others(priority: int, first: int) -> None:
    """Under the policy of priorities a step is a minute, as among all others."""
    queue = PoolQueue()
    queue.add_dedicated_lanes(1)
    late_ns = 30 * SECOND
    queue.append([record(1, 0, priority, 1, 1e3)])
    queue.append([record(2, late_ns, 0, 0, 1e3)])
    assert queue.head().number == first
    assert late_ns < STEP_NS


@pytest.mark.parametrize("short", ["workers", "credits"])
def test_no_worker_is_held_for_request_delayed_by_other_reservations(short: str) -> None:
    host = Claimant(workers=1)
    if short == "credits":
        host.policy(total_credits=3)
    number = host.reserve(2, workers=1 if short == "workers" else 0).reservation
    late = host.reserve(2, workers=1)
    wanted = (
        AdmissionReason.OVER_LIMIT if short == "workers" else AdmissionReason.INSUFFICIENT_CREDITS
    )
    assert (late.status, late.code) == ("delayed", wanted)
    host.end(number)
    (task,) = host.submit(cost=10.0)
    (send,) = host.assign()
    assert [record.number for record in send.records] == [task]


MIB = 2**20


def crew(
    name: str, ranks: int = 2, count: int = 8, memory: int = 32 * MIB, **more: int
) -> PoolSpec:
    return PoolSpec(name, "any", count, count, ranks=ranks, memory_bytes=memory, **more)


def work(pool: str, ranks: int = 2, cost_us: float = 900_000.0) -> Route:
    return route(cost_us, pool=pool, ranks=ranks, memory_bytes=16 * MIB, max_slots=1)


def test_resident_workers_take_slots_only_while_they_run() -> None:
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big"),))
    (info,) = pool_infos(machine.state)
    assert (info.workers, info.state, info.reason) == (8, "up", "")
    (node,) = node_infos(machine.state)
    assert (node.ranks, node.slots_granted) == (16, 0)
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big"),))
    task = machine.submit(3, along=work("big"))
    for _ in task:
        (send,) = machine.assign()
        assert machine.free_slots == 0
        machine.finish(send.records)
    assert machine.assign() == []
    assert len(machine.endings) == 3


def test_ranks_of_resident_workers_are_spread_over_slots() -> None:
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big", ranks=3, count=1),))
    assert machine.state.cluster.workers == {}
    assert "2" in pool_infos(machine.state)[0].reason
    other = CheckedScheduler(limits=cluster(2, 1), specs=(crew("big", ranks=3, count=2),))
    ranks = {w.name: [s.ranks for s in w.shares] for w in other.state.cluster.workers.values()}
    assert ranks == {"big-0": [2, 1], "big-1": [2, 1]}
    machine = CheckedScheduler(limits=cluster(2, 2, 2), specs=(crew("big", count=6),))
    assert [node.ranks for node in node_infos(machine.state)] == [4, 4, 4]


def test_idle_resident_ranks_do_not_block_on_demand_gang() -> None:
    machine = CheckedScheduler(limits=cluster(2, 2), specs=(PoolSpec("main", min=1), crew("big")))
    machine.submit(1, along=wide(4, memory=64 * MIB))
    machine.revive()
    (send,) = machine.assign()
    assert send.worker == "main.x4-0"


def test_on_demand_workers_are_not_started_without_free_slots() -> None:
    machine = CheckedScheduler(limits=cluster(2, 2), specs=(PoolSpec("main", min=1),))
    machine.submit(1, along=wide(4, memory=64 * MIB))
    machine.revive()
    (send,) = machine.assign()
    machine.submit(1, along=wide(2, memory=64 * MIB))
    machine.revive()
    assert "main.x2-0" not in machine.state.cluster.workers
    machine.finish(send.records)
    (retired,) = [a for a in machine.tick() if isinstance(a, RetireWorker)]
    assert retired.worker == "main.x4-0"


def test_gangs_that_need_same_slots_run_in_order_of_arrival() -> None:
    """Each of two workers over the same nodes would hold what the other needs."""
    specs = (
        PoolSpec("main", min=4, max=4),
        crew("left", ranks=4, count=1),
        crew("right", ranks=4, count=1),
    )
    host = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    host.submit(4, cost=200_000.0)
    small = host.assign()
    assert len(small) == 4
    host.now_ns += SECOND * 3 // 2  # no short ones come
    host.hear()
    (right,) = host.submit(1, along=work("right", 4, 5e5))
    (left,) = host.submit(1, along=work("left", 4, 5e5))
    for send in small:
        assert host.assign() == []
        assert all(
            h.claimed_slots + h.backfill_slots <= 2 for h in host.state.cluster.nodes.hosts.values()
        )
        host.finish(send.records)
    (first,) = host.assign()
    assert [r.number for r in first.records] == [right], "the one that came first"
    host.finish(first.records)
    (second,) = host.assign()
    assert [r.number for r in second.records] == [left]


def test_younger_gang_task_does_not_take_slots_claimed_by_older_one() -> None:
    specs = (PoolSpec("main"), crew("wide", ranks=4, count=1), crew("slim", count=4))
    machine = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    machine.submit(1, along=work("slim"))
    (running,) = machine.assign()
    (old,) = machine.submit(1, along=work("wide", 4))
    (young,) = machine.submit(1, along=work("slim"))
    assert machine.assign() == [], "two slots are free, and claimed"
    result = pending_reason(machine.state, machine.state.tasks[young], machine.now_ns)
    assert result == "free slots are kept for another task of several ranks, which came before"
    machine.finish(running.records)
    (next_one,) = machine.assign()
    assert [r.number for r in next_one.records] == [old]


def test_worker_that_holds_memory_is_chosen_before_one_without() -> None:
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big", memory=0),))
    for _ in range(4):
        machine.submit(1, along=work("big"))
        (send,) = machine.assign()
        machine.finish(send.records)
    (node,) = node_infos(machine.state)
    assert node.memory_granted == 2 * 16 * MIB
    assert {w.state for w in machine.state.cluster.workers.values()} == {WorkerState.IDLE}


@pytest.mark.parametrize("slots", [(2, 2), (2, 2, 2), (4, 2), (8,)])
def test_tasks_of_1_2_and_4_ranks_make_progress_on_shared_nodes(slots: tuple[int, ...]) -> None:
    specs = (
        PoolSpec("main", min=sum(slots), max=sum(slots)),
        crew("wide", ranks=4, count=2),
        crew("slim", ranks=2, count=4),
    )
    simulation = Simulation(cluster(*slots), *specs)
    simulation.run(1.0, until_idle=False)
    begin_ns = simulation.now_ns
    small = simulation.submit(600, cost=100_000.0)
    slim = simulation.submit(12, along=work("slim", 2, 4e5))
    broad = simulation.submit(4, along=work("wide", 4, 4e5))
    simulation.run(400.0)
    ended = {
        name: [simulation.ended[n] for n in them]
        for name, them in {"small": small, "slim": slim, "wide": broad}.items()
    }
    last = max(ended["small"])
    assert min(ended["slim"]) < last, "those of two ranks wait for all small ones"
    assert min(ended["wide"]) < last, "those of four ranks wait for all small ones"
    assert (min(ended["small"]) - begin_ns) / SECOND < 1.0, "the small ones wait for them"
    assert simulation.used >= 0.7


def test_starts_of_workers_are_bounded_and_leave_room_for_others() -> None:
    machine = CheckedScheduler(0, cluster(2, 1))
    machine.keep(machine.scheduler.scale("main", 11, 11))
    for started in (3, 6, 9, 11, 11):
        machine.tick()
        assert len(machine.state.cluster.workers) == started
        for worker in list(machine.state.cluster.workers):
            machine.join(worker)
    machine = CheckedScheduler(limits=cluster(4), specs=(PoolSpec("main", ranks=2, min=0, max=5),))
    machine.keep(machine.scheduler.scale("main", 5, 5))
    for started in (2, 4, 5):
        machine.tick()
        assert len(machine.state.cluster.workers) == started
        for worker in list(machine.state.cluster.workers):
            machine.join(worker)
    machine = CheckedScheduler(0, cluster(64))
    machine.keep(machine.scheduler.scale("main", 20, 20))
    for started in (8, 16, 20):
        machine.tick()
        assert len(machine.state.cluster.workers) == started
    specs = (PoolSpec("slow", min=9, max=9), PoolSpec("main", min=0, max=9))
    machine = CheckedScheduler(limits=cluster(2), specs=specs)
    machine.keep(machine.scheduler.scale("slow", 12, 12))
    machine.tick()
    machine.submit(1)
    machine.tick()
    assert [w.pool for w in machine.state.cluster.workers.values()].count("main") == 1


def test_remaining_nodes_take_workers_only_up_to_their_rank_limit() -> None:
    limits = cluster(1, 1, per_slot=2**40)
    machine = CheckedScheduler(limits=limits, specs=(PoolSpec("main", min=40, max=40),))
    assert len(machine.state.cluster.workers) == 40
    machine.keep(machine.scheduler.node_lost("n2", "gone", machine.now_ns))
    while [worker for worker in machine.state.cluster.workers if machine.join(worker)] or (
        machine.state.cluster.nodes.hosts["n1"].ranks < 32
    ):
        machine.tick()
    assert machine.state.cluster.nodes.hosts["n1"].ranks == 32
    (info,) = pool_infos(machine.state)
    assert "hold no more" in info.reason


def test_pool_that_reserves_memory_grows_beside_a_pool_with_a_worker_per_slot() -> None:
    main = PoolSpec("main", min=16, max=16)
    big = PoolSpec("big", min=3, max=3, memory_bytes=16 * 2**30)
    machine = CheckedScheduler(limits=cluster(16, per_slot=4 * 2**30), specs=(main, big))
    sizes = {name: len(pool.workers) for name, pool in machine.state.cluster.pools.items()}
    assert sizes == {"main": 16, "big": 3}
