"""Preemption: which running tasks end for an account below its share, and for which tasks."""

import msgspec
import pytest
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, cluster, route, wide

from simenv.model import PoolSpec, TaskState, accounts
from simenv.model.accounts import Account, AccountTree, Billing, Qos, WaitReason
from simenv.scheduler import core

LONG_US = 600e6
WALL_NS = 1_800_000_000 * SECOND
TREE = AccountTree({name: Account() for name in "abc"})
GANG = wide(cost_us=LONG_US)  # of four ranks
LOW = {"low": Qos(preempt=True)}
AFTER_30_S = Billing(preempt_after_s=30.0)


@pytest.fixture
def pair() -> CheckedScheduler:
    """Four slots; account a has used something, the others have not."""
    machine = CheckedScheduler(workers=4, limits=cluster(2, 2))
    machine.scheduler.set_accounts(TREE, AFTER_30_S, LOW)
    machine.state.shares.fair_share.charge(accounts.association("a", "ana"), 20.0)
    return machine


def stopped_after_s(machine: CheckedScheduler, task: int, seconds: int = 40) -> int:
    """Let time pass; return when the task alone was asked to end for others, 0: it was not."""
    stops: list[tuple[int, int, str]] = []
    for second in range(1, seconds + 1):
        machine.hear()
        found = machine.tick(1.0)
        assert not machine.assign()
        stops += [(second, a.task, a.reason) for a in found if isinstance(a, core.StopAttempt)]
    assert {each[1:] for each in stops} <= {(task, "preempted")}
    assert len(stops) <= 1
    return stops[0][0] if stops else 0


@pytest.mark.parametrize(
    ("running_s", "qos", "ends_s"),
    [
        pytest.param(0.0, "low", 30, id="by its class"),
        pytest.param(10.0, "", 30, id="it has run for long when the other has waited"),
        pytest.param(35.0, "", 36, id="it has run for long later"),
        pytest.param(50.0, "", 0, id="it has not run for long"),
        pytest.param(0.0, "", 0, id="never by its time"),
    ],
)
def test_task_that_may_be_preempted_ends_for_an_account_below_its_share(
    running_s: float, qos: str, ends_s: int
) -> None:
    machine = CheckedScheduler(workers=1, limits=msgspec.structs.replace(LIMITS, slots=1))
    billing = Billing(preempt_after_s=30.0, preempt_running_s=running_s)
    machine.scheduler.set_accounts(TREE, billing, LOW)
    (long,) = machine.submit(1, LONG_US, owner="ana", account="a", qos=qos)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    (short,) = machine.submit(owner="ben", account="b")
    assert stopped_after_s(machine, long) == ends_s
    if not ends_s:
        return
    machine.finish([machine.state.tasks[long]], TaskState.CANCELLED)
    assert long in machine.state.tasks, "it waits again"
    (send,) = machine.assign()
    assert send.records[0].number == short
    machine.finish(send.records)
    (send,) = machine.assign()
    assert send.records[0].number == long
    assert machine.state.shares.fair_share.usage("a", "ana", machine.now_ns) >= 500.0
    assert dict(send.records[0].waits)[WaitReason.PREEMPTED] >= 40_000_000


@pytest.mark.parametrize("along", [wide(), route()], ids=["for a gang", "for a task"])
def test_preempted_gang_leaves_all_its_slots_and_waits_again(
    pair: CheckedScheduler, along: core.Route
) -> None:
    (long,) = pair.submit(along=GANG, owner="ana", account="a", qos="low")
    pair.revive()
    (send,) = pair.assign()
    pair.begin(send.records[0])
    assert pair.free_slots == 0
    (short,) = pair.submit(along=along, owner="ben", account="b")
    assert stopped_after_s(pair, long) == 30
    pair.finish([pair.state.tasks[long]], TaskState.CANCELLED)
    pair.revive()
    (send,) = pair.assign()
    assert send.records[0].number == short
    assert pair.state.tasks[long].phase == core.WAITING
    pair.finish(send.records)
    (ending,) = pair.endings
    earlier = pair.state.tasks[long].earlier
    assert earlier is not None
    assert earlier.used.slot_us == 4 * 600_000_000
    assert ending.record.number == short
    (send,) = pair.assign()
    assert send.records[0].number == long


def test_gang_is_not_preempted_for_a_task_that_waits_for_a_worker() -> None:
    machine = CheckedScheduler(workers=1, limits=cluster(4))
    machine.scheduler.set_accounts(TREE, AFTER_30_S, LOW)
    (gang,) = machine.submit(
        along=wide(ranks=2, cost_us=LONG_US), owner="ana", account="a", qos="low"
    )
    machine.revive()
    machine.submit(1, LONG_US, owner="ben", account="b")
    for send in machine.assign():
        machine.begin(send.records[0])
    machine.submit(owner="cem", account="c")
    assert stopped_after_s(machine, gang) == 0


def test_tasks_of_one_rank_are_preempted_for_a_gang_one_after_the_other(
    pair: CheckedScheduler,
) -> None:
    pair.submit(4, LONG_US, owner="ana", account="a", qos="low")
    for send in pair.assign():
        pair.begin(send.records[0])
    assert pair.free_slots == 0
    (gang,) = pair.submit(along=wide(ranks=4), owner="ben", account="b")
    pair.revive()
    stopped: list[int] = []
    for _ in range(60):
        pair.hear()
        found = [each for each in pair.tick(1.0) if isinstance(each, core.StopAttempt)]
        assert len(found) <= 1
        for each in found:
            stopped.append(each.task)
            pair.finish([pair.state.tasks[each.task]], TaskState.CANCELLED)
        sends = pair.assign()
        if sends:
            break
    assert [send.records[0].number for send in sends] == [gang]
    assert len({*stopped}) == 4


def test_task_on_a_machine_is_not_preempted() -> None:
    """The machine's provider would be paid twice."""
    qpu = PoolSpec("qpu", "hardware", provider="machines:ideal")
    machine = CheckedScheduler(specs=(PoolSpec("main"), qpu))
    billing = Billing(preempt_after_s=10.0, preempt_running_s=5.0)
    machine.scheduler.set_accounts(TREE, billing, LOW)
    on_qpu = route(LONG_US, pool="qpu", engine="hardware")
    (long,) = machine.submit(along=on_qpu, owner="ana", account="a", qos="low")
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.submit(along=on_qpu, owner="ben", account="b")
    assert stopped_after_s(machine, long) == 0


@pytest.mark.parametrize("verb", ["pause", "drain"])
def test_no_task_is_preempted_while_none_may_start(pair: CheckedScheduler, verb: str) -> None:
    (long, *_) = pair.submit(4, LONG_US, owner="ana", account="a", qos="low")
    for send in pair.assign():
        pair.begin(send.records[0])
    pair.submit(owner="ben", account="b")
    pair.scheduler.set_device_state("main", verb, "", "", 0.0, WALL_NS)
    assert stopped_after_s(pair, long) == 0
