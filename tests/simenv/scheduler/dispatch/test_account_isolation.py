"""Workers that serve one account at a time: choice, restarts, and their bounds."""

import msgspec
import pytest
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, cluster, wide
from simulation import Simulation

from simenv.model import Limits, PoolSpec, ReservationRequest, TaskParts
from simenv.model.accounts import Account, AccountTree, Billing, WaitReason
from simenv.scheduler import core
from simenv.scheduler.dispatch.account_isolation import KEEP_NS, QUANTUM_NS, REASON
from simenv.scheduler.queueing.lanes import QueuePolicy

ISOLATED = msgspec.structs.replace(LIMITS, isolates_accounts=True)
LONG = 900_000.0


def accounts(machine: CheckedScheduler) -> dict[str, str | None]:
    """The account of each worker."""
    return {
        name: worker.dedication.account for name, worker in machine.state.cluster.workers.items()
    }


def owners(sends: list[core.AssignTasks]) -> dict[str, str]:
    """The owner of the tasks that each worker got."""
    for send in sends:
        assert len({record.batch.owner for record in send.records}) == 1
    return {send.worker: send.records[0].batch.owner for send in sends}


def retired(machine: CheckedScheduler) -> list[str]:
    """The workers that are asked to end for another account, with the next tick."""
    actions = machine.tick()
    return [a.worker for a in actions if isinstance(a, core.RetireWorker) and a.reason == REASON]


def restart(machine: CheckedScheduler, name: str) -> None:
    """The worker ends, and what is missing is started and joins."""
    machine.lose(name, "exit 0")
    machine.revive()


def test_each_account_has_a_worker_of_its_own() -> None:
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    machine.submit(1, cost=LONG, owner="ana")
    machine.submit(1, cost=LONG, owner="ben")
    sends = machine.assign()
    assert sorted(owners(sends).values()) == ["ana", "ben"]
    assert sorted(str(account) for account in accounts(machine).values()) == ["ana", "ben"]
    for send in sends:
        machine.finish(send.records)
    by_owner = {owner: worker for worker, owner in owners(sends).items()}
    for owner in ("ben", "ana", "ben"):
        machine.submit(1, cost=LONG, owner=owner)
        (send,) = machine.assign()
        assert send.worker == by_owner[owner], "an idle worker of the account goes first"
        machine.finish(send.records)
    assert not retired(machine)


@pytest.mark.parametrize("configured", [(), ("chem", "bio")])
@pytest.mark.parametrize("policy", ["priority", "fair_share", "fifo", "round_robin"])
def test_chunks_and_prefetch_never_mix_accounts(policy: str, configured: tuple[str, ...]) -> None:
    """Of configured accounts each has tasks of all users."""
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    machine.scheduler.set_accounts(
        AccountTree({name: Account() for name in configured}), Billing(), {}
    )
    for pool in machine.state.cluster.pools.values():
        pool.queue.arrange(QueuePolicy(policy))
    for number in range(60):
        account = configured[number // 2 % 2] if configured else ""
        machine.submit(3, cost=20.0, owner=("ana", "ben")[number % 2], account=account)
    mixed_owners = False
    for _ in range(200):
        sends = machine.assign()
        held = [worker.held.values() for worker in machine.state.cluster.workers.values()]
        for records in (*held, *(send.records for send in sends)):
            batches = [record.batch for record in records]
            assert len({batch.account or batch.owner for batch in batches}) <= 1
            mixed_owners |= len({batch.owner for batch in batches}) > 1
        for send in sends:
            machine.finish(send.records)
    assert not machine.state.tasks
    assert mixed_owners == bool(configured), "users of one account share a worker"


@pytest.mark.parametrize(
    ("owners", "accounts"), [(("ana", "ben"), ("", "")), (("ana", "ana"), ("chem", "bio"))]
)
def test_worker_that_keeps_a_state_of_another_account_is_not_preferred(
    owners: tuple[str, str], accounts: tuple[str, str]
) -> None:
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    used, preferred = [], ""
    for place in (0, 1, 0):
        parts = TaskParts((1,), 30.0, (), preferred)
        machine.submit(1, cost=LONG, owner=owners[place], account=accounts[place], parts=parts)
        (send,) = machine.assign()
        machine.finish(send.records)
        used.append(send.worker)
        preferred = used[0]
    assert used[0] == used[2] != used[1]


def test_wait_for_the_restart_of_a_worker_of_another_account_has_its_own_reason() -> None:
    machine = CheckedScheduler(workers=1, limits=ISOLATED)
    machine.submit(1, cost=LONG, owner="ana")
    (send,) = machine.assign()
    machine.finish(send.records)
    machine.now_ns += 2 * KEEP_NS
    machine.hear()
    machine.submit(1, cost=LONG, owner="ben")
    assert not machine.assign()
    assert retired(machine) == ["main-0"]
    machine.now_ns += SECOND
    assert not machine.assign()
    machine.lose("main-0", "exit 0")
    machine.tick()
    machine.now_ns += SECOND
    assert not machine.assign()
    machine.now_ns += SECOND
    machine.revive()
    (send,) = machine.assign()
    waits = dict(send.records[0].waits)
    assert waits == {WaitReason.ISOLATION: 3_000_000}


def test_a_full_pool_restarts_the_worker_that_was_idle_for_longest() -> None:
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    machine.submit(2, cost=LONG, owner="ana")
    first, second = machine.assign()
    machine.finish(second.records)
    machine.now_ns += SECOND // 2
    machine.finish(first.records)
    machine.submit(1, cost=LONG, owner="ben")
    assert not machine.assign(), "no worker of ana runs a task of ben"
    assert not retired(machine), "ana keeps what was idle for less than KEEP_NS"
    machine.now_ns += KEEP_NS
    machine.hear()
    assert not machine.assign()
    assert retired(machine) == [second.worker]
    machine.tick()
    assert not machine.assign()
    assert not retired(machine), "one restart is enough"
    restart(machine, second.worker)
    (send,) = machine.assign()
    assert owners([send]) == {send.worker: "ben"}
    assert send.worker != first.worker
    assert accounts(machine)[first.worker] == "ana"


def test_a_pool_that_may_grow_restarts_nobody() -> None:
    machine = CheckedScheduler(limits=ISOLATED, min=1, max=2)
    machine.submit(1, cost=LONG, owner="ana")
    machine.finish(machine.assign()[0].records)
    machine.now_ns += KEEP_NS
    machine.submit(1, cost=LONG, owner="ben")
    assert not machine.assign()
    machine.hear()
    started = [a for a in machine.tick() if isinstance(a, core.StartWorker)]
    assert [action.worker for action in started] == ["main-1"]
    machine.join("main-1")
    assert owners(machine.assign()) == {"main-1": "ben"}
    assert not retired(machine)


def test_other_accounts_run_while_one_waits_for_its_worker() -> None:
    machine = CheckedScheduler(workers=1, limits=ISOLATED)
    machine.submit(1, cost=LONG, owner="ana")
    machine.finish(machine.assign()[0].records)
    machine.submit(1, cost=LONG, owner="ben")
    machine.submit(1, cost=LONG, owner="ana")
    assert owners(machine.assign()) == {"main-0": "ana"}


@pytest.mark.parametrize("limit", [0, 2])
def test_those_who_wait_for_a_worker_do_not_wait_for_a_limit(limit: int) -> None:
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    limits = {"dora": Limits(max_running_slots=limit)}
    machine.scheduler.set_owner_limits(limits, Limits())
    first, second = (machine.submit(1, cost=LONG, owner=owner)[0] for owner in ("ana", "ben"))
    machine.assign()
    machine.finish([machine.state.tasks[second]])
    machine.submit(1, cost=LONG, owner="cleo")
    machine.submit(1, cost=LONG, owner="ben")
    assert list(owners(machine.assign()).values()) == ["ben"]
    assert not machine.state.cluster.pools["main"].queue.lanes.held_back
    assert first in machine.state.tasks


def test_busy_worker_is_taken_over_after_a_quantum_however_much_waits() -> None:
    """An account that always has tasks keeps a worker for QUANTUM_NS, then one without any gets
    it."""
    machine = CheckedScheduler(workers=1, limits=ISOLATED)
    machine.submit(400, cost=LONG / 10, owner="ana")
    machine.assign()
    begin_ns = machine.now_ns
    machine.submit(1, cost=LONG, owner="ben")
    while not retired(machine):
        held = list(machine.state.cluster.workers["main-0"].held.values())
        assert {record.batch.owner for record in held} == {"ana"}
        machine.now_ns += round(LONG / 10 * 1e3)
        machine.hear()
        machine.finish(held[:1])
        machine.assign()
        assert machine.now_ns - begin_ns < QUANTUM_NS + 5 * SECOND
    assert machine.now_ns - begin_ns >= QUANTUM_NS
    restart(machine, "main-0")
    assert list(owners(machine.assign()).values()) == ["ben"]


def test_restarts_of_alternating_accounts_are_bounded_and_nobody_starves() -> None:
    """Two accounts with tasks without end and one worker: at most one restart a quantum."""
    run = Simulation(ISOLATED, PoolSpec("main", "any", min=1, max=1))
    run.run(5, until_idle=False)
    before = run.starts()
    first = run.submit(150, cost=LONG / 2, owner="ana")
    second = run.submit(150, cost=LONG / 2, owner="ben")
    run.run(100, until_idle=False)
    assert 5 <= run.starts() - before <= 11
    done = [sum(number in run.ended for number in each) for each in (first, second)]
    assert min(done) > 0.7 * max(done)
    assert sum(done) > 0.8 * 100 / (LONG / 2 / 1e6), "restarts take little of the time"


def test_workers_of_busy_accounts_even_out_and_stay() -> None:
    run = Simulation(
        msgspec.structs.replace(ISOLATED, slots=4), PoolSpec("main", "any", min=4, max=4)
    )
    run.run(5, until_idle=False)
    run.submit(300, cost=LONG, owner="ana")
    run.run(15, until_idle=False)
    assert set(accounts(run).values()) == {"ana"}
    run.submit(300, cost=LONG, owner="ben")
    run.run(60, until_idle=False)
    shares = sorted(str(account) for account in accounts(run).values())
    assert shares == ["ana", "ana", "ben", "ben"]
    starts = run.starts()
    run.run(30, until_idle=False)
    assert run.starts() == starts, "nothing is restarted between accounts of equal shares"


def test_short_tasks_wait_for_their_own_worker() -> None:
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    for owner in ("ana", "ben"):
        machine.submit(1, cost=LONG, owner=owner)
    for send in machine.assign():
        machine.finish(send.records)
    machine.now_ns += 60 * SECOND
    machine.hear()
    machine.submit(20, cost=10_000.0, owner="ana")
    assert set(owners(machine.assign()).values()) == {"ana"}
    assert not retired(machine)
    machine.submit(1000, cost=10_000.0, owner="ana")
    machine.assign()
    assert len(retired(machine)) == 1, "10 s of work are worth a second worker"


def test_a_task_that_lacks_memory_is_overtaken_by_no_other_account() -> None:
    machine = CheckedScheduler(workers=2, limits=ISOLATED)
    for owner in ("ana", "ben"):
        machine.submit(1, cost=LONG, owner=owner)
    sends = {owner: send for send in machine.assign() for owner in owners([send]).values()}
    machine.finish(sends["ana"].records)
    large = msgspec.structs.replace(sends["ana"].records[0].route, memory_bytes=2**34 - 2**19)
    machine.submit(1, along=large, owner="ana")
    machine.submit(1, cost=LONG, owner="ben")
    assert not [send for send in machine.assign() if send.records[0].route is large]
    machine.finish(sends["ben"].records)
    assert machine.assign()[0].records[0].route is large


def test_gangs_of_another_account_get_fresh_ranks() -> None:
    machine = CheckedScheduler(workers=1, limits=cluster(2, 2, isolates_accounts=True))
    machine.submit(1, along=wide(4), owner="ana")
    machine.revive()
    (send,) = machine.assign()
    assert send.worker == "main.x4-0"
    machine.finish(send.records)
    machine.submit(1, along=wide(4), owner="ben")
    machine.now_ns += KEEP_NS
    machine.hear()
    assert not machine.assign()
    assert retired(machine) == ["main.x4-0"]
    restart(machine, "main.x4-0")
    machine.revive()
    assert owners(machine.assign()) == {"main.x4-0": "ben"}


def test_dedicated_worker_of_another_account_is_restarted_first() -> None:
    machine = CheckedScheduler(workers=1, limits=ISOLATED)
    machine.submit(1, cost=LONG, owner="ana")
    machine.finish(machine.assign()[0].records)
    request = ReservationRequest(device="main", workers=1, ttl_ns=600 * SECOND)
    wall_ns = 1_800_000_000 * SECOND + machine.now_ns
    decision, _ = machine.scheduler.reserve(request, "", wall_ns)
    assert decision.reservation, decision
    number = decision.reservation
    machine.submit(1, cost=LONG, reservation=number)
    assert not machine.assign()
    assert retired(machine) == ["main-0"]
    restart(machine, "main-0")
    assert list(owners(machine.assign()).values()) == [""]


def test_configured_account_decides_and_not_the_user() -> None:
    machine = CheckedScheduler(workers=1, limits=ISOLATED)
    for owner in ("ana", "ben"):
        machine.submit(cost=LONG, owner=owner, account="chem")
        (send,) = machine.assign()
        assert send.worker == "main-0"
        machine.finish(send.records)
    machine.submit(cost=LONG, owner="chem")
    assert not machine.assign(), "a user of the name of an account is not that account"


def test_task_whose_worker_wrote_too_much_is_charged() -> None:
    machine = CheckedScheduler(workers=1, limits=ISOLATED)
    machine.submit(1, cost=LONG, owner="ana")
    for death in (1, 2, 3):
        (send,) = machine.assign()
        machine.begin(send.records[0])
        machine.keep(machine.scheduler.worker_over_disk("main-0", "too much", machine.now_ns))
        assert send.records[0].deaths == death
        machine.state.cluster.unreaped_workers.clear()
        machine.now_ns += SECOND
        machine.hear()
        machine.revive()
    (ending,) = machine.endings
    assert (ending.reason, machine.scheduler.worker_over_disk("no", "x", 0)) == ("poison", [])
