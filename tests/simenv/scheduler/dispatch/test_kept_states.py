"""Workers that keep states: preferred; memory granted, bounded and given back."""

from __future__ import annotations

from checked_scheduler import SECOND, CheckedScheduler, cluster, route, wide
from claimant import Claimant

from simenv.model import CLIENT_LIMITS, OwnerLimits, TaskParts, WorkerState
from simenv.scheduler.core.actions import Action, AssignTasks, DropKeptStates
from simenv.scheduler.core.types import Route
from simenv.scheduler.state import owner_usage

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


def dropped(actions: list[Action]) -> list[str]:
    return [action.worker for action in actions if isinstance(action, DropKeptStates)]


def test_grant_is_charged_to_the_owner_of_the_newest_state() -> None:
    scheduler = machine(1)
    scheduler.finish(part(scheduler, owner="ana").records)
    assert owner_usage.of_owner(scheduler.state, "ana").state_bytes == GIB
    scheduler.finish(part(scheduler, owner="bo").records)  # on the same worker, in its place
    use = {name: owner_usage.of_owner(scheduler.state, name).state_bytes for name in ("ana", "bo")}
    assert use == {"ana": 0, "bo": GIB}
    scheduler.tick(KEEP_S + 3)
    assert owner_usage.of_owner(scheduler.state, "bo").state_bytes == 0


def test_owner_is_granted_no_more_than_its_limit() -> None:
    scheduler = machine(2)
    total = free_memory(scheduler)
    scheduler.state.quotas.set({"ana": OwnerLimits(max_state_bytes=GIB)}, CLIENT_LIMITS)
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
    scheduler.state.quotas.set({"bo": OwnerLimits(max_state_bytes=GIB // 2)}, CLIENT_LIMITS)
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


def test_kept_states_stay_while_waiting_tasks_could_not_start_without_them() -> None:
    scheduler = CheckedScheduler(2, cluster(2, per_slot=4 * GIB))
    busy, other = part(scheduler), part(scheduler)
    scheduler.finish(other.records)
    scheduler.submit(along=route(5e6, memory_bytes=7 * GIB, max_slots=1))
    assert not dropped(scheduler.tick())  # the first part has 2 GiB, and keeps 1 more
    scheduler.finish(busy.records)
    assert len(dropped(scheduler.tick())) == 1


def test_memory_that_is_free_on_another_node_spares_kept_states() -> None:
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
    actions = scheduler.tick()
    assert dropped(actions) == ["main-0"]


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
    (own,) = [w.name for w in scheduler.state.workers.values() if w.reservation_id == number]
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
