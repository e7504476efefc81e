"""Limits of owners, accounts and classes of service, and messages of refusals."""

from pathlib import Path
from typing import Any

import pytest
from account_harness import AccountHarness
from failing import fails
from reservation_harness import ReservationHarness
from service import spec

from simenv.model import CLIENT_LIMITS, UNLIMITED, TaskOptions, TaskSpec, TaskState, Timing
from simenv.model.limits import OwnerReport
from simenv.scheduler.core import Route, SubmitBatch, TaskEnded, TaskRecord
from simenv.scheduler.state.limit_table import LimitTable
from simenv.service.results.completions import _failure
from simenv.wire import codec
from simenv.wire.messages import accounting, admin, client as m, credentials
from simenv.wire.messages.history import App, GetApp
from simulators.engine import RunOptions
from simulators.errors import TooManySteps
from simulators.statevector.dynamic.branches import Budget

DAY_NS = 86_400 * 10**9


def limit(office: ReservationHarness, owner: str = "ana", **values: int) -> accounting.OwnerReports:
    return office.get(accounting.OwnerReports, accounting.SetLimits(1, owner, values), office.ops)


def order(
    office: ReservationHarness, count: int = 1, key: str = "~k", **terms: object
) -> m.Accepted | m.Refused:
    options = TaskOptions(**terms)  # type: ignore[arg-type]
    return office.submit(*map(spec, range(count)), key=key, terms=options, peer=office.ana)


def owners(office: ReservationHarness, *peer: Any) -> dict[str, OwnerReport]:
    return {
        r.owner: r
        for r in office.get(accounting.OwnerReports, accounting.GetLimits(1), *peer).owners
    }


def test_queue_use_of_owner_counts_until_tasks_end(office: ReservationHarness) -> None:
    office.join()
    limit(office, max_queued_tasks=3)
    assert isinstance(order(office, 2, "~a"), m.Accepted)
    (refusal,) = order(office, 2, "~b").refusals
    assert (refusal.code, refusal.retry_after_s > 0) == ("queue_full", True)
    assert "has 2 unfinished tasks" in refusal.message
    assert isinstance(order(office, 1, "~c"), m.Accepted)
    office.finish_in_turn()
    use = owners(office, office.ana)["ana"].use
    assert (use.queued_tasks, use.queued_bytes) == (0, 0)
    assert use.kept_bytes > 0
    assert isinstance(order(office, 2, "~b"), m.Accepted)


SUBJECTS = {  # text, and the command that sets a limit
    "owner": ("'ana'", "limits set ana"),
    "account": ("account 'chem'", "accounts set chem"),
    "class": ("a user in class 'urgent'", "qos set urgent"),
}


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize(
    ("key", "value", "asked", "code", "words"),
    [
        (
            *("max_queued_tasks", 3, {"count": 4}, "queue_full"),
            "{} has 0 unfinished tasks; 4 more would pass the limit of 3 (max_queued_tasks)",
        ),
        (*("max_queued_bytes", 100, {}, "queue_full"), "the unfinished tasks of {} hold 0 bytes; "),
        (
            *("max_priority", 5, {"priority": 6}, "limit"),
            "priority 6 is above the limit of 5, or below -5, for {} (max_priority)",
        ),
        (
            *("max_run_s", 5, {"run_timeout_s": 6.0}, "limit"),
            "run_timeout_s = 6 is above the limit of 5 s for {} (max_run_s)",
        ),
    ],
)
def test_each_limit_of_each_subject_is_refused_by_name(
    tmp_path: Path, kind: str, key: str, value: int, asked: dict[str, Any], code: str, words: str
) -> None:
    of = {each: {key: value} if each == kind else {} for each in SUBJECTS}
    urgent = of["class"] if key == "max_run_s" else {"limits": of["class"]}
    town = AccountHarness(
        tmp_path,
        owner_limits={"keys": {"ana": of["owner"]}},
        accounts={"chem": {"users": ["ana"], "qos": ["urgent"], "limits": of["account"]}},
        qos={"urgent": urgent},
    )
    refusal = town.refused_by(code, **asked)
    subject, command = SUBJECTS[kind]
    assert refusal.message.startswith(words.format(subject))
    assert refusal.hint.endswith(f"; an admin can raise it: simenv {command} {key}=...")
    assert (refusal.retry_after_s > 0) == (code == "queue_full")
    assert not town.state.tasks


def test_limit_of_an_account_counts_all_users_and_the_accounts_below(tmp_path: Path) -> None:
    limits = {"max_queued_tasks": 3}
    accounts = {
        "physics": {"users": ["ben"], "limits": limits},
        "chem": {"parent": "physics", "users": ["ana"]},
    }
    town = AccountHarness(tmp_path, accounts=accounts)
    town.batch(count=2)
    refusal = town.refused_by("queue_full", town.ben, count=2)
    assert refusal.message == (
        "account 'physics' has 2 unfinished tasks; 2 more would pass the limit of 3"
        " (max_queued_tasks)"
    )
    assert refusal.hint.endswith("simenv accounts set physics max_queued_tasks=...")
    town.batch(town.ben, key="~b")
    town.refused_by("queue_full", key="~c")


def test_use_of_an_account_is_released_when_tasks_end(tmp_path: Path) -> None:
    accounts = {"chem": {"users": ["ana"], "limits": {"max_queued_tasks": 2}}}
    town = AccountHarness(tmp_path, accounts=accounts)
    town.join()
    answer = town.sent(count=2)
    (use,) = town.state.tasks.by_association
    assert (use.account, use.owner, use.tasks) == ("chem", "ana", 2)
    assert use.size_bytes > 0
    town.finish(town.assigned())
    town.say(m.Cancel(1, [answer.first, answer.first + 1]), town.ana)
    assert not list(town.state.tasks.by_association)
    assert isinstance(town.sent(count=2, key="~b"), m.Accepted)


def test_limit_of_a_class_is_of_each_user(tmp_path: Path) -> None:
    town = AccountHarness(tmp_path, accounts={"chem": {"users": ["ana", "ben"]}})
    town.batch(qos="urgent", count=2)
    refusal = town.refused_by("queue_full", qos="urgent", key="~b")
    assert "a user in class 'urgent' has 2 unfinished tasks" in refusal.message
    assert refusal.hint.endswith("simenv qos set urgent max_queued_tasks=...")
    town.batch(town.ben, qos="urgent", count=2)
    town.batch(key="~c")  # without the class


@pytest.mark.parametrize(
    ("owner", "run_timeout_s", "limit_s"),
    [("ana", 0.0, CLIENT_LIMITS.max_run_s), ("ana", 5.0, 5.0), ("", 0.0, 0.0)],
)
def test_a_task_without_run_timeout_gets_that_of_its_owner(
    owner: str, run_timeout_s: float, limit_s: float
) -> None:
    terms = TaskOptions(run_timeout_s=run_timeout_s)
    batch = SubmitBatch(b"c", terms, "key", 0, 1, 0, owner=owner)
    assert LimitTable().run_limit_s(batch) == limit_s


def test_service_user_has_no_limits(office: ReservationHarness) -> None:
    assert isinstance(office.submit(terms=TaskOptions(priority=999, run_timeout_s=1e7)), m.Accepted)


def test_reservation_or_renewal_above_limit_of_owner_is_refused(office: ReservationHarness) -> None:
    decision = office.reserve(1, office.ana, ttl_ns=3_650 * DAY_NS)
    assert decision.status == "rejected"
    for each in ("3.1536e+08 s", "limit of 86400 s", "simenv limits set ana max_reservation_s=..."):
        assert each in decision.message
    decision = office.reserve(1, office.ana, ttl_ns=DAY_NS)
    assert decision.status == "accepted"
    result = office.refusal(admin.Renew(4, decision.reservation, 3_650 * DAY_NS), office.ana)
    assert (result.code, "limit of 86400 s" in result.message) == ("limit", True)
    renewal = admin.Renew(4, decision.reservation, DAY_NS)
    assert office.get(admin.Reservations, renewal, office.ana)


def test_reservations_of_one_owner_are_limited(office: ReservationHarness) -> None:
    limit(office, max_reservations=2)
    made = [office.reserve(1, office.ana).status for _ in range(3)]
    assert made == ["accepted", "accepted", "rejected"]
    assert office.reserve(1, office.ben).status == "accepted"


def test_client_reserves_at_most_its_percentage_of_pool_workers(tmp_path: Path) -> None:
    office = ReservationHarness(tmp_path, pools=[{"name": "main", "min": 2, "max": 2}])
    office.join("main-0")
    office.join("main-1")
    decision = office.reserve(1, office.ana, workers=2)
    assert decision.status == "rejected"
    assert "workers = 2" in decision.message
    assert "50 % of the 2 workers" in decision.message
    assert office.reserve(1, office.ana, workers=1).status == "accepted"
    assert office.reserve(1, office.ben, workers=1).status == "delayed"  # one is left for others


@pytest.mark.parametrize("by_hand", [False, True])
def test_reservations_of_removed_key_are_released(
    office: ReservationHarness, by_hand: bool
) -> None:
    number = office.reserve(1, office.ana).reservation
    if by_hand:  # while the service is down
        (office.folder / "keys.json").unlink()
        office.restart()
    else:
        office.get(credentials.Keys, credentials.RevokeKey(1, "ana"), office.ops)
    assert office.info(number).state == "released"


def test_too_many_messages_a_second_are_refused(office: ReservationHarness) -> None:
    limit(office, max_messages_per_s=2)
    answers = [office.get(App | m.Refused, GetApp(n), office.ana) for n in range(1, 9)]  # type: ignore[arg-type]
    first = next(a for a in answers if isinstance(a, m.Refused))
    (refusal,) = first.refusals
    assert (refusal.code, "simenv limits set ana" in refusal.hint) == ("queue_full", True)
    assert "more than 2 messages a second" in refusal.message
    assert first.request > 1  # the answer finds the question
    assert all(isinstance(office.say(GetApp(n))[0], App) for n in range(1, 9))


def test_refused_submissions_count_as_several_messages(office: ReservationHarness) -> None:
    limit(office, max_messages_per_s=1_000)  # a burst of 2,000
    codes = []
    while "queue_full" not in codes and len(codes) < 1_900:
        answer = order(office, key=f"~{len(codes)}", priority=10**9)
        codes.append(answer.refusals[0].code)
    assert codes[-1] == "queue_full"
    assert isinstance(office.say(GetApp(1))[0], App)


def test_limits_set_by_admin_survive_crash_until_reset_or_revoke(
    office: ReservationHarness,
) -> None:
    limit(office, max_queued_tasks=7)
    limit(office, max_priority=3)
    office.begin_again()
    reports = owners(office, office.ana)
    assert list(reports) == ["ana"], "a client sees its own alone"
    value = reports["ana"].limits
    assert (value.max_queued_tasks, value.max_priority) == (7, 3)
    office.get(accounting.OwnerReports, accounting.SetLimits(1, "ana", {}, reset=True), office.ops)
    office.begin_again()
    assert owners(office, office.ana)["ana"].limits == CLIENT_LIMITS
    limit(office, max_queued_tasks=7)
    office.say(credentials.RevokeKey(1, "ana"), office.ops)
    office.say(credentials.AddKey(1, "ana", "client", "x" * 40), office.ops)
    assert owners(office, office.ops)["ana"].limits == CLIENT_LIMITS


def test_configured_limits_apply_by_role_and_key(tmp_path: Path) -> None:
    table = {"client": {"max_queued_tasks": 5}, "keys": {"ben": {"max_priority": 9}}}
    office = ReservationHarness(tmp_path, owner_limits=table)
    limits = {name: report.limits for name, report in owners(office, office.ops).items()}
    assert list(limits) == ["", "ana", "ben", "ops"]
    assert limits["ana"].max_queued_tasks == limits["ben"].max_queued_tasks == 5
    assert limits["ben"].max_priority == 9
    assert limits["ops"] == limits[""] == UNLIMITED


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        (
            accounting.SetLimits(1, "nobody", {"max_priority": 1}),
            "not_found",
            "no key named 'nobody'",
        ),
        (accounting.SetLimits(1, "ana", {"max_tasks": 1}), "option", "no limit 'max_tasks'"),
        (accounting.SetLimits(1, "ana", {"max_reserved_percent": 101}), "option", "= 101"),
        (accounting.SetLimits(1, "ana"), "option", "no limit is named"),
    ],
)
def test_invalid_limit_change_is_refused(
    office: ReservationHarness, question: accounting.SetLimits, code: str, words: str
) -> None:
    result = office.refusal(question, office.ops)
    assert result.code == code
    assert words in result.message


@pytest.mark.parametrize(
    ("reason", "terms", "limit_s", "words"),
    [
        ("queue_timeout", TaskOptions(queue_timeout_s=2.5), 0.0, "its queue_timeout_s of 2.5 s"),
        ("run_timeout", TaskOptions(run_timeout_s=5.0), 5.0, "its run_timeout_s of 5 s"),
        ("run_timeout", TaskOptions(run_timeout_s=5.0), 0.0, "its run_timeout_s of 5 s"),
        ("run_timeout", TaskOptions(), 86_400.0, "the limit of its owner, 86400 s (max_run_s)"),
    ],
)
def test_limit_is_named(reason: str, terms: TaskOptions, limit_s: float, words: str) -> None:
    batch = SubmitBatch(b"c", terms, "key", 0, 1, 0, owner="ana")
    route = Route("statevector", "test", "main", 2, 1, 1.0, 1.0, 1)
    record = TaskRecord(1, TaskSpec(b"p", 1, 1), batch, route, 1.0)
    ending = TaskEnded(
        record, TaskState.EXPIRED, 1, Timing(0, 0, 0), reason=reason, run_limit_s=limit_s
    )
    result = codec.failure(_failure(ending, "here"))
    assert words in result.message
    assert result.hint


def test_too_many_operations_error_names_number_limit_and_branches() -> None:
    error = fails(TooManySteps, "", Budget(10, RunOptions(max_steps=100)).step, 150)
    assert "150 operations over 1 branch; the limit is 100 (max_steps)" in str(error)
