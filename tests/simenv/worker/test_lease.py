"""A real worker process and a service that falls silent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simenv.wire import codec
from simenv.wire.connection import Door, ZmqDoors
from simenv.wire.messages import EXIT_LEASE, Beat, Join, Lease, StopWorker

WAIT_S = 60.0
EPOCH = 5


@pytest.fixture
def doors() -> Iterator[ZmqDoors]:
    with tempfile.TemporaryDirectory() as folder:
        made = ZmqDoors(Path(folder))
        made.folder = Path(folder)  # type: ignore[attr-defined]
        yield made
        made.close()


@pytest.fixture
def worker(doors: ZmqDoors) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-P", "-m", "simenv.worker", "--name", "w-0", "--epoch", str(EPOCH)]
    argv += ["--socket", str(doors.folder / "worker.sock")]  # type: ignore[attr-defined]
    argv += ["--parent", str(os.getpid()), "--lease-s", "3"]
    argv += ["--kernels", os.environ["SIMENV_KERNELS"], "--results", str(doors.folder)]  # type: ignore[attr-defined]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def hear(doors: ZmqDoors, kind: type) -> tuple[bytes, object]:
    """The next message of a kind; beats on the way are not answered."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        doors.wait(0.2)
        while (received := doors.receive()) is not None:
            message = codec.from_worker(received[2])
            if isinstance(message, kind):
                return received[1], message
    raise AssertionError(f"no {kind.__name__} came")


def test_a_worker_without_a_word_from_its_service_ends_itself(
    doors: ZmqDoors, worker: subprocess.Popen[bytes]
) -> None:
    _, join = hear(doors, Join)
    assert isinstance(join, Join)
    assert (join.name, join.pid, join.epoch) == ("w-0", worker.pid, EPOCH)
    assert worker.wait(WAIT_S) == EXIT_LEASE


def test_a_worker_whose_service_answers_stays_and_ends_when_told(
    doors: ZmqDoors, worker: subprocess.Popen[bytes]
) -> None:
    hear(doors, Join)
    for _ in range(5):  # longer than the lease
        peer, beat = hear(doors, Beat)
        assert isinstance(beat, Beat)
        assert (beat.task, beat.epoch) == (0, EPOCH)
        doors.send(Door.WORKER, peer, codec.encode(Lease(EPOCH)))
    assert worker.poll() is None
    doors.send(Door.WORKER, peer, codec.encode(StopWorker("enough")))
    assert worker.wait(WAIT_S) == 0
