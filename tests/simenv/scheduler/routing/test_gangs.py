"""Tasks of several ranks beside small ones: their pools, their claims, whose turn it is."""

import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route, wide
from failing import fails
from simulation import Simulation

from launcher.base import Share
from simenv.errors import OptionError
from simenv.model import PoolSpec, WorkerState
from simenv.scheduler.core import RecordEvent, RetireWorker, StartWorker
from simenv.scheduler.views.cluster_info import node_infos, pool_infos

MIB = 2**20


def gang_of(machine: CheckedScheduler, name: str = "main.x4-0") -> StartWorker:
    return next(a for a in machine.actions if isinstance(a, StartWorker) and a.worker == name)


def with_gang(machine: CheckedScheduler, **told: int) -> None:
    """One gang's worker is up and its task has been sent."""
    machine.submit(1, along=wide(**told))
    machine.revive()


def test_gang_is_started_on_demand_and_packed_on_fewest_nodes() -> None:
    machine = CheckedScheduler(3, cluster(2, 2, 2))
    machine.submit(1, along=wide(4))
    assert machine.state.cluster.lacks_workers
    machine.tick()
    started = gang_of(machine)
    assert (started.pool, started.worker) == ("main.x4", "main.x4-0")
    assert [share.ranks for share in started.shares] == [2, 2]
    info = next(i for i in pool_infos(machine.state) if i.name == "main.x4")
    assert (info.ranks, info.on_demand, len(info.nodes)) == (4, True, 2)
    assert node_infos(machine.state)[0].memory_granted == 2 * 2**28


def test_gang_holds_one_slot_per_rank() -> None:
    machine = CheckedScheduler(3, cluster(2, 2, 2))
    with_gang(machine)
    (send,) = machine.assign()
    assert (send.slots, send.memory_bytes) == (1, 2**28)
    assert (machine.state.cluster.workers["main.x4-0"].slots, machine.free_slots) == (4, 2)
    machine.finish(send.records)
    assert machine.free_slots == 6


def test_small_tasks_do_not_take_slots_claimed_by_waiting_gang() -> None:
    machine = CheckedScheduler(6, cluster(2, 2, 2))
    machine.submit(20, cost=200_000.0)
    first = machine.assign()
    assert len(first) == 6
    with_gang(machine)
    gang = {share.node for share in gang_of(machine).shares}
    assert machine.assign() == []
    for send in first:
        machine.finish(send.records)
        for more in machine.assign():
            node = machine.state.cluster.workers[more.worker].host.node.name
            assert more.worker == "main.x4-0" or node not in gang
    assert machine.state.cluster.workers["main.x4-0"].held


def test_no_chunks_are_prefetched_on_nodes_claimed_by_gang() -> None:
    machine = CheckedScheduler(2, cluster(1, 1))
    machine.submit(1, along=wide(2))
    machine.revive()
    machine.submit(2_000, cost=14.0)
    ahead = machine.assign()
    assert len(ahead) == 4  # two workers, one more chunk for each
    machine.now_ns += 11 * SECOND
    machine.hear()
    assert machine.assign() == []
    for send in ahead[:2]:
        machine.finish(send.records)
        assert machine.assign() == []
    for send in ahead[2:]:
        machine.finish(send.records)
    assert [send.worker for send in machine.assign()] == ["main.x2-0"]


def test_small_task_is_not_sent_to_node_claimed_by_gang() -> None:
    machine = CheckedScheduler(4, cluster(4, 4))
    machine.submit(4, cost=5e6)
    machine.tick(1.5)  # nothing else comes: all four start
    assert len(machine.assign()) == 4
    with_gang(machine)
    (share,) = gang_of(machine).shares
    assert share.ranks == 4
    machine.submit(1, cost=200_000.0)
    on_other = [s for s in machine.assign() if s.worker != "main.x4-0"]
    assert [machine.state.cluster.workers[s.worker].host.node.name for s in on_other] != [
        share.node
    ]


def test_gang_takes_last_slots_after_waiting_and_alternates_with_short_tasks() -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    machine.submit(2, along=wide(4))
    for _ in range(12):
        machine.submit(1, cost=10.0)
        machine.revive()
        for send in machine.assign():
            assert send.worker != "main.x4-0", "others come, and it has not waited"
            machine.finish(send.records)
        machine.now_ns += SECOND * 8 // 10
        machine.hear()
    machine.now_ns += 2 * SECOND
    machine.submit(1, cost=10.0)
    machine.revive()
    machine.join("main.x4-0")
    (first,) = (s for s in machine.assign() if s.worker == "main.x4-0")
    machine.finish(first.records)
    machine.submit(1, cost=10.0)
    second = [s for s in machine.assign() if s.worker == "main.x4-0"]
    assert second == [], "the short ones have their turn between two of them"


def test_gang_starts_at_once_when_no_other_task_comes() -> None:
    machine = CheckedScheduler(1, cluster(2))
    with_gang(machine, ranks=2)
    assert len(machine.assign()) == 1


def small_beside_a_gang_behind_a_long_one(machine: CheckedScheduler, long_bytes: int) -> list[str]:
    """Where the small tasks run that come once a second, while the gang waits and claims."""
    machine.submit(1, along=route(3600e6, max_slots=1, memory_bytes=long_bytes))
    machine.assign()
    machine.submit(1, along=wide(4, memory=2**29))
    ran = []
    for _ in range(20):
        machine.now_ns += SECOND
        machine.hear()
        machine.revive()
        machine.submit(1, cost=1_000.0)
        for send in machine.assign():
            ran.append(send.worker)
            if send.records[0].cost_us < 1e6:
                machine.finish(send.records)
    return ran


@pytest.mark.parametrize("long_bytes", [MIB, 700 * MIB], ids=["slots", "memory"])
def test_small_tasks_run_while_gang_waits_for_long_task(long_bytes: int) -> None:
    ran = small_beside_a_gang_behind_a_long_one(CheckedScheduler(4, cluster(2, 2)), long_bytes)
    assert len(ran) == 20
    assert not [name for name in ran if name.startswith("main.x4")]


@pytest.mark.parametrize("long_bytes", [MIB, 700 * MIB], ids=["slots", "memory"])
def test_long_tasks_do_not_overtake_gang_that_waits_for_one_of_them(long_bytes: int) -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    small_beside_a_gang_behind_a_long_one(machine, long_bytes)
    machine.submit(1, along=route(3600e6, max_slots=1, memory_bytes=300 * MIB))
    machine.now_ns += 11 * SECOND  # nothing short comes in, or it has waited
    machine.hear()
    machine.tick()
    assert machine.assign() == []
    item = next(w for w in machine.state.cluster.workers.values() if w.held)
    machine.finish(list(item.held.values()))
    machine.revive()
    assert next(send.worker for send in machine.assign()) == "main.x4-0"


def test_gang_that_leaves_other_nodes_free_starts_at_once() -> None:
    machine = CheckedScheduler(3, cluster(2, 2, 2))
    machine.submit(6, cost=10.0)
    for send in machine.assign():
        machine.finish(send.records)
    with_gang(machine)
    assert [send.worker for send in machine.assign()] == ["main.x4-0"]


def test_memory_freed_by_small_tasks_goes_to_waiting_gang() -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    machine.submit(8, along=route(200_000.0, memory_bytes=400 * MIB))
    first = machine.assign()
    machine.state.dispatch.last_short_ns = 0
    machine.tick(12.0)
    assert len(first) == 4
    machine.submit(1, along=wide(4, memory=512 * MIB))
    machine.now_ns += 11 * SECOND  # it may take all
    machine.hear()
    machine.tick()
    assert "main.x4-0" not in machine.state.cluster.workers
    for send in first:
        machine.finish(send.records)
        assert machine.assign() == []
    machine.tick()
    assert machine.state.cluster.workers["main.x4-0"].state == WorkerState.STARTING


def test_idle_worker_is_retired_for_memory_that_gang_needs() -> None:
    specs = (PoolSpec("main"), PoolSpec("big", ranks=2, memory_bytes=512 * MIB, min=0, max=2))
    machine = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    machine.submit(1, along=route(5e6, pool="big", ranks=2, memory_bytes=300 * MIB))
    machine.revive()
    (send,) = machine.assign()
    machine.finish(send.records)
    machine.submit(1, along=wide(4, memory=300 * MIB))
    (retired,) = [a for a in machine.tick() if isinstance(a, RetireWorker)]
    assert retired.worker == "big-0"
    assert "main.x4" in retired.reason
    machine.lose("big-0", "exit 0")
    machine.revive()
    assert len(machine.assign()) == 1


def test_idle_gang_is_retired_for_memory_that_small_tasks_need() -> None:
    machine = CheckedScheduler(2, cluster(1, 1))
    with_gang(machine, ranks=2, memory=512 * MIB)
    machine.state.dispatch.last_short_ns = 0
    (send,) = machine.assign()
    machine.submit(1, cost=200_000.0)
    assert machine.assign() == []
    machine.finish(send.records)
    assert machine.assign() == []
    (retired,) = [a for a in machine.tick() if isinstance(a, RetireWorker)]
    assert retired.worker == "main.x2-0"
    machine.lose("main.x2-0", "exit 0")
    assert len(machine.assign()) == 1


def test_idle_gang_is_retired_after_its_idle_time() -> None:
    machine = CheckedScheduler(limits=cluster(2, 2), specs=(PoolSpec("main", idle_s=5.0),))
    with_gang(machine, ranks=2)
    (send,) = machine.assign()
    machine.finish(send.records)
    assert not any(isinstance(a, RetireWorker) for a in machine.tick(2.0))
    machine.hear()
    assert any(isinstance(a, RetireWorker) for a in machine.tick(2.9) + machine.tick(0.2))
    machine.lose("main.x2-0", "exit 0")
    machine.tick()
    assert [pool.name for pool in pool_infos(machine.state)] == ["main"]


def test_idle_gangs_run_next_tasks_and_grow() -> None:
    machine = CheckedScheduler(1, cluster(2, 2))
    with_gang(machine, ranks=2)
    (send,) = machine.assign()
    machine.finish(send.records)
    machine.submit(1, along=wide(2))
    machine.tick()
    assert [send.worker for send in machine.assign()] == ["main.x2-0"]
    assert sum(isinstance(a, StartWorker) and a.pool == "main.x2" for a in machine.actions) == 1
    machine = CheckedScheduler(1, cluster(2, 2))
    with_gang(machine, ranks=2, memory=100 * MIB)
    (send,) = machine.assign()
    machine.finish(send.records)
    machine.submit(1, along=wide(2, memory=500 * MIB))
    (send,) = machine.assign()
    assert send.memory_bytes == 500 * MIB
    assert sum(n.memory_granted for n in node_infos(machine.state)) == 1000 * MIB


def test_gang_that_cannot_reserve_more_memory_is_replaced() -> None:
    specs = (PoolSpec("main"), PoolSpec("big", memory_bytes=800 * MIB, min=0, max=1))
    machine = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    with_gang(machine, ranks=4, memory=100 * MIB)
    (send,) = machine.assign()
    machine.submit(1, along=route(900.0, pool="big", memory_bytes=2**20))
    machine.revive()
    machine.finish(send.records)
    for send in machine.assign():
        machine.finish(send.records)
    machine.submit(1, along=wide(4, memory=500 * MIB))
    machine.tick(1.5)  # no other comes
    assert machine.assign() == []
    retired = {a.worker for a in machine.tick() if isinstance(a, RetireWorker)}
    assert retired == {"main.x4-0", "big-0"}
    for name in retired:
        machine.lose(name, "exit 0")
    machine.revive()
    (send,) = machine.assign()
    assert (send.worker, send.memory_bytes) == ("main.x4-0", 500 * MIB)


def test_lost_node_ends_whole_gang_without_charging_its_task() -> None:
    machine = CheckedScheduler(3, cluster(2, 2, 2))
    with_gang(machine)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    lost = gang_of(machine).shares[1].node
    machine.keep(machine.scheduler.node_lost(lost, "off", machine.now_ns))
    assert "main.x4-0" not in machine.state.cluster.workers
    assert send.records[0].deaths == 0
    machine.revive()
    (again,) = (s for s in machine.assign() if s.worker.startswith("main.x4"))
    assert again.records == send.records
    assert lost not in {share.node for share in machine.state.cluster.workers[again.worker].shares}


def test_pool_of_gang_that_never_starts_is_quarantined_with_reason() -> None:
    machine = CheckedScheduler(1, cluster(2, 2))
    machine.submit(1, along=wide(2))
    for _ in range(7):
        machine.tick(61.0)
        for worker in [w for w in machine.state.cluster.workers if w.startswith("main.x2")]:
            machine.lose(worker, "exit 5: COMM_WORLD has size 1, 2 were told")
    pool = next(p for p in pool_infos(machine.state) if p.name == "main.x2")
    assert (pool.state, "COMM_WORLD" in pool.reason) == ("quarantined", True)
    assert any(isinstance(a, RecordEvent) and a.kind == "pool.quarantined" for a in machine.actions)
    machine.keep(machine.scheduler.resume("main.x2"))
    assert any(isinstance(a, StartWorker) for a in machine.tick())


def test_scaling_on_demand_pool_is_refused() -> None:
    machine = CheckedScheduler(1, cluster(2, 2))
    with_gang(machine, ranks=2)
    fails(OptionError, "on demand", machine.scheduler.scale, "main.x2", 1, 1)


def test_ranks_of_gang_stay_in_one_block_of_nodes() -> None:
    limits = cluster(2, 2, 2, 2)
    nodes = tuple(
        type(n)(n.name, n.slots, n.memory_bytes, block=k // 2) for k, n in enumerate(limits.nodes)
    )
    machine = CheckedScheduler(1, cluster(2, 2, 2, 2, nodes=nodes))
    machine.submit(1, along=wide(4))
    machine.tick()
    assert gang_of(machine).shares in (
        (Share("n1", 2), Share("n2", 2)),
        (Share("n3", 2), Share("n4", 2)),
    )


@pytest.mark.parametrize("slots", [(2, 2, 2), (4, 4, 4), (8,), (2, 2)])
@pytest.mark.parametrize("memory", [256 * MIB, 512 * MIB])
def test_slots_stay_busy_while_tasks_and_gangs_wait(slots: tuple[int, ...], memory: int) -> None:
    workers = sum(slots)
    simulation = Simulation(cluster(*slots), PoolSpec("main", min=workers, max=workers))
    simulation.run(1.0, until_idle=False)
    begin_ns = simulation.now_ns
    small = simulation.submit(1_000, cost=100_000.0)
    gangs = simulation.submit(2, along=wide(4, cost_us=4e6, memory=memory))
    simulation.run(300.0)
    assert simulation.used >= 0.85
    assert len(simulation.ended) == 1_002
    waits = [(simulation.began[number] - begin_ns) / SECOND for number in gangs]
    last = (max(simulation.ended[number] for number in small) - begin_ns) / SECOND
    assert max(waits) < last, "gangs starve until all small ones have run"
    if workers > 4:
        assert waits[0] < 2.0
    else:
        assert 10.0 < waits[0] < 12.0
        assert waits[1] - waits[0] > 13.0, "the small ones starve between two gangs"


@pytest.mark.parametrize("memory", [384 * MIB, 512 * MIB])
@pytest.mark.parametrize("order", ["large first", "small first"])
def test_small_tasks_keep_their_latency_beside_gang(memory: int, order: str) -> None:
    def p95(there: Simulation, numbers: list[int], begin_ns: int) -> float:
        waits = sorted(there.ended[number] - begin_ns for number in numbers)
        return waits[len(waits) * 95 // 100] / SECOND

    few = Simulation(cluster(2), PoolSpec("main", min=2, max=2))
    few.run(1.0, until_idle=False)
    begin_ns = few.now_ns
    small = few.submit(200, cost=20_000.0)
    few.run(60.0)
    bound = 1.5 * p95(few, small, begin_ns)

    there = Simulation(cluster(2, 2, 2), PoolSpec("main", min=6, max=6))
    there.run(1.0, until_idle=False)
    begin_ns = there.now_ns
    if order == "small first":
        small = there.submit(200, cost=20_000.0)
    (large,) = there.submit(1, along=wide(4, cost_us=8e6, memory=memory))
    if order == "large first":
        small = there.submit(200, cost=20_000.0)
    there.run(60.0)
    assert there.began[large] - begin_ns < 5 * SECOND
    assert p95(there, small, begin_ns) <= bound
