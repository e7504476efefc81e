"""A worker dies in the middle of a long run: the next attempt goes on from there."""

from __future__ import annotations

import os
import signal
import time

import pytest
from circuits import layered
from live import PATIENCE_S, environment

from simenv import config
from simenv.store.reading import KEPT

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_a_long_run_begins_anew_or_counts_something_else() -> None:
    circuit = layered(23, 80, 1)
    with environment(checkpoint_s=0.2) as live, live.client() as env:
        undisturbed = env.submit(circuit, shots=200, seed=3).result(timeout=PATIENCE_S)
        assert undisturbed.remark == ""
        told = config.read(live.home / "config.json")
        kept = config.places(told).results / KEPT
        task = env.submit(circuit, shots=200, seed=3)
        deadline = time.monotonic() + PATIENCE_S
        seen: set[tuple[int, int]] = set()
        while not (list(kept.glob(f"{task.id}/*.h5")) and seen):
            assert time.monotonic() < deadline
            (info,) = env.tasks([task])
            assert info.state not in ("DONE", "FAILED"), "it was too short"
            seen |= {(info.passes_done, info.passes)} if info.passes_done else set()
            time.sleep(0.005)
        assert all(0 < done <= passes for done, passes in seen)
        busy = next(worker for worker in env.workers() if worker.task == task.id)
        os.kill(busy.pid, signal.SIGKILL)
        result = task.result(timeout=PATIENCE_S)
        assert result.attempts == 2
        assert result.remark.startswith("from pass ")
        assert result.counts == undisturbed.counts
        assert not (kept / task.id).exists()
