"""The watch looks sooner at a worker that may pass its bound, and at idle ones less often."""

import subprocess
import sys

import pytest
from waiting import until

from simenv.service.workers.memory_watch import (
    IDLE_S,
    LEAST_S,
    PERIOD_S,
    MemoryWatch,
    WatchedWorker,
    next_look_s,
)

GIB = 2**30
BUSY = WatchedWorker(1, 1, 4 * GIB, has_tasks=True)


@pytest.mark.parametrize(
    ("used", "grown", "expected_s"),
    [
        (GIB, 0, PERIOD_S),
        (GIB, GIB // 1024, PERIOD_S),
        (3 * GIB, GIB, PERIOD_S / 2),  # in another PERIOD_S it is full
        (3 * GIB, 2 * GIB, PERIOD_S / 4),
        (4 * GIB - 1, GIB, LEAST_S),
        (5 * GIB, 0, LEAST_S),
    ],
)
def test_next_look_comes_before_the_bound_is_passed(
    used: int, grown: int, expected_s: float
) -> None:
    assert next_look_s(BUSY, used, grown, PERIOD_S) == expected_s


def test_workers_without_tasks_are_looked_at_less_often() -> None:
    idle = BUSY._replace(has_tasks=False)
    assert next_look_s(idle, GIB, GIB, PERIOD_S) == IDLE_S


def test_processes_that_a_worker_starts_are_measured() -> None:
    source = "import os, sys; os.fork(); held = bytearray(os.urandom(64 << 20)); sys.stdin.read()"
    watch = MemoryWatch()
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE) as it:
        watch.add("main-0", 3, it.pid)
        watch.set_bound("main-0", GIB, has_tasks=True)
        until(lambda: (found := watch.take().get(("main-0", 3))) and found.used_bytes > 128 << 20)
        watch.remove("main-0")
        until(lambda: not watch.take())
        it.communicate()
    watch.close()
