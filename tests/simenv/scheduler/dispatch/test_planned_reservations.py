"""Planned reservations find their workers: long tasks leave them slots, short ones pass."""

from __future__ import annotations

import pytest
from checked_scheduler import route, wide
from simulation import BEGIN_S, MAIN, WALL_NS, Planned

from simenv.model import CLIENT_LIMITS, Limits, PoolSpec
from simenv.model.reservations import MAX_OWNED, CalendarEntry, ReservationRequest
from simenv.scheduler.dispatch import planned_reservations
from simenv.scheduler.views.pending_reasons import pending_reason

SIDE = PoolSpec("side", "any", min=4, max=4)


def test_long_tasks_leave_the_workers_that_a_reservation_will_need() -> None:
    machine = Planned()
    machine.tasks(6, 100.0)
    machine.run(BEGIN_S, until_idle=False)
    assert len(machine.began) == 2
    assert machine.reserve() == "accepted"


def test_tasks_that_end_before_pass_longer_ones() -> None:
    machine = Planned()
    long = machine.tasks(6, 100.0)
    short = machine.tasks(4, 20.0)
    machine.run(BEGIN_S, until_idle=False)
    assert [task in machine.began for task in long] == [True, True] + [False] * 4
    assert all(machine.ended[task] < machine.begin_ns for task in short)


def test_held_tasks_say_why_and_start_when_slots_are_spare_or_the_entry_is_removed() -> None:
    machine = Planned()
    machine.tasks(2, 100.0)
    machine.tasks(1, 50.0)
    late = machine.tasks(1, 70.0)
    machine.run(5.0, until_idle=False)
    reason = pending_reason(machine.state, machine.state.tasks[late[0]], machine.now_ns)
    assert reason.startswith("a planned reservation begins in 55")
    assert len(machine.began) == 3
    machine.state.calendar.remove(1)
    machine.run(1_000.0)
    assert min(machine.began[task] for task in late) < machine.begin_ns


def test_long_task_starts_when_another_has_ended() -> None:
    machine = Planned(MAIN, SIDE, workers=3)
    machine.tasks(1, 30.0)
    first = machine.tasks(1, 100.0)[0]
    second = machine.tasks(1, 100.0)[0]
    machine.run(2.0, until_idle=False)
    assert (first in machine.began, second in machine.began) == (True, False)
    machine.state.tasks[first].cost_us = 1.0  # as if it were nearly over
    machine.state.cluster.workers[machine.state.tasks[first].worker].held.cost_us = 1.0
    machine.run(2.0, until_idle=False)
    assert second in machine.began


def test_wide_task_leaves_slots_and_gets_none_back_that_are_kept() -> None:
    machine = Planned()
    machine.submit(1, along=route(400e6, max_slots=64))
    machine.run(10.0, until_idle=False)
    assert [worker.slots for worker in machine.state.cluster.workers.values() if worker.slots] == [
        2
    ]


def test_tasks_of_other_pools_and_of_several_ranks_leave_slots_too() -> None:
    machine = Planned(MAIN, SIDE)
    machine.tasks(4, 100.0, pool="side")
    machine.submit(1, along=wide(3, cost_us=100e6, memory=2**20))
    machine.run(10.0, until_idle=False)
    assert len(machine.began) == 2
    assert machine.state.cluster.pools["main.x3"].held_until_ns == machine.begin_ns


def test_reservation_that_would_last_too_long_waits_for_the_planned_one() -> None:
    machine = Planned()
    assert machine.reserve(3, ttl_s=BEGIN_S + 1) == "delayed"
    assert machine.reserve(3, ttl_s=BEGIN_S - 1) == "accepted"


def test_reservation_in_force_counts_until_it_expires() -> None:
    machine = Planned()
    assert machine.reserve(2, ttl_s=BEGIN_S + 100) == "accepted"
    machine.tasks(2, 100.0)
    machine.run(5.0, until_idle=False)
    assert machine.began == {}


def test_only_so_many_tasks_are_set_aside_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_reservations, "BACKFILL_DEPTH", 3)
    machine = Planned(workers=4)
    machine.tasks(10, 100.0)
    short = machine.tasks(1, 0.5)
    machine.run(5.0, until_idle=False)
    assert machine.state.cluster.pools["main"].queue.late == 3
    assert short[0] in machine.ended
    machine.state.calendar.remove(1)
    machine.run(1_000.0)


def test_planned_workers_of_one_time_add_up() -> None:
    machine = Planned()
    ask = ReservationRequest(device="main", workers=1)
    begin_s = (WALL_NS + machine.begin_ns) / 1e9
    machine.state.calendar.add(CalendarEntry(begin_s - 10.0, 15.0, ask=ask, id=2))
    machine.state.calendar.add(CalendarEntry(begin_s + 40.0, 15.0, ask=ask, id=3))
    machine.advance()
    assert [each.needed for each in machine.state.calendar.planned] == [1, 3, 1]


def planned_by_ana(limits: Limits, *workers: int) -> Planned:
    """Four slots, all of one pool, and entries of one owner for the same time."""
    machine = Planned()
    machine.state.calendar.remove(1)
    machine.state.shares.limits.set_owners({"ana": limits}, CLIENT_LIMITS)
    begin_s = (WALL_NS + machine.begin_ns) / 1e9
    for number, each in enumerate(workers, 2):
        ask = ReservationRequest(device="main", workers=each)
        entry = CalendarEntry(begin_s, 30.0, ask=ask, owner="ana", id=number)
        machine.state.calendar.add(entry)
    machine.advance()
    return machine


@pytest.mark.parametrize(
    ("limits", "workers", "kept"),
    [
        (Limits(max_reserved_percent=1, max_reservations=1), (60_000,) * MAX_OWNED, []),
        (Limits(max_reserved_percent=25), (1,) * MAX_OWNED, [1]),
        (Limits(max_reserved_percent=50), (60_000, 1, 2, 1), [1, 1]),
        (Limits(max_reservations=1), (1, 1, 1), [1]),
        (Limits(max_reservation_s=29), (1,), []),
        (Limits(max_reserved_percent=99), (2, 2, 1), [2, 1]),  # one is left for all others
        (Limits(), (60_000,), [4]),  # by the size of the pool
    ],
)
def test_workers_are_kept_for_no_planned_reservation_that_a_limit_will_refuse(
    limits: Limits, workers: tuple[int, ...], kept: list[int]
) -> None:
    machine = planned_by_ana(limits, *workers)
    assert [each.workers for each in machine.state.calendar.planned] == kept
    machine.tasks(4, 100.0)
    machine.run(5.0, until_idle=False)
    assert len(machine.began) == 4 - sum(kept)


def test_reservations_in_force_at_the_begin_of_a_planned_one_count_for_their_owner() -> None:
    machine = planned_by_ana(Limits(max_reserved_percent=50), 1)
    for workers, ttl_s, kept in ((1, BEGIN_S - 10.0, [1]), (1, BEGIN_S + 10.0, [1])):
        assert machine.reserve(workers, ttl_s, owner="ana") == "accepted"
        machine.advance()
        assert [each.workers for each in machine.state.calendar.planned] == kept
    limits = {"ana": Limits(max_reserved_percent=25)}  # the second one has it all
    machine.state.shares.limits.set_owners(limits, CLIENT_LIMITS)
    machine.advance()
    assert machine.state.calendar.planned == ()
