"""The lease of a worker, and its lifeline."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from failing import fails
from interpreter import python
from waiting import until

from simenv.wire import codec
from simenv.wire.keyfiles import KEYS_FORMAT, WorkerBootstrap, new_pair, write_private
from simenv.wire.messages.client import EXIT_LEASE, Heartbeat, Join, LeaseRenewed, StopWorker
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.zmq_transport import ZmqListener
from simenv.worker import session
from simenv.worker.runner import Runner
from simenv.worker.session import HeartbeatThread, RunningTask

WAIT_S = 60.0
LEASE_S = 0.1
EPOCH = 5
SERVER = new_pair()


@pytest.fixture
def doors() -> Iterator[ZmqListener]:
    with tempfile.TemporaryDirectory() as folder:
        zmq_listener = ZmqListener(Path(folder), SERVER)
        zmq_listener.folder = Path(folder)  # type: ignore[attr-defined]
        yield zmq_listener
        zmq_listener.close()


@pytest.fixture
def worker(doors: ZmqListener) -> Iterator[subprocess.Popen[bytes]]:
    nodename, folder = os.uname().nodename, doors.folder  # type: ignore[attr-defined]
    worker_bootstrap = WorkerBootstrap(
        KEYS_FORMAT, nodename, str(folder), "token", server_key=SERVER.public, epoch=EPOCH
    )
    write_private(folder / "worker.json", worker_bootstrap)
    argv = [sys.executable, "-P", "-m", "simenv.worker", "--name", "w-0", "--start", "7"]
    argv += ["--service", str(folder / "worker.json")]
    argv += ["--parent", str(os.getpid()), "--lease-s", "5"]
    argv += ["--kernels", os.environ["SIMENV_KERNELS"], "--results", str(doors.folder)]  # type: ignore[attr-defined]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stderr.close()


def hear(doors: ZmqListener, kind: type) -> tuple[bytes, object]:
    """The next message of a kind; beats on the way are not answered."""

    def look() -> tuple[bytes, object] | None:
        doors.wait(0.2)
        while (received := doors.receive()) is not None:
            message = codec.from_worker(received[2])
            if isinstance(message, kind):
                return received[1], message
        return None

    return until(look, WAIT_S, message=f"no {kind.__name__} came")


def test_worker_exits_when_lease_ends(doors: ZmqListener, worker: subprocess.Popen[bytes]) -> None:
    _, join = hear(doors, Join)
    assert (join.name, join.start, join.pid, join.epoch) == ("w-0", 7, worker.pid, EPOCH)
    assert worker.wait(WAIT_S) == EXIT_LEASE


def test_renewed_lease_keeps_worker(doors: ZmqListener, worker: subprocess.Popen[bytes]) -> None:
    hear(doors, Join)
    for _ in range(6):  # longer than the lease
        peer, beat = hear(doors, Heartbeat)
        assert (beat.task, beat.epoch, beat.start) == (0, EPOCH, 7)
        doors.send(PeerKind.WORKER, peer, codec.encode(LeaseRenewed(EPOCH)))
    assert worker.poll() is None
    doors.send(PeerKind.WORKER, peer, codec.encode(StopWorker("enough")))
    assert worker.wait(WAIT_S) == 0


def test_worker_ends_when_the_connection_for_tasks_alone_is_lost(
    doors: ZmqListener, worker: subprocess.Popen[bytes]
) -> None:
    peer, _ = hear(doors, Join)
    control, _ = hear(doors, Heartbeat)
    doors._streams._close(doors._streams._by_name[PeerKind.WORKER][peer])

    def has_ended() -> bool:
        doors.wait(0.2)
        while doors.receive() is not None:  # its lease does not end
            doors.send(PeerKind.WORKER, control, codec.encode(LeaseRenewed(EPOCH)))
        return worker.poll() is not None

    until(has_ended, WAIT_S, message="it goes on without work")
    assert worker.wait() == EXIT_LEASE
    assert b"has closed the connection" in worker.stderr.read()


class Held:
    """A connection during whose first wait no other thread ran, for longer than the lease."""

    def __init__(self) -> None:
        self.waits = 0

    def send(self, _body: bytes) -> None:
        return None

    def receive(self, _timeout_s: float) -> None:
        self.waits += 1
        if self.waits > 1:
            raise InterruptedError
        time.sleep(2 * LEASE_S)


def beat(connection: object, current: RunningTask, lease_s: float = LEASE_S, *more: object) -> None:
    """Run the thread of heartbeats until its connection ends it."""
    ends = (connection, current, "w-0", 1, EPOCH, lease_s, os.getppid(), *more)
    fails(InterruptedError, "", HeartbeatThread(*ends)._beat)  # type: ignore[arg-type]


def test_suspended_worker_reads_before_giving_up_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(code: int, why: str) -> None:
        raise AssertionError(why)

    monkeypatch.setattr(session, "exit_process", left)
    beat(Held(), RunningTask(Runner()))


class Recorded:
    """A connection that keeps the first heartbeat and then ends its thread."""

    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []

    def send(self, body: bytes) -> None:
        self.beats.append(codec.from_worker(body))

    def receive(self, _timeout_s: float) -> None:
        raise InterruptedError


@pytest.mark.parametrize("waiting", [True, False])
def test_a_heartbeat_says_whether_the_worker_waits_for_a_chunk(waiting: bool) -> None:
    connection, current = Recorded(), RunningTask(Runner())
    current.waiting = waiting
    beat(connection, current)
    assert [(beat.task, beat.waiting) for beat in connection.beats] == [(0, waiting)]


@pytest.mark.parametrize("task", [0, 7])
@pytest.mark.parametrize("loads", [False, True])
def test_heartbeat_names_the_memory_without_a_task_and_with_loaded_engines(
    monkeypatch: pytest.MonkeyPatch, task: int, loads: bool
) -> None:
    connection, runner = Recorded(), Runner()
    current = RunningTask(runner)
    monkeypatch.setattr("simenv.worker.runner.resident_bytes", lambda: 300)
    monkeypatch.setattr(session, "resident_bytes", lambda: 200)
    if loads:
        runner.engine("stabilizer")
    current.running = task, 1
    beat(connection, current, LEASE_S, lambda: 500)
    (found,) = connection.beats
    assert (found.rss_bytes, found.base_bytes) == (500, 300 if loads else 0 if task else 200)


class Answered:
    """A connection that renews the lease once, and ends the thread at the wait after the second
    heartbeat."""

    def __init__(self, *intervals_s: float) -> None:
        self.answers = [codec.encode(LeaseRenewed(EPOCH, *intervals_s, grants=7))]
        self.beats = 0
        self.grants: list[int] = []
        self.wait_s = 0.0

    def send(self, body: bytes) -> None:
        self.grants.append(codec.from_worker(body).grants)
        self.beats += 1

    def receive(self, timeout_s: float) -> bytes | None:
        if self.beats > 1:
            self.wait_s = timeout_s
            raise InterruptedError
        if self.answers:
            return self.answers.pop()
        time.sleep(timeout_s)
        return None


@pytest.mark.parametrize("running", [(0, 0), (3, 1)])
@pytest.mark.parametrize(("interval_s", "expected_s"), [(0.0, 0.1), (9.0, 9.0), (99.0, 20.0)])
def test_heartbeats_come_as_often_as_the_service_says(
    monkeypatch: pytest.MonkeyPatch, running: tuple[int, int], interval_s: float, expected_s: float
) -> None:
    monkeypatch.setattr(session, "BEAT_S", 0.1)
    monkeypatch.setattr(session, "IDLE_BEATS", 600)  # in a lease of 60 s
    connection, current = Answered(interval_s), RunningTask(Runner())
    current.running = running
    beat(connection, current, 60.0)
    assert connection.grants == [0, 7]
    # Less the time that the thread needs from the heartbeat to the wait.
    assert expected_s - 5.0 < connection.wait_s <= expected_s


def test_idle_worker_is_never_silent_longer_than_the_service_allows() -> None:
    connection = Answered(0.0, 1.2)  # with `silent_s` = 3, and a lease that alone allows 8 s
    beat(connection, RunningTask(Runner()), 60.0)
    assert connection.wait_s <= 1.2, "also the pause that had begun before the answer"


def test_child_dies_with_its_parent_process() -> None:
    child = "import sys, time; from simenv.sandbox.die_with_parent import bind_to_parent;"
    child += "bind_to_parent(int(sys.argv[1])); print('armed', flush=True); time.sleep(60)"
    starter = (
        "import os,subprocess,sys,time;"
        f"p=subprocess.Popen([sys.executable,'-c',{child!r},str(os.getpid())],"
        "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until(lambda: not psutil.pid_exists(pid), message="the child outlives its starter")


def test_child_without_given_parent_watches_its_actual_parent() -> None:
    script = "import os; from simenv.sandbox.die_with_parent import bind_to_parent;"
    script += "assert bind_to_parent(0) == os.getppid(); print(os.getppid())"
    assert int(python("-c", script).stdout) == os.getpid()


def test_child_whose_given_parent_is_gone_exits_at_once(tmp_path: Path) -> None:
    script = "from simenv.sandbox.die_with_parent import bind_to_parent; bind_to_parent(1)"
    out = python("-c", script, check=False, cwd=tmp_path)
    assert out.returncode == 1
    assert "the parent process (pid 1) has ended" in out.stderr
