"""A worker of several ranks under a real mpirun: its tasks, its stops, its deaths, its idleness."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zmq
from ranked import EPOCH, NAME, START, Ranked, ranked
from service import program

from simenv.model import ResultData, TaskOptions, TaskState
from simenv.wire import codec
from simenv.wire.keyfiles import KEYS_FORMAT, WorkerBootstrap, write_private
from simenv.wire.messages import client as m
from simenv.worker.runner import Runner
from simulators.fault.engine import ALONE, FAULT_BASE, RAISE, SLOW
from testbed.ranks import mpirun

pytestmark = pytest.mark.skipif(mpirun() is None, reason="there is no mpirun")
END_S = 300.0  # for what takes some 5 s on a quiet machine
WIDE = 17  # qubits: four ranks and more hold them together
CHUNK = m.AssignChunk(1, 2**30, True, "fault", "test", [TaskOptions()], [])


@pytest.fixture(scope="module")
def pair() -> Iterator[Ranked]:
    """Two ranks, for tests that leave them alive."""
    with ranked(2, "--engine", "fault") as worker:
        worker.joined()
        yield worker


def faulty(code: int, seconds: float = 0.0) -> bytes:
    """`program(WIDE)` behind what tells the fault engine what to do."""
    plain = program(WIDE)
    head = [FAULT_BASE + code] + ([seconds] if code == SLOW else [])
    return msgspec.structs.replace(
        plain,
        names=(*plain.names, "rx"),
        arities=plain.arities + np.array([1, 0, 1], np.uint16).tobytes(),
        ops=np.full(len(head), len(plain.names), np.uint16).tobytes() + plain.ops,
        qubits=bytes(2 * len(head)) + plain.qubits,
        params=np.array(head).tobytes() + plain.params,
    ).packed()


def task(number: int, packed: bytes) -> m.AssignedTask:
    return m.AssignedTask(number, 1, 0, packed, 1000, 5, b"", 0)


def chunk(*tasks: m.AssignedTask, terms: TaskOptions | None = None) -> m.AssignChunk:
    return msgspec.structs.replace(CHUNK, terms=[terms or TaskOptions()], tasks=list(tasks))


def answers(worker: Ranked, order: m.AssignChunk) -> list[m.AttemptResult]:
    before = sum(len(done.results) for done in worker.of(m.AttemptResults))
    worker.tell(order)
    return worker.results(before + len(order.tasks))[before:]


def counts(found: m.AttemptResult) -> tuple[bytes, bytes]:
    assert m.STATES[found.state] is TaskState.DONE
    data = msgspec.msgpack.decode(found.payload, type=ResultData)
    return data.outcomes, data.counts


def alone(one: m.AssignedTask) -> tuple[bytes, bytes]:
    """What a worker of one rank counts."""
    order = chunk(one)
    return counts(Runner().run(one, order.terms[0], order, time.perf_counter_ns()))


def gone(worker: Ranked, ranks: list[psutil.Process]) -> int:
    """Waits for the end of all; mpirun's exit status."""
    assert psutil.wait_procs(ranks, END_S)[1] == []
    return worker.process.wait(END_S)


def test_counts_are_equal_for_1_and_2_ranks_and_join_names_worker_and_node(pair: Ranked) -> None:
    join = pair.joined()
    assert (join.name, join.start, join.epoch, join.ranks) == (NAME, START, EPOCH, 2)
    assert join.node == os.uname().nodename
    tasks = [task(1, program(WIDE, 0.7).packed()), task(2, program(3).packed())]
    result = answers(pair, chunk(*tasks))
    assert [counts(each) for each in result] == [alone(each) for each in tasks]


def test_error_on_all_ranks_fails_the_task_and_worker_continues(pair: Ranked) -> None:
    plain, terms = program(WIDE).packed(), TaskOptions(outputs=("statevector",))
    refused = answers(pair, chunk(task(3, plain), terms=terms))
    raised = answers(pair, chunk(task(4, faulty(RAISE)), task(5, plain)))
    states = [m.STATES[each.state] for each in (*refused, *raised)]
    assert states == [TaskState.FAILED, TaskState.FAILED, TaskState.DONE]
    assert "measure" in codec.failure(refused[0].payload).message
    assert "asked to raise" in codec.failure(raised[0].payload).message


def test_stop_request_stops_all_ranks_and_early_one_skips_its_task(pair: Ranked) -> None:
    started = len(pair.of(m.Started))
    pair.tell(m.StopTask(8, 1, "cancelled"))
    pair.tell(chunk(task(7, faulty(SLOW, 600.0)), task(8, faulty(SLOW, 600.0))))
    pair.wait(lambda: len(pair.of(m.Started)) > started)
    before = sum(len(done.results) for done in pair.of(m.AttemptResults))
    pair.tell(m.StopTask(7, 1, "cancelled"))
    item = pair.results(before + 2)[before:]
    assert [each.task for each in item] == [7, 8]
    assert {m.STATES[each.state] for each in item} == {TaskState.CANCELLED}
    (last,) = answers(pair, chunk(task(9, program(WIDE).packed())))
    assert counts(last) == alone(task(9, program(WIDE).packed()))


def test_idle_ranks_use_almost_no_cpu_time(pair: Ranked) -> None:
    answers(pair, chunk(task(10, program(WIDE).packed())))
    ranks = pair.ranks()
    assert len(ranks) == 2

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in ranks)

    for _ in range(10):
        before = used()
        time.sleep(2.0)  # what is measured is the time that passes without work
        burned = used() - before
        if burned <= 0.04:  # two ticks each; a rank that spins has 200
            return
    raise AssertionError(f"{burned} s of CPU in 2 s")


def test_heartbeat_reports_memory_of_all_ranks(pair: Ranked) -> None:
    ranks = pair.ranks()
    heard = len(pair.beats)
    pair.wait(lambda: len(pair.beats) > heard + 1)
    least = min(process.memory_info().rss for process in ranks)
    assert pair.beats[-1].rss_bytes > 1.5 * least


def test_messages_of_unauthenticated_peers_to_ranks_are_ignored(pair: Ranked) -> None:
    entries = [  # MPI's own are on all interfaces
        entry.laddr.port
        for process in pair.ranks()
        for entry in process.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr.ip.endswith("127.0.0.1")
    ]
    assert len(entries) == 2
    with zmq.Context() as context, ExitStack() as open_sockets:
        for each in entries:
            open_sockets.enter_context(knock(context, each, None))
            open_sockets.enter_context(knock(context, each, zmq.curve_keypair()))
        result = answers(pair, chunk(task(11, program(WIDE).packed())))
    assert [counts(item) for item in result] == [alone(task(11, program(WIDE).packed()))]


@contextmanager
def knock(
    context: zmq.Context[zmq.Socket[bytes]], door: int, keys: tuple[bytes, bytes] | None
) -> Iterator[None]:
    """Send what ends a rank, to one that listens there."""
    socket = context.socket(zmq.PUSH)
    socket.set(zmq.LINGER, 0)
    if keys is not None:
        socket.set(zmq.CURVE_PUBLICKEY, keys[0])
        socket.set(zmq.CURVE_SECRETKEY, keys[1])
        socket.set(zmq.CURVE_SERVERKEY, zmq.curve_keypair()[0])
    monitor = socket.get_monitor_socket(zmq.EVENT_CONNECTED)
    socket.connect(f"tcp://127.0.0.1:{door}")
    assert monitor.poll(1000 * END_S)
    with suppress(zmq.Again):
        socket.send_multipart((b"e", b""), zmq.NOBLOCK)
    yield
    socket.disable_monitor()
    monitor.close()
    socket.close()


def test_four_ranks_have_one_log_each_and_exit_cleanly_when_stopped() -> None:
    with ranked(4) as worker:
        worker.joined()
        result = task(1, program(WIDE).packed())
        order = msgspec.structs.replace(chunk(result), engine="statevector")
        assert [counts(each) for each in answers(worker, order)] == [alone(result)]
        ranks = worker.ranks()
        worker.tell(m.StopWorker("enough"))
        assert gone(worker, ranks) == 0
        logs = sorted(path.name for path in worker.folder.glob(f"{NAME}*.log"))
        assert logs == [f"{NAME}.log", *(f"{NAME}.r{rank}.log" for rank in (1, 2, 3))]
        assert "ending: enough" in (worker.folder / f"{NAME}.log").read_text()


@pytest.mark.parametrize("is_killed", [True, False])
def test_worker_exits_when_stopped_during_a_task_or_a_rank_is_killed(is_killed: bool) -> None:
    with ranked(2, "--engine", "fault") as worker:
        worker.tell(chunk(task(1, faulty(SLOW, 600.0))))
        worker.wait(lambda: worker.of(m.Started))
        ranks = worker.ranks()
        if is_killed:
            ranks[1].kill()
        else:
            worker.tell(m.StopWorker("enough"))
        status = gone(worker, ranks)
        assert status != 0 or not is_killed


def test_error_on_one_rank_ends_worker_with_traceback_in_log() -> None:
    with ranked(2, "--engine", "fault") as worker:
        worker.tell(chunk(task(1, faulty(ALONE))))
        worker.wait(lambda: worker.of(m.Started))
        gone(worker, worker.ranks())
        assert not worker.of(m.AttemptResults)
        log = (worker.folder / f"{NAME}.log").read_text()
        assert "only 1 of 2 ranks failed" in log
        assert "Traceback" in log
        assert "asked to raise" in log


@pytest.mark.parametrize("victim", [0, 1])
def test_silent_rank_ends_the_other_ranks(victim: int) -> None:
    with ranked(2, "--lease-s", "12") as worker:
        worker.joined()
        ranks = worker.ranks()
        ranks[victim].send_signal(signal.SIGSTOP)
        assert psutil.wait_procs([ranks[1 - victim]], END_S)[1] == []
        log = worker.folder / (f"{NAME}.log" if victim else f"{NAME}.r1.log")
        assert f"no message from rank {victim} for 4 s" in log.read_text()
        gone(worker, ranks)


def test_wrong_world_size_exits_with_mpi_error(tmp_path: Path) -> None:
    worker_bootstrap = WorkerBootstrap(
        KEYS_FORMAT, os.uname().nodename, str(tmp_path), "token", epoch=EPOCH
    )
    write_private(tmp_path / "worker.json", worker_bootstrap)
    argv = [sys.executable, "-P", "-m", "simenv.worker", "--name", "w", "--start", "1"]
    argv += ["--service", str(tmp_path / "worker.json"), "--parent", "0", "--ranks", "4"]
    argv += ["--kernels", os.environ["SIMENV_KERNELS"], "--results", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, timeout=END_S, check=False)
    assert done.returncode == m.EXIT_MPI
    assert b"COMM_WORLD has size 1, 4 were requested" in done.stderr


def test_single_rank_worker_does_not_import_mpi4py() -> None:
    script = "import sys, simenv.worker.main; sys.exit('mpi4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", script], check=False).returncode == 0
