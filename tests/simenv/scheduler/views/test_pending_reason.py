"""What people are told of a task that waits."""

from __future__ import annotations

from checked_scheduler import SECOND, CheckedScheduler, cluster, route, wide

from simenv.model import PoolSpec
from simenv.scheduler.core.actions import RecordEvent, RetireWorker
from simenv.scheduler.core.types import WorkerHeartbeat
from simenv.scheduler.views.pending_reason import pending_reason

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
        for name in list(machine.state.workers):
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
    gang = {share.node for share in machine.state.workers["main.x4-0"].shares}
    done = next(s for s in first if machine.state.workers[s.worker].host.node.name in gang)
    machine.finish(done.records)
    assert machine.assign() == []
    assert why(machine, number) == "waiting for 4 slots on 2 nodes: 1 is free"
    (late,) = machine.submit(1, cost=200_000.0)
    node = machine.state.workers[done.worker].host.node.name
    expected = f"free slots on {node} are kept for a task of several ranks"
    assert why(machine, late) == expected
    assert small


def test_reason_of_gang_says_that_last_slots_are_reserved_for_short_tasks() -> None:
    machine = CheckedScheduler(4, cluster(2, 2))
    machine.submit(1)
    (number,) = machine.submit(1, along=wide(4))
    machine.submit(4, cost=200_000.0)
    machine.assign()
    machine.tick()
    assert "the last slots: they are kept for short tasks" in why(machine, number)


def test_reason_of_gang_that_does_not_fit_names_ranks_memory_and_drained_node() -> None:
    machine = CheckedScheduler(1, cluster(2, 2))
    machine.keep(machine.scheduler.drain_node("n2", "disk", machine.now_ns))
    (number,) = machine.submit(1, along=wide(4))
    machine.tick()
    result = why(machine, number)
    needs = "it needs 4 ranks of 256.0 MiB, more than the nodes in use have"
    assert result == f"{needs}: n2 is drained: disk"


def test_reason_names_drained_node_when_all_nodes_are_drained() -> None:
    machine = CheckedScheduler(1, cluster(2))
    machine.keep(machine.scheduler.drain_node("n1", "disk", machine.now_ns))
    for name in [a.worker for a in machine.actions if isinstance(a, RetireWorker)]:
        machine.lose(name, "exit 0")
    (number,) = machine.submit(1)
    machine.tick()
    result = why(machine, number)
    assert "n1 (drained: disk)" in result


def test_reason_of_task_too_large_for_nodes_in_use_names_its_memory() -> None:
    machine = CheckedScheduler(limits=cluster(2, 8), specs=(PoolSpec("main", min=1, max=2),))
    (worker,) = machine.state.workers.values()
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
    sent = [record.number for send in machine.assign() for record in send.records]
    assert sent == short[:2]
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


def test_reason_names_cancellation_and_service_shutdown() -> None:
    machine = CheckedScheduler(1)
    first, second = machine.submit(2, cost=200_000.0)
    machine.assign()
    machine.keep(machine.scheduler.cancel([first], machine.now_ns)[1])
    assert why(machine, first) == "stopping: cancelled"
    machine.state.draining = True
    assert why(machine, second) == "the service is shutting down"


def test_running_task_whose_kernels_are_compiled_says_so_until_they_are() -> None:
    machine = CheckedScheduler(1)
    (number,) = machine.submit(1)
    (send,) = machine.assign()
    record = machine.state.tasks[number]

    def beat(*, compiling: bool) -> list[str]:
        sign = WorkerHeartbeat(
            send.worker, machine.start_of(send.worker), number, record.fence, compiling=compiling
        )
        actions = machine.scheduler.heartbeat_received(sign, machine.now_ns)[1]
        return [each.kind for each in actions if isinstance(each, RecordEvent)]

    assert beat(compiling=True) == ["task.compiling"]
    assert beat(compiling=True) == []
    assert why(machine, number) == "compiling kernels, once on this machine"
    beat(compiling=False)
    assert why(machine, number) == ""
