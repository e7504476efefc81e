"""Tasks under reservations: what they hold, what they wait for, what they give back."""

from collections import OrderedDict
from collections.abc import Iterator

import pytest
from checked_scheduler import SECOND
from claimant import Claimant
from failing import fails

from simenv.errors import NotReservedError
from simenv.model import AdmissionReason, ReservationState, TaskState
from simenv.model.accounts import WaitReason
from simenv.scheduler.core import Phase, StopAttempt, TaskEnded
from simenv.scheduler.events import reservations
from simenv.scheduler.views import cluster_info
from simenv.scheduler.views.cluster_info import reservation_info, running_tasks
from simenv.service.journal.tables import reservation_statements


def test_task_holds_estimated_credits_and_returns_unused_ones(host: Claimant, number: int) -> None:
    (task,) = host.under(number, shots=4_000)
    item = host.ledger[number]
    assert (item.held, item.free) == (4, 2)
    host.assign()
    host.ran(task, 9_000)  # 9 ms: two units of 8.6 ms
    assert (item.held, item.spent, item.returned, item.free) == (0, 2, 2, 4)
    assert item.actual_ns == 9_000_000
    info = reservation_info(host.state, item)
    assert (info.credits_reserved, info.credits_consumed, info.credits_held) == (6, 2, 0)


def test_tasks_beyond_free_credits_are_parked_and_resumed(host: Claimant, number: int) -> None:
    first, second, third = host.under(number, 3, shots=4_000)
    (small,) = host.under(number, shots=1_000)
    phases = [host.state.tasks[task].phase for task in (first, second, third, small)]
    assert phases == [Phase.WAITING, *[Phase.PARKED] * 3], "a small task overtook"
    host.assign()
    host.ran(first, 1_000)  # one unit: 5 are free
    assert host.state.tasks[second].phase == Phase.WAITING
    assert list(host.ledger[number].parked) == [third, small]
    host.keep(host.scheduler.cancel([third], host.now_ns)[1])
    host.settle()
    assert host.state.tasks[small].phase == Phase.WAITING, "nothing is parked before it now"


def test_parked_task_that_can_get_no_credits_fails_with_reason(host: Claimant, number: int) -> None:
    first, second = host.under(number, 2, shots=4_000)
    host.assign()
    host.ran(first, 10**6)  # all four are spent: two are left
    ending = host.ended(second)
    assert (ending.state, ending.reason) == (TaskState.FAILED, "reservation")
    assert "reason 7, insufficient credits" in ending.message


def test_a_task_larger_than_its_reservation_is_refused(host: Claimant) -> None:
    number = host.reserve(3).reservation
    before = host.digest()
    fails(NotReservedError, "reason 9, too large", host.under, number, shots=3_001)
    assert host.digest() == before


def test_task_that_needs_spent_credits_is_refused(host: Claimant) -> None:
    number = host.reserve(3).reservation
    (task,) = host.under(number, shots=2_000)
    host.assign()
    host.ran(task, 10**6)
    before = host.digest()
    fails(NotReservedError, "reason 7, insufficient credits", host.under, number, shots=2_000)
    assert host.digest() == before


def test_poison_task_returns_its_credits(host: Claimant, number: int) -> None:
    (task,) = host.under(number, shots=4_000)
    while task in host.state.tasks:
        host.assign()
        host.lose(host.state.tasks[task].worker)
        host.pass_time(20)
        host.revive()
    host.settle()
    assert (host.ended(task).reason, host.ledger[number].free) == ("poison", 6)


@pytest.mark.parametrize("how", ["cancelled", "poison"])
def test_task_killed_while_running_pays_for_its_last_attempt(host: Claimant, how: str) -> None:
    number = host.reserve(6).reservation
    (task,) = host.under(number, shots=4_000)
    while task in host.state.tasks:
        host.assign()
        record = host.state.tasks[task]
        host.begin(record)
        host.now_ns += 20_000_000
        if how == "cancelled":
            host.keep(host.scheduler.cancel([task], host.now_ns)[1])
        host.lose(record.worker)
        item = host.ledger[number]
        assert (item.spent, item.held) in ((0, 4), (3, 0)), "an attempt that is made again costs"
        host.pass_time(20)
        host.revive()
    host.settle()
    assert host.ended(task).reason == how
    assert (item.spent, item.returned, item.free, item.actual_ns) == (3, 1, 3, 20_000_000)


def test_accepted_tasks_that_were_not_stored_hold_no_credits(host: Claimant, number: int) -> None:
    first, *_ = host.under(number, 3, shots=4_000)
    host.scheduler.rollback_submit(first, 3, host.now_ns)
    host.settle()
    item = host.ledger[number]
    assert (item.held, item.free, item.parked) == (0, 6, {})
    assert not host.rows.execute("select * from units").fetchall()


def test_release_cancels_parked_tasks_and_lets_sent_ones_end(host: Claimant, number: int) -> None:
    running, waiting, parked = host.under(number, 3, shots=3_000)[:3]
    (also_parked,) = host.under(number)
    assert {r.number for send in host.assign() for r in send.records} == {running, waiting}
    (late,) = host.under(host.reserve(2).reservation)
    host.end(number)
    item = host.ledger[number]
    assert running_tasks(host.state, item) == [running, waiting]
    for task in (parked, also_parked):
        assert host.ended(task).state is TaskState.CANCELLED
        assert host.ended(task).message == f"its reservation, {number}, was released"
    assert late in host.state.tasks, "another's task was touched"
    host.ran(running, 10**6)
    host.ran(waiting, 1_000)
    assert (item.spent, item.held, item.state) == (4, 0, ReservationState.RELEASED)


def test_cancelling_reservation_stops_its_running_tasks(host: Claimant, number: int) -> None:
    (task,) = host.under(number, shots=3_000)
    host.assign()
    actions = host.end(number, ReservationState.CANCELLED)
    assert [a.task for a in actions if isinstance(a, StopAttempt)] == [task]
    host.finish([host.state.tasks[task]], TaskState.CANCELLED)
    host.settle()
    assert host.ledger[number].state is ReservationState.CANCELLED
    assert host.ledger[number].held == 0


def test_ending_reservation_twice_changes_nothing(host: Claimant, number: int) -> None:
    host.under(number)
    assert host.end(number)
    before = host.digest()
    assert (host.end(number), host.digest()) == ([], before)


def test_waiting_tasks_of_released_reservation_are_ended_in_batches(host: Claimant) -> None:
    host.policy("unlimited")
    number = host.reserve(1).reservation
    host.under(number, 3 * reservations.MAX_ENDED)
    item = host.ledger[number]
    how = (ReservationState.RELEASED, "", host.wall_ns)
    host.keep(reservations.close(host.state, item, *how))
    assert (
        len(host.keep(reservations.cancel_parked(host.state, host.now_ns)))
        == reservations.MAX_ENDED
    )
    assert not host.assign(), "a task of a reservation that is over was sent"
    host.settle()
    assert not host.state.tasks
    assert len(host.endings) == 3 * reservations.MAX_ENDED


def test_reservation_expires_by_wall_clock_and_renewal_extends_it(host: Claimant) -> None:
    number = host.reserve(6, ttl_ns=10 * SECOND).reservation
    host.pass_time(9)
    host.state.reservations.renew(number, "", 20 * SECOND, host.wall_ns)
    host.pass_time(11)
    (task,) = host.under(number)
    host.pass_time(10)
    assert host.ledger[number].state is ReservationState.EXPIRED
    ended = host.ended(task)
    assert ended.message == f"its reservation, {number}, has expired"
    assert WaitReason.UNITS not in dict(ended.timing.waits)
    with pytest.raises(NotReservedError, match="is over"):
        host.state.reservations.renew(number, "", SECOND, host.wall_ns)


def test_overdue_reservation_is_refused_before_event_loop_expires_it(host: Claimant) -> None:
    number = host.reserve(6, ttl_ns=SECOND).reservation
    host.now_ns += SECOND
    fails(NotReservedError, "is over", host.under, number)
    with pytest.raises(NotReservedError, match="is over"):
        host.state.reservations.renew(number, "", SECOND, host.wall_ns)


def test_ended_reservation_is_listed_an_hour_its_number_kept(host: Claimant, number: int) -> None:
    host.end(number)
    host.pass_time(3_599)
    assert number in host.ledger
    host.pass_time(1)
    assert number not in host.ledger
    assert not host.rows.execute("select * from reservation").fetchall()
    host.restart()
    assert host.reserve(6).reservation == number + 1


def test_running_task_keeps_record_and_credits_of_ended_reservation(host: Claimant) -> None:
    number = host.reserve(10).reservation
    (task,) = host.under(number, shots=4_000)
    host.assign()
    host.end(number)
    host.pass_time(4_000)
    assert number in host.ledger
    assert host.reserve(7).code == AdmissionReason.INSUFFICIENT_CREDITS, "four are still held"
    assert host.reserve(6).status == "accepted"
    host.ran(task, 1_000)
    assert host.reserve(4).status == "accepted"
    host.pass_time(1)
    assert number not in host.ledger


def test_queue_timeout_expires_parked_tasks(host: Claimant) -> None:
    _, parked = host.under(host.reserve(1).reservation, 2)
    host.state.tasks.deadlines.wait_until(
        host.now_ns, range(parked, parked + 1), host.state.tasks, 2
    )
    actions = host.tick()
    host.settle()
    assert [a.record.number for a in actions if isinstance(a, TaskEnded)] == [parked]
    assert host.ended(parked).state is TaskState.EXPIRED


def test_held_credits_and_parked_tasks_survive_restart(host: Claimant, number: int) -> None:
    tasks = host.under(number, 5, shots=2_000)
    host.assign()
    host.ran(tasks[0], 1_000)
    before = host.digest()
    host.restart()
    assert host.digest() == before
    assert list(host.ledger[number].holds) == tasks[1:3]
    assert list(host.ledger[number].parked) == tasks[3:]


def test_parked_task_that_can_get_no_credits_fails_at_restart(host: Claimant, number: int) -> None:
    first, second = host.under(number, 2, shots=4_000)
    host.assign()
    record = host.state.tasks[first]
    record.cost_us = 1e6  # it takes all four: two are left
    host.finish([record])
    ledger = host.state.reservations
    for query, values in reservation_statements(ledger, ledger.take_changes()):
        host.rows.execute(query, values)  # the crash comes before the other is looked at
    host.restart()
    host.settle()
    assert (host.ended(second).state, host.ended(second).reason) == (
        TaskState.FAILED, "reservation"
    )  # fmt: skip


class Watched(OrderedDict[int, object]):
    """Knows how often somebody looked at one of its tasks."""

    seen = 0

    def items(self) -> Iterator[tuple[int, object]]:  # type: ignore[override]
        for number, value in super().items():
            self.seen += 1
            yield number, value

    def values(self) -> Iterator[object]:  # type: ignore[override]
        return (value for _, value in self.items())


def test_task_end_examines_only_next_two_parked_tasks(host: Claimant) -> None:
    host.policy("unlimited")
    number = host.reserve(1).reservation
    item = host.ledger[number]
    item.units = 2
    first, *_ = host.under(number, 1_000)
    watched = Watched(item.parked)
    item.parked = watched  # type: ignore[assignment]
    host.scheduler.cancel([first], host.now_ns)
    host.scheduler.dispatch(host.now_ns)
    assert watched.seen == 2, "one that goes on, and one that does not"
    entries = cluster_info.target_info(host.state, "main"), reservation_info(host.state, item)
    assert (entries[0].parked, entries[1].parked, watched.seen) == (997, 997, 2)


def test_parked_tasks_that_can_never_get_their_credits_end_in_batches(host: Claimant) -> None:
    first, *_ = host.under(host.reserve(1).reservation, 3 * reservations.MAX_ENDED)
    host.assign()
    host.finish([host.state.tasks[first]])
    assert len(host.keep(host.scheduler.dispatch(host.now_ns))) == reservations.MAX_ENDED
    host.settle()
    assert not host.state.tasks


def test_restart_after_release_cancels_only_unbegun_tasks(host: Claimant, number: int) -> None:
    ran_before, never_ran = host.under(number, 2, shots=2_000)
    host.state.tasks[ran_before].attempts = 1
    item, ledger = host.ledger[number], host.state.reservations
    reservations.close(host.state, item, ReservationState.RELEASED, "", host.wall_ns)
    for query, values in reservation_statements(ledger, ledger.take_changes()):
        host.rows.execute(query, values)  # the crash comes before its tasks are ended
    host.restart()
    host.settle()
    assert host.ended(never_ran).state is TaskState.CANCELLED
    assert list(host.ledger[number].holds) == [ran_before]
    host.assign()
    host.ran(ran_before, 1_000)
    assert host.ledger[number].spent == 1
