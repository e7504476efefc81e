"""The simulation starts tasks when the scheduler does, and leaves its state as it is."""

import gc
import itertools
import random
import weakref
from collections.abc import Callable
from concurrent.futures import Future

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
from claimant import Claimant
from simulation import BEGIN_S, MAIN, WALL_NS, Planned, Simulation

from simenv.model import Limits, PoolSpec
from simenv.model.accounts import Account, AccountTree, Billing, association
from simenv.model.reservations import ReservationRequest
from simenv.scheduler import core
from simenv.scheduler.events import devices, reservations
from simenv.scheduler.forecast import expected_starts as module, simulated_cluster
from simenv.scheduler.forecast.simulated_cluster import SimulatedCluster, Starts
from simenv.scheduler.queueing.lanes import POLICIES
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.scheduler.views.run_times import remaining_us

MS = 1_000_000
NARROW = route(60_000.0, max_slots=1)


def simulated(machine: CheckedScheduler) -> Starts:
    return SimulatedCluster(machine.state, machine.now_ns).run()


def foretold_and_real(machine: Simulation) -> list[tuple[float, float]]:
    """Let all waiting tasks run; return their simulated and real starts, in microseconds."""
    machine.assign()
    for worker in list(machine.state.cluster.workers):
        machine._proceed(worker)
    begin_ns, starts_us = machine.now_ns, simulated(machine).tasks_us
    waiting = [r.number for r in machine.state.tasks.values() if r.phase == core.WAITING]
    assert starts_us.keys() == set(waiting)
    machine.run(10_000.0)
    return [(starts_us[task], (machine.began[task] - begin_ns) / 1e3) for task in waiting]


def compare(machine: Simulation) -> None:
    foretold_us, real_us = zip(*foretold_and_real(machine), strict=True)
    assert list(foretold_us) == pytest.approx(real_us, rel=1e-6, abs=1.0)


def ready(limits: core.ClusterLimits, *specs: PoolSpec) -> Simulation:
    machine = Simulation(limits, *specs)
    machine.run(5.0, until_idle=False)
    return machine


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("slots", [1, 4])
def test_starts_equal_those_of_the_dispatcher(policy: str, slots: int) -> None:
    numbers = random.Random(f"{policy} {slots}")
    machine = ready(cluster(slots), PoolSpec("main", min=slots, max=slots))
    devices.set_queue_policy(machine.state, "main", policy, ())
    for _ in range(40):
        machine.submit(
            numbers.randint(1, 6), along=route(numbers.uniform(60e3, 900e3), max_slots=1),
            owner=numbers.choice(("", "ana", "ben")), priority=numbers.randint(-2, 2),
        )  # fmt: skip
        machine.now_ns += numbers.randint(0, 100) * MS
        machine.hear()
    compare(machine)


def test_long_tasks_leave_the_last_slot_as_for_the_dispatcher() -> None:
    numbers = random.Random(3)
    machine = ready(cluster(4), PoolSpec("main", min=4, max=4))
    for _ in range(60):
        cost_us = numbers.choice((80e3, 300e3, 2e6, 6e6))
        machine.submit(along=route(cost_us, max_slots=1))
    compare(machine)


def test_wide_tasks_get_the_slots_that_the_dispatcher_grants() -> None:
    machine = ready(cluster(8), PoolSpec("main", min=4, max=4))
    machine.now_ns += 2 * SECOND  # no short task has come for long
    machine.hear()
    for cost_us in (4e6, 3e6, 5e6, 2e6, 7e6, 3e6, 2e6):
        machine.submit(along=route(cost_us, engine="mps", max_slots=8))
    compare(machine)


def test_pools_share_the_slots_of_a_node_as_for_the_dispatcher() -> None:
    numbers = random.Random(5)
    specs = (PoolSpec("main", min=4, max=4), PoolSpec("side", min=4, max=4))
    machine = ready(cluster(4), *specs)
    for pool in ("main", "side"):
        for _ in range(30):
            cost_us = numbers.uniform(60e3, 900e3)
            machine.submit(along=route(cost_us, pool=pool, max_slots=1))
    compare(machine)


def test_order_on_several_nodes_with_gangs_is_that_of_the_dispatcher() -> None:
    machine = ready(cluster(2, 2), PoolSpec("main", min=4, max=4))
    for cost_us in (3e6, 4e6, 5e6, 6e6):
        machine.submit(along=route(cost_us, max_slots=1))
    machine.run(0.2, until_idle=False)
    (gang,) = machine.submit(along=wide(2, cost_us=2e6))
    machine.run(2.0, until_idle=False)  # its worker is ready
    assert machine.state.tasks[gang].phase == core.WAITING
    (late,) = machine.submit(along=route(2e6, max_slots=1))
    machine.run(0.1, until_idle=False)
    compare(machine)
    assert {gang, late} <= machine.began.keys()


def test_owner_at_the_limit_of_slots_starts_later() -> None:
    machine = ready(cluster(4), PoolSpec("main", min=4, max=4))
    machine.scheduler.set_owner_limits({"ana": Limits(max_running_slots=1)}, Limits())
    first = machine.submit(6, along=route(500e3, max_slots=1), owner="ana")
    machine.submit(8, along=route(500e3, max_slots=1), owner="ben")
    compare(machine)
    assert machine.began[first[5]] - machine.began[first[0]] == pytest.approx(2.5e9, rel=0.01)


def of_accounts(policy: str, seed: int, levels: int) -> Simulation:
    """Tasks of random accounts, half of which have limits of running slots."""
    numbers = random.Random(f"{policy} {seed} {levels}")
    names = ["a", "b", "c"] if levels == 1 else ["a", "b", "c", "ax", "ay", "bx", "by", "cx", "cy"]
    tree = {
        name: Account(
            parent=name[:-1],
            share=numbers.choice((1.0, 2.0)),
            limits={"max_running_slots": numbers.randint(1, 3)} if numbers.random() < 0.5 else {},
        )
        for name in names
    }
    machine = ready(cluster(6), PoolSpec("main", min=6, max=6))
    machine.scheduler.set_accounts(AccountTree(tree), Billing(gib_s=0.0), {})
    ana = {"ana": Limits(max_running_slots=2)} if seed % 2 and levels > 1 else {}
    machine.scheduler.set_owner_limits(ana, Limits())
    devices.set_queue_policy(machine.state, "main", policy, ())
    for _ in range(40):
        machine.submit(
            numbers.randint(1, 6),
            along=route(numbers.uniform(60e3, 900e3), max_slots=1),
            owner=numbers.choice(("ana", "ben")),
            account=numbers.choice([name for name in names if len(name) == levels]),
        )
    return machine


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("policy", "levels"), [("priority", 2), ("fifo", 2), ("fair_share", 1)])
def test_tasks_behind_limits_of_accounts_start_as_for_the_dispatcher(
    policy: str, levels: int, seed: int
) -> None:
    compare(of_accounts(policy, seed, levels))


@pytest.mark.parametrize("seed", range(4))
def test_starts_behind_limits_of_nested_accounts_are_near_those_of_the_dispatcher(
    seed: int,
) -> None:
    starts_us = foretold_and_real(of_accounts("fair_share", seed, 2))
    right = [max(0.5e5, us) < 2 * max(1e5, real) < 4 * max(1e5, us) for us, real in starts_us]
    assert sum(right) / len(right) > 0.85


def test_wide_task_of_an_account_gets_the_slots_that_its_limit_leaves() -> None:
    machine = ready(cluster(8), PoolSpec("main", min=4, max=4))
    tree = AccountTree({"a": Account(limits={"max_running_slots": 3}), "b": Account()})
    machine.scheduler.set_accounts(tree, Billing(), {})
    machine.now_ns += 2 * SECOND  # no short task has come for long
    machine.hear()
    for cost_us, account in ((4e6, "a"), (3e6, "a"), (5e6, "b"), (2e6, "a"), (7e6, "b")):
        machine.submit(along=route(cost_us, engine="mps", max_slots=8), account=account, owner="u")
    compare(machine)


def test_limit_of_tasks_at_a_time_delays_starts() -> None:
    machine = ready(cluster(4), PoolSpec("main", min=4, max=4))
    devices.set_max_inflight(machine.state, "main", 2)
    machine.submit(10, along=route(500e3, max_slots=1))
    compare(machine)


def test_memory_of_the_node_delays_starts() -> None:
    machine = ready(cluster(4), PoolSpec("main", min=4, max=4))
    half = machine.state.limits.memory_bytes // 2 + 1
    machine.submit(4, along=route(500e3, max_slots=1, memory_bytes=half))
    machine.submit(4, along=route(300e3, max_slots=1))
    compare(machine)


def test_workers_that_are_starting_count() -> None:
    machine = Simulation(cluster(4), PoolSpec("main", min=0, max=4))
    machine.submit(9, along=route(2e6, max_slots=1))
    machine.run(0.1, until_idle=False)
    starts_us = sorted(simulated(machine).tasks_us.values())
    assert len(starts_us) == 9
    assert 0.5e6 < starts_us[0] < 1.1e6
    begin_ns = machine.now_ns
    machine.run(100.0)
    assert starts_us[-1] * 1e3 == pytest.approx(max(machine.began.values()) - begin_ns, rel=0.5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_slots_kept_for_a_planned_reservation_delay_starts(ranks: int) -> None:
    machine = Planned()
    long = machine.tasks(2, 120.0)
    long += machine.submit(2, along=wide(2, 80e6, 2**20) if ranks > 1 else route(80e6, max_slots=1))
    short = machine.tasks(3, 20.0)
    machine.run(1.0, until_idle=False)
    begin_ns, starts_us = machine.now_ns, simulated(machine).tasks_us
    waiting = [r.number for r in machine.state.tasks.values() if r.phase == core.WAITING]
    assert starts_us.keys() == set(waiting)
    machine.run((machine.begin_ns - machine.now_ns) / SECOND, until_idle=False)
    assert machine.reserve() == "accepted"
    machine.state.calendar.decide(1, machine.state.calendar.planned[0].end_ns / 1e9 + 1e12)
    machine.run(1_000.0)
    assert min(machine.began[task] for task in long[2:]) > machine.begin_ns
    assert max(machine.began[task] for task in short) < machine.begin_ns
    assert [starts_us[number] / 1e6 for number in waiting] == pytest.approx(
        [(machine.began[number] - begin_ns) / SECOND for number in waiting], abs=2.0
    )


def test_wide_task_is_simulated_on_the_slots_that_a_planned_reservation_leaves() -> None:
    machine = Planned()
    machine.run(1.0, until_idle=False)
    first = machine.submit(1, along=route(400e6, max_slots=64))
    second = machine.tasks(1, 500.0)
    simulation = simulated(machine)
    assert simulation.tasks_us[first[0]] == 0
    assert simulation.tasks_us[second[0]] / 1e6 == pytest.approx(BEGIN_S + 29.0, abs=2.0)


@pytest.mark.parametrize("busy", [False, True])
def test_workers_of_a_reservation_that_expires_start_tasks_of_all(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    machine = ready(cluster(4), MAIN)

    def tick(now_ns: int) -> list[core.Action]:
        return machine.scheduler.wall_clock_tick(WALL_NS + now_ns, now_ns) + at(now_ns)

    at = machine.scheduler.tick
    monkeypatch.setattr(machine.scheduler, "tick", tick)
    machine.scheduler.set_clock(WALL_NS + machine.now_ns, machine.now_ns)
    ask = ReservationRequest(device="main", workers=2, ttl_ns=10 * SECOND)
    wall_ns = WALL_NS + machine.now_ns
    decision, _ = reservations.reserve(machine.state, ask, "", wall_ns, dry=False)
    machine.assign()
    for seconds in (2.0, 9.5) if busy else ():  # the second ends later
        along = route(seconds * 1e6, max_slots=1)
        machine.submit(2, along=along, reservation=decision.reservation)
    machine.submit(40, along=route(900e3, max_slots=1))
    foretold_us, real_us = zip(*foretold_and_real(machine), strict=True)
    assert list(foretold_us) == pytest.approx(real_us, abs=1e5)  # the time between two ticks


@pytest.mark.parametrize("policy", POLICIES)
def test_simulation_changes_neither_state_nor_order(policy: str) -> None:
    host = Claimant()
    devices.set_queue_policy(host.state, "main", policy, ())
    number = host.reserve(5, workers=1).reservation
    host.assign()
    host.under(number, 3, cost=20_000.0)
    for owner, priority in itertools.product(("ana", "ben"), (0, 1)):
        host.submit(4, cost=30_000.0, owner=owner, priority=priority)
    host.assign()
    queue = host.state.cluster.pools["main"].queue
    before = [record.number for record in queue], host.digest()
    starts = expected_starts(host, owner="eva")
    assert starts.new_us(host.state.cluster.pools["main"], host.now_ns, "eva") > 0
    assert ([record.number for record in queue], host.digest()) == before
    for sent in iter(host.assign, []):
        for assignment in sent:
            host.finish(assignment.records)


def test_state_may_change_while_a_simulation_runs() -> None:
    """As it does in a service, where the simulation runs in another thread."""
    machine = ready(cluster(4), PoolSpec("main", min=4, max=4))
    tasks = machine.submit(2_000, along=route(60e3, max_slots=1))
    machine.submit(2_000, along=route(60e3, max_slots=1), owner="ana")
    machine.assign()
    changes = itertools.count(1)

    def change() -> None:
        step = next(changes)
        if step > 30:
            return
        machine.keep(machine.scheduler.cancel(tasks[-2 * step - 1 : -2 * step + 1], 0)[1])
        machine.submit(3, along=route(60e3, max_slots=1), owner=f"owner{step % 7}")
        for worker in machine.state.cluster.workers.values():
            if worker.held:
                machine.finish([next(iter(worker.held.values()))])
        machine.assign()

    simulation = SimulatedCluster(machine.state, machine.now_ns)
    change()
    starts = simulation.run(change)
    assert next(changes) > 30
    assert len(starts.tasks_us) > 3_900


def test_simulation_leaves_nothing_to_the_garbage_collector(machine: CheckedScheduler) -> None:
    """A service collects rarely, and would keep the copied tasks of many simulations."""
    machine.submit(50, along=NARROW)
    machine.assign()
    gc.collect()
    gc.disable()
    try:
        simulation = SimulatedCluster(machine.state, machine.now_ns)
        copied = weakref.ref(simulation.state)
        assert len(simulation.run().tasks_us) > 40
        del simulation
        assert copied() is None
    finally:
        gc.enable()


def test_wait_behind_more_tasks_than_are_simulated_is_extrapolated(
    monkeypatch: pytest.MonkeyPatch, machine: CheckedScheduler
) -> None:
    assert simulated_cluster.MAX_TASKS >= 100_000
    monkeypatch.setattr(simulated_cluster, "MAX_TASKS", 500)
    tasks = machine.submit(2_000, along=route(10_000.0, max_slots=1))
    starts = expected_starts(machine)
    pool, now_ns = machine.state.cluster.pools["main"], machine.now_ns
    assert starts.new_us(pool, now_ns) == pytest.approx(2_000 * 10_000, rel=0.01)
    assert starts.task_us(machine.state.tasks[tasks[-1]], now_ns) == module.UNKNOWN


def test_rest_of_a_run_is_the_mean_of_the_tail() -> None:
    assert remaining_us(100.0, 30.0, 0.0) == 70.0
    assert remaining_us(100.0, 104.0, 0.0) == 0.0
    numbers, sigma = random.Random(2), 0.4
    deviation = sigma * (2 / 3.141592653589793) ** 0.5
    mean = 2.718281828459045 ** (sigma**2 / 2)
    times = [numbers.lognormvariate(0.0, sigma) for _ in range(200_000)]
    for elapsed in (0.5, 1.0, 2.0):
        rest = [time - elapsed for time in times if time > elapsed]
        expected = remaining_us(mean, elapsed, deviation)
        assert expected == pytest.approx(sum(rest) / len(rest), rel=0.03)
    assert 0 < remaining_us(100.0, 999.0, 0.5) < 999.0


def test_run_far_beyond_its_forecast_is_expected_to_take_as_long_again() -> None:
    assert remaining_us(100.0, 130.0, 0.0) == 130.0
    assert remaining_us(100.0, 130.0, 0.02) == 130.0
    assert remaining_us(100.0, 130.0, 0.3) < 130.0
    for deviation in (0.0, 0.3, 2.0):
        assert remaining_us(100.0, 1_000.0, deviation) == 1_000.0
        assert remaining_us(100.0, 1e6, deviation) == 1e6


# --- what is kept for clients ---------------------------------------------------------------------


def test_starts_are_kept_for_a_second_or_longer_and_show_their_age() -> None:
    machine = CheckedScheduler(workers=1, limits=LIMITS)
    machine.submit(3_000, cost=60_000.0)
    machine.assign()
    starts, made = Counted(machine.state), Counted.made
    late = list(machine.state.tasks.values())[-1]
    assert starts.age_us(1.0, machine.now_ns) == 0.0
    assert starts.refresh(machine.now_ns) is None
    wait_us = starts.task_us(late, machine.now_ns)
    assert wait_us == pytest.approx(2_999 * 30_000)  # on both slots
    machine.now_ns += SECOND // 4
    assert starts.refresh(machine.now_ns) is None  # still recent
    assert starts.task_us(late, machine.now_ns) == pytest.approx(wait_us - 0.25e6)
    assert starts.age_us(1.0, machine.now_ns) == 0.25e6
    assert len(made) == 1
    machine.now_ns += 2 * SECOND
    machine.hear()
    assert starts.is_usable(machine.now_ns)
    assert starts.refresh(machine.now_ns) is None
    assert len(made) == 2
    assert starts.age_us(1.0, machine.now_ns) == 0.0


def test_answers_use_older_starts_while_the_next_are_simulated(machine: CheckedScheduler) -> None:
    """They wait if there are none, or these do not contain the task that is asked for."""
    machine.submit(2_000, along=NARROW)
    begun: list[Future[Starts]] = []
    calls = []

    def later(simulate: Callable[[Callable[[], None]], Starts]) -> Future[Starts]:
        calls.append(simulate)
        begun.append(Future())
        return begun[-1]

    starts = module.ExpectedStarts(machine.state, later)
    record = list(machine.state.tasks.values())[-1]
    assert starts.refresh(machine.now_ns) is begun[0]
    assert starts.refresh(machine.now_ns, "ana") is begun[0], "one at a time"
    assert not starts.is_usable(machine.now_ns)
    assert starts.task_us(record, machine.now_ns) == module.UNKNOWN
    begun[0].set_result(calls[0](lambda: None))
    assert starts.refresh(machine.now_ns) is None
    assert starts.task_us(record, machine.now_ns) == pytest.approx(1_999 * 60_000)
    machine.now_ns += 5 * SECOND
    assert starts.refresh(machine.now_ns) is begun[1]
    assert starts.is_usable(machine.now_ns, record.number)
    assert not starts.is_usable(machine.now_ns, record.number + 1)
    assert not starts.is_usable(machine.now_ns + module.USABLE_NS)
    assert starts.task_us(record, machine.now_ns) == pytest.approx(1_999 * 60_000 - 5e6)


def test_simulation_that_began_after_a_question_answers_it(machine: CheckedScheduler) -> None:
    """However long it took until the answer looks at it: else a slow loop would never answer."""
    machine.submit(5, along=NARROW)
    starts, asked_ns = Counted(machine.state), machine.now_ns
    machine.now_ns += SECOND
    assert starts.refresh(machine.now_ns, asked_ns=asked_ns) is None
    machine.now_ns += 60 * SECOND
    assert starts.refresh(machine.now_ns, asked_ns=asked_ns) is None
    assert len(Counted.made) == 1
    assert starts.refresh(machine.now_ns) is None
    assert len(Counted.made) == 2


def test_error_of_a_simulation_is_raised_once_and_nothing_is_simulated_for_a_while(
    machine: CheckedScheduler,
) -> None:
    made: list[Future[Starts]] = []

    def fails(_simulate: object) -> Future[Starts]:
        made.append(Future())
        made[-1].set_exception(LookupError("a defect"))
        return made[-1]

    starts = module.ExpectedStarts(machine.state, fails)
    (number,) = machine.submit()
    with pytest.raises(LookupError, match="a defect"):
        starts.refresh(machine.now_ns)
    assert starts.refresh(machine.now_ns + SECOND) is None
    assert starts.task_us(machine.state.tasks[number], machine.now_ns) == module.UNKNOWN
    assert len(made) == 1
    with pytest.raises(LookupError, match="a defect"):
        starts.refresh(machine.now_ns + module.FAILED_NS)


def test_new_task_is_known_after_the_next_refresh(machine: CheckedScheduler) -> None:
    machine.submit(2_000, along=NARROW)
    starts = expected_starts(machine)
    (number,) = machine.submit(along=NARROW)
    record = machine.state.tasks[number]
    assert starts.task_us(record, machine.now_ns) == pytest.approx(2_000 * 60_000)
    assert starts.is_usable(machine.now_ns, number - 1)
    assert not starts.is_usable(machine.now_ns, number)  # its owner may go long before others
    machine.now_ns += 2 * SECOND
    machine.hear()
    assert starts.refresh(machine.now_ns, newest=number) is None
    assert starts.is_usable(machine.now_ns, number)
    assert starts.task_us(record, machine.now_ns) == pytest.approx(2_000 * 60_000)


class Counted(module.ExpectedStarts):
    """Expected starts that count their simulations."""

    made: list[int]

    def __init__(self, state: SchedulerState) -> None:
        Counted.made = []
        super().__init__(state, self._counted)

    def _counted(self, simulate: Callable[[Callable[[], None]], Starts]) -> Future[Starts]:
        Counted.made.append(1)
        return module.at_once(simulate)


def test_nothing_is_simulated_while_nothing_waits(machine: CheckedScheduler) -> None:
    starts = Counted(machine.state)
    made = Counted.made
    machine.submit(cost=60_000.0)
    machine.assign()
    for _ in range(5):
        machine.now_ns += SECOND
        starts.watch(machine.now_ns)
    assert made == []
    machine.submit(5, cost=60_000.0)
    for _ in range(100):
        starts.watch(machine.now_ns)
    assert made == [1]
    for _ in range(100):
        starts.watch(machine.now_ns + SECOND // 2)
    assert made == [1]


def test_typical_error_is_learned_from_starts(machine: CheckedScheduler) -> None:
    starts = module.ExpectedStarts(machine.state)
    assert starts.off_by("main") == 0.0
    first, second, third = machine.submit(3, along=route(2e6, max_slots=1))
    machine.assign()
    for _ in range(5):
        starts.watch(machine.now_ns)
    for number, seconds, off_by in ((first, 3, 1.5), (second, 7, 2.5**0.5 * 1.5**0.5)):
        machine.now_ns += seconds * SECOND  # instead of two each
        machine.finish([machine.state.tasks[number]])
        for assignment in machine.assign():
            machine.begin(assignment.records[0])
        starts.watch(machine.now_ns)
        assert starts.off_by("main") == pytest.approx(off_by, rel=0.01)
    machine.keep(machine.scheduler.cancel([third], machine.now_ns)[1])
    assert not starts._foretold


def test_waits_are_corrected_by_the_errors_of_waits_as_long(machine: CheckedScheduler) -> None:
    (number,) = machine.submit()
    errors = module.WaitErrors()
    foretold = module.ForetoldStart(machine.state.tasks[number], 0, 100e6, 100e6)
    for _ in range(200):
        errors.learn(foretold, 150e6)
    assert errors.corrected_us(100e6) == pytest.approx(150e6, rel=0.02)
    assert errors.corrected_us(1e6) == pytest.approx(1e6)
    assert errors.corrected_us(0.0) == 0.0
    assert errors.off_by == pytest.approx(1.5)


def test_owners_for_whom_new_tasks_are_simulated_are_bounded(machine: CheckedScheduler) -> None:
    machine.submit(10, along=NARROW)
    starts = module.ExpectedStarts(machine.state)
    pool = machine.state.cluster.pools["main"]
    for number in range(50):
        assert starts.refresh(machine.now_ns, f"owner{number}") is None
        assert starts.new_us(pool, machine.now_ns, f"owner{number}") == pytest.approx(60_000)
        assert starts.new_us(pool, machine.now_ns) == pytest.approx(600_000)
    assert len(starts._asked_ns) <= module.MAX_OWNERS


def test_looks_of_many_owners_at_new_tasks_share_simulations(machine: CheckedScheduler) -> None:
    """Those of 2,000 passes may be 0.2 s old: ten looks a second take five simulations at most."""
    machine.submit(2_000, along=NARROW)
    starts = Counted(machine.state)
    for number in range(10):
        machine.now_ns += SECOND // 10
        (newest,) = machine.submit(along=NARROW)
        assert starts.refresh(machine.now_ns, f"owner{number}", newest) is None
        assert starts.task_us(machine.state.tasks[newest], machine.now_ns) >= 0
    assert 3 <= len(Counted.made) <= 5


def of_accounts_with_gangs(seed: int) -> Simulation:
    """Tasks of one and of two ranks, of random accounts and users."""
    numbers = random.Random(seed)
    machine = ready(cluster(4, 4), PoolSpec("main", min=8, max=8))
    tree = AccountTree({name: Account(share=share) for name, share in {"a": 1.0, "b": 2.0}.items()})
    machine.scheduler.set_accounts(tree, Billing(gib_s=0.0), {})
    for _ in range(60):
        ranks = 2 if numbers.random() < 0.15 else 1
        cost_us = numbers.uniform(1.1e6, 9e6)
        machine.submit(
            numbers.randint(1, 3),
            along=wide(2, cost_us=cost_us) if ranks > 1 else route(cost_us, max_slots=1),
            owner=numbers.choice(("ana", "ben", "cem")),
            account=numbers.choice("ab"),
        )
    machine.run(2.0, until_idle=False)  # workers of several ranks are ready
    return machine


@pytest.mark.parametrize("seed", range(4))
def test_gangs_of_accounts_start_when_their_turn_comes(seed: int) -> None:
    waits = foretold_and_real(of_accounts_with_gangs(seed))
    right = sum(real / 1.1 <= foretold <= 1.1 * real for foretold, real in waits)
    assert right >= 0.7 * len(waits)


def test_tasks_of_accounts_that_go_first_are_expected_as_they_came_so_far() -> None:
    machine = ready(cluster(1), PoolSpec("main", min=1, max=1))
    machine.scheduler.set_accounts(AccountTree({"a": Account(), "b": Account()}), Billing(), {})
    machine.state.shares.fair_share.charge(association("a", "ana"), 1e5)
    mine = machine.submit(30, along=route(40e6, max_slots=1), owner="ana", account="a")
    for _ in range(180):
        machine.submit(along=route(30e6, max_slots=1), owner="ben", account="b")
        machine.now_ns += 60 * SECOND
        machine.hear()
    # 180 tasks of ben wait, and then 20 of ana; ben's later ones take half of the time.
    foretold_us = simulated(machine).tasks_us[mine[20]]
    assert foretold_us == pytest.approx(2 * (180 * 30e6 + 20 * 40e6), rel=0.25)


def test_tasks_count_as_what_they_use_once_they_have_ended() -> None:
    """On a paced device they are expected to use its time, of which their simulation takes a
    part."""
    machine = ready(cluster(1), PoolSpec("main", min=1, max=1, device="chip", pace=True))
    machine.scheduler.set_clock(WALL_NS + machine.now_ns, machine.now_ns)
    machine.scheduler.set_accounts(AccountTree({"a": Account(), "b": Account()}), Billing(), {})

    def submit(count: int, seconds: float, owner: str, account: str) -> list[int]:
        along = route(1e3, max_slots=1, device_shot_ns=seconds * 1e7, paced=True)
        return machine.submit(count, along=along, owner=owner, account=account)

    submit(1, 100.0, "ana", "a")
    machine.scheduler.dispatch(machine.now_ns)  # it is expected to use 100 units
    machine.state.shares.fair_share.charge(association("b", "ben"), 20.0)
    (mine,) = submit(1, 10.0, "ana", "a")
    others = submit(6, 10.0, "ben", "b")
    starts_us = simulated(machine).tasks_us
    # The next task is sent before the device is free; then ana has used less than ben's 20.
    assert [starts_us[number] / 1e6 for number in (others[0], mine, others[1])] == pytest.approx(
        [100.0, 110.0, 120.0], rel=0.01
    )
    machine.scheduler.set_accounts(
        AccountTree({"a": Account(), "b": Account()}), Billing(device_s={"main": 1.0}), {}
    )
    starts_us = simulated(machine).tasks_us
    assert starts_us[mine] > starts_us[others[-1]], "of the device's time it has used 100"
