"""Expected starts, holdings and pending reasons."""

import msgspec
import pytest
from checked_scheduler import (
    SECOND,
    CheckedScheduler,
    cluster,
    expected_starts,
    route,
    wide,
)
from claimant import Claimant

from simenv.model import HeldCapacity, PoolSpec, ProgressInfo, TargetInfo, TaskSpec
from simenv.scheduler.core import RecordEvent, RetireWorker, WorkerHeartbeat
from simenv.scheduler.events import devices
from simenv.scheduler.reservations import policies
from simenv.scheduler.views import cluster_info
from simenv.scheduler.views.cluster_info import running_tasks
from simenv.scheduler.views.pending_reasons import pending_reason
from simenv.scheduler.views.run_times import UNKNOWN, run_forecast

MS = 1_000_000
NARROW = route(10_000.0, max_slots=1)  # it takes one slot


def _waits(machine: CheckedScheduler, *tasks: int) -> list[float]:
    """In ms, or UNKNOWN."""
    starts = expected_starts(machine)
    each = (starts.task_us(machine.state.tasks[task], machine.now_ns) for task in tasks)
    return [wait_us / 1e3 if wait_us >= 0 else wait_us for wait_us in each]


def _new(machine: CheckedScheduler, pool: str = "main", owner: str = "") -> float:
    starts = expected_starts(machine, owner)
    result = starts.new_us(machine.state.cluster.pools[pool], machine.now_ns, owner)
    return result / 1e3 if result >= 0 else result


def test_idle_pool_forecasts_no_wait(pair: CheckedScheduler) -> None:
    assert _new(pair) == 0
    (task,) = pair.submit(cost=20_000.0)
    assert _waits(pair, task) == [0]


def test_forecast_counts_running_and_waiting_work(pair: CheckedScheduler) -> None:
    tasks = pair.submit(6, cost=20_000.0)
    pair.assign()
    pair.now_ns += 5 * MS
    # Each worker has one, with 15 ms left, and the next; two more wait.
    assert _waits(pair, *tasks[2:]) == pytest.approx([15, 15, 35, 35])
    assert _new(pair) == pytest.approx(55)
    (worker, *_) = pair.state.cluster.workers.values()
    assert worker.held.since_ns == pair.now_ns - 5 * MS


def test_forecast_follows_measured_pace_of_pool(pair: CheckedScheduler) -> None:
    pair.submit(60, cost=20_000.0)
    for _ in range(20):
        pair.assign()
        pair.now_ns += 60 * MS  # of each a third is work
        for worker in list(pair.state.cluster.workers.values()):
            pair.finish(list(worker.held.values())[:1])
    assert len(pair.state.tasks) == 20
    assert _new(pair) == pytest.approx(20 * 60 / 2, rel=0.15)
    assert pair.state.cluster.pools["main"].small.speed == 1  # of these nothing was learned


def test_pace_of_small_tasks_is_learned_apart_from_large_ones(machine: CheckedScheduler) -> None:
    machine.submit(40, cost=100.0)
    machine.submit(1, cost=50_000.0)
    while len(machine.state.cluster.pools["main"].queue):
        (send, *_) = machine.assign()
        machine.now_ns += round(sum(r.cost_us for r in send.records) * 10_000)  # ten times
        machine.finish(send.records)
        if len(machine.state.cluster.pools["main"].queue) == 1:
            break
    pool = machine.state.cluster.pools["main"]
    assert pool.small.speed < 0.9
    assert pool.large.speed == 1


def test_learned_costs_also_apply_to_waiting_tasks(pair: CheckedScheduler) -> None:
    waiting = pair.submit(40, cost=20_000.0)
    assert _waits(pair, waiting[-1]) == pytest.approx([19 * 20])
    spec, along = pair.state.tasks[waiting[0]].spec, pair.state.tasks[waiting[0]].route
    for _ in range(40):
        pair.state.estimator.observe(along, spec, 1, 60_000)
    assert _waits(pair, waiting[-1]) == pytest.approx([19 * 60], rel=0.01)


def test_one_slow_task_changes_cost_estimate_little(pair: CheckedScheduler) -> None:
    along, spec = route(20_000.0), TaskSpec(b"program", 100, 1)
    pair.state.estimator.observe(along, spec, 1, 20_000_000)
    assert pair.state.estimator.cost_us(along, spec) < 40_000


def test_wait_of_paused_device_is_unknown(pair: CheckedScheduler) -> None:
    (task,) = pair.submit()
    for verb in ("pause", "resume", "drain"):
        devices.set_device_state(pair.state, "main", verb, "", "", float(verb == "drain"), 5)
        expected = UNKNOWN if verb == "pause" else 0
        assert _new(pair) == pytest.approx(expected, abs=0.01)
        told_ns = expected_starts(pair).device_ns("main", pair.now_ns)
        assert told_ns == pytest.approx(expected, abs=10_000)
    devices.complete_drains(pair.state, 2 * SECOND)  # the drain's time is over
    assert _new(pair) == UNKNOWN
    assert _waits(pair, task) == [UNKNOWN]


def test_forecast_follows_priorities_and_ageing(machine: CheckedScheduler) -> None:
    low = machine.submit(10, along=NARROW, priority=-1)
    high = machine.submit(10, along=NARROW, priority=1)
    assert _waits(machine, high[0], high[9], low[0], low[9]) == pytest.approx([0, 90, 100, 190])
    assert _new(machine) == pytest.approx(100)
    machine.now_ns += 70 * SECOND  # what is old is now before a new one of a higher priority
    assert _new(machine) == pytest.approx(200)


def test_round_robin_forecast_waits_for_one_task_of_other_owner(machine: CheckedScheduler) -> None:
    devices.set_queue_policy(machine.state, "main", "round_robin", ())
    machine.submit(50, along=NARROW)
    assert _new(machine, owner="ana") == pytest.approx(10)
    assert _new(machine) == pytest.approx(500)


def test_expected_starts_of_tasks_far_back_are_exact(machine: CheckedScheduler) -> None:
    tasks = machine.submit(5_000, along=NARROW)
    assert _waits(machine, *tasks) == pytest.approx([place * 10 for place in range(5_000)])


def test_forecast_counts_dedicated_worker_only_for_its_reservation() -> None:
    host = Claimant()
    number = host.reserve(5, workers=1).reservation
    host.assign()
    host.submit(11, cost=20_000.0)
    host.assign()
    assert _new(host) == pytest.approx(220)
    (first,) = host.under(number, cost=20_000.0)
    assert _waits(host, first) == [0]
    host.assign()
    (second,) = host.under(number, cost=20_000.0)
    assert _waits(host, second) == pytest.approx([20])
    assert running_tasks(host.state, host.ledger[number]) == [first]


def test_waits_of_parked_tasks_and_of_starting_pools() -> None:
    host = Claimant()
    host.policy("credit", total_credits=2)
    number = host.reserve(2).reservation
    host.under(number, 1, shots=2_000)
    (parked,) = host.under(number)
    assert _waits(host, parked) == [UNKNOWN]
    machine = CheckedScheduler(min=0, max=1)
    assert _new(machine) == pytest.approx(1_000)
    machine.submit()
    machine.tick()
    machine.now_ns += 400 * MS
    assert _new(machine) == pytest.approx(600, rel=0.01)


def test_pool_of_several_ranks_has_forecast(pair: CheckedScheduler) -> None:
    pair.submit(along=wide(2))
    assert _new(pair, "main.x2") > 0
    pair.revive()
    pair.assign()
    assert _new(pair, "main.x2") > 4_000


def test_forecast_of_prefetched_task_counts_task_before_it(machine: CheckedScheduler) -> None:
    first, second = machine.submit(2, cost=700.0)
    machine.assign()
    assert _waits(machine, first, second) == pytest.approx([0, 0.7])
    machine.now_ns += MS // 2
    assert _waits(machine, second) == pytest.approx([0.2])
    machine.begin(machine.state.tasks[first])
    assert _waits(machine, first) == [UNKNOWN]
    machine.submit(along=route(3_000.0))
    assert _new(machine) == pytest.approx(0.9 + 3.0)


def _target(host: Claimant, device: str) -> TargetInfo:
    return cluster_info.target_info(host.state, device)


def test_units_of_tasks_are_counted_once_as_held_or_in_flight() -> None:
    host = Claimant()
    host.policy("credit", total_credits=10)
    assert (_target(host, "main").reservations, _target(host, "").held) == (0, HeldCapacity())
    number = host.reserve(9).reservation
    first, *_ = host.under(number, 4, shots=2_000)  # four times two units
    for device in ("main", ""):
        result = _target(host, device)
        assert (result.reservations, result.held) == (1, HeldCapacity(8, 8, 0))
        assert result.in_flight == HeldCapacity()
    devices.set_max_inflight(host.state, "main", 1)
    sent = len([record for send in host.assign() for record in send.records])
    result = _target(host, "main")
    assert sent == 1
    assert (result.in_flight, result.held) == (HeldCapacity(2, 2, 0), HeldCapacity(6, 6, 0))
    host.ran(first, 10**6)
    result = _target(host, "main")
    assert (result.in_flight, result.held) == (HeldCapacity(), HeldCapacity(6, 6, 0))


def ten_times(host: Claimant) -> None:
    """All devices together count in circuits of ten times the shots."""
    ledger = host.state.reservations
    profile = ledger.terms("").profile
    longer = msgspec.structs.replace(profile.baseline, shots=10 * profile.baseline.shots)
    assert ledger.set_profile("", msgspec.structs.replace(profile, baseline=longer))
    assert policies.unit_ns(ledger.terms("").profile) == 86_000_000
    host.settle()


def test_credits_in_different_units_are_converted_before_addition() -> None:
    host = Claimant()
    host.policy("credit", device="", total_credits=10)
    ten_times(host)
    decision = host.reserve(35)
    assert decision.status == "accepted"
    assert (decision.credits_required, decision.capacity_available) == (35, 100)
    assert host.state.reservations.reserved("").credits == 4  # of 3.5
    assert host.state.reservations.reserved("main").credits == 35
    refused = host.reserve(61)
    assert (refused.status, refused.credits_required, refused.capacity_available) == (
        "delayed", 61, 60,
    )  # fmt: skip
    assert "7 credits are needed, 6 of 10 are free" in refused.message
    assert refused.retry_after_ns == 100 * 10**9  # once the first expires
    host.under(decision.reservation, 4, shots=2_000)  # of two units each
    host.assign()
    assert _target(host, "main").in_flight == HeldCapacity(8, 8, 0)
    assert _target(host, "").in_flight == HeldCapacity(1, 1, 0)


def test_rates_in_different_units_are_converted_before_addition() -> None:
    host = Claimant()
    host.policy("rate", device="", device_rate=10, time_span_ns=10**9)
    ten_times(host)
    host.policy("rate", device="main", device_rate=100, time_span_ns=10**9)
    walltime_ns = 2 * 10**9
    first = host.reserve(50, walltime_ns=walltime_ns)
    assert first.rate_required == 25
    reserved = host.state.reservations.reserved
    assert (reserved("main").rate, reserved("").rate) == (25, 3)  # of 2.5
    assert host.ledger[first.reservation].units == 50
    refused = host.reserve(150, walltime_ns=walltime_ns)
    assert (refused.status, refused.capacity_available) == ("delayed", 70)
    assert "8 units a time span are needed, 7 of 10 are free" in refused.message


MIB = 2**20


def why(machine: CheckedScheduler, number: int) -> str:
    return pending_reason(machine.state, machine.state.tasks[number], machine.now_ns)


def test_reason_names_state_of_pool_without_workers() -> None:
    machine = CheckedScheduler(min=0, max=1)
    (number,) = machine.submit(1)
    machine.tick()
    assert why(machine, number) == "pool main is starting"
    machine.lose("main-0", "exit 1")
    assert why(machine, number) == "pool main retries after: exit 1"
    for _ in range(7):
        machine.tick(61.0)
        for name in list(machine.state.cluster.workers):
            machine.lose(name, "exit 1")
    assert why(machine, number) == "pool main is quarantined: exit 1"
    machine.keep(machine.scheduler.resume("main"))
    machine.keep(machine.scheduler.scale("main", 0, 0))
    machine.tick(61.0)
    assert why(machine, number) == "pool main was scaled down to no workers"


def test_reason_distinguishes_missing_worker_slot_and_memory() -> None:
    machine = CheckedScheduler(3, cluster(2))
    task = machine.submit(4, cost=200_000.0)
    machine.assign()
    assert why(machine, task[0]) == "next on main-0"
    assert why(machine, task[2]) == "waiting for a slot"
    machine.begin(machine.state.tasks[task[0]])
    assert why(machine, task[0]) == ""
    machine = CheckedScheduler(1, cluster(2))
    task = machine.submit(2, cost=200_000.0)
    machine.assign()
    assert why(machine, task[1]) == "waiting for a worker"
    machine = CheckedScheduler(2, cluster(2))
    task = machine.submit(2, along=route(200_000.0, memory_bytes=600 * MIB))
    machine.assign()
    assert why(machine, task[1]) == "waiting for 600.0 MiB of memory"


def test_reason_says_that_last_slot_is_reserved_for_short_tasks() -> None:
    machine = CheckedScheduler(2, cluster(2))
    machine.submit(1)
    for send in machine.assign():
        machine.finish(send.records)
    task = machine.submit(2, cost=5e6)
    machine.assign()
    assert why(machine, task[1]) == "the last slot is kept for short tasks for now"


def test_reason_of_waiting_gang_counts_needed_and_free_slots() -> None:
    machine = CheckedScheduler(6, cluster(2, 2, 2))
    small = machine.submit(6, cost=200_000.0)
    first = machine.assign()
    (number,) = machine.submit(1, along=wide(4))
    assert why(machine, number) == "pool main.x4 is starting"
    machine.revive()
    gang = {share.node for share in machine.state.cluster.workers["main.x4-0"].shares}
    done = next(s for s in first if machine.state.cluster.workers[s.worker].host.node.name in gang)
    machine.finish(done.records)
    assert machine.assign() == []
    assert why(machine, number) == "waiting for 4 slots on 2 nodes: 1 is free"
    (late,) = machine.submit(1, cost=200_000.0)
    node = machine.state.cluster.workers[done.worker].host.node.name
    expected = f"free slots on {node} are kept for a task of several ranks"
    assert why(machine, late) == expected
    assert small


def test_reason_of_gang_names_last_slots_and_drained_nodes() -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    machine.submit(1)
    (number,) = machine.submit(1, along=wide(4))
    machine.submit(4, cost=200_000.0)
    machine.assign()
    machine.tick()
    assert "the last slots: they are kept for short tasks" in why(machine, number)
    machine = CheckedScheduler(1, cluster(2, 2))
    machine.keep(machine.scheduler.drain_node("n2", "disk", machine.now_ns))
    (number,) = machine.submit(1, along=wide(4))
    machine.tick()
    result = why(machine, number)
    needs = "it needs 4 ranks of 256.0 MiB, more than the nodes in use have"
    assert result == f"{needs}: n2 is drained: disk"
    machine = CheckedScheduler(1, cluster(2))
    machine.keep(machine.scheduler.drain_node("n1", "disk", machine.now_ns))
    for name in [a.worker for a in machine.actions if isinstance(a, RetireWorker)]:
        machine.lose(name, "exit 0")
    (number,) = machine.submit(1)
    machine.tick()
    assert "n1 (drained: disk)" in why(machine, number)


def test_reason_of_task_too_large_for_nodes_in_use_names_its_memory() -> None:
    machine = CheckedScheduler(limits=cluster(2, 8), specs=(PoolSpec("main", min=1, max=2),))
    (worker,) = machine.state.cluster.workers.values()
    machine.keep(machine.scheduler.drain_node("n2", "disk", machine.now_ns))
    machine.lose(worker.name, "exit 0")
    machine.revive()
    (number,) = machine.submit(1, along=route(2e5, memory_bytes=2**31))
    assert machine.assign() == []
    needs = "it needs 2.0 GiB, more than the nodes in use have"
    assert why(machine, number) == f"{needs}: n2 is drained: disk"
    machine.keep(machine.scheduler.resume("n2"))
    assert why(machine, number) == "waiting for a worker on a node with 2.0 GiB"


def test_task_that_would_exceed_allocation_end_is_not_sent_and_blocks_no_others() -> None:
    machine = CheckedScheduler(2, cluster(2, end_ns=(1_000 + 120) * SECOND))
    (long,) = machine.submit(1, cost=200e6)
    short = machine.submit(3, cost=200_000.0)
    assert [record.number for send in machine.assign() for record in send.records] == short[:2]
    assert why(machine, long) == "the allocation ends in 2 min, before it would"
    assert not machine.state.allocation_ends(machine.now_ns + 59 * SECOND)
    assert machine.state.allocation_ends(machine.now_ns + 60 * SECOND)
    value, actions = machine.scheduler.cancel([long], machine.now_ns)
    machine.keep(actions)
    assert value == ["cancelled"]
    assert long not in machine.state.tasks


def test_gang_that_would_exceed_allocation_end_claims_no_slots() -> None:
    machine = CheckedScheduler(2, cluster(2, end_ns=(1_000 + 90) * SECOND))
    (number,) = machine.submit(1, along=wide(2, cost_us=60e6))
    machine.revive()
    machine.submit(2, cost=200_000.0)
    assert len(machine.assign()) == 2
    assert "the allocation ends in 90 s" in why(machine, number)


def test_reason_names_cancellation_and_service_shutdown(machine: CheckedScheduler) -> None:
    first, second = machine.submit(2, cost=200_000.0)
    machine.assign()
    machine.keep(machine.scheduler.cancel([first], machine.now_ns)[1])
    assert why(machine, first) == "stopping: cancelled"
    machine.state.draining = True
    assert why(machine, second) == "the service is shutting down"


def test_running_task_says_that_its_kernels_are_compiled(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1)
    (send,) = machine.assign()
    record = machine.state.tasks[number]

    def beat(*, compiling: bool) -> list[str]:
        sign = WorkerHeartbeat(
            send.worker, machine.start_of(send.worker), number, record.fence, compiling=compiling
        )
        actions = machine.scheduler.heartbeat_received(sign, machine.now_ns)[1]
        return [each.kind for each in actions if isinstance(each, RecordEvent)]

    assert (beat(compiling=True), beat(compiling=True)) == (["task.compiling"], [])
    assert why(machine, number) == "compiling kernels, once on this machine"
    beat(compiling=False)
    assert why(machine, number) == ""


def test_run_at_twenty_times_its_forecast_is_reported_once(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=2e6, along=route(2e6, max_slots=1))
    machine.assign()
    record = machine.state.tasks[number]
    machine.begin(record)

    def beat(seconds: int) -> list[tuple[str, str]]:
        machine.now_ns += seconds * SECOND
        sign = WorkerHeartbeat(record.worker, machine.start_of(record.worker), number, record.fence)
        actions = machine.scheduler.heartbeat_received(sign, machine.now_ns)[1]
        return [(each.kind, each.message) for each in actions if isinstance(each, RecordEvent)]

    assert beat(39) == []
    ((kind, text),) = beat(2)
    assert kind == "task.outran"
    assert "has run for 41 s, 20 times its forecast; about 41 s more are expected" in text
    assert beat(60) == []


def test_run_at_ten_times_its_forecast_has_a_new_one(machine: CheckedScheduler) -> None:
    """Waits behind it follow."""
    running, behind = machine.submit(2, cost=2e6, along=route(2e6, max_slots=1))
    machine.assign()
    record = machine.state.tasks[running]
    machine.begin(record)
    for seconds, left_s, times in (
        (1, 1.0, 0.0),
        (18, 19.0, 0.0),
        (1, 20.0, 10.0),
        (20, 40.0, 20.0),
    ):
        machine.now_ns += seconds * SECOND
        left_us, outrun = run_forecast(machine.state, record, machine.now_ns)
        assert (left_us / 1e6, outrun) == pytest.approx((left_s, times), abs=0.05)
        assert _waits(machine, behind) == pytest.approx([left_us / 1e3], abs=50)


@pytest.mark.parametrize(
    ("progress", "left_s"),
    [
        (None, 6.0),  # by the forecast, of 10 s
        (ProgressInfo("passes", 0, 40, 0.0), 6.0),
        (ProgressInfo("passes", 10, 40, 0.25), 0.75 * 4.1 / 0.26),  # by the rate
        (ProgressInfo("passes", 30, 40, 0.75, 0.5), 0.25 * 4.1 / 0.26),
        (ProgressInfo("passes", 20, 40, 0.5, 0.5), 1.0),  # of the forecast, half is left
        (ProgressInfo("passes", 40, 40, 1.0), 0.0),
    ],
)
def test_rest_of_a_run_follows_from_its_rate(
    machine: CheckedScheduler, progress: ProgressInfo | None, left_s: float
) -> None:
    (number,) = machine.submit(1, cost=10e6, along=route(10e6, max_slots=1))
    (send,) = machine.assign()
    record = machine.state.tasks[number]
    machine.begin(record)
    machine.now_ns += 4 * SECOND
    sign = WorkerHeartbeat(
        send.worker, machine.start_of(send.worker), number, record.fence, progress=progress
    )
    machine.scheduler.heartbeat_received(sign, machine.now_ns)
    for later_s in (0, 0.5):  # time goes on between two heartbeats
        machine.now_ns += round(later_s * SECOND)
        left_us, _ = run_forecast(machine.state, record, machine.now_ns)
        assert left_us / 1e6 == pytest.approx(max(0.0, left_s - later_s), abs=0.05)


def test_rest_of_a_run_is_that_after_the_kernels_that_it_compiled(
    machine: CheckedScheduler,
) -> None:
    (number,) = machine.submit(1, cost=10e6, along=route(10e6, max_slots=1))
    (send,) = machine.assign()
    record = machine.state.tasks[number]
    machine.begin(record)

    def left_s(after_s: int, fraction: float, *, compiling: bool) -> float:
        machine.now_ns += after_s * SECOND
        part = ProgressInfo("passes", 0, 40, fraction)
        sign = WorkerHeartbeat(
            send.worker, machine.start_of(send.worker), number, record.fence, progress=part,
            compiling=compiling,
        )  # fmt: skip
        machine.scheduler.heartbeat_received(sign, machine.now_ns)
        left_us, outrun = run_forecast(machine.state, record, machine.now_ns)
        assert outrun == 0.0
        return left_us / 1e6

    assert left_s(120, 0.0, compiling=True) == pytest.approx(10.0)
    assert left_s(4, 0.0, compiling=False) == pytest.approx(6.0, abs=0.05)
    assert left_s(1, 0.5, compiling=False) == pytest.approx(0.5 * 5.1 / 0.51)
