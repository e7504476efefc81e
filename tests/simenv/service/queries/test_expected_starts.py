"""Expected starts in the answers of the service."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest
from service import LIMITS, ServiceHarness, spec

from simenv.model import ReservationRequest, TaskOptions
from simenv.scheduler.core import Phase
from simenv.scheduler.forecast import expected_starts
from simenv.scheduler.forecast.expected_starts import LONG_FROM, ExpectedStarts
from simenv.scheduler.forecast.simulated_cluster import Starts
from simenv.wire import codec
from simenv.wire.messages import admin, client as m
from simenv.wire.messages.explain import Explain, Explained

SHOTS = 10**6


def flood(bench: ServiceHarness, count: int) -> None:
    for begin in range(0, count, 500):
        specs = [spec(begin + seed, shots=SHOTS) for seed in range(500)]
        bench.submit(*specs, key=f"~{begin}")


def test_answers_with_waits_agree(ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_starts, "LEAST_NS", 600 * 10**9)  # one forecast for all answers
    monkeypatch.setattr(expected_starts, "REFRESH_NS", 600 * 10**9)
    flood(ready, 500)
    rows = ready.get(m.Queue, m.GetQueue(1, limit=1_000)).tasks
    waits = [row.wait_us for row in rows if row.wait_us >= 0]
    assert len(waits) > 400
    unsent = [row.wait_us for row in rows if row.wait_us >= 0 and not row.worker]
    assert unsent == pytest.approx(sorted(unsent), rel=0.05)  # runs of equal length
    (last,) = ready.get(m.Queue, m.GetTasks(1, [500])).tasks
    start_us = last.wait_us + last.wait_age_us
    assert start_us == pytest.approx(rows[-1].wait_us + rows[-1].wait_age_us, rel=0.01)
    (pool,) = ready.get(admin.Pools, admin.GetPools(1)).pools
    new_us = pool.wait_us + pool.wait_age_us
    assert new_us >= 0.9 * start_us > 0
    target = ready.get(admin.TargetReply, admin.GetTarget(1, "main")).info
    assert (target.wait_ns + target.wait_age_ns) / 1e3 == pytest.approx(new_us, rel=0.01)
    assert (pool.wait_off_by, target.wait_off_by, last.wait_off_by) == (0.0, 0.0, 0.0)
    question = Explain(1, TaskOptions(), spec().program, SHOTS)
    explained = ready.get(Explained, question)
    (chosen,) = (each for each in explained.explanation.engines if each.chosen)
    assert 1e6 * (chosen.wait_s + chosen.wait_age_s) == pytest.approx(new_us, rel=0.01)


def test_passes_go_on_while_a_long_queue_is_simulated(tmp_path: Path) -> None:
    """The answer that waits for it comes after others, and later ones use its starts."""
    bench = ServiceHarness(tmp_path, msgspec.structs.replace(LIMITS, max_queued_tasks=10**5))
    bench.join()
    flood(bench, 1_000)
    begun, go_on = threading.Event(), threading.Event()

    def run(simulate: Callable[[Callable[[], object]], Starts]) -> Future[Starts]:
        def held(pause: Callable[[], object]) -> Starts:
            begun.set()
            assert go_on.wait(60.0)
            return simulate(pause)

        return bench.loop.forecasts.run(held)

    bench.loop.starts = ExpectedStarts(bench.state, run)
    bench.peer.send(codec.encode(m.GetTasks(1, [1_000])))
    bench.loop.run_once(0.01)
    assert begun.wait(60.0)
    bench.peer.send(codec.encode(m.Submit(5, "another", 0, TaskOptions(), [spec(1)])))
    while not (answers := bench.heard()):
        bench.loop.run_once(0.01)
    assert [type(answer) for answer in answers] == [m.Accepted]
    go_on.set()
    while not (answers := [each for each in bench.heard() if isinstance(each, m.Queue)]):
        bench.loop.run_once(0.01)
    assert answers[0].tasks[0].wait_us > 0
    go_on.clear()
    begun.clear()
    bench.loop.starts._last = msgspec.structs.replace(
        bench.loop.starts._last, now_ns=time.monotonic_ns() - 3 * 10**9, passes=LONG_FROM
    )
    (row,) = bench.get(m.Queue, m.GetTasks(1, [900])).tasks
    assert row.wait_us >= 0
    assert begun.wait(60.0), "the next one has begun"
    go_on.set()


def slow_runs(bench: ServiceHarness) -> None:
    """Each task is expected to run for 400 s: the test's own time is little beside the waits."""
    pool = bench.state.cluster.pools["main"]
    pool.large.learn(1e6, 400e6)
    pool.small.learn(1e6, 400e6)
    bench.loop.starts = ExpectedStarts(bench.state, bench.loop.forecasts.run)  # none so far


def test_evaluation_counts_the_queue(ready: ServiceHarness) -> None:
    flood(ready, 500)
    slow_runs(ready)
    (pool,) = ready.get(admin.Pools, admin.GetPools(1)).pools
    for device in ("main", ""):
        ask = admin.Reserve(1, ReservationRequest(device=device), dry=True)
        asked_ns = time.time_ns()
        decision = ready.get(admin.DecisionReply, ask).decision
        least, most = (
            (decision.estimated_start_ns - now_ns) / 1e3 for now_ns in (time.time_ns(), asked_ns)
        )
        assert least / 1.2 <= pool.wait_us <= 1.2 * most


def test_typical_error_is_shown_after_tasks_have_started(ready: ServiceHarness) -> None:
    flood(ready, 500)
    slow_runs(ready)
    assert ready.get(m.Queue, m.GetTasks(1, [400])).tasks[0].wait_us > 1e6
    while ready.state.tasks[400].phase == Phase.WAITING:
        ready.finish(ready.assigned())
    ready.loop._upkeep.run(idle=True)
    ready.finish(ready.assigned())
    for _ in range(3):
        ready.loop._upkeep.run(idle=True)
    (info,) = ready.get(admin.Pools, admin.GetPools(1)).pools
    assert info.wait_off_by > 1.0
