"""Expected starts in the answers of the service."""

import time
from pathlib import Path

import msgspec
import pytest
from service import LIMITS, ServiceHarness, spec

from simenv.model import ReservationRequest, TaskOptions
from simenv.scheduler.core import Phase
from simenv.scheduler.views import expected_starts
from simenv.wire import codec
from simenv.wire.messages import admin, client as m, queries

SHOTS = 10**6


def flood(bench: ServiceHarness, count: int) -> None:
    for begin in range(0, count, 500):
        specs = [spec(begin + seed, shots=SHOTS) for seed in range(500)]
        bench.submit(*specs, key=f"~{begin}")


def test_queue_tasks_pools_and_target_agree(ready: ServiceHarness) -> None:
    flood(ready, 500)
    rows = ready.get(m.Queue, m.GetQueue(1, limit=1_000)).tasks
    waits = [row.wait_us for row in rows if row.wait_us >= 0]
    assert len(waits) > 400
    unsent = [row.wait_us for row in rows if row.wait_us >= 0 and not row.worker]
    assert unsent == pytest.approx(sorted(unsent), rel=0.05)  # runs of equal length
    (last,) = ready.get(m.Queue, m.GetTasks(1, [500])).tasks
    assert last.wait_us == pytest.approx(waits[-1], rel=0.1)
    (pool,) = ready.get(admin.Pools, admin.GetPools(1)).pools
    assert pool.wait_us >= 0.9 * last.wait_us > 0
    target = ready.get(admin.TargetReply, admin.GetTarget(1, "main")).info
    assert target.wait_ns / 1e3 == pytest.approx(pool.wait_us, rel=0.1)
    assert (pool.wait_off_by, target.wait_off_by, last.wait_off_by) == (0.0, 0.0, 0.0)
    explained = ready.get(
        queries.Explained, queries.Explain(1, TaskOptions(), spec().program, SHOTS)
    )
    (chosen,) = (each for each in explained.explanation.engines if each.chosen)
    assert chosen.wait_s == pytest.approx(pool.wait_us / 1e6, rel=0.1)


def test_simulation_of_a_long_queue_is_spread_over_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ServiceHarness(tmp_path, msgspec.structs.replace(LIMITS, max_queued_tasks=10**5))
    bench.join()
    flood(bench, 10_000)
    bench.loop.starts = expected_starts.ExpectedStarts(bench.state)  # nobody has asked before
    queries_, steps = bench.loop.query_queue, 0
    bench.peer.send(codec.encode(m.GetTasks(1, [10_000])))
    while not (answers := bench.heard()):
        if steps:
            queries_.process(0)  # the slice is over: one step
        else:
            bench.loop._drain(time.monotonic_ns(), is_alone=False)
        steps += 1
    assert steps > 50
    (answer,) = answers
    assert isinstance(answer, m.Queue)
    assert answer.tasks[0].wait_us > 0
    monkeypatch.setattr(expected_starts, "REFRESH_NS", -1)  # those are too old now
    bench.peer.send(codec.encode(m.GetTasks(1, [9_000])))
    bench.loop._drain(time.monotonic_ns(), is_alone=False)
    for _ in range(20):  # older starts are used while the next ones are simulated
        queries_.process(0)
    answers = bench.heard()
    assert answers[0].tasks[0].wait_us > 0  # type: ignore[union-attr]


def test_evaluation_counts_the_queue(ready: ServiceHarness) -> None:
    flood(ready, 500)
    decisions = [
        ready.get(
            admin.DecisionReply, admin.Reserve(1, ReservationRequest(device=device), dry=True)
        )
        for device in ("main", "")
    ]
    (pool,) = ready.get(admin.Pools, admin.GetPools(1)).pools
    for reply in decisions:
        wait_us = reply.decision.estimated_start_ns / 1e3 - time.time() * 1e6
        assert wait_us == pytest.approx(pool.wait_us, abs=2e6)


def test_typical_error_is_shown_after_tasks_have_started(ready: ServiceHarness) -> None:
    flood(ready, 500)
    pool = ready.state.pools["main"]
    pool.large.learn(1e6, 400e6)  # so that waits are long
    pool.small.learn(1e6, 400e6)
    assert ready.get(m.Queue, m.GetTasks(1, [400])).tasks[0].wait_us > 1e6
    while ready.state.tasks[400].phase == Phase.WAITING:
        ready.finish(ready.assigned())
    ready.loop._upkeep.run(idle=True)
    ready.finish(ready.assigned())
    for _ in range(3):
        ready.loop._upkeep.run(idle=True)
    (info,) = ready.get(admin.Pools, admin.GetPools(1)).pools
    assert info.wait_off_by > 1.0
