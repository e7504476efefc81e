"""Progress of workers that start: a log that grows for ever is none."""

from types import SimpleNamespace
from typing import Any

import pytest

from simenv.sandbox import progress
from simenv.service.workers import starts


def test_log_counts_as_progress_a_few_times_between_two_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, since = [1_000.0], list[float]()
    clock = SimpleNamespace(monotonic=lambda: now_s[0], monotonic_ns=lambda: round(now_s[0] * 1e9))
    monkeypatch.setattr(starts, "time", clock)
    monkeypatch.setattr(progress, "monotonic", clock.monotonic)
    monkeypatch.setattr(progress, "cpu_share", lambda: 1.0)
    worker = SimpleNamespace(name="main-0", start=1)
    workers = SimpleNamespace(starting={"main-0": worker})
    pools = {"main": SimpleNamespace(workers=workers)}
    scheduler: Any = SimpleNamespace(
        state=SimpleNamespace(cluster=SimpleNamespace(pools=pools)),
        worker_starts=lambda _name, _start, since_ns: since.append(now_s[0] - since_ns / 1e9),
    )
    monitor = starts.StartMonitor(scheduler, lambda _: round(now_s[0]))

    def passes(seconds: int, kernels: int) -> float:
        for _ in range(seconds):
            now_s[0] += 1.0
            monitor.look(kernels)
        return since[-1]

    assert passes(starts.MAX_LOG_STEPS, 0) < 2.0
    assert passes(60, 0) > 50.0
    assert passes(1, 1) < 2.0
    assert passes(starts.MAX_LOG_STEPS - 1, 1) < 2.0
    assert passes(60, 1) > 50.0
