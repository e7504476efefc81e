"""Parts of an environment over three nodes die or fall silent, each time with tasks running.

What was lost runs again within 15 s, every task ends once with the counts of an undisturbed run,
no process that nobody needs is left after 30 s, and the environment says what happened. One
environment lives through all of it, in this order.
"""

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from cluster_drill import Drill, is_gone

from testbed.cluster import Cluster
from testbed.cluster_environment import HELPER, WORKER, environment, wait_for

QUIET_S = 3.0  # for the daemons to tell one another who has ended
HOSTS = "node1:2,node2:2,node3:2"
POOLS = ("--pool", "sv:engine=statevector,workers=3")
POOLS += ("--pool", "big:engine=statevector,workers=1,ranks=4")
RANKS = 3 + 4


@pytest.fixture(scope="module")
def drill(three: Cluster) -> Iterator[Drill]:
    with environment(three, "--hosts", HOSTS, *POOLS) as up, up.client() as env:
        yield Drill(up, env)


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def everything(drill: Drill) -> list[psutil.Process]:
    """Ranks and daemons on all nodes: what goes with the DVM."""
    return [each for word in (WORKER, "prte", "prted") for each in drill.up.of(word)]


def test_task_of_a_killed_rank_runs_again(drill: Drill) -> None:
    drill.ready()
    ranks = drill.up.ranks("big-0")
    assert len(ranks) == 4
    others = [each for each in drill.up.of(WORKER) if each not in ranks]
    drill.load("big", 4)
    (worker,) = drill.busy("big")
    kill(next(rank for rank in ranks if rank.pid != worker.pid))
    drill.survived(ranks)
    assert all(map(psutil.Process.is_running, others)), "it took other workers along"
    assert [event.subject for event in drill.told("worker.lost")] == [worker.name]


def test_task_of_a_killed_worker_runs_again(drill: Drill) -> None:
    drill.load()
    worker = drill.busy_elsewhere()
    kill(psutil.Process(worker.pid))
    drill.survived([])
    (lost,) = drill.told("worker.lost")
    assert lost.subject == worker.name
    assert "SIGKILL" in lost.message


def test_killed_pmix_helper_ends_no_worker_and_is_restarted(drill: Drill) -> None:
    """The one who speaks PMIx for us: workers run on, and it is there again for the next start."""
    drill.ready()
    before: list[psutil.Process] = []

    def nothing_but_ranks() -> bool:
        before[:] = drill.up.of(WORKER)
        return len(before) == RANKS

    # A process that a new worker starts for a moment looks like it.
    wait_for("nothing but ranks", nothing_but_ranks)
    (helper,) = drill.up.of(HELPER)
    drill.load()
    killed = psutil.Process(drill.busy()[0].pid)
    kill(helper)
    kill(killed)
    drill.survived([helper, killed])
    drill.whole()
    assert [each for each in before if is_gone(each)] == [killed]
    assert drill.told("launcher.helper")


def test_environment_recovers_after_daemon_is_killed(drill: Drill) -> None:
    drill.ready()
    doomed = everything(drill)
    daemons = {node: drill.up.of("prted", node) for node in drill.up.cluster.hosts}
    drill.load()
    (daemon,) = daemons[drill.busy_elsewhere().node]
    kill(daemon)
    drill.survived(doomed)
    assert drill.told("dvm.lost")
    drill.whole()
    assert len(drill.up.of("prted")) == 2


def test_environment_recovers_after_prte_is_killed(drill: Drill) -> None:
    drill.ready()
    doomed = everything(drill)
    (prte,) = drill.up.of("prte")
    drill.load()
    drill.busy()
    kill(prte)
    drill.survived(doomed)
    assert drill.told("dvm.lost")
    assert drill.told("dvm.started")


def test_environment_recovers_after_node_crash_and_uses_node_after_boot(drill: Drill) -> None:
    drill.ready()
    doomed = everything(drill)
    drill.load()
    node = drill.busy_elsewhere().node
    drill.up.cluster.crash(node)
    drill.survived(doomed)
    lost(drill, node)
    drill.up.cluster.boot(node)
    back(drill, node)


def test_environment_recovers_after_network_partition_of_node(drill: Drill) -> None:
    """The node runs on, and nobody reaches it: what it had is run elsewhere, and ends there by
    itself before the cable is back."""
    drill.ready()
    doomed = everything(drill)
    # A daemon of PRTE waits for the acknowledgement of what it has just sent until TCP gives up
    # (`tcp_retries2`, docs/guides/hpc.md). One that has sent nothing is gone after seconds.
    time.sleep(QUIET_S)
    drill.load()
    node = drill.busy_elsewhere().node
    drill.up.cluster.unplug(node)
    drill.survived(doomed)
    lost(drill, node)
    drill.up.cluster.replug(node)
    back(drill, node)


def lost(drill: Drill, node: str) -> None:
    """Events and status say that the node is lost, and why."""
    (event,) = drill.told("node.lost")
    assert event.subject == node
    item = drill.env.nodes()[node]
    assert item.state == "lost"
    assert item.reason
    assert item.reason in drill.up.simenv("status").stdout
    assert all(worker.node != node for worker in drill.env.workers())


def back(drill: Drill, node: str) -> None:
    """It is found by itself, and one more worker goes there: nobody else is on it."""
    wait_for(f"{node} is up", lambda: drill.env.nodes()[node].state == "up")
    number = drill.size["sv"]
    drill.env.scale("sv", number + 1)
    wait_for("it is used", lambda: node in drill.homes("sv"))
    drill.env.scale("sv", number)
    drill.whole()
