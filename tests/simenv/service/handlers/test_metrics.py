"""What the service counts and reports, over a real loop: each number agrees with what happened."""

from statistics import median
from types import SimpleNamespace

import pytest
from msgspec import structs
from reservation_harness import ReservationHarness
from service import ServiceHarness, spec

from noise_models import library as profiles
from simenv.model import TaskOptions, TaskState, WorkerState
from simenv.scheduler.core import Phase
from simenv.scheduler.state.nodes import Worker
from simenv.service.devices.registry import device_info
from simenv.service.durations import DurationBuckets
from simenv.service.handlers.metrics import figures, slot_s
from simenv.service.telemetry.counters import TaskCounters
from simenv.service.telemetry.recorder import sample
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.metrics import (
    BUCKETS,
    LEAST_EXPONENT,
    MAX_LABELS,
    OTHER,
    GetMetrics,
    Metrics,
)  # fmt: skip
from simenv.wire.transport.sockets import PeerKind


def read(service: ServiceHarness) -> Metrics:
    return service.get(Metrics, GetMetrics(1))


@pytest.mark.parametrize("exponent", range(LEAST_EXPONENT + 1, LEAST_EXPONENT + BUCKETS - 1))
def test_bucket_of_power_of_two_ends_with_it(exponent: int) -> None:
    bound_us = int(2.0**exponent * 1e6)
    durations = DurationBuckets()
    durations.add(bound_us)
    assert sum(durations.histogram().counts[: exponent - LEAST_EXPONENT + 1]) == 1
    durations.add(int(2.0**exponent * 1e6) + 1)
    assert sum(durations.histogram().counts[: exponent - LEAST_EXPONENT + 1]) == 1
    assert durations.histogram().sum_s == (2 * bound_us + 1) / 1e6


@pytest.mark.parametrize(("us", "index"), [(0, 0), (-5, 0), (1, 1), (10**18, BUCKETS - 1)])
def test_durations_outside_range_are_in_outer_buckets(us: int, index: int) -> None:
    durations = DurationBuckets()
    durations.add(us)
    assert durations.histogram().counts.index(1) == index


def test_many_different_durations_are_all_counted() -> None:
    one_by_one, together = DurationBuckets(), DurationBuckets()
    values = [-5, 10**18, 0, *range(1_500, 0, -1), 2**40, 10**18]
    for us in values:
        one_by_one.add(us)
    together.add_all(values)
    together.add_all([])
    assert one_by_one.histogram() == together.histogram()
    assert sum(together.histogram().counts) == len(values)
    assert together.histogram().sum_s == pytest.approx(sum(values) / 1e6)


def test_accounts_beyond_limit_are_counted_together() -> None:
    counters = TaskCounters()
    for number in range(MAX_LABELS + 50):
        counters.account(f"a{number}", 10)
    counters.account("a0", 5)
    assert len(counters.slot_us) == MAX_LABELS + 1
    assert counters.slot_us["a0"] == 15
    assert counters.slot_us[OTHER] == 500


def test_figures_of_a_device_are_medians_of_its_gates() -> None:
    ions = figures("ions", device_info("ions", profiles.load("trapped-ions"), ""))
    assert (ions.error_1q, ions.error_2q) == (5e-5, 1.2e-3), "one value for all qubits"
    lattice = device_info("lattice", profiles.load("superconducting-lattice"), "")
    wanted = [each.error for each in lattice.operations if each.name in ("sx", "x", "id")]
    assert figures("lattice", lattice).error_1q == median(wanted), "rz is a frame change"


def test_ended_tasks_are_counted_by_state_with_wait_and_run(ready: ServiceHarness) -> None:
    ready.submit(*(spec(seed) for seed in range(5)))
    before = read(ready)
    assert before.service.accepted == 5
    (pool,) = before.pools
    assert (pool.done, pool.failed, sum(pool.run.counts)) == (0, 0, 0)
    tasks = ready.assigned()
    ready.finish(tasks[:3])
    ready.finish(tasks[3:], TaskState.FAILED, b"")
    (pool,) = read(ready).pools
    assert (pool.done, pool.failed, pool.cancelled, pool.expired) == (3, 2, 0, 0)
    assert sum(pool.run.counts) == sum(pool.wait.counts) == 5
    assert pool.run.sum_s == pytest.approx(5 * 10e-6)  # each ran 10 us
    assert pool.run.counts[-16 - LEAST_EXPONENT] == 5  # 10 us is at most 2^-16 s, 15.3 us
    assert 0 <= pool.wait.sum_s < 60


def test_waiting_tasks_and_their_oldest_are_reported(bench: ServiceHarness) -> None:
    assert read(bench).pools[0].oldest_s == 0.0
    bench.submit(spec(1), key="~1")
    bench.submit(spec(2), key="~2")
    first = bench.state.tasks[1]
    (pool,) = read(bench).pools
    assert pool.waiting == 2
    assert pool.oldest_s > 0.0
    bench.peer.send(b"")  # a pass
    bench.say(m.Cancel(2, [first.number]))
    (later,) = read(bench).pools
    assert (later.waiting, later.cancelled) == (1, 1)
    assert sum(later.wait.counts) == 0, "it was never sent"


def test_lost_workers_and_attempts_are_counted(ready: ServiceHarness) -> None:
    ready.submit(spec())
    assert ready.assigned()
    ready.paper.kill("main-0")
    ready.step()
    metrics = read(ready)
    assert metrics.pools[0].workers_lost == 1
    assert metrics.service.lost_attempts == 1
    assert metrics.pools[0].workers == {"STARTING": 1}


def test_slots_used_are_those_of_tasks_between_two_samples(ready: ServiceHarness) -> None:
    """Tasks that have ended before a sample has nothing of are counted."""
    before = read(ready)
    ready.submit(spec())
    during = read(ready)
    assert (during.pools[0].slots_granted, during.pools[0].workers) == (1, {"BUSY": 1})
    (node,) = during.nodes
    assert (node.state, node.slots, node.slots_granted) == ("up", 2, 1)
    ready.finish(ready.assigned())
    after = read(ready)
    assert after.pools[0].slots_granted == after.nodes[0].slots_granted == 0
    used_s = after.pools[0].slot_s - before.pools[0].slot_s
    seconds = after.service.at_s - before.service.at_s
    assert 0.0 < used_s < seconds  # on one slot
    assert sample(after, before)["slots_used"] == (pytest.approx(used_s / seconds), "slots")


def test_slots_used_count_running_tasks_and_survive_a_lost_attempt(ready: ServiceHarness) -> None:
    before = read(ready)
    pool = structs.replace(before.pools[0], slot_s=100.0, slots_granted=2)
    later = structs.replace(
        before,
        service=structs.replace(before.service, at_s=before.service.at_s + 10.0),
        pools=[structs.replace(pool, slot_s=115.0)],
    )
    assert sample(later, structs.replace(before, pools=[pool]))["slots_used"][0] == 1.5
    lost = structs.replace(later, pools=[structs.replace(pool, slot_s=20.0)])
    assert sample(lost, structs.replace(before, pools=[pool]))["slots_used"][0] == 2.0
    worker = Worker("w", "main", WorkerState.BUSY, 0, 0, 1, (), None, slots=3)  # type: ignore[arg-type]
    running = SimpleNamespace(phase=Phase.RUNNING, started_ns=10**9)
    worker.held[1] = running  # type: ignore[assignment]
    assert slot_s([], [worker], 3 * 10**9) == 6.0
    running.phase = Phase.SENT
    assert slot_s([], [worker], 3 * 10**9) == 0.0


def test_heartbeats_carry_load_of_worker_and_node(ready: ServiceHarness) -> None:
    assert read(ready).nodes[0].cpu_s == -1.0
    start, epoch = ready.paper.commands["main-0"].start, ready.journal.epoch
    beat = m.Heartbeat("main-0", epoch, 0, 0, 5000, start, None, True, False, 1500, 90_000, 2**30)
    ready.listener.connect(PeerKind.WORKER, b"control").send(codec.encode(beat))
    ready.step()
    metrics = read(ready)
    assert (metrics.pools[0].workers_bytes, metrics.pools[0].workers_cpu_s) == (5000, 1.5)
    assert (metrics.nodes[0].cpu_s, metrics.nodes[0].memory_used_bytes) == (90.0, 2**30)


def test_commits_passes_and_refusals_are_counted(ready: ServiceHarness) -> None:
    before = read(ready).service
    ready.submit(spec(shots=-1))
    ready.submit(spec())
    after = read(ready).service
    assert after.refused == before.refused + 1
    assert sum(after.commit.counts) > sum(before.commit.counts)
    assert sum(after.loop_pass.counts) > sum(before.loop_pass.counts)
    assert after.commit.sum_s > before.commit.sum_s
    assert after.disk_free_bytes <= after.disk_bytes
    assert after.journal_works


def test_usage_and_budget_are_by_account(office: ReservationHarness) -> None:
    office.join()
    office.say(m.Submit(5, "~a", 0, TaskOptions(), [spec()]), office.ana)
    office.finish(office.assigned())
    accounts = {each.name: each for each in read(office).accounts}
    assert accounts[""].slot_s > 0.0
    assert accounts[""].month_units == pytest.approx(accounts[""].slot_s, rel=0.1)  # with memory
