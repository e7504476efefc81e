"""Reservations through the service: durable, their owner's alone, and refused without a trace."""

import time
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest
from reservation_harness import BASE, ReservationHarness
from service import completions, spec

from simenv import model
from simenv.errors import QueueFullError
from simenv.model.reservations import CalendarEntry
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.events import results
from simenv.scheduler.state.nodes import Worker
from simenv.service import fault_injection
from simenv.service.control.reservations import MOST_DEFERRED
from simenv.wire.messages import accounting, admin, client as m
from simenv.wire.rights import Identity

SECOND = 10**9


def test_reservations_of_one_owner_that_wait_are_bounded(office: ReservationHarness) -> None:
    commands = office.loop.commands.reservations
    commands._reading = lambda _device: Future()  # a calibration that is being read
    request = model.ReservationRequest(device="main", workload=BASE)
    ana, ben = Identity("ana", "client"), Identity("ben", "client")
    for number in range(MOST_DEFERRED):
        commands.apply(b"ana", ana, admin.Reserve(number, request), "")
    with pytest.raises(QueueFullError, match="of your changes wait"):
        commands.apply(b"ana", ana, admin.Reserve(MOST_DEFERRED, request), "")
    commands.apply(b"ben", ben, admin.Reserve(1, request), "")
    assert len(commands.deferred) == MOST_DEFERRED + 1
    commands.deferred.clear()


def test_a_reservation_and_its_tasks_survive_a_crash(office: ReservationHarness) -> None:
    number = office.reserve(4).reservation
    assert isinstance(office.under(number, 200, 200, 200), m.Accepted)
    before = office.digest()
    office.begin_again()
    assert office.digest() == before
    info = office.info(number)
    assert (info.credits_reserved, info.credits_consumed, info.credits_held) == (4, 4, 4)
    assert (info.waiting, info.parked, info.running) == (2, 1, 0)
    assert [office.view(task).parked for task in (1, 2, 3)] == [0, 0, 1]
    assert office.view(3).reason == f"waiting for units of reservation {number}"
    assert office.reserve(1).reservation == number + 1


def ten_microseconds(worker: Worker, ended: list[m.AttemptResult], _now_ns: int) -> None:
    """Charge each task so much, however long this machine takes for it."""
    worker.held.charges |= {each.task: (10, 1.0) for each in ended}


def test_returned_credits_are_stored_with_task_completion(
    office: ReservationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = office.reserve(4).reservation
    office.under(number, 300, 300)
    office.join()
    assert [t.task for t in office.assigned()] == [1]
    office.begin_again()  # it ran, and nobody heard of it
    office.join()
    sent = office.assigned()
    monkeypatch.setattr(results, "charge_times", ten_microseconds)
    office.finish(sent)  # a unit of the three
    assert [t.task for t in office.assigned()] == [2], "what came back was enough for the next"
    office.begin_again()
    info = office.info(number)
    assert (info.credits_consumed, info.credits_held, info.actual_total_ns) == (4, 3, 10_000)


def test_release_cancels_waiting_tasks_and_lists_running_ones(office: ReservationHarness) -> None:
    number = office.reserve(4).reservation
    office.join()
    office.under(number, 200, 200, 100)
    running = office.assigned()
    answers = office.say(admin.Release(4, number, "done with it"))
    (released,) = (a for a in answers if isinstance(a, admin.Released))
    assert released.running == [t.task for t in running]
    assert released.info.state is model.ReservationState.RELEASED
    ends = completions(answers)
    assert {m.STATES[c.state] for c in ends} == {model.TaskState.CANCELLED}
    assert {c.task for c in ends} | set(released.running) == {1, 2, 3}
    assert b"was released" in ends[0].payload
    assert office.get(admin.Released, admin.Release(4, number)).running == released.running
    office.finish(running)
    assert office.get(admin.Released, admin.Release(4, number)).running == []
    refused = office.under(number, 100, key="~v")
    assert refused.refusals[0].code == "reservation"
    assert "is over (released: done with it)" in refused.refusals[0].message


@pytest.mark.parametrize("ends", [model.ReservationState.RELEASED, model.ReservationState.EXPIRED])
def test_reservation_released_before_a_crash_or_expired_after_it_has_ended(
    office: ReservationHarness, monkeypatch: pytest.MonkeyPatch, ends: model.ReservationState
) -> None:
    number = office.reserve(4, ttl_ns=SECOND).reservation
    office.under(number, 200, 300)
    if ends == "released":
        office.say(admin.Release(4, number))
    else:
        later = office.info(number).expires_ns
        monkeypatch.setattr("simenv.service.control.reservations.time.time_ns", lambda: later)
    office.begin_again()
    assert office.info(number).state is ends
    assert not office.state.tasks
    assert office.view(1).state is model.TaskState.CANCELLED
    assert office.view(1).reservation == number


def test_renewal_of_reservation_survives_crash(office: ReservationHarness) -> None:
    number = office.reserve(4, ttl_ns=SECOND).reservation
    renewed = office.get(admin.Reservations, admin.Renew(4, number, 50 * SECOND)).reservations[0]
    office.begin_again()
    assert office.info(number).expires_ns == renewed.expires_ns > renewed.created_ns + 40 * SECOND
    office.loop.drain(now=False)
    assert office.refusal(admin.Reserve(2, model.ReservationRequest())).code == "shutting_down"


def test_refused_submission_holds_no_credits(office: ReservationHarness) -> None:
    number = office.reserve(4).reservation
    before = office.digest()
    refused = office.under(number, 100, 500, 100, 401)
    assert [(r.code, r.index) for r in refused.refusals] == [("reservation", 1), ("reservation", 3)]
    assert office.digest() == before


def test_repeated_submission_holds_credits_once(office: ReservationHarness) -> None:
    number = office.reserve(4).reservation
    first = office.under(number, 200)
    assert office.under(number, 200) == msgspec.structs.replace(first, repeated=True)
    assert office.info(number).credits_held == 2
    office.say(admin.Release(4, number))
    again = office.under(number, 200)
    assert isinstance(again, m.Accepted), "it was accepted before the reservation was over"


def test_reservations_of_other_owners_are_not_visible(office: ReservationHarness) -> None:
    number = office.reserve(4, office.ana).reservation
    reservation = office.reserve(1).reservation
    before = office.digest()
    for peer in (office.ben, office.ana):
        hidden = reservation if peer is office.ana else number
        for ask in (
            lambda n: admin.Renew(4, n, SECOND),
            lambda n: admin.Release(4, n),
            lambda n: admin.GetReservations(4, n),
            lambda n: m.Submit(5, "~x", 0, model.TaskOptions(reservation=n), [spec()]),
        ):
            result, never = office.refusal(ask(hidden), peer), office.refusal(ask(77), peer)
            assert result.code == never.code == "reservation"
            assert result.message.replace(str(hidden), "77") == never.message
    assert office.digest() == before
    every = admin.GetReservations(4)
    listed = [
        [(info.id, info.owner) for info in office.get(admin.Reservations, every, peer).reservations]
        for peer in (office.ana, office.ben, office.ops)
    ]
    assert listed == [[(number, "ana")], [], [(number, "ana"), (reservation, "")]]
    assert not office.events("reservation.", peer=office.ben)
    made = office.events("reservation.made", peer=office.ana)
    assert [each.subject for each in made] == [str(number)]


def test_admin_releases_any_reservation_but_uses_own_ones(office: ReservationHarness) -> None:
    number = office.reserve(4, office.ana).reservation
    assert isinstance(office.under(number, 100, peer=office.ops), m.Refused)
    assert office.get(admin.Released, admin.Release(4, number), office.ops).info.owner == "ana"


def test_policies_and_profiles_survive_restart(office: ReservationHarness) -> None:
    profile = model.DeviceProfile(max_qubits=7, total_credits=10, baseline=BASE)
    assert office.get(admin.ProfileReply, admin.SetProfile(4, "main", profile)).changed
    again = office.get(admin.ProfileReply, admin.SetProfile(4, "main", profile))
    assert (again.changed, again.version) == (False, 3)
    office.begin_again()
    assert office.get(admin.ProfileReply, admin.GetProfile(4, "main")).profile == profile
    result = office.get(admin.PolicyReply, admin.GetPolicy(4, "main"))
    assert (result.version, result.policy.total_credits) == (2, 10)


def test_dry_run_and_requests_for_unknown_devices_change_nothing(
    office: ReservationHarness,
) -> None:
    before = office.digest()
    for ask in (
        admin.GetPolicy(4, "nowhere"),
        admin.GetProfile(4, "nowhere"),
        admin.SetPolicy(4, "nowhere", model.AdmissionPolicy()),
        admin.SetProfile(4, "nowhere", model.DeviceProfile()),
    ):
        assert office.refusal(ask).code == "not_found"
    assert office.reserve(1, device="nowhere").code == model.AdmissionReason.DEVICE_NOT_FOUND
    work = msgspec.structs.replace(BASE, count=4)
    ask = model.ReservationRequest(device="main", workload=work)
    decision = office.get(admin.DecisionReply, admin.Reserve(2, ask, dry=True)).decision
    assert (decision.status, decision.credits_required) == ("accepted", 4)
    assert office.digest() == before


def test_reservation_is_answered_only_once_it_is_stored(office: ReservationHarness) -> None:
    number = office.reserve(4).reservation
    fault_injection.install(",".join(f"journal.commit.before:{n}:error" for n in range(1, 9)))
    assert office.say(admin.Reserve(2, model.ReservationRequest(device="main"))) == []
    assert office.refusal(admin.Release(4, number)).code == "journal"
    assert isinstance(office.under(number, 100), m.Refused)
    for _ in range(8):
        office.step(1)
    fault_injection.install("")
    office.step(2)
    (answer,) = office.heard()
    assert isinstance(answer, admin.DecisionReply), "it comes when it is stored"
    assert office.info(number).credits_held == 0, "a task that was never stored holds units"
    assert not office.journal._db.execute("select * from units").fetchall()
    before = office.digest()
    office.begin_again()
    assert office.digest() == before


def test_task_rerun_for_damaged_result_takes_no_credits_twice(
    office: ReservationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = office.reserve(4).reservation
    office.join()
    office.under(number, 300)
    sent = office.assigned()
    monkeypatch.setattr(results, "charge_times", ten_microseconds)
    office.finish(sent)
    office.under(number, 100, key="~v")
    before = office.info(number)
    assert (before.credits_consumed, before.credits_held) == (2, 1)
    row = office.journal._db.execute("select seq, body from finished").fetchone()
    office.journal._db.execute("update finished set body = ?", (row[1][:-1] + b"x",))
    office.get(m.Queue, m.GetTasks(1, [1]))  # read, and found to be broken
    assert list(office.state.tasks) == [2, 1]
    office.begin_again()
    info = office.info(number)
    assert (info.credits_consumed, info.credits_held) == (2, 1)
    office.join()
    while office.state.tasks:
        office.finish(office.assigned())
    info = office.info(number)
    assert (info.credits_consumed, info.credits_held) == (2, 0)


def test_administrators_alone_reserve_for_batch_jobs_and_for_others(
    office: ReservationHarness,
) -> None:
    office.say(accounting.SetLimits(1, "ana", {"max_reservations": 1}))
    job = {"scope": "slurm/big", "job": "7", "device": "main"}
    before = office.digest()
    for fields, owner in ((job, ""), ({**job, "scope": ""}, "ben")):
        request = admin.Reserve(1, model.ReservationRequest(**fields), owner=owner)
        assert office.refusal(request, office.ana).code == "not_allowed"
    planned = CalendarEntry(time.time() + 60.0, 60.0, ask=model.ReservationRequest(**job))
    assert office.refusal(admin.AddCalendarEntry(1, planned), office.ana).code == "not_allowed"
    assert office.digest() == before
    own = office.reserve(1, office.ana)
    assert own.status == "accepted"
    assert office.reserve(1, office.ana).status == "rejected"
    # Slurm has bounded the job, and the limits of its user do not.
    request = admin.Reserve(1, model.ReservationRequest(**job), owner="ana")
    dry = admin.Reserve(1, request.ask, dry=True)
    assert office.get(admin.DecisionReply, dry, office.ana).decision.status == "accepted"
    made = office.get(admin.DecisionReply, request, office.ops).decision
    assert made.status == "accepted"
    assert office.info(made.reservation, office.ana).owner == "ana"
    assert not isinstance(office.under(made.reservation, 100, peer=office.ana), m.Refused)


def test_planned_reservations_are_refused_beyond_the_limits_of_their_owner(
    tmp_path: Path,
) -> None:
    size, pool = ClusterLimits(4, 2**30, 1000, 2**24, 10**10, 10**11), {"name": "main", "max": 4}
    office = ReservationHarness(tmp_path, limits=size, pools=[pool])
    limits = {"max_reserved_percent": 50, "max_reservations": 1, "max_reservation_s": 600}
    office.say(accounting.SetLimits(1, "ana", limits))
    begin_s = time.time() + 3_600.0

    def plan(workers: int, later_s: float = 0.0, for_s: float = 60.0) -> admin.AddCalendarEntry:
        ask = model.ReservationRequest(device="main", workers=workers)
        return admin.AddCalendarEntry(1, CalendarEntry(begin_s + later_s, for_s, ask=ask))

    def refusal(message: admin.AddCalendarEntry) -> str:
        refused = office.refusal(message, office.ana)
        assert refused.code == "limit"
        return refused.message

    assert "main has at most 4 that can be reserved" in refusal(plan(60_000))
    assert "may reserve 50 % of the 4 workers" in refusal(plan(4))
    assert "(max_reservation_s)" in refusal(plan(1, for_s=601.0))
    office.get(admin.CalendarEntries, plan(1, 30.0), office.ana)
    assert "has planned 1 reservations for that time; the limit is 1" in refusal(plan(1))
    office.get(admin.CalendarEntries, plan(1, 90.0), office.ana)
    office.say(accounting.SetLimits(1, "ana", {"max_reservations": 9}))
    assert "in addition to 1 that 'ana' has planned: 'ana' may reserve 50 %" in refusal(plan(2))
    office.get(admin.CalendarEntries, plan(2), office.ben)
    assert [entry.owner for entry in office.state.calendar.entries.values()] == ["ana"] * 2 + [
        "ben"
    ]
    assert "at most 4 that" in office.refusal(plan(5), office.ops).message
    office.get(admin.CalendarEntries, plan(4), office.ops)
