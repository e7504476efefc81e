"""What the loop makes of a launcher's words, and of workers that are a name and a start."""

import sys
import time
from pathlib import Path

import msgspec
import pytest
from memory_transport import MemoryConnection
from service import LIMITS, NODE, ServiceHarness, completions, spec

from launcher.base import Command, Exit, LauncherEvent, Node, Share
from simenv.model import ProgressInfo, WorkerState
from simenv.scheduler.state.scheduler_state import MAX_CUT_OFF
from simenv.scheduler.views.cluster_info import node_infos, pool_infos
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import Pools, ResumeNode, Scale
from simenv.wire.transport.sockets import PeerKind

GIB = 2**30
NODES = (Node("n1", 2, GIB), Node("n2", 2, GIB))
TWO = msgspec.structs.replace(LIMITS, slots=4, memory_bytes=2 * GIB, nodes=NODES, max_ranks=4)
OPTIONS = {"limits": TWO}


def events(bench: ServiceHarness, kind: str) -> list[tuple[str, str]]:
    return [(each.subject, each.message) for each in bench.events(kind)]


def last(worker: MemoryConnection) -> object:
    value = None
    while (body := worker.receive(0.0)) is not None:
        value = codec.to_worker(body)
    return value


def is_ready(bench: ServiceHarness) -> bool:
    return bench.state.cluster.workers["main-0"].state in (WorkerState.IDLE, WorkerState.BUSY)


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_worker_command_line_names_all_but_keys(tmp_path: Path) -> None:
    pool = {"name": "pair", "engine": "statevector", "min": 1, "max": 1, "ranks": 2}
    bench = ServiceHarness(tmp_path, limits=TWO, pools=[pool])
    command = bench.paper.commands["pair-0"]
    argv = command.argv
    assert argv[:4] == (sys.executable, "-P", "-m", "simenv.worker")
    assert option(argv, "--service") == str(tmp_path.resolve() / "worker.json")
    assert (option(argv, "--name"), option(argv, "--start")) == ("pair-0", str(command.start))
    assert (option(argv, "--engine"), option(argv, "--ranks")) == ("statevector", "2")
    assert (option(argv, "--log"), option(argv, "--parent")) == (str(command.log), "0")
    assert sum(share.ranks for share in command.shares) == command.ranks == 2
    shown = [each.replace(str(tmp_path), "") for each in argv]
    assert "key" not in " ".join([*shown, *(f"{k}={v}" for k, v in command.environ)]).lower()


def test_start_of_crashed_service_cannot_join_as_worker_of_the_next(bench: ServiceHarness) -> None:
    """It loads its modules during the crash, and finds the new service by `worker.json`."""
    earlier = bench.paper.commands["main-0"].start
    bench.restart()
    left = bench.listener.connect(PeerKind.WORKER, b"left")
    join = m.Join("test", "main-0", 1, NODE, bench.state.epoch, (), earlier)
    left.send(codec.encode(join))
    bench.step()
    assert isinstance(last(left), m.StopWorker)
    bench.join()
    assert is_ready(bench)


def test_heartbeat_of_another_worker_start_is_answered_with_stop(bench: ServiceHarness) -> None:
    work = bench.join()
    start = bench.paper.commands["main-0"].start
    ghost = bench.listener.connect(PeerKind.WORKER, b"main-0.0!")
    ghost.send(codec.encode(m.Heartbeat("main-0", bench.journal.epoch, 0, 0, 10, start - 1)))
    bench.step()
    assert isinstance(last(ghost), m.StopWorker)
    own = bench.listener.connect(PeerKind.WORKER, f"main-0.{start}!".encode())
    own.send(codec.encode(m.Heartbeat("main-0", bench.journal.epoch, 0, 0, 10, start)))
    bench.step()
    intervals_s = bench.scheduler.state.cluster.heartbeat_intervals_s
    assert 0.0 < intervals_s[0] < intervals_s[1]
    assert last(own) == m.LeaseRenewed(bench.journal.epoch, *intervals_s)
    assert last(work) is None


def test_pool_shows_last_log_line_of_worker_that_exits_early(bench: ServiceHarness) -> None:
    command = bench.paper.commands["main-0"]
    command.log.write_text("line one\nCOMM_WORLD has size 1, 4 were told\n")
    bench.paper.gone.append(Exit("main-0", 0, m.EXIT_MPI, "exit 105", command.start))
    bench.step()
    (info,) = pool_infos(bench.state)
    assert (info.reason, info.state) == ("exit 105: COMM_WORLD has size 1, 4 were told", "degraded")
    bench.state.cluster.pools["main"].starts.next_ns = 0
    bench.step()  # the next process of that name ends before it writes anything
    start = bench.paper.commands["main-0"].start
    assert start != command.start
    bench.paper.gone.append(Exit("main-0", 0, m.EXIT_MPI, "exit 105", start))
    bench.step()
    (info,) = pool_infos(bench.state)
    assert info.reason == "exit 105"
    bench.paper.fails = "prte: no room for a helper"
    bench.state.cluster.pools["main"].starts.next_ns = 0
    bench.step()
    (info,) = pool_infos(bench.state)
    assert "no room for a helper" in info.reason


def test_start_that_fails_without_a_text_has_failed(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no memory for another process."""

    def fail(_command: Command) -> int:
        raise MemoryError

    command = bench.paper.commands["main-0"]
    bench.paper.gone.append(Exit("main-0", 0, 1, "exit 1", command.start))
    bench.step()
    monkeypatch.setattr(bench.paper, "start", fail)
    bench.state.cluster.pools["main"].starts.next_ns = 0
    bench.step()
    (info,) = pool_infos(bench.state)
    assert "MemoryError" in info.reason


@pytest.mark.parametrize(
    ("code", "silent_s", "deaths"),
    [
        (m.EXIT_LEASE, 9, 0),
        (m.EXIT_ORPHAN, 9, 0),
        (m.EXIT_LEASE, 5, 1),  # a function ended its process: the service was in touch with it
        (m.EXIT_ORPHAN, 5, 1),
        (m.EXIT_LEASE, 0, 0),  # the service was suspended, and did not renew the lease
        (-11, 9, 1),
        (-9, 0, 0),  # with its DVM
    ],
)
def test_task_is_charged_for_exits_it_may_cause(
    ready: ServiceHarness, code: int, silent_s: int, deaths: int
) -> None:
    ready.submit(spec())
    (task,) = ready.assigned()
    start, dvm_lost = ready.paper.commands["main-0"].start, code == -9
    ready.state.cluster.workers["main-0"].heard_ns -= silent_s * 10**9
    if not silent_s and not dvm_lost:
        ready.state.last_tick_ns -= 16 * 10**9
    ready.paper.gone.append(Exit("main-0", 0, code, "gone", start, infrastructure_failure=dvm_lost))
    ready.paper.said += [LauncherEvent("dvm.lost", "1", "prte was killed")] * dvm_lost
    ready.step()
    assert ready.state.tasks[task.task].deaths == deaths
    assert events(ready, "dvm.lost") == [("1", "prte was killed")] * dvm_lost


@pytest.mark.parametrize(("silent_s", "losses"), [(5, 3), (9, MAX_CUT_OFF + 3)])
def test_task_that_fakes_cut_off_workers_fails(
    ready: ServiceHarness, silent_s: int, losses: int
) -> None:
    ready.submit(spec())
    for _ in range(losses):
        assert ready.state.tasks
        (command,) = ready.paper.commands.values()
        ready.join(command.name)
        ready.assigned()
        ready.state.cluster.workers[command.name].heard_ns -= silent_s * 10**9
        ready.paper.commands.clear()
        ready.paper.gone.append(Exit(command.name, 0, m.EXIT_LEASE, "exit 103", command.start))
        ready.step()
        ready.loop.state.cluster.pools["main"].starts.next_ns = 0
        ready.step()
    assert not ready.state.tasks
    (completion,) = completions(ready.heard())
    assert codec.failure(completion.payload).reason == "poison"


def test_the_tasks_of_a_lost_node_run_on_another_until_it_is_back(ready: ServiceHarness) -> None:
    ready.submit(spec())
    ready.assigned()
    (share,) = ready.paper.commands["main-0"].shares
    ready.paper.said.append(LauncherEvent("node.lost", share.node, "it does not answer"))
    ready.step()
    assert events(ready, "node.lost") == [(share.node, "it does not answer")]
    ((name, command),) = ready.paper.commands.items()
    (other,) = command.shares
    assert other.node != share.node
    status = ready.get(m.Status, m.GetStatus(1))
    assert f"node {share.node} is lost: it does not answer" in status.info.warnings
    ready.join(name)
    (again,) = ready.assigned()
    ready.finish([again])
    assert not ready.state.tasks
    ready.paper.said.append(LauncherEvent("node.back", share.node, ""))
    ready.step()
    assert {node.state for node in node_infos(ready.state)} == {"up"}


def test_resumed_node_has_no_workers_while_launcher_misses_it(bench: ServiceHarness) -> None:
    node = bench.paper.commands["main-0"].shares[0].node
    bench.paper.sought.add(node)
    bench.paper.said.append(LauncherEvent("node.lost", node, "no answer"))
    bench.step()
    assert {n.name: n.state for n in bench.get(Pools, ResumeNode(1, node)).nodes}[node] == "lost"
    ((_, words),) = events(bench, "node.resumed")
    assert words == "once it is back (no answer; it is looked for)"
    bench.say(Scale(2, "main", 4, 4))
    assert node not in {s.node for c in bench.paper.commands.values() for s in c.shares}
    bench.paper.said.append(LauncherEvent("node.back", node, "it answers again"))
    bench.say(Scale(3, "main", 6, 6))
    bench.step()
    assert node in {s.node for c in bench.paper.commands.values() for s in c.shares}


def test_status_reports_no_more_ranks_than_slots(bench: ServiceHarness) -> None:
    bench.state.limits = msgspec.structs.replace(TWO, max_ranks=4096)
    assert bench.get(m.Status, m.GetStatus(1)).info.max_ranks == 4


def test_worker_start_event_lists_its_nodes_and_ranks(tmp_path: Path) -> None:
    pools = [{"name": "wide", "engine": "statevector", "min": 1, "max": 1, "ranks": 4}]
    bench = ServiceHarness(tmp_path, limits=TWO, pools=pools)
    assert bench.paper.commands["wide-0"].shares == (Share("n1", 2), Share("n2", 2))
    ((_, words),) = events(bench, "worker.started")
    assert words == "pool wide on n1 (2 ranks), n2 (2 ranks)"
    workers = bench.get(m.Workers, m.GetWorkers(1))
    assert [(w.ranks, w.state) for w in workers.workers] == [(4, WorkerState.STARTING)]


@pytest.mark.parametrize(("left_s", "drains"), [(59, True), (120, False), (600, False)])
def test_service_drains_in_last_minute_of_allocation_and_warns_before(
    tmp_path: Path, left_s: float, drains: bool
) -> None:
    limits = msgspec.structs.replace(TWO, end_ns=time.monotonic_ns() + round(left_s * 1e9))
    bench = ServiceHarness(tmp_path, limits=limits, drain_timeout_s=600.0)
    assert bench.state.draining is drains
    if not drains:
        (warning,) = bench.get(m.Status, m.GetStatus(1)).info.warnings
        left = "10 min" if left_s == 600 else f"{left_s} s"
        assert warning.startswith(f"the allocation ends in {left}")
        return
    ((_, words),) = events(bench, "allocation.ends")
    assert "takes the nodes back" in words
    # What runs has until a quarter of a minute before the end.
    assert 40 < (bench.loop.lifecycle.stop_at_ns - time.monotonic_ns()) / 1e9 < 45
    bench.restart()
    assert len(events(bench, "allocation.ends")) == 2  # once a start


def test_progress_from_heartbeat_is_shown_for_its_task_only(ready: ServiceHarness) -> None:
    ready.submit(spec(), spec())
    (assigned,) = ready.assigned()[:1]
    start = ready.paper.commands["main-0"].start
    control = ready.listener.connect(PeerKind.WORKER, f"main-0.{start}!".encode())

    def beat(task: int, progress: ProgressInfo | None = None) -> list[ProgressInfo | None]:
        entries = (ready.journal.epoch, task, assigned.attempt, 10, start)
        control.send(codec.encode(m.Heartbeat("main-0", *entries, progress)))
        ready.step()
        (queue,) = (each for each in ready.say(m.GetQueue(1)) if isinstance(each, m.Queue))
        return [info.progress for info in queue.tasks]

    progress = ProgressInfo("passes", 7, 9, 7 / 9)
    assert (beat(assigned.task, progress), beat(assigned.task)) == ([progress, None], [None, None])
