"""Passes of assignments for many workers: kept candidates, and bounds of one pass."""

import random
from typing import NoReturn

import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route

from simenv.model import PoolSpec
from simenv.model.accounts import WaitReason
from simenv.scheduler.core import AssignTasks
from simenv.scheduler.dispatch import batching, candidates as orders, dispatcher
from simenv.scheduler.state import candidates, cluster as state_cluster, nodes


def check_kept(machine: CheckedScheduler) -> int:
    """Check that each idle worker is in the kept heaps as it would be in new ones; return their
    number."""
    state = machine.state
    for (pool, order), kept in state.dispatch.candidates.items():
        new = candidates.Candidates(
            state.cluster.pools[pool].workers.idle.values(), kept._key_of, machine.now_ns
        )
        assert order != orders.AHEAD, "busy workers are kept"
        assert set(new._heap) <= set(kept._heap), "an idle worker is missing"
        assert (new.count, new._names) == (kept.count, kept._names)
    return len(state.dispatch.candidates)


@pytest.mark.parametrize("seed", range(4))
def test_kept_candidates_are_those_of_new_pass(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(candidates, "KEEP_FROM", 1)
    monkeypatch.setattr(dispatcher, "FEW", 0)
    machine, chance = CheckedScheduler(12, cluster(2, 2, 4, 4)), random.Random(seed)
    kept, held = 0, list[AssignTasks]()
    for _ in range(60):
        if chance.random() < 0.6:
            machine.submit(chance.randint(1, 4), cost=4_000.0)
        held += machine.assign()
        kept += check_kept(machine)
        while held and chance.random() < 0.6:
            machine.finish(held.pop(chance.randrange(len(held))).records)
            check_kept(machine)
    assert kept > 20, "none was kept"


def test_candidates_are_found_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "KEEP_FROM", 1)
    monkeypatch.setattr(dispatcher, "FEW", 0)
    machine = CheckedScheduler(3, cluster(4))
    machine.submit(1, cost=4_000.0)
    machine.assign()
    (kept,) = machine.state.dispatch.candidates.values()
    machine.assign()
    assert list(machine.state.dispatch.candidates.values()) == [kept]
    machine.now_ns += candidates.KEEP_NS
    machine.assign()
    assert not machine.state.dispatch.candidates


def test_pass_is_bounded_and_next_one_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "ASSIGNS", 100)
    machine = CheckedScheduler(8, cluster(8))
    machine.submit(8, cost=4_000.0)
    costs = batching.CHUNK_ASSIGNS + 1
    assert len(machine.assign()) == -(-100 // costs)
    assert machine.state.dispatch.assigns_left <= 0
    assert len(machine.assign()) == 8 - -(-100 // costs)
    assert machine.state.dispatch.assigns_left > 0
    assert len({record.worker for record in machine.state.tasks.values()}) == 8


def test_few_tasks_are_assigned_while_acceptance_of_many_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_ASSIGNS", 2 * (batching.CHUNK_ASSIGNS + 1))
    machine = CheckedScheduler(8, cluster(8))
    machine.submit(8, cost=4_000.0)
    scheduler, most = machine.scheduler, dispatcher.FIRST_ASSIGNS
    assert len(scheduler.dispatch(machine.now_ns, accepted=most + 1)) == 2
    assert machine.state.dispatch.assigns_left <= 0, "the next pass must come at once"
    assert len(scheduler.dispatch(machine.now_ns, accepted=most)) == 6


def test_reason_of_wait_is_found_without_a_look_at_all_idle_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unseen(dict[str, nodes.Worker]):
        def values(self) -> NoReturn:
            raise AssertionError("all idle workers were looked at")

    machine = CheckedScheduler(8, cluster(8))
    machine.submit(16, cost=4_000.0)
    pool = machine.state.cluster.pools["main"]
    monkeypatch.setattr(pool.workers, "idle", Unseen(pool.workers.idle))
    dispatcher.note_waits(machine.state, machine.now_ns)
    assert pool.queue.clock._reason is WaitReason.SLOTS


def test_chunk_is_geometric_mean_of_its_cost_and_all_work() -> None:
    machine = CheckedScheduler(8, cluster(8))
    machine.submit(400, cost=10.0)  # 4 ms of work, and 100 us of the service for a chunk: 632 us
    assert len(machine.assign()[0].records) == 63


def test_chunks_are_larger_while_tasks_are_in_flight_and_workers_idle() -> None:
    machine = CheckedScheduler(16, cluster(16))
    machine.submit(100, cost=10.0)
    first = machine.assign()
    assert [len(send.records) for send in first] == [31, 31, 31, 7]
    machine.submit(100, cost=10.0)
    second = machine.assign()
    assert [len(send.records) for send in second] == [44, 44, 12]
    for send in first + second:
        machine.finish(send.records)
    machine.submit(100, cost=10.0)
    assert [len(send.records) for send in machine.assign()] == [31, 31, 31, 7]


def test_tasks_of_another_pool_do_not_make_chunks_larger() -> None:
    specs = PoolSpec("main", min=8, max=8), PoolSpec("big", min=1, max=1)
    machine = CheckedScheduler(limits=cluster(16), specs=specs)
    machine.submit(10_000, along=route(3.6e9, pool="big", max_slots=1))
    machine.assign()
    machine.submit(8, cost=180.0)
    assert [len(send.records) for send in machine.assign()] == [2, 2, 2, 2]


def test_heartbeat_interval_grows_with_workers_up_to_part_of_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = CheckedScheduler(8, cluster(8)).state
    longest_s = state.limits.silent_ns / 1e9 / state_cluster.SILENT_BEATS
    assert state.cluster.heartbeat_intervals_s == (pytest.approx(0.008), longest_s)
    monkeypatch.setattr(state_cluster, "HEARTBEATS_PER_S", 1)
    assert state.cluster.heartbeat_intervals_s == (min(8.0, longest_s), longest_s)
    monkeypatch.setattr(state_cluster, "HEARTBEATS_PER_S", 0.01)
    assert state.cluster.heartbeat_intervals_s == (longest_s, longest_s)


def test_silent_workers_are_found_among_others() -> None:
    machine = CheckedScheduler(8, cluster(4, 4))
    for _ in range(6):
        machine.now_ns += 2 * SECOND
        for name, worker in machine.state.cluster.workers.items():
            if name not in ("main-3", "main-5"):
                worker.heard_ns = machine.now_ns
        assert not machine.state.cluster.unreaped_workers
        machine.tick()
    assert set(machine.state.cluster.unreaped_workers) == {"main-3", "main-5"}
