"""Workers that keep states: preferred; memory granted, bounded and given back."""

from __future__ import annotations

from checked_scheduler import SECOND, CheckedScheduler, cluster, route

from simenv.model import TaskParts, WorkerState
from simenv.scheduler.core.actions import AssignTasks
from simenv.scheduler.core.types import Route

GIB = 2**30
KEEP_S = 30.0


def along(num_qubits: int = 26) -> Route:
    """A task of some seconds; 26 qubits are 1 GiB."""
    return route(5e6, num_qubits=num_qubits, memory_bytes=2 * GIB, max_slots=1)


def machine(workers: int = 2) -> CheckedScheduler:
    return CheckedScheduler(workers, cluster(2, per_slot=8 * GIB))


def part(scheduler: CheckedScheduler, worker: str = "", **changes: object) -> AssignTasks:
    """Submit a part, and see where it is sent."""
    fields = {"ends": (1,), "keep_s": KEEP_S, "worker": worker, **changes}
    scheduler.submit(along=along(), parts=TaskParts(**fields))  # type: ignore[arg-type]
    (sent,) = scheduler.assign()
    return sent


def free_memory(scheduler: CheckedScheduler) -> int:
    (host,) = scheduler.state.nodes.hosts.values()
    return host.free_memory


def test_worker_that_has_the_state_is_preferred_while_it_is_idle() -> None:
    scheduler = machine()
    for worker in ("main-1", "main-0", "main-1"):
        sent = part(scheduler, worker)
        assert sent.worker == worker
        other = part(scheduler, worker)  # it is busy: another runs the parts again
        assert other.worker != worker
        scheduler.finish(sent.records)
        scheduler.finish(other.records)
    assert part(scheduler, "main-7").worker in ("main-0", "main-1")  # there is none such


def test_leaving_worker_is_not_preferred() -> None:
    scheduler = machine()
    first = part(scheduler, "main-1")
    scheduler.state.workers["main-1"].leaving = "asked to"
    scheduler.finish(first.records)
    assert scheduler.state.workers["main-1"].state == WorkerState.DRAINING
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


def test_grants_of_a_node_are_a_quarter_of_its_memory_at_most() -> None:
    scheduler = CheckedScheduler(2, cluster(2, per_slot=3 * GIB))
    assert [part(scheduler).kept_bytes for _ in range(2)] == [GIB, 0]


def test_nothing_is_granted_for_small_states_nor_where_none_is_kept() -> None:
    scheduler = machine()
    assert part(scheduler, keep_s=0.0).kept_bytes == 0
    scheduler.submit(along=along(num_qubits=20), parts=TaskParts((1,), KEEP_S))
    assert scheduler.assign()[0].kept_bytes == 0


def test_grant_of_a_lost_worker_is_given_back() -> None:
    scheduler = machine()
    total = free_memory(scheduler)
    sent = part(scheduler)
    scheduler.finish(sent.records)
    start = scheduler.start_of(sent.worker)
    scheduler.keep(
        scheduler.scheduler.worker_lost(sent.worker, start, "killed", scheduler.now_ns + SECOND)
    )
    assert free_memory(scheduler) == total
