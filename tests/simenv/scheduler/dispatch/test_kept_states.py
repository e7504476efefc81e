"""Dedicated workers, and states that they keep."""

import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route, wide
from claimant import Claimant

from simenv.model import (
    CLIENT_LIMITS,
    AdmissionReason,
    Limits,
    PoolSpec,
    ReservationRequest,
    ReservationState,
    TaskParts,
    WorkerState,
    Workload,
)
from simenv.scheduler.core import Action, AssignTasks, DropKeptStates, RetireWorker, Route
from simenv.scheduler.events import reservations
from simenv.scheduler.reservations.policies import BOUND_NS
from simenv.scheduler.reservations.reservation import REQUESTED
from simenv.scheduler.views.cluster_info import pool_infos, reservation_info

GIB = 2**30
KEEP_S = 30.0


def along(num_qubits: int = 26) -> Route:
    """A task of some seconds; 26 qubits are 1 GiB."""
    return route(5e6, num_qubits=num_qubits, memory_bytes=2 * GIB, max_slots=1)


def machine(workers: int = 2) -> CheckedScheduler:
    return CheckedScheduler(workers, cluster(2, per_slot=8 * GIB))


def part(
    scheduler: CheckedScheduler, worker: str = "", owner: str = "", **changes: object
) -> AssignTasks:
    """Submit a part, and see where it is sent."""
    fields = {"ends": (1,), "keep_s": KEEP_S, "worker": worker, **changes}
    scheduler.submit(along=along(), owner=owner, parts=TaskParts(**fields))  # type: ignore[arg-type]
    (sent,) = scheduler.assign()
    return sent


def free_memory(scheduler: CheckedScheduler) -> int:
    (host,) = scheduler.state.cluster.nodes.hosts.values()
    return host.free_memory


def test_part_joins_no_chunk_of_another_owner() -> None:
    scheduler = machine(workers=1)
    scheduler.submit(5, owner="a")
    scheduler.submit(5, owner="b", parts=TaskParts((1,), KEEP_S))
    chunks = [{record.batch.owner for record in sent.records} for sent in scheduler.assign()]
    assert chunks == [{"a"}, {"b"}]


def test_worker_that_has_the_state_is_preferred_unless_leaving() -> None:
    scheduler = machine()
    for worker in ("main-1", "main-0", "main-1"):
        sent = part(scheduler, worker)
        assert sent.worker == worker
        other = part(scheduler, worker)  # it is busy: another runs the parts again
        assert other.worker != worker
        scheduler.finish(sent.records)
        scheduler.finish(other.records)
    assert part(scheduler, "main-7").worker in ("main-0", "main-1")  # there is none such
    scheduler = machine()
    first = part(scheduler, "main-1")
    scheduler.state.cluster.workers["main-1"].leaving = "asked to"
    scheduler.finish(first.records)
    assert scheduler.state.cluster.workers["main-1"].state == WorkerState.DRAINING
    assert part(scheduler, "main-1").worker == "main-0"


def test_memory_of_a_kept_state_is_granted_until_its_time_is_over() -> None:
    scheduler = machine()
    total = free_memory(scheduler)
    sent = part(scheduler)
    assert sent.kept_bytes == GIB
    assert free_memory(scheduler) == total - 3 * GIB
    scheduler.finish(sent.records)
    assert free_memory(scheduler) == total - GIB
    scheduler.tick(KEEP_S)
    assert free_memory(scheduler) == total - GIB
    again = part(scheduler, sent.worker)
    assert again.kept_bytes == GIB
    scheduler.tick(KEEP_S)  # the task that goes on keeps it as long as it runs
    assert free_memory(scheduler) == total - 3 * GIB
    scheduler.finish(again.records)
    scheduler.tick(KEEP_S + 3)
    assert free_memory(scheduler) == total


def test_unrelated_tasks_leave_a_grant_and_its_time_as_they_are() -> None:
    scheduler = machine(1)
    total = free_memory(scheduler)
    scheduler.finish(part(scheduler).records)
    scheduler.tick(KEEP_S / 2)
    scheduler.submit()
    (sent,) = scheduler.assign()
    assert sent.kept_bytes == GIB
    scheduler.finish(sent.records)
    scheduler.tick(KEEP_S / 2 + 3)
    assert free_memory(scheduler) == total
    scheduler.submit()
    assert scheduler.assign()[0].kept_bytes == 0


def test_grant_outlasts_its_time_while_the_worker_cannot_drop_the_state() -> None:
    scheduler = machine(1)
    total = free_memory(scheduler)
    scheduler.finish(part(scheduler).records)
    scheduler.submit()
    (sent,) = scheduler.assign()
    scheduler.tick(KEEP_S + 10)
    assert free_memory(scheduler) < total
    scheduler.finish(sent.records)
    assert free_memory(scheduler) == total - GIB  # it looks at its states when it waits
    scheduler.tick(3)
    assert free_memory(scheduler) == total


def test_short_time_of_a_later_state_leaves_that_of_an_earlier_one() -> None:
    scheduler = machine(1)
    total = free_memory(scheduler)
    scheduler.finish(part(scheduler).records)
    scheduler.finish(part(scheduler, keep_s=0.001).records)
    scheduler.tick(KEEP_S - 1)
    assert free_memory(scheduler) == total - GIB
    scheduler.tick(4)
    assert free_memory(scheduler) == total


def test_grants_are_bounded_and_given_back() -> None:
    scheduler = CheckedScheduler(2, cluster(2, per_slot=3 * GIB))
    assert [part(scheduler).kept_bytes for _ in range(2)] == [GIB, 0]
    scheduler = machine()
    assert part(scheduler, keep_s=0.0).kept_bytes == 0
    scheduler.submit(along=along(num_qubits=20), parts=TaskParts((1,), KEEP_S))
    assert scheduler.assign()[0].kept_bytes == 0
    scheduler = machine()
    total = free_memory(scheduler)
    sent = part(scheduler)
    scheduler.finish(sent.records)
    start = scheduler.start_of(sent.worker)
    scheduler.keep(
        scheduler.scheduler.worker_lost(sent.worker, start, "killed", scheduler.now_ns + SECOND)
    )
    assert free_memory(scheduler) == total


def dropped(actions: list[Action]) -> list[str]:
    return [action.worker for action in actions if isinstance(action, DropKeptStates)]


def test_grant_is_charged_to_the_owner_of_the_newest_state() -> None:
    scheduler = machine(1)
    scheduler.finish(part(scheduler, owner="ana").records)
    assert scheduler.state.use_of("ana").state_bytes == GIB
    scheduler.finish(part(scheduler, owner="bo").records)  # on the same worker, in its place
    use = {n: scheduler.state.use_of(n).state_bytes for n in ("ana", "bo")}
    assert use == {"ana": 0, "bo": GIB}
    scheduler.tick(KEEP_S + 3)
    assert scheduler.state.use_of("bo").state_bytes == 0


def test_owner_is_granted_no_more_than_its_limit() -> None:
    scheduler = machine(2)
    total = free_memory(scheduler)
    scheduler.state.shares.limits.set_owners({"ana": Limits(max_state_bytes=GIB)}, CLIENT_LIMITS)
    sent = [part(scheduler, owner="ana") for _ in range(2)]
    assert [each.kept_bytes for each in sent] == [GIB, 0]
    for each in sent:
        scheduler.finish(each.records)
    assert part(scheduler, sent[0].worker, owner="ana").kept_bytes == GIB  # it has that already
    assert part(scheduler, owner="bo").kept_bytes == GIB  # it has no limit
    assert free_memory(scheduler) == total - 2 * 3 * GIB


def test_state_above_its_owners_limit_does_not_use_the_grant_of_another() -> None:
    scheduler = machine(1)
    total = free_memory(scheduler)
    scheduler.state.shares.limits.set_owners(
        {"bo": Limits(max_state_bytes=GIB // 2)}, CLIENT_LIMITS
    )
    scheduler.finish(part(scheduler, owner="ana").records)
    sent = part(scheduler, owner="bo")
    assert sent.kept_bytes == 0
    scheduler.finish(sent.records)
    assert free_memory(scheduler) == total


def test_waiting_task_that_could_start_with_it_reclaims_the_memory_of_kept_states() -> None:
    scheduler = CheckedScheduler(2, cluster(2, per_slot=4 * GIB))
    total = free_memory(scheduler)
    for sent in [part(scheduler), part(scheduler)]:
        scheduler.finish(sent.records)
    assert free_memory(scheduler) == total - 2 * GIB
    scheduler.submit(along=route(5e6, memory_bytes=7 * GIB, max_slots=1))
    assert not scheduler.assign()
    assert len(dropped(scheduler.tick())) == 1  # one is enough
    (sent,) = scheduler.assign()
    assert sent.memory_bytes == 7 * GIB
    assert free_memory(scheduler) == 0
    assert not dropped(scheduler.tick())


def test_kept_states_give_way_only_where_nothing_is_free() -> None:
    scheduler = CheckedScheduler(2, cluster(2, per_slot=4 * GIB))
    busy, other = part(scheduler), part(scheduler)
    scheduler.finish(other.records)
    scheduler.submit(along=route(5e6, memory_bytes=7 * GIB, max_slots=1))
    assert not dropped(scheduler.tick())  # the first part has 2 GiB, and keeps 1 more
    scheduler.finish(busy.records)
    assert len(dropped(scheduler.tick())) == 1
    scheduler = CheckedScheduler(2, cluster(1, 1, per_slot=8 * GIB))
    sent = part(scheduler)
    scheduler.finish(sent.records)
    scheduler.submit(along=route(5e6, memory_bytes=8 * GIB, max_slots=1))
    assert not dropped(scheduler.tick())
    (large,) = scheduler.assign()
    assert large.worker != sent.worker


def test_state_that_the_waiting_task_goes_on_from_is_dropped_last() -> None:
    scheduler = CheckedScheduler(2, cluster(2, per_slot=4 * GIB))
    first, second = part(scheduler), part(scheduler)
    scheduler.finish(first.records)
    scheduler.tick(1.0)
    scheduler.finish(second.records)
    scheduler.submit(
        along=route(5e6, num_qubits=26, memory_bytes=7 * GIB, max_slots=1),
        parts=TaskParts((1,), KEEP_S, (), first.worker),
    )
    assert dropped(scheduler.tick()) == [second.worker]
    (sent,) = scheduler.assign()
    assert sent.worker == first.worker


def test_gang_reclaims_the_memory_of_kept_states() -> None:
    scheduler = CheckedScheduler(1, cluster(2, per_slot=4 * GIB))
    scheduler.finish(part(scheduler).records)
    scheduler.submit(along=wide(2, memory=4 * GIB))
    assert dropped(scheduler.tick()) == ["main-0"]


def test_dedicated_worker_that_has_the_state_is_preferred() -> None:
    scheduler = Claimant()
    number = scheduler.reserve(workers=2).reservation
    scheduler.assign()
    for name in ("main-1", "main-0", "main-1"):
        scheduler.submit(
            along=route(1e4, max_slots=1),
            reservation=number,
            parts=TaskParts((1,), KEEP_S, (), name),
        )
        (sent,) = scheduler.assign()
        assert sent.worker == name
        scheduler.finish(sent.records)


def test_worker_of_another_reservation_is_not_preferred() -> None:
    scheduler = Claimant()
    number = scheduler.reserve(workers=1).reservation
    scheduler.assign()
    (own,) = [
        w.name
        for w in scheduler.state.cluster.workers.values()
        if w.dedication.reservation == number
    ]
    (other,) = {"main-0", "main-1"} - {own}
    for reservation, preferred, expected in ((number, other, own), (0, own, other)):
        scheduler.submit(
            along=route(1e4, max_slots=1),
            reservation=reservation,
            parts=TaskParts((1,), KEEP_S, (), preferred),
        )
        (sent,) = scheduler.assign()
        assert sent.worker == expected
        scheduler.finish(sent.records)


@pytest.fixture
def host() -> Claimant:
    return Claimant()


def _kept(host: Claimant, number: int) -> list[str]:
    return [
        w.name for w in host.state.cluster.workers.values() if w.dedication.reservation == number
    ]


def _serve(host: Claimant) -> list[tuple[str, int]]:
    """Send and finish until nothing can be sent; which worker got which task."""
    entries = []
    while sends := host.assign():
        for send in sends:
            entries += [(send.worker, record.number) for record in send.records]
        for worker in list(host.state.cluster.workers.values()):
            if worker.held:
                host.finish(list(worker.held.values()))
                host.settle()
    return entries


def test_dedicated_worker_runs_no_other_tasks(host: Claimant) -> None:
    decision = host.reserve(workers=1)
    assert (decision.status, decision.bound_ns) == ("accepted", BOUND_NS)
    host.submit(400, cost=900.0)
    (value,) = {"main-0", "main-1"} - {worker for worker, _ in _serve(host)}
    assert _kept(host, decision.reservation) == [value]
    assert reservation_info(host.state, host.ledger[decision.reservation]).workers_kept == 1
    assert host.free_slots == 1  # it has its slot while it idles
    assert [info.kept for info in pool_infos(host.state)] == [1, 0]


def test_reservation_tasks_run_on_dedicated_worker_ahead_of_queued_tasks(host: Claimant) -> None:
    number = host.reserve(5, workers=1).reservation
    host.submit(1_000, cost=1_200.0)
    host.assign()
    (task,) = host.under(number)
    (send,) = host.assign()
    assert [record.number for record in send.records] == [task]
    assert [send.worker] == _kept(host, number)
    more = host.under(number, 3)  # they wait for it: others wait for the other worker
    for _ in range(20):
        for worker in list(host.state.cluster.workers.values()):
            if worker.held and worker.name not in _kept(host, number):
                host.finish(list(worker.held.values())[:1])
        host.settle()
        for each in host.assign():
            value = each.worker in _kept(host, number)
            assert all((record.number in more) == value for record in each.records)


def test_reservation_tasks_use_shared_workers_when_no_other_task_waits(host: Claimant) -> None:
    number = host.reserve(5, workers=1).reservation
    host.under(number, 2, cost=2e5)
    assert {send.worker for send in host.assign()} == {"main-0", "main-1"}


@pytest.mark.parametrize("how", [ReservationState.RELEASED, ReservationState.CANCELLED])
def test_dedicated_worker_is_freed_with_reservation(host: Claimant, how: ReservationState) -> None:
    number = host.reserve(5, workers=1).reservation
    host.under(number, 2)
    host.assign()
    host.end(number, how)
    assert _kept(host, number) == []
    for worker in list(host.state.cluster.workers.values()):
        if worker.held:
            host.finish(list(worker.held.values()))
    host.settle()
    assert host.free_slots == 2
    host.submit(50, cost=1_200.0)
    assert len({worker for worker, _ in _serve(host)}) == 2


def test_worker_dedication_survives_restart(host: Claimant) -> None:
    number = host.reserve(5, workers=1).reservation
    (task,) = host.under(number)
    host.submit(300, cost=1_200.0)
    host.restart()
    served = {task: worker for worker, task in _serve(host)}
    assert [served.pop(task)] == _kept(host, number)
    assert not set(served.values()) & set(_kept(host, number))


def test_dedicated_worker_requests_that_cannot_be_met_are_refused(host: Claimant) -> None:
    assert host.reserve(workers=3).code == AdmissionReason.TOO_LARGE
    of_two_pools = host.reserve(workers=1, device="")
    assert of_two_pools.code == AdmissionReason.UNSUPPORTED
    assert of_two_pools.message.endswith("name their pool, one of main, side")
    assert host.reserve(workers=1, bound_ns=5_000_000).code == AdmissionReason.UNSUPPORTED
    assert host.reserve(bound_ns=30_000_000).code == AdmissionReason.UNSUPPORTED
    promised = host.reserve(workers=1, bound_ns=30_000_000)
    assert (promised.status, promised.bound_ns) == ("accepted", 30_000_000)
    late = host.reserve(workers=2)
    assert (late.status, late.code) == ("delayed", AdmissionReason.OVER_LIMIT)
    assert late.retry_after_ns == 100 * SECOND


def test_request_for_more_dedicated_workers_than_free_slots_is_delayed(host: Claimant) -> None:
    host.submit(along=route(4e6, pool="side", max_slots=1))
    host.assign()
    assert host.free_slots == 1
    late = host.reserve(workers=2)
    assert (late.status, late.code) == ("delayed", AdmissionReason.DEVICE_UNAVAILABLE)
    assert late.message == "1 of the 2 workers of pool main can be reserved now"
    assert host.reserve(workers=1).status == "accepted"


def test_dedication_moves_from_busy_worker_to_idle_worker(host: Claimant) -> None:
    number = host.reserve(5, workers=1, ttl_ns=1_000 * SECOND).reservation
    host.assign()
    (lost,) = _kept(host, number)
    host.submit(along=route(4e6, max_slots=1))
    host.assign()
    host.lose(lost)
    host.assign()
    assert _kept(host, number) not in ([], [lost]), "the other one is kept, busy as it is"
    host.pass_time(20)
    host.revive()
    (task,) = host.under(number)
    host.submit(100, cost=1_200.0)
    sent = {s.worker: [r.number for r in s.records] for s in host.assign()}
    assert _kept(host, number) == [lost]
    assert sent[lost] == [task]


def test_reservation_task_on_shared_workers_is_first_after_60_seconds(host: Claimant) -> None:
    number = host.reserve(5, workers=1, ttl_ns=1_000 * SECOND).reservation
    host.assign()
    (first,) = host.under(number, cost=4_500.0)
    host.submit(1, along=route(60_000.0, max_slots=1))
    table = {r.number: s.worker in _kept(host, number) for s in host.assign() for r in s.records}
    assert table.pop(first)
    assert list(table.values()) == [False]
    (others,) = [
        w
        for w in host.state.cluster.workers.values()
        if w.dedication.reservation != number and w.held
    ]
    (task,) = host.under(number, cost=60_000.0)
    host.pass_time(59)
    early = host.submit(1, cost=1_200.0)
    host.finish(list(others.held.values()))
    assert [r.number for s in host.assign() for r in s.records] == early
    host.pass_time(2)
    host.submit(1, cost=1_200.0)
    host.finish(list(others.held.values()))
    assert [r.number for s in host.assign() for r in s.records] == [task]


def test_next_free_worker_is_held_for_delayed_reservation_request(host: Claimant) -> None:
    for cost in (4e6, 9e5, 2e6, 2e6):
        host.submit(cost=cost)
    host.assign()
    decision = host.reserve(workers=1)
    assert (decision.status, decision.code) == ("delayed", AdmissionReason.DEVICE_UNAVAILABLE)
    assert 0.8e9 < decision.retry_after_ns < 0.95e9
    host.assign()
    (name,) = _kept(host, REQUESTED)
    host.finish(list(host.state.cluster.workers[name].held.values()))
    host.settle()
    host.assign()
    assert not host.state.cluster.workers[name].held, "it waits for whoever asked"
    number = host.reserve(workers=1).reservation
    host.assign()
    assert _kept(host, number) == [name]


@pytest.mark.parametrize("step_s", [-3_600, 3_600])
def test_worker_is_held_for_delayed_request_as_long_after_a_step_of_the_wall_clock(
    host: Claimant, step_s: int
) -> None:
    host.submit(cost=4e6)
    host.submit(cost=4e6)
    host.tick()
    host.assign()
    host.reserve(workers=1)
    host.assign()
    for passed_s, count in ((4, 1), (8, 0)):
        host.hear()
        host.tick(passed_s)
        wall_ns = host.wall_ns + step_s * SECOND
        host.keep(host.scheduler.wall_clock_tick(wall_ns, host.now_ns))
        assert len(_kept(host, REQUESTED)) == count


def test_pool_starts_worker_for_delayed_reservation_request() -> None:
    host = Claimant(workers=1)
    host.scheduler.scale("main", 1, 2)
    assert host.reserve(workers=2).status == "delayed"
    host.tick()
    host.join("main-1")
    host.assign()
    assert host.reserve(workers=2).status == "accepted"


def test_pool_starts_worker_for_other_tasks_beside_dedicated_worker() -> None:
    host = Claimant(workers=1)
    host.scheduler.scale("main", 1, 2)
    number = host.reserve(workers=1).reservation
    host.assign()
    (task,) = host.submit(cost=1_200.0)
    assert host.assign() == []
    host.tick()
    host.join("main-1")
    (send,) = host.assign()
    assert [record.number for record in send.records] == [task]
    assert _kept(host, number) == ["main-0"]


def test_idle_dedicated_worker_is_not_retired(host: Claimant) -> None:
    host.scheduler.scale("main", 0, 2)
    number = host.reserve(workers=1, ttl_ns=1_000 * SECOND).reservation
    host.assign()
    host.pass_time(90)
    entries = [a.worker for a in host.tick() if isinstance(a, RetireWorker)]
    assert len(entries) == 1
    assert entries != _kept(host, number)


def test_drained_node_has_no_dedicated_workers(host: Claimant) -> None:
    number = host.reserve(workers=1).reservation
    host.assign()
    host.keep(host.scheduler.drain_node("", "repairs", host.now_ns))
    assert _kept(host, number) == []
    assert host.free_slots == 2


def test_dedicated_hardware_worker_takes_no_slot() -> None:
    machine = CheckedScheduler(specs=(PoolSpec("qpu", "hardware", min=1, max=1, provider="a:b"),))
    ask = ReservationRequest(device="qpu", workers=1, workload=Workload(qubits=1, shots=1))
    decision = reservations.reserve(machine.state, ask, "", wall_ns=10**18)[0]
    assert decision.status == "accepted"
    machine.submit(along=route(pool="qpu"))
    assert machine.assign() == []
    machine.submit(along=route(pool="qpu"), reservation=decision.reservation)
    assert len(machine.assign()) == 1
    assert machine.free_slots == 2


def test_gang_waiting_for_dedicated_slot_does_not_block_its_node() -> None:
    machine = CheckedScheduler(2, cluster(2))
    ask = ReservationRequest(device="main", workers=1, ttl_ns=1_000 * SECOND)
    assert (
        reservations.reserve(machine.state, ask, "", 1_800_000_000 * SECOND)[0].status == "accepted"
    )
    assert machine.assign() == []
    assert any(worker.dedication.reservation for worker in machine.state.cluster.workers.values())
    machine.submit(1, along=wide(2))
    machine.revive()
    assert machine.assign() == []  # the gang lacks a slot as long as that one is reserved
    machine.hear()
    machine.tick(11.0)  # it has waited long enough to take a node's last slots
    machine.submit(1, cost=900.0)
    assert [len(send.records) for send in machine.assign()] == [1]
