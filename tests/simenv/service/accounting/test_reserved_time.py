"""Accounts of reservations: whose they are, their budgets, and the time of their workers."""

import logging
import time
from pathlib import Path

import msgspec
import pytest
from account_harness import AccountHarness, budgeted, hours
from waiting import until

from simenv import model
from simenv.model import Event
from simenv.model.accounts import SLOT_HOUR, Account
from simenv.model.reservations import JOB_SCOPE, CalendarEntry
from simenv.service.accounting import budgets
from simenv.wire import codec
from simenv.wire.messages import accounting, admin

SECOND = 1_000_000_000


@pytest.fixture
def town(tmp_path: Path) -> AccountHarness:
    return AccountHarness(tmp_path)


@pytest.fixture(autouse=True)
def long_month(monkeypatch: pytest.MonkeyPatch) -> None:
    """The present month, without an end within a day: hours of the tests are those of one month."""
    month_of = budgets.month_of

    def lengthened(at_s: float) -> tuple[int, int]:
        begin_s, end_s = month_of(at_s)
        return begin_s, end_s + 86_400

    monkeypatch.setattr(budgets, "month_of", lengthened)


def begin(town: AccountHarness) -> None:
    """Start the worker; ana may reserve it."""
    town.join()
    limits = accounting.SetLimits(1, "ana", {"max_reserved_percent": 100})
    assert town.get(accounting.OwnerReports, limits, town.ops).owners


def asked(town: AccountHarness, hours: float = 1.0, **fields: object) -> admin.Reserve:
    ttl_ns = round(hours * 3_600 * SECOND)
    given = {"device": "main", "workers": 1, "ttl_ns": ttl_ns, **fields}
    return admin.Reserve(2, model.ReservationRequest(**given))  # type: ignore[arg-type]


def reserve(town: AccountHarness, hours: float = 1.0, **fields: object) -> model.Decision:
    message = asked(town, hours, **fields)
    return town.get(admin.DecisionReply, message, town.ana).decision


def info(town: AccountHarness, number: int) -> model.ReservationInfo:
    return town.get(admin.Reservations, admin.GetReservations(3, number), town.ana).reservations[0]


def held(town: AccountHarness, number: int, seconds: float) -> None:
    """Let so much time pass in which the reservation has its worker, and charge it."""
    town.state.dedicated.all[number].held_us += seconds * 1e6
    town.step()


def usage(town: AccountHarness, *by: str) -> dict[tuple[str, ...], float]:
    """Slot-seconds by these keys."""
    answer = town.get(accounting.Usage, accounting.GetUsage(4, by), town.ops)
    return {row.key: row.used.slot_us / 1e6 for row in answer.rows}


def test_reservation_and_its_tasks_are_of_one_account(town: AccountHarness) -> None:
    begin(town)
    mine, other = reserve(town), reserve(town, account="bio", workers=0)
    assert info(town, mine.reservation).account == "chem"
    assert info(town, other.reservation).account == "bio"
    assert town.batch(reservation=other.reservation).account == "bio"
    assert town.batch(reservation=other.reservation, account="chem", key="~b").account == "chem"
    town.begin_again()
    assert info(town, other.reservation).account == "bio"
    # The account that a batch system names counts where it is one's own.
    for name, account in (("bio", "bio"), ("physics", "chem")):
        number = reserve(town, metadata=(("account", name),), workers=0).reservation
        assert info(town, number).account == account


def test_unused_account_of_a_job_is_logged(
    town: AccountHarness, caplog: pytest.LogCaptureFixture
) -> None:
    begin(town)
    caplog.set_level(logging.INFO, "simenv.service")
    job = {"workers": 0, "scope": f"{JOB_SCOPE}c", "job": "7"}
    for name, account in (("bio", "bio"), ("physics", "chem"), ("phys42", "chem")):
        message = asked(town, **job, metadata=(("account", name),))
        message = msgspec.structs.replace(message, owner="ana")
        number = town.get(admin.DecisionReply, message, town.ops).decision.reservation
        assert info(town, number).account == account
    lines = [each.getMessage() for each in caplog.records if "of job 7" in each.getMessage()]
    begin_of_line = "reservation {} of job 7 is charged to 'chem': 'ana' has no account {!r} here"
    assert lines == [begin_of_line.format(2, "physics"), begin_of_line.format(3, "phys42")]
    ask = msgspec.structs.replace(message.ask, request_id="r")
    message = msgspec.structs.replace(message, ask=ask)
    for _ in range(3):
        town.get(admin.DecisionReply, message, town.ops)
    lines = [each for each in caplog.records if "of job 7" in each.getMessage()]
    assert len(lines) == 3, "a repeat is no news"


def test_repeat_for_a_job_keeps_the_first_time(town: AccountHarness) -> None:
    begin(town)
    job = {"scope": f"{JOB_SCOPE}c", "job": "7", "request_id": "r7"}
    message = msgspec.structs.replace(asked(town, hours=0.1, **job), owner="ana")
    number = town.get(admin.DecisionReply, message, town.ops).decision.reservation
    later = msgspec.structs.replace(asked(town, hours=0.09, **job), owner="ana")
    assert town.get(admin.DecisionReply, later, town.ops).decision.reservation == number
    assert info(town, number).expires_ns - info(town, number).created_ns == 360 * SECOND
    other = reserve(town, workers=0, request_id="r8").reservation
    assert other
    repeat = reserve(town, hours=0.5, workers=0, request_id="r8")
    assert (repeat.status, repeat.code) == ("rejected", model.AdmissionReason.EXISTS)


def test_accounts_of_others_are_refused(town: AccountHarness) -> None:
    refusal = town.refusal(asked(town, account="physics"), town.ana)
    assert refusal.code == "not_allowed"
    assert "not in the account 'physics'" in refusal.message
    entry = CalendarEntry(time.time() + 9.0, 60.0, ask=asked(town, account="physics").ask)
    message = admin.AddCalendarEntry(3, entry)
    assert "not in the account 'physics'" in town.refusal(message, town.ana).message


def test_reserved_time_is_usage_of_the_account_also_after_a_crash(town: AccountHarness) -> None:
    begin(town)
    number = reserve(town, account="bio").reservation
    held(town, number, 25.0)
    held(town, number, 5.0)  # too little, until its end
    assert usage(town, "account", "user") == {("bio", "ana"): pytest.approx(25.0, abs=0.5)}
    town.begin_again()
    begin(town)
    assert usage(town, "account", "engine") == {("bio", "reserved"): pytest.approx(25.0, abs=0.5)}
    shares = town.get(accounting.Shares, accounting.GetShares(5), town.ops).rows
    (row,) = (row for row in shares if (row.account, row.user) == ("bio", "ana"))
    assert row.usage == pytest.approx(25.0, abs=0.5)
    town.state.dedicated.all[number].held_us += 5e6
    town.get(admin.Released, admin.Release(6, number, ""), town.ana)
    town.step()
    assert usage(town, "account") == {("bio",): pytest.approx(30.0, abs=0.5)}


@pytest.mark.parametrize("ends", ["released", "drained", "closed"])
def test_rest_of_its_time_is_charged_when_the_reservation_or_the_service_ends(
    town: AccountHarness, ends: str
) -> None:
    begin(town)
    number = reserve(town, account="bio").reservation
    town.state.dedicated.all[number].held_us += 9e6
    town.loop.maintenance.checkpointer = None  # its thread does not run
    if ends == "released":
        town.ana.send(codec.encode(admin.Release(6, number, "")))
        town.loop._next_tick_ns = 2**62  # the service is killed after its answer, before a tick
        while not town.heard(town.ana):
            town.loop.run_once(timeout_s=0.0)
    if ends == "drained":
        town.loop.drain(now=False)
    if ends != "released":
        town.loop.close()
    town.begin_again()
    assert usage(town, "account") == {("bio",): pytest.approx(9.0, abs=0.5)}


def test_budget_refuses_workers_for_longer_than_it_lasts(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    town.spent["physics"] = 8.5 * SLOT_HOUR
    refused = reserve(town, hours=2.0)
    assert (refused.status, refused.code) == ("rejected", model.AdmissionReason.OVER_LIMIT)
    assert hours(refused.message)[:1] + hours(refused.message)[2:3] == [1.5, 2.0]
    assert "fewer workers, a shorter time" in refused.message
    assert reserve(town, hours=2.0, workers=0).reservation, "without workers, only its tasks count"
    number = reserve(town, hours=1.0).reservation
    assert number
    second = reserve(town, hours=1.0)
    assert "its reservations hold" in second.message
    town.spent["physics"] = 9.0003 * SLOT_HOUR
    assert town.refused_by("limit")  # it is held for the reservation
    town.batch(reservation=number, shots=1)


def test_budget_refuses_a_renewal_but_lets_the_reservation_go_on(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    town.spent["physics"] = 8.5 * SLOT_HOUR
    number = reserve(town, hours=1.0).reservation
    renewal = admin.Renew(7, number, round(1.2 * 3_600) * SECOND)
    assert town.get(admin.Reservations, renewal, town.ana).reservations
    longer = admin.Renew(7, number, 2 * 3_600 * SECOND)
    refusal = town.refusal(longer, town.ana)
    assert refusal.code == "limit"
    assert hours(refusal.message)[0] == pytest.approx(1.5, rel=0.01)
    assert info(town, number).state is model.ReservationState.ACTIVE


def forecast(town: AccountHarness, number: int, slot_hours: float) -> None:
    """Let the unfinished tasks under a reservation be expected to use so much."""
    (use,) = (each for each in town.state.tasks.by_association if each.reservation == number)
    use.units = slot_hours * SLOT_HOUR


def test_budget_counts_held_time_or_the_tasks_that_use_it_whichever_is_more(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    number = reserve(town, hours=4.0).reservation
    town.batch(reservation=number, shots=1)
    forecast(town, number, 4.0)
    town.spent["physics"] = 5.9 * SLOT_HOUR
    town.batch(shots=1, key="~b")  # 0.1 of 10 h are left: 5.9 are spent, 4 are held and used
    town.spent["physics"] = 6.1 * SLOT_HOUR
    refusal = town.refused_by("limit", shots=1, key="~c")
    assert "its reservations hold 4 more" in refusal.hint
    town.spent["physics"] = 2.0 * SLOT_HOUR
    forecast(town, number, 7.9)
    town.batch(shots=1, key="~c")
    forecast(town, number, 8.1)
    town.refused_by("limit", shots=1, key="~d")


def test_tasks_of_a_reservation_may_need_what_it_holds_and_what_is_left(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    number = reserve(town, hours=4.0).reservation
    units = town.batch(reservation=number, shots=1).units
    town.spent["physics"] = 6.0 * SLOT_HOUR  # nothing is left but what is held
    forecast(town, number, 4.0 - 1.1 * units / SLOT_HOUR - 0.01)
    town.batch(reservation=number, shots=1, key="~b")
    forecast(town, number, 4.01)
    refusal = town.refused_by("limit", reservation=number, shots=1, key="~c")
    assert hours(refusal.message)[0] == pytest.approx(0.0, abs=0.01)
    town.spent["physics"] = 5.0 * SLOT_HOUR  # 1 h is left
    town.batch(reservation=number, shots=1, key="~d")
    forecast(town, number, 5.1)
    town.refused_by("limit", reservation=number, shots=1, key="~e")
    forecast(town, number, 0.0)
    town.spent["physics"] = 9.9 * SLOT_HOUR
    town.batch(reservation=number, shots=1, key="~e")  # in time that it has in any case
    town.spent["physics"] = 10.1 * SLOT_HOUR  # tasks ran elsewhere
    town.refused_by("limit", reservation=number, shots=1, key="~f")


def test_budget_bounds_tasks_under_a_reservation_of_another_account(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    number = reserve(town, hours=4.0).reservation
    town.state.dedicated.all[number].account = "bio"
    town.batch(reservation=number, shots=1)
    forecast(town, number, 9.999999)
    town.batch(shots=1, key="~b")
    forecast(town, number, 10.1)
    assert "its unfinished tasks need" in town.refused_by("limit", shots=1, key="~c").hint
    town.refused_by("limit", reservation=number, shots=1, key="~d")


def test_renewal_needs_no_more_than_the_tasks_of_the_reservation(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    number = reserve(town, hours=1.0).reservation
    town.batch(reservation=number, shots=1)
    forecast(town, number, 7.0)
    town.spent["physics"] = 2.9 * SLOT_HOUR
    seconds = round(7.05 * 3_600)
    renewal = admin.Renew(7, number, seconds * SECOND)
    assert town.get(admin.Reservations, renewal, town.ana).reservations
    refusal = town.refusal(admin.Renew(7, number, (seconds + 600) * SECOND), town.ana)
    assert hours(refusal.message)[0] == pytest.approx(7.1, rel=0.01)


def test_reservation_needs_its_part_of_months(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    turn_s = round(time.time()) + 3_600  # the month has one hour left
    month_s = 30 * 86_400

    def month_of(at_s: float) -> tuple[int, int]:
        number = (at_s - turn_s) // month_s
        return round(turn_s + number * month_s), round(turn_s + (number + 1) * month_s)

    monkeypatch.setattr(budgets, "month_of", month_of)
    town.spent["physics"] = 8.9 * SLOT_HOUR
    number = reserve(town, hours=10.5).reservation  # one hour of this month, 9.5 of the next
    assert number, "it needs less than what is left in each month"
    town.batch(shots=1)
    town.spent["physics"] = 9.1 * SLOT_HOUR
    assert town.refused_by("limit", shots=1, key="~b")
    town.spent["physics"] = 0.0
    assert town.get(admin.Reservations, admin.Renew(7, number, 10 * 3_600 * SECOND), town.ana)
    refusal = town.refusal(admin.Renew(7, number, 12 * 3_600 * SECOND), town.ana)
    assert " left from " in refusal.message
    figures = hours(refusal.message)  # of the next month, and its days
    assert (figures[0], figures[-1]) == (pytest.approx(10.0), pytest.approx(11.0, rel=0.01))


def test_time_of_thousands_of_months_is_refused_without_a_look_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = budgeted(tmp_path, 1_000 * SLOT_HOUR)
    begin(town)
    number, months = reserve(town, hours=1.0).reservation, list[float]()
    month_of = budgets.month_of
    monkeypatch.setattr(budgets, "month_of", lambda s: months.append(s) or month_of(s))
    refused = reserve(town, hours=2**62 / 3_600 / SECOND)
    assert refused.code == model.AdmissionReason.INVALID_REQUEST
    assert town.refusal(admin.Renew(7, number, 2**62), town.ana)
    assert len(months) <= 2 * 122


def test_account_that_cuts_ends_its_reservations_when_its_budget_is_spent(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR, cut=True)
    begin(town)
    number = reserve(town).reservation
    town.step()
    assert info(town, number).state is model.ReservationState.ACTIVE
    town.spent["physics"] = 10 * SLOT_HOUR
    town.accounts.budgets._next_cut_ns = 0
    town.step()
    assert info(town, number).state is model.ReservationState.RELEASED
    (text,) = (each.message for each in town.events("reservation.released", peer=town.ops))
    assert "the budget of 10 slot-h" in text


@pytest.mark.parametrize("why", ["physics: 0 slot-h left", "'ana' has left the site"])
def test_planned_reservation_of_spent_budget_or_lost_user_is_missed(
    tmp_path: Path, why: str
) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    entry = CalendarEntry(time.time() + 0.5, 3_600.0, ask=asked(town).ask)
    assert town.get(admin.CalendarEntries, admin.AddCalendarEntry(3, entry), town.ana).entries
    if why.startswith("physics"):
        town.spent["physics"] = 10 * SLOT_HOUR
    else:
        town.accounts.removed.note_identity("ana", why)

    def missed() -> list[Event]:
        town.step()
        return town.events("reservation.missed", peer=town.ops)

    (event,) = until(missed, 60.0, look_s=0.1)
    assert why in event.message
    assert not town.state.reservations.live


def test_repeated_request_has_the_account_of_the_first(town: AccountHarness) -> None:
    begin(town)
    number = reserve(town, request_id="r1").reservation
    assert number
    others = Account(parent="physics", users=("ben",))
    town.set_account("chem", others)  # bio is ana's default now
    assert reserve(town, request_id="r1").reservation == number
    assert info(town, number).account == "chem"


def renewal(number: int, hours: float = 2.0) -> admin.Renew:
    return admin.Renew(7, number, round(hours * 3_600) * SECOND)


def test_renewal_is_refused_when_its_account_is_no_longer_the_owners(town: AccountHarness) -> None:
    begin(town)
    mine, other = reserve(town, workers=0), reserve(town, account="bio", workers=0)
    own = town.get(admin.DecisionReply, asked(town, account="bio", workers=0)).decision.reservation
    town.set_account("bio", None)
    assert town.refusal(renewal(other.reservation), town.ana).code == "not_allowed"
    assert town.refusal(renewal(own)).code == "not_found"
    town.set_account("bio", Account(users=("ana",)))
    town.set_account("chem", Account(parent="physics", users=("ben",)))
    refusal = town.refusal(renewal(mine.reservation), town.ana)
    assert (refusal.code, refusal.hint) == ("not_allowed", "yours: bio")
    assert "'ana' is not in the account 'chem'" in refusal.message
    assert town.get(admin.Reservations, renewal(other.reservation), town.ana).reservations
    assert info(town, mine.reservation).state is model.ReservationState.ACTIVE, "to its end"


@pytest.mark.parametrize("policy", ["keep", "hold"])
def test_reservations_of_a_user_in_no_account_end(tmp_path: Path, policy: str) -> None:
    town = AccountHarness(tmp_path, removed_users=policy)
    town.members["lab"] = {"ben"}
    town.look_up_groups()
    begin(town)
    mine = reserve(town, workers=0).reservation
    message = asked(town, workers=0)
    number = town.get(admin.DecisionReply, message, town.ben).decision.reservation
    town.members["lab"].clear()
    town.look_up_groups()
    refusal = town.refusal(renewal(number), town.ben)
    assert refusal.code == "reservation"
    assert "'ben' is in no account of this environment any more" in refusal.message
    assert info(town, mine).state is model.ReservationState.ACTIVE


def test_budget_holds_for_renewals_of_a_job_by_its_owner_not_by_admins(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10 * SLOT_HOUR)
    begin(town)
    message = msgspec.structs.replace(asked(town, scope=f"{JOB_SCOPE}c", job="7"), owner="ana")
    number = town.get(admin.DecisionReply, message, town.ops).decision.reservation
    town.spent["physics"] = 20 * SLOT_HOUR
    assert town.refusal(renewal(number), town.ana).code == "limit"
    assert town.get(admin.Reservations, renewal(number), town.ops).reservations


def test_reservation_of_before_there_were_accounts_has_the_default_one(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, accounts={}, qos={})
    begin(town)
    number = reserve(town, request_id="r1").reservation
    own = town.get(admin.DecisionReply, asked(town, workers=0)).decision.reservation
    physics = {"budget_slot_h": 1.0, "cut": True}
    chem = {"parent": "physics", "users": ["ana"]}
    town.begin_again(accounts={"physics": physics, "chem": chem}, qos={})
    begin(town)
    assert info(town, number).account == "chem"
    (root,) = town.get(admin.Reservations, admin.GetReservations(3, own)).reservations
    assert root.account == "root"
    assert reserve(town, request_id="r1").reservation == number
    refusal = town.refusal(renewal(number), town.ana)
    left, _day, needed = hours(refusal.message)
    assert (refusal.code, left, needed) == ("limit", 1.0, 2.0)
    town.begin_again(accounts={"bio": {"users": ["ana"]}}, qos={})
    assert info(town, number).account == "chem", "stored"
    town.begin_again(accounts={"physics": physics, "chem": chem}, qos={})
    town.spent["physics"] = SLOT_HOUR
    town.accounts.budgets._next_cut_ns = 0
    town.step()
    assert info(town, number).state is model.ReservationState.RELEASED


def test_reservation_without_account_has_one_as_soon_as_its_owner_has(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, accounts={}, qos={})
    begin(town)
    number = reserve(town).reservation
    town.set_account("geo", Account(users=("ben",)))
    refusal = town.refusal(renewal(number), town.ana)
    assert (refusal.code, info(town, number).account) == ("not_allowed", "")
    assert "'ana' is in no account" in refusal.message
    town.set_account("bio", Account(users=("ana",), budget_slot_h=1.0))
    assert info(town, number).account == town.state.dedicated.all[number].account == "bio"
    assert town.refusal(renewal(number), town.ana).code == "limit"


def test_requests_wait_for_lookup_of_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = AccountHarness(tmp_path, accounts={"bio": {"users": ["@lab"]}}, qos={})
    town.members["lab"] = {"ana"}
    town.look_up_groups()
    begin(town)
    number = reserve(town, workers=0).reservation
    entry = CalendarEntry(time.time() + 0.05, 3_600.0, ask=asked(town).ask)
    assert town.get(admin.CalendarEntries, admin.AddCalendarEntry(3, entry), town.ana).entries
    answer: dict[str, frozenset[str]] = {}  # the name service is away at the start
    monkeypatch.setattr(town, "look_up", lambda _: answer)
    town.begin_again()
    begin(town)
    refusal = town.refusal(renewal(number), town.ana)
    assert (refusal.code, refusal.retry_after_s) == ("insufficient", 2.0)
    decision = reserve(town, workers=0)
    assert (decision.status, decision.retry_after_ns) == ("delayed", 2 * SECOND)
    assert "members are being looked up" in decision.message

    def look() -> int:
        town.loop.commands.calendar._next_s = 0.0
        town.step()
        return len(town.state.calendar.entries)

    until(lambda: time.time() > entry.begin_s)
    assert look() == 1
    answer["lab"] = frozenset({"ana"})
    town.look_up_groups()
    assert town.get(admin.Reservations, renewal(number), town.ana).reservations
    assert look() == 0
    planned = town.get(admin.Reservations, admin.GetReservations(3), town.ana).reservations[-1]
    assert (planned.account, planned.workers) == ("bio", 1)
    assert not town.events("reservation.missed", peer=town.ops)


def test_user_who_came_back_reserves_at_once(town: AccountHarness) -> None:
    begin(town)
    town.accounts.removed.note_identity("ana", "'ana' has left the site")
    assert "has left the site" in town.refusal(asked(town), town.ana).message
    town.accounts.removed.note_identity("ana", "")
    assert reserve(town).reservation
