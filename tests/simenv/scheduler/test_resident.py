"""Resident workers of several ranks, of which there are more than slots: who runs, who claims."""

from __future__ import annotations

import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route, wide
from simulation import Simulation

from simenv.model import PoolSpec, WorkerState
from simenv.scheduler.core.actions import RetireWorker
from simenv.scheduler.core.types import Route
from simenv.scheduler.views.infos import node_infos, pool_infos
from simenv.scheduler.views.pending_reason import pending_reason

MIB = 2**20


def crew(
    name: str, ranks: int = 2, count: int = 8, memory: int = 32 * MIB, **more: int
) -> PoolSpec:
    return PoolSpec(name, "any", count, count, ranks=ranks, memory_bytes=memory, **more)


def work(pool: str, ranks: int = 2, cost_us: float = 900_000.0) -> Route:
    return route(cost_us, pool=pool, ranks=ranks, memory_bytes=16 * MIB, max_slots=1)


def test_idle_resident_workers_take_no_slots() -> None:
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big"),))
    (info,) = pool_infos(machine.state)
    assert (info.workers, info.state, info.reason) == (8, "up", "")
    (node,) = node_infos(machine.state)
    assert (node.ranks, node.slots_granted) == (16, 0)


def test_resident_workers_with_more_ranks_than_slots_run_one_at_a_time() -> None:
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big"),))
    task = machine.submit(3, along=work("big"))
    for _ in task:
        (send,) = machine.assign()
        assert machine.state.free_slots == 0
        machine.finish(send.records)
    assert machine.assign() == []
    assert len(machine.endings) == 3


def test_each_rank_of_worker_needs_its_own_slot() -> None:
    machine = CheckedScheduler(limits=cluster(2), specs=(crew("big", ranks=3, count=1),))
    assert machine.state.workers == {}
    assert "2" in pool_infos(machine.state)[0].reason
    other = CheckedScheduler(limits=cluster(2, 1), specs=(crew("big", ranks=3, count=2),))
    ranks = {w.name: [s.ranks for s in w.shares] for w in other.state.workers.values()}
    assert ranks == {"big-0": [2, 1], "big-1": [2, 1]}


def test_resident_workers_are_spread_evenly_over_nodes() -> None:
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
    assert "main.x2-0" not in machine.state.workers
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
    machine = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    machine.submit(4, cost=200_000.0)
    small = machine.assign()
    assert len(small) == 4
    machine.now_ns += SECOND * 3 // 2  # no short ones come
    machine.hear()
    (right,) = machine.submit(1, along=work("right", 4, 5e5))
    (left,) = machine.submit(1, along=work("left", 4, 5e5))
    for send in small:
        assert machine.assign() == []
        assert all(
            h.claimed_slots + h.backfill_slots <= 2 for h in machine.state.nodes.hosts.values()
        )
        machine.finish(send.records)
    (first,) = machine.assign()
    assert [r.number for r in first.records] == [right], "the one that came first"
    machine.finish(first.records)
    (second,) = machine.assign()
    assert [r.number for r in second.records] == [left]


def test_younger_gang_task_does_not_take_slots_claimed_by_older_one() -> None:
    specs = (PoolSpec("main"), crew("wide", ranks=4, count=1), crew("slim", count=4))
    machine = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    machine.submit(1, along=work("slim"))
    (running,) = machine.assign()
    (old,) = machine.submit(1, along=work("wide", 4))
    (young,) = machine.submit(1, along=work("slim"))
    assert machine.assign() == [], "two slots are free, and claimed"
    record = machine.state.tasks[young]
    result = pending_reason(machine.state, record, machine.now_ns)
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
    assert {w.state for w in machine.state.workers.values()} == {WorkerState.IDLE}


@pytest.mark.parametrize("slots", [(2, 2), (2, 2, 2), (4, 2), (8,)])
def test_tasks_of_one_two_and_four_ranks_all_make_progress_on_shared_nodes(
    slots: tuple[int, ...],
) -> None:
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


def test_as_many_workers_start_at_a_time_as_there_are_slots() -> None:
    machine = CheckedScheduler(0, cluster(2, 1))
    machine.keep(machine.scheduler.scale("main", 11, 11))
    for started in (3, 6, 9, 11, 11):
        machine.tick()
        assert len(machine.state.workers) == started
        for worker in list(machine.state.workers):
            machine.join(worker)


def test_ranks_that_start_at_a_time_do_not_exceed_slots() -> None:
    machine = CheckedScheduler(limits=cluster(4), specs=(PoolSpec("main", ranks=2, min=0, max=5),))
    machine.keep(machine.scheduler.scale("main", 5, 5))
    for started in (2, 4, 5):
        machine.tick()
        assert len(machine.state.workers) == started
        for worker in list(machine.state.workers):
            machine.join(worker)


def test_one_tick_starts_at_most_eight_workers() -> None:
    machine = CheckedScheduler(0, cluster(64))
    machine.keep(machine.scheduler.scale("main", 20, 20))
    for started in (8, 16, 20):
        machine.tick()
        assert len(machine.state.workers) == started


def test_slow_starts_of_one_pool_do_not_block_first_worker_of_another() -> None:
    specs = (PoolSpec("slow", min=9, max=9), PoolSpec("main", min=0, max=9))
    machine = CheckedScheduler(limits=cluster(2), specs=specs)
    machine.keep(machine.scheduler.scale("slow", 12, 12))
    machine.tick()
    machine.submit(1)
    machine.tick()
    assert [w.pool for w in machine.state.workers.values()].count("main") == 1


def test_remaining_nodes_take_workers_only_up_to_their_rank_limit() -> None:
    limits = cluster(1, 1, per_slot=2**40)
    machine = CheckedScheduler(limits=limits, specs=(PoolSpec("main", min=40, max=40),))
    assert len(machine.state.workers) == 40
    machine.keep(machine.scheduler.node_lost("n2", "gone", machine.now_ns))
    while [worker for worker in machine.state.workers if machine.join(worker)] or (
        machine.state.nodes.hosts["n1"].ranks < 32
    ):
        machine.tick()
    assert machine.state.nodes.hosts["n1"].ranks == 32
    (info,) = pool_infos(machine.state)
    assert "hold no more" in info.reason


def test_pool_that_reserves_memory_grows_beside_a_pool_with_a_worker_per_slot() -> None:
    main = PoolSpec("main", min=16, max=16)
    big = PoolSpec("big", min=3, max=3, memory_bytes=16 * 2**30)
    machine = CheckedScheduler(limits=cluster(16, per_slot=4 * 2**30), specs=(main, big))
    sizes = {name: len(pool.workers) for name, pool in machine.state.pools.items()}
    assert sizes == {"main": 16, "big": 3}
