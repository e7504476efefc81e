"""The dispatcher, and resizing of pools."""

import pytest
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, cluster, route

from simenv.model import PoolSpec, TaskSpec
from simenv.scheduler.core import ClusterLimits, Estimator, Phase, SetThreads, TaskRecord
from simenv.scheduler.dispatch.batching import CHUNK_BYTES, MAX_WITH_REST
from simenv.scheduler.dispatch.gang_scheduling import PATIENCE_NS
from simenv.scheduler.queueing.lanes import ALONE_US, CHUNK_US, LONG_CHUNK_US


def test_chunks_grow_where_many_tasks_wait_and_one_goes_ahead(machine: CheckedScheduler) -> None:
    machine.submit(4_000, cost=90.0)
    sends = machine.assign()
    assert len(sends) == 2, "one to run, one ahead"
    for send in sends:
        assert CHUNK_US < sum(record.cost_us for record in send.records) <= LONG_CHUNK_US
    machine.finish(sends[0].records[:20])
    assert machine.assign() == [], "the first chunk is not over"
    machine.finish(sends[0].records[20:])
    assert len(machine.assign()) == 1


def test_work_not_number_bounds_chunks_of_the_shortest_circuits(machine: CheckedScheduler) -> None:
    for user in range(60):  # turns of less than a chunk
        machine.submit(110, cost=11.0, owner=f"user{user}")
    first, second = machine.assign()
    for send in first, second:
        assert sum(record.cost_us for record in send.records) <= MAX_WITH_REST * LONG_CHUNK_US
        assert len(send.records) == 2 * 110, "two turns of three that would pass the balance"
    for user in range(60, 400):
        machine.submit(110, cost=11.0, owner=f"user{user}")
    machine.finish(first.records)
    (third,) = machine.assign()
    assert len(third.records) == 4 * 110
    assert len({record.batch.owner for record in third.records}) == 4


def test_a_chunk_goes_ahead_of_what_is_left_of_the_last_one(machine: CheckedScheduler) -> None:
    machine.submit(4_000, cost=90.0)
    first, second = machine.assign()
    machine.finish(first.records + second.records[: len(second.records) // 2])
    assert len(machine.assign()) == 1
    assert machine.assign() == [], "it holds the rest of one, and another one"


def test_a_task_that_travels_alone_ends_the_chunk_before_it(machine: CheckedScheduler) -> None:
    for count, cost in ((3, 100.0), (1, ALONE_US), (3_000, 100.0)):
        machine.submit(count, cost)
    first, second, *_ = machine.assign()
    assert [record.cost_us for record in first.records] == [100.0] * 3
    assert [record.cost_us for record in second.records] == [ALONE_US]
    assert second.announce


def test_chunks_of_large_cheap_programs_stay_within_byte_limit(machine: CheckedScheduler) -> None:
    machine.submit(100, cost=1.0, program=bytes(2**20))
    for _ in range(20):
        for send in machine.assign():
            assert sum(len(r.spec.program) for r in send.records) <= CHUNK_BYTES
            machine.finish(send.records)
    assert not machine.state.tasks
    machine.submit(1, cost=1.0, program=bytes(2 * CHUNK_BYTES))
    assert [len(send.records) for send in machine.assign()] == [1]


def test_message_bytes_of_each_task_count_in_chunk_size(machine: CheckedScheduler) -> None:
    for _ in range(100):
        machine.submit(1, cost=1.0, share_bytes=2**20)
    for send in machine.assign():
        assert len(send.records) <= CHUNK_BYTES // 2**20 + 1


@pytest.mark.parametrize(
    ("workers", "count", "cost_us", "sizes"),
    [
        pytest.param(2, 10, 100.0, [5, 5], id="few are split evenly"),
        pytest.param(2, 10, 10.0, [10], id="less work than a message costs is not split"),
        pytest.param(1, 6, 2_000.0, [2], id="tasks of two milliseconds travel in pairs"),
        pytest.param(1, 3, 2_600.0, [1, 1], id="above half a chunk each is sent alone"),
        pytest.param(1, 3, 200_000.0, [1], id="nothing is sent behind a long one"),
    ],
)
def test_sizes_of_chunks(workers: int, count: int, cost_us: float, sizes: list[int]) -> None:
    machine = CheckedScheduler(workers)
    machine.submit(count, cost_us)
    assert [len(send.records) for send in machine.assign()] == sizes


def test_tasks_of_half_a_millisecond_share_chunks_of_five(machine: CheckedScheduler) -> None:
    machine.submit(20, cost=700.0)
    sends = machine.assign()
    assert [len(send.records) for send in sends] == [7]
    assert not sends[0].announce
    machine.finish(sends[0].records[:3])
    assert not machine.assign()
    machine.finish(sends[0].records[3:4])
    assert [len(send.records) for send in machine.assign()] == [7]


def test_sent_task_is_not_running_until_worker_begins_it(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=30_000.0)
    (send,) = machine.assign()
    assert send.announce
    record = send.records[0]
    assert (record.phase, machine.state.tasks.running) == (Phase.SENT, 0)
    machine.begin(record)
    assert machine.state.tasks.running == 1


def test_each_wide_task_gets_one_slot_when_many_wait(pair: CheckedScheduler) -> None:
    pair.submit(8, cost=900_000.0)
    assert [send.slots for send in pair.assign()] == [1, 1]


def _others_came(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=10.0)
    for send in machine.assign():
        machine.finish(send.records)


def test_two_long_tasks_alone_run_side_by_side(pair: CheckedScheduler) -> None:
    pair.submit(2, cost=5e6)
    assert [send.slots for send in pair.assign()] == [1, 1]


def test_long_task_leaves_last_slot_free_while_short_tasks_arrive(pair: CheckedScheduler) -> None:
    _others_came(pair)
    pair.submit(2, cost=5e6)
    (first,) = pair.assign()
    assert first.slots == 1
    pair.submit(1, cost=10.0)
    (short,) = pair.assign()
    assert short.records[0].cost_us == 10.0
    pair.finish(short.records)
    assert pair.assign() == []  # the long one still leaves the slot free


def test_a_long_task_takes_the_last_slot_after_ten_seconds(pair: CheckedScheduler) -> None:
    _others_came(pair)
    pair.submit(2, cost=5e6)
    pair.assign()
    pair.tick(9.0)
    pair.state.dispatch.last_short_ns = pair.now_ns  # others come in
    assert pair.assign() == []
    pair.tick(1.5)
    pair.state.dispatch.last_short_ns = pair.now_ns
    assert len(pair.assign()) == 1


def test_long_task_takes_last_slot_when_no_short_task_arrives(pair: CheckedScheduler) -> None:
    _others_came(pair)
    pair.submit(2, cost=5e6)
    pair.assign()
    pair.tick(1.5)
    assert len(pair.assign()) == 1


def test_lanes_of_unused_priorities_are_removed(machine: CheckedScheduler) -> None:
    order = list(range(-50, 50))
    for priority in order[::2] + order[1::2]:
        machine.submit(1, cost=1_200.0, priority=priority)
    ran: list[int] = []
    while machine.state.tasks:
        for send in machine.assign():
            ran += [record.batch.terms.priority for record in send.records]
        machine.finish(list(machine.state.cluster.workers["main-0"].held.values()))
    assert ran == order[::-1]
    machine.submit()
    machine.assign()
    assert len(machine.state.cluster.pools["main"].queue.lanes.shared) <= 2


def test_task_waits_until_memory_is_free() -> None:
    limits = ClusterLimits(2, 2**20 + 2**19, 100, 2**30, 10 * SECOND, 60 * SECOND)
    machine = CheckedScheduler(limits=limits)
    machine.submit(2, cost=60_000.0)
    (send,) = machine.assign()
    assert machine.assign() == []
    machine.finish(send.records)
    assert len(machine.assign()) == 1


def test_cost_estimates_follow_measured_run_times(machine: CheckedScheduler) -> None:
    for _ in range(60):
        machine.submit(1, cost=10.0)
        (send,) = machine.assign()
        for record in send.records:
            record.cost_us = 100.0  # what `finish` reports as run time
        machine.state.cluster.workers["main-0"].held.cost_us = 100.0
        machine.finish(send.records)
    machine.submit(1, cost=10.0)
    (send,) = machine.assign()
    assert 80.0 < send.records[0].cost_us < 120.0
    assert LIMITS.slots == machine.free_slots + 1


QPU = PoolSpec("qpu", "hardware", provider="machines:ideal")


def test_hardware_worker_takes_no_slot_and_one_task_at_a_time() -> None:
    machine = CheckedScheduler(specs=(PoolSpec("main"), QPU))
    machine.submit(50, along=route(10.0, pool="qpu", engine="hardware"))
    for left in range(50, 0, -1):
        (send,) = machine.assign()
        assert (send.worker, len(send.records), send.announce) == ("qpu-0", 1, True)
        assert (machine.free_slots, len(machine.state.tasks)) == (LIMITS.slots, left)
        machine.finish(send.records)
    machine = CheckedScheduler(specs=(PoolSpec("main", min=2, max=2), QPU))
    machine.submit(4, cost=60e6)
    assert {send.worker for send in machine.assign()} == {"main-0", "main-1"}
    assert not machine.free_slots
    machine.submit(2, along=route(60e6, pool="qpu", engine="hardware"))
    assert [send.worker for send in machine.assign()] == ["qpu-0"]
    assert not machine.tick(60)


def test_hardware_worker_is_not_moved_when_slots_of_its_node_are_taken() -> None:
    specs = (PoolSpec("n1", nodes="n1"), PoolSpec("n2", nodes="n2"), QPU)
    machine = CheckedScheduler(limits=cluster(1, 1), specs=specs)
    node = machine.state.cluster.workers["qpu-0"].host.node.name
    machine.submit(1, along=route(60e6, pool=node))
    machine.assign()
    machine.submit(1, along=route(1e6, pool="qpu", engine="hardware"))
    for _ in range(3):
        machine.tick(1.0)
    assert not machine.state.cluster.workers["qpu-0"].leaving
    assert [send.worker for send in machine.assign()] == ["qpu-0"]


def test_hardware_cost_is_learned_per_pool_across_circuit_widths() -> None:
    estimator, spec = Estimator(), TaskSpec(b"", 0, 1)
    slow = [route(1e6, pool="slow", engine="hardware", num_qubits=n) for n in (2, 90)]
    fast = route(1e6, pool="fast", engine="hardware")
    for _ in range(40):
        estimator.observe(slow[0], spec, 0, 100_000_000)
        estimator.observe(fast, spec, 0, 10_000)
    assert 0.9e8 < estimator.cost_us(slow[1], spec) < 1.1e8
    assert estimator.cost_us(fast, spec) < 1.1e4
    assert estimator.cost_us(route(1e6), spec) == 1e6


def test_missing_kernels_leave_a_worker_to_tasks_without_them(pair: CheckedScheduler) -> None:
    pair.scheduler.kernels_compiled(False)
    first, *others = pair.submit(3, along=route(num_qubits=20))
    [sent] = pair.assign()
    assert ([record.number for record in sent.records], sent.slots) == ([first], 1)
    pair.tick(30)
    assert not pair.assign()
    [narrow] = pair.submit()
    [small] = pair.assign()
    assert [record.number for record in small.records] == [narrow]
    pair.finish(small.records)
    pair.scheduler.kernels_compiled(True)
    assert [record.number for record in pair.assign()[0].records] == others[:1]


def test_task_that_may_compile_runs_on_the_only_worker(machine: CheckedScheduler) -> None:
    machine.scheduler.kernels_compiled(False)
    machine.submit(1, outputs=("expectation",))
    assert len(machine.assign()) == 1


WIDE_US = 20e6


def wide(machine: CheckedScheduler, engine: str = "statevector") -> TaskRecord:
    """A task that runs on all slots of a node."""
    (number,) = machine.submit(1, along=route(WIDE_US, engine=engine, num_qubits=26))
    (send,) = machine.assign()
    assert send.slots == machine.state.limits.slots
    record = machine.state.tasks[number]
    machine.begin(record)
    return record


def told(machine: CheckedScheduler) -> list[int]:
    return [action.slots for action in machine.actions if isinstance(action, SetThreads)]


def test_short_task_gets_a_slot_of_a_running_wide_task_at_once() -> None:
    machine = CheckedScheduler(3, cluster(2))
    record = wide(machine)
    machine.submit(1, cost=1_000.0)
    (send,) = machine.assign()
    assert (send.slots, machine.state.cluster.workers[record.worker].slots) == (1, 1)
    machine.tick()
    assert told(machine) == [1]
    machine.submit(1, along=route(500_000.0))
    assert machine.assign() == [], "the last slot of a running task is never taken"


def test_wide_task_regains_slots_after_one_second_without_short_tasks() -> None:
    machine = CheckedScheduler(2, cluster(2))
    record = wide(machine)
    machine.submit(1, cost=1_000.0)
    (send,) = machine.assign()
    machine.finish(send.records)
    machine.tick(0.5)
    assert told(machine) == [1]
    machine.tick(0.6)
    assert told(machine) == [1, 2]
    assert (machine.state.cluster.workers[record.worker].slots, machine.free_slots) == (2, 0)


def test_only_short_tasks_take_slots_of_running_tasks_that_resize() -> None:
    machine = CheckedScheduler(2, cluster(2))
    wide(machine)
    machine.submit(1, along=route(WIDE_US))
    assert machine.assign() == []
    machine.tick()
    assert told(machine) == []
    machine = CheckedScheduler(2, cluster(2))
    wide(machine, engine="aer")
    machine.submit(1, cost=1_000.0)
    assert machine.assign() == []
    machine = CheckedScheduler(2, cluster(2))
    machine.submit(1, along=route(WIDE_US, num_qubits=26))
    machine.assign()
    machine.submit(1, cost=1_000.0)
    assert machine.assign() == []


def test_resized_run_does_not_change_cost_estimate() -> None:
    machine = CheckedScheduler(2, cluster(2))
    record = wide(machine)
    before = machine.state.estimator.cost_us(record.route, record.spec)
    machine.submit(1, cost=1_000.0)
    machine.assign()
    machine.finish([record])
    assert machine.state.estimator.cost_us(record.route, record.spec) == before
    assert machine.state.cluster.multi_slot_workers == {}


def test_wide_task_regains_all_but_one_slot_while_few_short_tasks_come() -> None:
    machine = CheckedScheduler(16, cluster(16))
    record = wide(machine)
    machine.submit(15 * 200, cost=1_000.0)
    while sends := machine.assign():
        for send in sends:
            machine.finish(send.records)
    worker = machine.state.cluster.workers[record.worker]
    assert worker.slots < 15
    for _ in range(3):
        machine.submit(1, cost=1_000.0)
        for send in machine.assign():
            machine.finish(send.records)
        machine.tick(0.9)
        machine.hear()
    assert worker.slots == 15, "one stays free for the short tasks that come"


def test_slots_taken_back_go_to_short_tasks_alone() -> None:
    machine = CheckedScheduler(2, cluster(2))
    machine.submit(1, along=route(40_000.0, num_qubits=20))
    (send,) = machine.assign()
    assert send.slots == 2
    machine.begin(send.records[0])
    machine.submit(1, along=route(900_000.0))
    assert len(machine.assign()) == 1
    machine.submit(1, cost=10.0)
    assert machine.assign() == []
    machine = CheckedScheduler(3, cluster(2))
    wide(machine)
    machine.submit(1, along=route(WIDE_US))
    machine.now_ns += 2 * PATIENCE_NS
    machine.hear()
    (short,) = machine.submit(1, cost=1_000.0)
    (send,) = machine.assign()
    assert [record.number for record in send.records] == [short]
    pool = PoolSpec("main", min=2, max=2, memory_bytes=2**28)
    machine = CheckedScheduler(limits=cluster(2, per_slot=2**28), specs=(pool,))
    wide(machine)
    assert not any(host.free_memory for host in machine.state.cluster.nodes.hosts.values())
    machine.submit(1, cost=1_000.0)
    assert len(machine.assign()) == 1
