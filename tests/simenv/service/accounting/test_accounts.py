"""Accounts and classes of service at admission: resolution, limits, budgets, groups, restarts."""

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from account_harness import ACCOUNTS, AccountHarness, budgeted, hours
from service import completions, spec

from simenv.model import TaskState
from simenv.model.accounts import SLOT_HOUR, Account, Qos, WaitReason
from simenv.scheduler.core import RUNNING, SENT, WAITING
from simenv.scheduler.dispatch.held_back import used_up_budgets
from simenv.scheduler.forecast.expected_starts import ForetoldStart
from simenv.scheduler.views.pending_reasons import pending_reason
from simenv.service.accounting import accounts as module
from simenv.service.accounting.groups import LOOKUP_NS, Members
from simenv.service.journal import tables
from simenv.wire import codec
from simenv.wire.messages import accounting, client as m


@pytest.fixture
def town(tmp_path: Path) -> AccountHarness:
    return AccountHarness(tmp_path)


# --- resolution --------------------------------------------------------------------------------


def test_task_gets_the_account_and_class_named_or_the_defaults(town: AccountHarness) -> None:
    batch = town.batch()
    assert (batch.account, batch.qos, batch.association) == ("chem", "normal", "chem/ana")
    assert (batch.usage_factor, batch.class_priority) == (0.5, 0)
    batch = town.batch(account="chem", qos="urgent", key="~a")
    assert (batch.qos, batch.class_priority, batch.run_limit_s) == ("urgent", 7, 60.0)
    assert town.batch(account="bio", key="~b").qos == ""  # it names no classes: none
    assert town.batch(account="bio", qos="idle", key="~c").qos == "idle"
    assert town.batch(town.peer).association == "root/"
    batch = town.batch(town.peer, account="chem", qos="idle", key="~b")
    assert (batch.association, batch.qos) == ("chem/", "idle")  # the own user may use all


def test_accounts_and_classes_of_others_are_refused_by_name(town: AccountHarness) -> None:
    refusal = town.refused_by("not_allowed", account="physics")
    assert refusal.message == "'ana' is not in the account 'physics'"
    assert refusal.hint == "yours: chem, bio"
    refusal = town.refused_by("not_allowed", town.ben)
    assert refusal.message == "'ben' is in no account of this environment"
    refusal = town.refused_by("not_allowed", qos="idle")
    assert refusal.message == "account 'chem' may not use the class of service 'idle'"
    assert refusal.hint == "it may use: normal, urgent"
    refusal = town.refused_by("not_found", qos="fast")
    assert refusal.hint == "there are: normal, urgent, idle"
    refusal = town.refused_by("not_found", town.peer, account="geo")
    assert refusal.hint == "there are: physics, chem, bio"
    assert not town.state.tasks


def test_without_accounts_nothing_changes_and_names_are_refused(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, accounts={}, qos={})
    batch = town.batch()
    assert (batch.account, batch.qos, batch.units, batch.run_limit_s) == ("", "", 0.0, 0.0)
    assert not list(town.state.tasks.by_association)
    refusal = town.refused_by("not_found", account="chem", key="~b")
    assert refusal.message == "account 'chem': this environment has no accounts"
    town.refused_by("not_found", qos="normal", key="~c")
    assert not town.rows(tables.STANDING.query)


def test_refused_names_with_other_content_do_not_use_up_the_key(town: AccountHarness) -> None:
    town.refused_by("not_allowed", account="physics", key="mine")
    assert isinstance(town.sent(key="mine"), m.Accepted)
    town.refused_by("key_conflict", account="bio", key="mine")


# --- limits ------------------------------------------------------------------------------------


def test_running_task_is_stopped_at_limit_of_class_and_its_end_names_it(
    town: AccountHarness,
) -> None:
    town.join()
    first = town.batch(qos="urgent").first
    refusal = town.refused_by("limit", qos="urgent", run_timeout_s=61.0, key="~b")
    assert "limit of 60 s for a user in class 'urgent'" in refusal.message
    (task,) = town.assigned()
    now_ns = time.monotonic_ns()
    town.scheduler.task_started("main-0", task.task, task.attempt, now_ns - 60 * 10**9)

    town.state.cluster.workers["main-0"].heard_ns = now_ns
    town.step()
    town.finish([task], TaskState.EXPIRED)
    failure = failure_of(town, first)
    assert "limit of its account or class of service, 60 s (max_run_s)" in failure.message


def failure_of(town: AccountHarness, task: int) -> m.Failure:
    """How a task ended."""
    answers = town.say(m.WatchResults(9, [task]), town.ana)
    ends = {each.task: each for each in completions(answers)}
    return codec.failure(ends[task].payload)


# --- budgets -----------------------------------------------------------------------------------


def forecast(town: AccountHarness) -> float:
    """Billing units of one task, by the estimator."""
    first = town.sent(town.peer, key="~forecast").first
    record = town.state.tasks[first]
    town.say(m.Cancel(1, [first]))
    return record.cost_us / 1e6


def test_submission_above_budget_of_account_above_is_refused_with_numbers(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 1_000.0)
    each = forecast(town)
    town.spent["physics"] = 1_000.0 - 1.5 * each
    assert town.batch().units == pytest.approx(each, rel=0.02)
    refusal = town.refused_by("limit", key="~b")
    left, needed = hours(refusal.message)[0], hours(refusal.message)[-1]
    assert (left, needed) == pytest.approx((0.5 * each / SLOT_HOUR, each / SLOT_HOUR), rel=0.05)
    text = r"physics: \S+ slot-h left until 1 [A-Z][a-z]+, this needs about \S+\Z"
    assert re.match(text, refusal.message)
    assert "its unfinished tasks need about" in refusal.hint
    assert "simenv accounts set physics --budget-slot-h" in refusal.hint
    town.spent["physics"] = 2_000.0
    refusal = town.refused_by("limit", shots=1, key="~c")
    assert "physics: 0 slot-h left until" in refusal.message


def test_forecast_has_the_usage_factor_and_is_left_by_ended_tasks_alone(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 1_000.0)
    each = forecast(town)
    town.spent["physics"] = 1_000.0 - 0.6 * each
    town.refused_by("limit")
    assert town.batch(qos="normal").units == pytest.approx(0.5 * each, rel=0.02)
    town.spent["physics"] = 1_000.0 - 2.0 * each
    town.batch(key="~b")
    town.refused_by("limit", key="~c")
    town.restart()
    town.arrive()
    town.refused_by("limit", key="~c")  # as before
    town.join()
    town.finish_in_turn()
    town.spent["physics"] = 0.0  # what they really took is charged instead
    town.batch(key="~c")


def test_tasks_of_an_account_that_cuts_end_when_its_budget_is_spent(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 1_000.0, cut=True)
    town.join()
    answer = town.sent()
    (task,) = town.assigned()
    town.scheduler.task_started("main-0", task.task, task.attempt, time.monotonic_ns())
    waiting = town.sent(key="~b", after=(task.task,))
    town.spent["physics"] = 1_000.0
    town.accounts.budgets._next_cut_ns = 0
    town.step()
    assert town.state.tasks[answer.first].stop.reason == "limit"
    town.finish([task], TaskState.EXPIRED)
    for number in (answer.first, waiting.first):
        failure = failure_of(town, number)
        assert failure.reason == "limit"
        budget, used = hours(failure.message)[0], hours(failure.message)[-1]
        assert budget == pytest.approx(1_000.0 / SLOT_HOUR, rel=0.01)
        assert used >= budget
    assert not town.state.tasks


def test_tasks_of_other_accounts_and_of_budgets_without_cut_go_on(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 1_000.0)
    town.join()
    town.batch()
    town.batch(town.peer, key="~b")
    town.spent["physics"] = 2_000.0
    town.accounts.budgets._next_cut_ns = 0
    town.step()
    assert len(town.state.tasks) == 2
    physics = Account(budget_slot_h=1_000.0 / SLOT_HOUR, cut=True)
    town.set_account("physics", physics)
    town.accounts.budgets._next_cut_ns = 0
    town.step()
    assert [r.batch.account for r in town.state.tasks.values() if not r.stop.reason] == ["root"]


def test_waiting_tasks_start_while_the_budget_lasts_beside_the_running_ones(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10_000.0)
    units = town.batch().units
    town.batch(town.peer, key="~other")
    town.spent["physics"] = 10_000.0  # others used more than was forecast
    town.join()
    started = town.assigned()
    assert [town.state.tasks[each.task].batch.account for each in started] == ["root"]
    town.finish(started)
    (held,) = (each for each in town.state.tasks.values() if each.batch.account == "chem")
    reason = pending_reason(town.state, held, time.monotonic_ns())
    assert reason.startswith("the budget of physics is spent, or needed by its running tasks")
    town.spent["physics"] = 10_000.0 - units / 2  # one start may pass it
    town.step()
    assert [each.task for each in town.assigned()] == [held.number]


def test_running_tasks_count_in_a_budget_with_their_forecast_or_their_time(tmp_path: Path) -> None:
    town = budgeted(tmp_path, 10_000.0)
    town.join()
    units = town.batch().units
    (task,) = town.assigned()
    now_ns = time.monotonic_ns()
    town.scheduler.task_started("main-0", task.task, task.attempt, now_ns)
    record, limits = town.state.tasks[task.task], town.state.shares.limits
    limits.budgets_left = {"physics": units * 1.5}
    assert used_up_budgets(town.state, now_ns) == set()
    twice_ns = now_ns + round(2e3 * record.cost_us)
    assert used_up_budgets(town.state, twice_ns) == {"physics"}
    limits.budgets_left = {"physics": units}
    assert used_up_budgets(town.state, now_ns) == {"physics"}


def test_account_of_many_users_leaves_room_in_queue_for_others(town: AccountHarness) -> None:
    town.set_account("bio", Account(users=("ana", "ben")))
    town.batch(account="bio", count=300)
    town.batch(town.ben, account="bio", count=200)
    refusal = town.refused_by("queue_full", town.ben, account="bio", key="~b")
    assert refusal.message == (
        "account 'bio' has 500 unfinished tasks, the others 0, and the queue takes 1000; 1 more "
        "would pass 500, half of what the others leave (max_queued_tasks)"
    )
    assert "simenv accounts set bio max_queued_tasks=..." in refusal.hint
    town.batch(account="chem", count=250, key="~c")
    assert town.refused_by("queue_full", account="chem", key="~d").message.startswith(
        "account 'chem' has 250 unfinished tasks, the others 500,"
    )
    limits = {"max_queued_tasks": 510}
    town.set_account("bio", Account(users=("ana", "ben"), limits=limits))
    town.batch(town.ben, account="bio", count=10, key="~e")
    assert "the limit of 510" in town.refused_by("queue_full", town.ben, key="~f").message
    own = town.submit(*[spec(1)] * 200, key="~g")
    assert isinstance(own, m.Accepted)  # the environment's own user


def test_bytes_of_an_account_leave_room_for_other_accounts(town: AccountHarness) -> None:
    limits = town.state.limits
    town.state.limits = msgspec.structs.replace(limits, max_queued_bytes=2**15)
    while isinstance(answer := town.sent(count=9, key=f"~{len(town.state.tasks)}"), m.Accepted):
        assert town.state.tasks.queued_bytes <= 2**14
    assert answer.code == "queue_full"
    assert "account 'chem' holds " in answer.message
    assert "(max_queued_bytes)" in answer.message
    town.batch(account="bio", key="~b")


# --- groups ------------------------------------------------------------------------------------


def test_member_of_a_group_may_submit_until_the_group_is_left(town: AccountHarness) -> None:
    town.members["lab"] = {"ben"}
    town.refused_by("not_allowed", town.ben)
    town.look_up_groups()
    assert town.batch(town.ben).association == "bio/ben"
    town.members["lab"].clear()
    town.look_up_groups()
    town.refused_by("not_allowed", town.ben, key="~b")
    assert LOOKUP_NS <= 30 * 10**9  # with a tick each second: out within 60 s
    assert len(town.state.tasks) == 1  # removed_users = "keep"


@pytest.mark.parametrize("by_admin", [False, True])
def test_waiting_tasks_of_removed_users_are_cancelled(tmp_path: Path, by_admin: bool) -> None:
    town = AccountHarness(tmp_path, removed_users="cancel")
    if by_admin:
        town.set_account("geo", Account(users=("ben",)))
    else:
        town.members["lab"] = {"ben"}
        town.look_up_groups()
    town.batch(town.ben, count=3)
    town.batch()
    town.heard(town.ben)
    if by_admin:
        town.set_account("geo", Account())
    else:
        town.members["lab"].clear()
        town.look_up_groups()
    assert [record.batch.owner for record in town.state.tasks.values()] == ["ana"]
    failures = [codec.failure(each.payload) for each in completions(town.heard(town.ben))]
    message = "'ben' is in no account of this environment any more"
    assert {(each.reason, each.message) for each in failures} == {("cancelled", message)}
    assert len(failures) == 3


def test_tasks_of_removed_users_are_held_until_they_come_back(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, removed_users="hold", removed_hold_s=100.0)
    town.members["lab"] = {"ben"}
    town.look_up_groups()
    first = town.sent(town.ben, count=3)
    town.members["lab"].clear()
    town.look_up_groups()
    town.join()
    town.step()
    held = town.state.tasks[first.first]
    assert {record.phase for record in town.state.tasks.values()} == {WAITING}
    reason = pending_reason(town.state, held, time.monotonic_ns())
    assert reason == "held: ben may not use the environment any more"
    town.members["lab"].add("ben")
    town.look_up_groups()
    town.step()
    assert held.phase != WAITING
    assert WaitReason.REMOVED in dict(held.waits)


def test_held_tasks_of_removed_users_are_cancelled_when_the_time_is_over(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, removed_users="hold", removed_hold_s=100.0)
    town.members["lab"] = {"ben"}
    town.look_up_groups()
    town.batch(town.ben, count=2)
    town.batch()
    town.members["lab"].clear()
    town.look_up_groups()
    assert len(town.state.tasks) == 3
    town.accounts.removed._since_ns["ben"] -= 101 * 10**9
    town.accounts.removed._next_ns = town.loop._next_tick_ns = 0
    town.step()
    assert [record.batch.owner for record in town.state.tasks.values()] == ["ana"]


def test_slow_name_service_delays_its_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def look_up(_self: object, names: Iterable[str]) -> Members:
        assert answers.wait(30.0)
        return {name: frozenset({"ben"}) for name in names}

    monkeypatch.setattr(AccountHarness, "look_up", look_up)
    monkeypatch.setattr(module, "START_S", 0.01)
    town = AccountHarness(tmp_path)
    assert town.batch().account == "chem"
    refusal = town.refused_by("insufficient", town.ben)
    assert "members are being looked up" in refusal.message
    assert refusal.retry_after_s > 0
    answers.set()
    town.look_up_groups()
    assert town.batch(town.ben, key="~b").account == "bio"


# --- restarts ----------------------------------------------------------------------------------


def test_account_after_a_restart_is_that_of_the_acceptance(town: AccountHarness) -> None:
    town.batch(qos="urgent")
    assert [row[:3] for row in town.rows(tables.STANDING.query)] == [(1, "chem", "urgent")]
    accounts = {"bio": {"users": ["ana"]}}
    town.begin_again(accounts=accounts)
    batch = town.state.tasks[1].batch
    assert (batch.account, batch.qos, batch.association) == ("chem", "urgent", "chem/ana")
    assert (batch.class_priority, batch.run_limit_s) == (7, 60.0)
    (use,) = town.state.tasks.by_association
    assert (use.account, use.tasks) == ("chem", 1)
    assert town.batch(key="~b").account == "bio"


def test_tasks_from_before_accounts_belong_to_none(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, accounts={}, qos={})
    town.batch()
    town.begin_again(accounts=ACCOUNTS)
    assert town.state.tasks[1].batch.account == ""
    assert town.batch(key="~b").account == "chem"


# --- administration ----------------------------------------------------------------------------


def test_change_by_an_admin_is_stored_audited_and_survives_a_restart(town: AccountHarness) -> None:
    town.set_qos("night", Qos(priority=-5))
    account = Account(users=("ben",), qos=("night",))
    assert town.set_account("geo", account).accounts["geo"] == account
    assert town.batch(town.ben).qos == "night"
    audited = {event.kind: event for event in town.events("audit.", peer=town.ops)}
    assert audited["audit.accounts.set"].subject == "geo"
    assert audited["audit.accounts.set"].message.startswith("users ben, qos night; by ops (admin)")
    assert audited["audit.qos.set"].subject == "night"
    town.begin_again()
    assert town.listed(town.ops).accounts["geo"] == account
    assert town.listed(town.ops).qos["night"] == Qos(priority=-5)
    town.set_account("geo", None)
    town.begin_again()
    assert "geo" not in town.listed(town.ops).accounts


def test_file_wins_where_it_changes(town: AccountHarness) -> None:
    town.set_account("bio", Account(users=("ben",)))
    town.set_account("chem", None)
    town.set_account("geo", Account(users=("ben",)))
    town.begin_again()
    assert set(town.listed(town.ops).accounts) == {"physics", "bio", "geo"}
    assert town.listed(town.ops).accounts["bio"].users == ("ben",)
    changed = {**ACCOUNTS, "bio": {"users": ["ana"], "share": 2}}
    town.begin_again(accounts=changed)
    assert town.listed(town.ops).accounts["bio"] == Account(users=("ana",), share=2.0)
    assert "chem" not in town.listed(town.ops).accounts  # it is as before in the file
    del changed["bio"]
    town.begin_again(accounts=changed)
    assert set(town.listed(town.ops).accounts) == {"physics", "geo"}


def test_changes_that_cannot_be_are_refused_and_change_nothing(town: AccountHarness) -> None:
    before = town.listed(town.ops)
    for message, words in (
        (accounting.SetAccount(1, "physics", None), "'physics' has accounts below it: chem"),
        (accounting.SetAccount(1, "physics", Account(parent="chem")), "below itself"),
        (accounting.SetAccount(1, "Geo", Account()), "account name 'Geo' is not allowed"),
        (accounting.SetAccount(1, "geo", Account(qos=("fast",))), "qos 'fast' is not known"),
        (accounting.SetQos(1, "normal", None), "'normal' is named by accounts: "),
        (accounting.SetQos(1, "normal", Qos(usage_factor=-1.0)), "usage_factor = -1.0"),
    ):
        refusal = town.refusal(message, town.ops)
        assert refusal.code == "option"
        assert words in refusal.message
    for absent in (accounting.SetAccount(1, "geo", None), accounting.SetQos(1, "fast", None)):
        assert town.refusal(absent, town.ops).code == "not_found"
    assert town.listed(town.ops) == before


def test_clients_see_their_own_accounts_and_change_none(town: AccountHarness) -> None:
    town.set_account("physics", Account(coordinators=("ben",)))
    assert list(town.listed(town.ana).accounts) == ["chem", "bio"]
    assert set(town.listed(town.ben).accounts) == {"physics", "chem"}
    assert list(town.listed(town.ops).accounts) == ["physics", "chem", "bio"]
    for message in (accounting.SetAccount(1, "chem", None), accounting.SetQos(1, "idle", None)):
        assert town.refusal(message, town.ana).code == "not_allowed"


def test_use_of_removed_account_is_released_and_unstored_leaves_none(town: AccountHarness) -> None:
    town.read_only(True)
    assert "cannot be written" in town.refused_by("journal").message
    assert not list(town.state.tasks.by_association)
    town.read_only(False)
    town.join()
    town.batch(key="~b")
    assert [row[0] for row in town.rows(tables.STANDING.query)] == [2]
    town.set_account("chem", None)
    town.finish(town.assigned())
    assert not list(town.state.tasks.by_association)
    assert town.batch(key="~c").account == "bio"


def test_learned_errors_of_expected_starts_survive_a_restart(town: AccountHarness) -> None:
    town.join()
    batch = town.batch()
    record = town.state.tasks[batch.first]
    foretold = ForetoldStart(record, record.sent_ns - 4 * 10**9, 2e6, 2e6)
    town.loop.starts._foretell(foretold)
    record.phase = RUNNING
    town.loop.starts.watch(time.monotonic_ns())
    record.phase = SENT
    assert town.loop.starts.off_by("main") == pytest.approx(2.0)
    town.step()
    town.begin_again()
    assert town.loop.starts.off_by("main") == pytest.approx(2.0)
    corrected_us = town.loop.starts._errors["main"].corrected_us(2e6)
    assert corrected_us > 2.05e6
