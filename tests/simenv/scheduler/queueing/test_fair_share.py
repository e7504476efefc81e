"""Fair share between accounts and users: shares, decay, restarts, reasons of waiting."""

from collections.abc import Mapping

import msgspec
import pytest
from checked_scheduler import (
    LIMITS,
    SECOND,
    CheckedScheduler,
    cluster,
    expected_starts,
    route,
    wide,
)
from scheduler_invariants import check

from simenv.model import (
    CLIENT_LIMITS,
    Limits,
    PoolSpec,
    ReservationRequest,
    TaskState,
    accounts,
)
from simenv.model.accounts import Account, AccountTree, Billing, Qos, WaitReason, explained_waits
from simenv.scheduler import core
from simenv.scheduler.dispatch import held_back
from simenv.scheduler.queueing.fair_share import DAY_NS, FairShare
from simenv.scheduler.state import scheduler_state
from simenv.scheduler.views import pending_reasons
from simenv.wire.messages.client import STATES, AttemptResult

LONG_US = 2_000_000.0
SHARES = {"a": 1.0, "b": 1.0, "c": 2.0}


def tree(shares: Mapping[str, float] = SHARES, **more: Account) -> AccountTree:
    return AccountTree({**{name: Account(share=share) for name, share in shares.items()}, **more})


def submit(
    machine: CheckedScheduler, account: str, user: str, count: int = 1, cost_us: float = LONG_US,
    **terms: object,
) -> list[int]:  # fmt: skip
    return machine.submit(count, cost_us, owner=user, account=account, **terms)  # type: ignore[arg-type]


def test_equal_accounts_go_first_in_the_order_of_their_tasks(machine: CheckedScheduler) -> None:
    """Not in the order of a set, which differs between processes."""
    machine.scheduler.set_accounts(tree(dict.fromkeys("abcdefgh", 1.0)), Billing(), {})
    for user in ("ana", "ben"):
        for account in "abcdefgh":
            submit(machine, account, user)
    queue, order = machine.state.cluster.pools["main"].queue, list[str]()
    while (head := queue.head()) is not None and len(order) < 8:
        queue.pop(head)
        order.append(head.batch.account)
    assert order == list("abcdefgh")


def run_for(machine: CheckedScheduler, seconds: float) -> dict[str, float]:
    """Run assigned tasks for their time; return the slot-seconds of each account."""
    used: dict[str, float] = {}
    end_ns = machine.now_ns + round(seconds * SECOND)
    ends: dict[int, int] = {}
    for worker in machine.state.cluster.workers.values():
        at_ns = machine.now_ns
        for record in worker.held.values():
            at_ns = ends[record.number] = at_ns + round(record.cost_us * 1e3)
    while machine.now_ns < end_ns:
        machine.hear()
        for send in machine.scheduler.dispatch(machine.now_ns):
            if isinstance(send, core.AssignTasks):
                at_ns = machine.now_ns
                for record in send.records:
                    at_ns = ends[record.number] = at_ns + round(record.cost_us * 1e3)
        due = min(ends.values(), default=end_ns)
        machine.now_ns = min(due, end_ns)
        for number in [number for number, at in ends.items() if at <= machine.now_ns]:
            del ends[number]
            record = machine.state.tasks[number]
            run_us, final = round(record.cost_us), STATES.index(TaskState.DONE)
            result = AttemptResult(number, record.fence, final, b"", 0, run_us=run_us)
            machine.endings += machine.scheduler.tasks_finished(
                record.worker, [result], machine.now_ns
            )
            account = record.batch.account
            used[account] = used.get(account, 0.0) + record.cost_us * record.route.ranks / 1e6
    check(machine.state)
    return used


@pytest.fixture
def site() -> CheckedScheduler:
    machine = CheckedScheduler(workers=4, limits=msgspec.structs.replace(LIMITS, slots=4))
    machine.scheduler.set_accounts(tree(), Billing(), {})
    return machine


def shares_of(used: Mapping[str, float]) -> dict[str, float]:
    return {account: used.get(account, 0.0) / sum(used.values()) for account in SHARES}


def test_saturated_accounts_get_their_shares_whatever_their_users_and_tasks_are(
    site: CheckedScheduler,
) -> None:
    submit(site, "a", "ana", 5_000, 100_000.0)
    for user in range(20):
        submit(site, "b", f"user{user}", 20, 3_000_000.0)
    submit(site, "c", "cem", 1_000, 700_000.0)
    submit(site, "c", "dan", 1_000, 200_000.0)
    used = shares_of(run_for(site, 200.0))
    assert used == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, rel=0.05)


def test_tasks_of_several_ranks_count_for_all_their_slots() -> None:
    machine = CheckedScheduler(workers=4, limits=cluster(2, 2))
    machine.scheduler.set_accounts(tree({"a": 1.0, "b": 1.0}), Billing(), {})
    submit(machine, "a", "ana", 200, along=wide(ranks=2, cost_us=LONG_US))
    submit(machine, "a", "ana", 200, 500_000.0)
    submit(machine, "b", "ben", 400, 500_000.0)
    machine.revive()
    used = run_for(machine, 60.0)
    assert used["b"] >= 0.4 * sum(used.values())


@pytest.fixture
def pair() -> CheckedScheduler:
    """Four slots; account a has used something, b has not."""
    machine = CheckedScheduler(workers=4, limits=cluster(2, 2))
    machine.scheduler.set_accounts(tree({"a": 1.0, "b": 1.0}), Billing(), {})
    machine.state.shares.fair_share.charge(accounts.association("a", "ana"), 20.0)
    return machine


def test_gang_waits_while_accounts_with_less_usage_have_tasks(pair: CheckedScheduler) -> None:
    (gang,) = submit(pair, "a", "ana", along=wide(ranks=4, cost_us=LONG_US))
    pair.revive()
    last = submit(pair, "b", "ben", 20)[-1]
    expected_us = expected_starts(pair).task_us(pair.state.tasks[gang], pair.now_ns)
    begin_ns = pair.now_ns
    run_for(pair, 7.5)
    record = pair.state.tasks[gang]
    # Ten tasks of b have two units each: from the eleventh on a goes before b.
    assert record.sent_ns - begin_ns == pytest.approx(6e9)
    assert expected_us == pytest.approx(6e6)
    assert pair.state.tasks[last].phase == core.WAITING
    parts = explained_waits(record.waits, (record.sent_ns - begin_ns) // 1000)
    assert parts[WaitReason.SHARE] >= 4_000_000


def test_gang_of_the_account_that_goes_first_gets_its_room(pair: CheckedScheduler) -> None:
    first = submit(pair, "a", "ana", 4)
    (send, *_) = pair.assign()
    pair.finish(send.records)
    (gang,) = submit(pair, "b", "ben", along=wide(ranks=4, cost_us=LONG_US))
    more = submit(pair, "a", "ana", 20)
    pair.revive()
    run_for(pair, 2.5)
    assert [number for number in first if number in pair.state.tasks] == []
    assert pair.state.tasks[gang].phase != core.WAITING
    assert {pair.state.tasks[number].phase for number in more} == {core.WAITING}


def test_gangs_of_different_widths_are_chosen_in_the_order_of_accounts() -> None:
    specs = tuple(PoolSpec(f"x{n}", "any", min=1, max=1, ranks=n) for n in (2, 4))
    machine = CheckedScheduler(limits=cluster(2, 2), specs=specs)
    machine.scheduler.set_accounts(tree({"a": 1.0, "b": 1.0}), Billing(), {})
    machine.state.shares.fair_share.charge(accounts.association("a", "ana"), 20.0)
    (older,) = submit(machine, "a", "ana", along=route(LONG_US, pool="x2", ranks=2))
    (gang,) = submit(machine, "b", "ben", along=route(LONG_US, pool="x4", ranks=4))
    assert [send.records[0].number for send in machine.assign()] == [gang]
    assert machine.state.tasks[older].phase == core.WAITING


def test_gang_takes_slots_that_tasks_of_other_accounts_cannot_use(pair: CheckedScheduler) -> None:
    (gang,) = submit(pair, "a", "ana", along=wide(ranks=4, cost_us=LONG_US))
    pair.revive()
    submit(pair, "b", "ben", along=route(LONG_US, memory_bytes=2**34))
    assert [send.records[0].number for send in pair.assign()] == [gang]


def test_gang_and_tasks_of_one_rank_get_equal_shares(pair: CheckedScheduler) -> None:
    submit(pair, "a", "ana", 500, along=wide(ranks=4, cost_us=500_000.0))
    pair.revive()
    submit(pair, "b", "ben", 1_000, 300_000.0)
    run_for(pair, 10.0)
    used = run_for(pair, 60.0)
    assert used["a"] / sum(used.values()) == pytest.approx(0.5, abs=0.06)


def test_shares_hold_at_each_level_of_the_tree() -> None:
    machine = CheckedScheduler(workers=2)
    of_physics = {"x": Account(parent="physics", share=3), "y": Account(parent="physics")}
    machine.scheduler.set_accounts(tree({"physics": 1.0, "chem": 1.0}, **of_physics), Billing(), {})
    for account in ("x", "y", "chem"):
        submit(machine, account, "ana", 1_000, 100_000.0)
    used = run_for(machine, 40.0)
    total = sum(used.values())
    found = {name: used[name] / total for name in used}
    assert found == pytest.approx({"x": 0.375, "y": 0.125, "chem": 0.5}, rel=0.05)


def test_account_that_was_idle_is_paid_back_what_others_used_meanwhile(
    site: CheckedScheduler,
) -> None:
    submit(site, "a", "ana", 4_000, 100_000.0)
    run_for(site, 20.0)
    submit(site, "b", "ben", 4_000, 100_000.0)
    used = run_for(site, 15.0)  # 80 slot-seconds of a: b alone until it has as much
    assert used.get("a", 0.0) <= 0.02 * used["b"]


def test_usage_is_halved_every_half_life_and_not_by_a_restart() -> None:
    before = FairShare(tree(), Billing(half_life_days=1.0))
    before.at(SECOND)
    before.name("a/ana", "a", "ana")
    before.charge("a/ana", 1_000.0)
    stored = before.take_changes(offset_ns=0)
    assert before.take_changes() == {}
    after = FairShare(tree(), Billing(half_life_days=1.0))
    later_ns = SECOND + 2 * DAY_NS
    after.restore(stored, offset_ns=later_ns - 5 * SECOND, now_ns=5 * SECOND)
    assert after.usage("a", "ana", 5 * SECOND) == pytest.approx(250.0)
    assert before.usage("a", now_ns=later_ns) == pytest.approx(250.0)


def test_figures_stay_finite_over_a_year_of_short_half_lives() -> None:
    share = FairShare(tree(), Billing(half_life_days=0.01))
    for day in range(365):
        share.at(1 + day * DAY_NS)
        share.charge("a/ana", 1.0)
    assert share.usage("a", "ana", 1 + 364 * DAY_NS) == pytest.approx(1.0)


def test_expected_units_are_replaced_by_what_tasks_used(site: CheckedScheduler) -> None:
    submit(site, "a", "ana", 1, 10_000_000.0)
    (send,) = site.assign()
    share = site.state.shares.fair_share
    assert share.ratio("a") == pytest.approx(10.0)
    record = send.records[0]
    site.now_ns += SECOND
    site.finish([record], TaskState.CANCELLED)
    (ending,) = site.endings[-1:]
    assert ending.used.slot_us > 0
    assert share.ratio("a") == pytest.approx(ending.units, rel=1e-4)
    assert share.usage("a", "ana", site.now_ns) == pytest.approx(ending.units, rel=1e-4)


def test_equal_runs_are_charged_by_their_class_and_the_present_weights(
    site: CheckedScheduler,
) -> None:
    for slot_s, factor in ((1.0, 1.0), (1.0, 0.5), (3.0, 0.5)):
        billing = Billing(slot_s=slot_s)
        site.scheduler.set_accounts(tree(), billing, {"low": Qos(usage_factor=factor)})
        submit(site, "a", "ana", 2, 10_000.0, usage_factor=factor)
        before = site.state.shares.fair_share.usage("a", now_ns=site.now_ns)
        run_for(site, 0.1)
        ended = site.endings[-2:]
        for ending in ended:
            assert ending.used.slot_us > 0
            assert ending.units == billing.units(ending.used, "main", factor) > 0.0
        charged = site.state.shares.fair_share.usage("a", now_ns=site.now_ns) - before
        assert charged == pytest.approx(sum(each.units for each in ended), rel=1e-4)


def test_tasks_of_a_lost_worker_are_not_charged(site: CheckedScheduler) -> None:
    submit(site, "a", "ana", 1)
    (send,) = site.assign()
    site.now_ns += 3 * SECOND
    site.lose(send.worker)
    assert site.state.shares.fair_share.ratio("a") == 0.0
    record = site.state.tasks[send.records[0].number]
    assert dict(record.waits)[WaitReason.LOST] == 3_000_000


def test_running_task_counts_beyond_what_was_expected(site: CheckedScheduler) -> None:
    submit(site, "a", "ana", 1, 1_000_000.0)
    (send,) = site.assign()
    site.begin(send.records[0])
    site.hear()
    for _ in range(60):
        site.hear()
        site.tick(1.0)
    assert site.state.shares.fair_share.ratio("a") == pytest.approx(240.0, abs=8.0)  # on 4 slots


def test_class_of_service_multiplies_units_and_adds_priority(site: CheckedScheduler) -> None:
    (low,) = submit(site, "a", "ana", 1)
    (urgent,) = submit(site, "a", "ana", 1, qos="urgent", usage_factor=2.0, class_priority=100)
    assert [record.number for record in site.state.cluster.pools["main"].queue] == [urgent, low]
    site.assign()
    assert site.state.shares.fair_share.ratio("a") == pytest.approx(2.0 + 4.0)


def test_account_has_no_more_running_slots_than_its_limit(site: CheckedScheduler) -> None:
    limited = Account(limits={"max_running_slots": 1})
    site.scheduler.set_accounts(tree({"b": 1.0}, a=limited), Billing(), {})
    submit(site, "a", "ana", 4)
    submit(site, "a", "amy", 4)
    submit(site, "b", "ben", 8)
    site.assign()
    running = [next(iter(w.held.values())) for w in site.state.cluster.workers.values() if w.held]
    assert sorted(record.batch.account for record in running) == ["a", "b", "b", "b"]


@pytest.mark.parametrize("cost_us", [100.0, LONG_US])
def test_account_at_its_limit_keeps_no_other_of_its_reservation_waiting(cost_us: float) -> None:
    machine = CheckedScheduler(workers=3, limits=cluster(4))
    limited = Account(limits={"max_running_slots": 1})
    machine.scheduler.set_accounts(tree({"b": 1.0}, a=limited), Billing(), {})
    machine.state.shares.limits.set_owners(
        {"ana": Limits()}, CLIENT_LIMITS
    )  # she may reserve all workers
    request = ReservationRequest(device="main", workers=3, ttl_ns=600 * SECOND)
    decision, _ = machine.scheduler.reserve(request, "ana", 1_800_000_000 * SECOND)
    number = decision.reservation
    assert number, decision
    for account in "a", "b", "a", "b":
        submit(machine, account, "ana", 30, cost_us, reservation=number)
    listed = [record.number for record in machine.state.cluster.pools["main"].queue]
    assert listed == sorted(listed), "in the order of their submission"
    cluster_ = machine.state.cluster
    queue, workers = cluster_.pools["main"].queue, cluster_.workers.values()
    while machine.state.tasks:
        machine.assign()
        on = [next(iter(w.held.values())).batch.account if w.held else "" for w in workers]
        assert on.count("a") <= 1
        assert "" not in on or queue.associations() <= {accounts.association("a", "ana")}
        machine.finish(list(max(workers, key=lambda w: len(w.held)).held.values()))
        check(machine.state)


def test_a_gang_above_a_lowered_limit_says_that_it_never_starts(pair: CheckedScheduler) -> None:
    (gang,) = submit(pair, "a", "ana", along=wide(ranks=4, cost_us=LONG_US))
    (other,) = submit(pair, "b", "ben", along=wide(ranks=4, cost_us=LONG_US))
    limited = Account(limits={"max_running_slots": 3})
    pair.scheduler.set_accounts(tree({"b": 1.0}, a=limited), Billing(), {})
    pair.revive()
    run_for(pair, 60.0)
    record = pair.state.tasks[gang]
    reason = pending_reasons.pending_reason(pair.state, record, pair.now_ns)
    assert reason.startswith("it needs 4 slots, and never starts while the limit for a is 3")
    assert other not in pair.state.tasks
    pair.scheduler.set_accounts(tree({"b": 1.0, "a": 1.0}), Billing(), {})
    run_for(pair, 60.0)
    assert gang not in pair.state.tasks


def test_wide_task_gets_no_more_slots_than_its_account_may_have() -> None:
    machine = CheckedScheduler(workers=2, limits=cluster(8))
    limited = Account(limits={"max_running_slots": 3})
    machine.scheduler.set_accounts(tree({"b": 1.0}, a=limited), Billing(), {})
    submit(machine, "a", "ana", 1)
    (send,) = machine.assign()
    assert send.slots == 3


def test_parts_of_a_wait_add_up_and_name_the_reasons(site: CheckedScheduler) -> None:
    submit(site, "c", "cem", 400, 500_000.0)
    run_for(site, 10.0)
    submit(site, "a", "ana", 40, 500_000.0)
    (later,) = submit(site, "c", "cem", 1, 500_000.0)
    while later in site.state.tasks:
        run_for(site, 0.5)
    assert len(site.endings) > 100
    kinds: set[WaitReason] = set()
    for ending in site.endings:
        timing = ending.timing
        parts = explained_waits(timing.waits, timing.queued_us)
        assert sum(parts.values()) == timing.queued_us
        assert all(spent_us > 0 for spent_us in parts.values())
        kinds |= parts.keys()
    assert {WaitReason.SHARE, WaitReason.SLOTS, WaitReason.OWN_TASKS} <= kinds


def test_reason_of_a_waiting_task_names_the_account_that_goes_first(site: CheckedScheduler) -> None:
    submit(site, "a", "ana", 10)
    site.assign()
    (own,) = submit(site, "a", "ana", 1)
    submit(site, "b", "ben", 1)
    reason = pending_reasons.pending_reason(site.state, site.state.tasks[own], site.now_ns)
    assert reason == "b goes first: a has used more of its share"


def test_limits_are_counted_anew_only_after_chunks_of_those_who_have_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, counted = CheckedScheduler(workers=8, limits=cluster(8)), list[int]()
    limited = Account(limits={"max_running_slots": 1})
    machine.scheduler.set_accounts(tree({"a": 1.0, "b": 1.0}, c=limited), Billing(), {})
    used = held_back._used_slots

    def counting(state: scheduler_state.SchedulerState) -> dict[str, int]:
        counted.append(1)
        return used(state)

    monkeypatch.setattr(held_back, "_used_slots", counting)
    for account in ("a", "b", "c"):
        submit(machine, account, "ana", 8, 60_000.0)
    chunks = [send.records[0].batch.account for send in machine.assign()]
    assert len(chunks) == 8
    assert chunks.count("c") == 1
    assert len(counted) == 3  # at the begin of the pass, before and after the chunk of c


def test_only_tasks_of_those_with_limits_travel_alone() -> None:
    machine = CheckedScheduler(workers=1, limits=cluster(1))
    machine.scheduler.set_accounts(
        tree({"a": 1.0, "b": 1.0}, c=Account(limits={"max_running_slots": 1})), Billing(), {}
    )
    for account in ("a", "b", "c"):
        submit(machine, account, "ana", 3, 20.0)
    chunks = list[set[str]]()
    while sends := machine.assign():
        chunks += [{record.batch.account for record in send.records} for send in sends]
        for worker in {send.worker for send in sends}:
            machine.finish(list(machine.state.cluster.workers[worker].held.values()))
    assert not machine.state.tasks
    assert {"a", "b"} in chunks
    assert all(chunk == {"c"} for chunk in chunks if "c" in chunk)


def test_rows_show_shares_and_usage_of_accounts_and_their_users(site: CheckedScheduler) -> None:
    table = tree({"a": 1.0}, c=Account(share=3.0, users=("cem", "dan")))
    site.scheduler.set_accounts(table, Billing(), {})
    submit(site, "c", "cem", 4)
    run_for(site, 10.0)
    rows = {(row.account, row.user): row for row in site.state.shares.fair_share.rows(site.now_ns)}
    assert rows["c", ""].norm_share == pytest.approx(0.75)
    assert rows["c", "dan"].norm_share == pytest.approx(0.375)
    assert rows["c", "cem"].usage == pytest.approx(8.0, rel=1e-4)
    assert rows["c", "cem"].norm_usage == pytest.approx(1.0)
    assert rows["c", "dan"].rank < rows["c", "cem"].rank


def test_explained_waits_name_what_is_left_and_cut_what_is_too_much() -> None:
    waits = ((int(WaitReason.SLOTS), 30), (int(WaitReason.SHARE), 50), (int(WaitReason.SLOTS), 5))
    assert explained_waits(waits, 100) == {
        WaitReason.SLOTS: 35, WaitReason.SHARE: 50, WaitReason.OWN_TASKS: 15,
    }  # fmt: skip
    assert explained_waits(waits, 40) == {WaitReason.SLOTS: 35, WaitReason.SHARE: 5}
    assert explained_waits((), 7) == {WaitReason.SERVICE: 7}
    assert accounts.WaitReason(1) is WaitReason.SHARE
