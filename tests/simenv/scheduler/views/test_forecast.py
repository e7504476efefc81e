"""How long tasks wait, as told beforehand: by hand, and against a simulated pool."""

from __future__ import annotations

import pytest
from checked_scheduler import SECOND, CheckedScheduler, route, wide
from claimant import Claimant

from simenv.model import TaskSpec
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.views import forecast
from simenv.scheduler.views.forecast import EXACT, MAX_EXACT, UNKNOWN, Forecast
from simenv.scheduler.views.infos import running_tasks

MS = 1_000_000


def _waits(machine: CheckedScheduler, *tasks: int, asked: int = 1) -> list[float]:
    """In ms."""
    outcome = Forecast(machine.state, machine.now_ns, asked)
    return [outcome.task_us(machine.state.tasks[task]) / 1e3 for task in tasks]


def _new(machine: CheckedScheduler, pool: str = "main") -> float:
    result = Forecast(machine.state, machine.now_ns).pool_us(machine.state.pools[pool])
    return result / 1e3 if result >= 0 else result


def test_idle_pool_forecasts_no_wait() -> None:
    machine = CheckedScheduler()
    assert _new(machine) == 0
    (task,) = machine.submit(cost=20_000.0)
    assert _waits(machine, task) == [0]


def test_forecast_counts_running_and_waiting_work() -> None:
    machine = CheckedScheduler()
    tasks = machine.submit(6, cost=20_000.0)
    machine.assign()
    machine.now_ns += 5 * MS
    # Each worker has one, with 15 ms left, and the next; two more wait.
    assert _waits(machine, *tasks[2:]) == pytest.approx([15, 15, 35, 35])
    assert _new(machine) == pytest.approx(55)
    (worker, *_) = machine.state.workers.values()
    assert worker.working_since_ns == machine.now_ns - 5 * MS


def test_forecast_follows_measured_pace_of_pool() -> None:
    machine = CheckedScheduler()
    machine.submit(60, cost=20_000.0)
    for _ in range(20):
        machine.assign()
        machine.now_ns += 60 * MS  # of each a third is work
        for worker in list(machine.state.workers.values()):
            machine.finish(list(worker.held.values())[:1])
    assert len(machine.state.tasks) == 20
    assert _new(machine) == pytest.approx(20 * 60 / 2, rel=0.15)
    assert machine.state.pools["main"].small.speed == 1  # of these nothing was learned


def test_pace_of_small_tasks_is_learned_apart_from_large_ones() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(40, cost=100.0)
    machine.submit(1, cost=50_000.0)
    while len(machine.state.pools["main"].queue):
        (send, *_) = machine.assign()
        machine.now_ns += round(sum(r.cost_us for r in send.records) * 10_000)  # ten times
        machine.finish(send.records)
        if len(machine.state.pools["main"].queue) == 1:
            break
    pool = machine.state.pools["main"]
    assert pool.small.speed < 0.9
    assert pool.large.speed == 1


def test_learned_costs_also_apply_to_waiting_tasks() -> None:
    machine = CheckedScheduler()
    waiting = machine.submit(40, cost=20_000.0)
    assert _waits(machine, waiting[-1]) == pytest.approx([19 * 20])
    spec, along = machine.state.tasks[waiting[0]].spec, machine.state.tasks[waiting[0]].route
    for _ in range(40):
        machine.state.estimator.observe(along, spec, 1, 60_000)
    assert _waits(machine, waiting[-1]) == pytest.approx([19 * 60], rel=0.01)


def test_one_slow_task_changes_cost_estimate_little() -> None:
    machine = CheckedScheduler()
    along, spec = route(20_000.0), TaskSpec(b"program", 100, 1)
    machine.state.estimator.observe(along, spec, 1, 20_000_000)
    assert machine.state.estimator.cost_us(along, spec) < 40_000


def test_wait_of_paused_device_is_unknown() -> None:
    machine = CheckedScheduler()
    (task,) = machine.submit()
    for verb in ("pause", "resume", "drain"):
        devices.set_state(machine.state, "main", verb, "", "", 1.0 if verb == "drain" else 0.0, 5)
        expected = UNKNOWN if verb == "pause" else 0
        assert _new(machine) == pytest.approx(expected, abs=0.01)
        told_ns = forecast.device_ns(machine.state, "main", machine.now_ns)
        assert told_ns == pytest.approx(expected, abs=10_000)
    devices.tick(machine.state, 2 * SECOND)  # the drain's time is over
    assert _new(machine) == UNKNOWN
    assert Forecast(machine.state, machine.now_ns).task_us(machine.state.tasks[task]) == UNKNOWN


def test_forecast_follows_priorities_and_ageing() -> None:
    machine = CheckedScheduler(workers=1)
    low = machine.submit(10, cost=10_000.0, priority=-1)
    high = machine.submit(10, cost=10_000.0, priority=1)
    assert _waits(machine, high[0], high[9], low[0], low[9]) == pytest.approx([0, 90, 100, 190])
    assert _new(machine) == pytest.approx(100)
    machine.now_ns += 70 * SECOND  # what is old is now before a new one of a higher priority
    assert _new(machine) == pytest.approx(200)


def test_round_robin_forecast_waits_for_only_one_task_of_other_owner() -> None:
    machine = CheckedScheduler(workers=1)
    devices.set_queue_policy(machine.state, "main", "round_robin", ())
    machine.submit(50, cost=10_000.0)
    assert _new(machine) == pytest.approx(10)


def test_forecast_of_tasks_far_back_in_queue_is_within_one_percent() -> None:
    machine = CheckedScheduler(workers=1)
    tasks = machine.submit(20 * EXACT, cost=10_000.0)
    for place in (0, EXACT - 1, EXACT, 10 * EXACT, 20 * EXACT - 1):
        (value,) = _waits(machine, tasks[place])
        assert value == pytest.approx(place * 10, rel=0.01)


def test_forecasts_of_many_tasks_traverse_queue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = CheckedScheduler(workers=1)
    tasks = machine.submit(MAX_EXACT, cost=10_000.0)
    looked: list[int] = []
    shared = PoolQueue.shared
    monkeypatch.setattr(PoolQueue, "shared", lambda queue: looked.append(1) or shared(queue))
    waits = _waits(machine, *tasks, asked=10_000)
    assert waits == pytest.approx([place * 10 for place in range(MAX_EXACT)])
    assert len(looked) == 1


def test_forecast_counts_dedicated_worker_only_for_its_reservation() -> None:
    host = Claimant()
    number = host.reserve(5, workers=1).reservation
    host.assign()
    host.submit(11, cost=20_000.0)
    host.assign()
    assert _new(host) == pytest.approx(220)
    (first,) = host.under(number, cost=20_000.0)
    assert _waits(host, first) == [0]
    host.assign()
    (second,) = host.under(number, cost=20_000.0)
    assert _waits(host, second) == pytest.approx([20])
    assert running_tasks(host.state, host.ledger[number]) == [first]


def test_wait_of_parked_task_is_unknown() -> None:
    host = Claimant()
    host.policy("credit", total_credits=2)
    number = host.reserve(2).reservation
    host.under(number, 1, shots=2_000)
    (parked,) = host.under(number)
    assert Forecast(host.state, host.now_ns).task_us(host.state.tasks[parked]) == UNKNOWN


def test_forecast_of_pool_without_workers_includes_worker_start() -> None:
    machine = CheckedScheduler(min=0, max=1)
    assert _new(machine) == pytest.approx(1_000)
    machine.submit()
    machine.tick()
    machine.now_ns += 400 * MS
    assert _new(machine) == pytest.approx(600, rel=0.01)


def test_pool_of_several_ranks_has_forecast() -> None:
    machine = CheckedScheduler()
    machine.submit(along=wide(2))
    assert _new(machine, "main.x2") > 0
    machine.revive()
    machine.assign()
    assert _new(machine, "main.x2") > 4_000


def test_forecast_of_prefetched_task_counts_task_before_it() -> None:
    machine = CheckedScheduler(workers=1)
    first, second = machine.submit(2, cost=700.0)
    machine.assign()
    assert _waits(machine, first, second) == pytest.approx([0, 0.7])
    machine.now_ns += MS // 2
    assert _waits(machine, second) == pytest.approx([0.2])
    machine.begin(machine.state.tasks[first])
    outcome = Forecast(machine.state, machine.now_ns)
    assert outcome.task_us(machine.state.tasks[first]) == UNKNOWN
    machine.submit(along=route(3_000.0))
    assert _new(machine) == pytest.approx(0.9 + 3.0)
