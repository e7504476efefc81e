"""One environment over three nodes: where its processes are, what runs where, and the numbers."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from circuits import chain, layered
from qiskit import QuantumCircuit

from simenv.client.client import Client
from testbed.cluster import Cluster
from testbed.cluster_environment import (
    HEAD,
    WORKER,
    Environment,
    environment,
    orphans,
    wait_for,
)

HOSTS = "node1:2,node2:2,node3:2"
POOLS = (
    "sv:engine=statevector,workers=6", "tn:engine=mps,workers=1", "cl:engine=stabilizer,workers=1",
    "big:engine=statevector,workers=1,ranks=4",
)  # fmt: skip
WORKERS, RANKS = 9, 12
IDLE_S = 5.0
WOKEN = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)
WAKES_A_S = 5  # of one rank: heartbeats, and their answers
WINDOWS = 6  # what was done just before may have its after-effects


@pytest.fixture(scope="module")
def up(three: Cluster) -> Iterator[Environment]:
    entries = [word for pool in POOLS for word in ("--pool", pool)]
    with environment(three, "--hosts", HOSTS, *entries) as result:
        yield result


@pytest.fixture(scope="module")
def env(up: Environment) -> Iterator[Client]:
    with up.client() as client:
        wait_for("all workers are there", lambda: len(ready(client)) == WORKERS)
        yield client


def ready(client: Client) -> list[str]:
    return [worker.name for worker in client.workers() if worker.state == "IDLE"]


def test_each_node_has_one_daemon(up: Environment, env: Client) -> None:
    """Exactly one prte, beside the service, and one daemon on each other node."""
    count = {on: (len(up.of("prte", on)), len(up.of("prted", on))) for on in up.cluster.hosts}
    assert count == {"node1": (1, 0), "node2": (0, 1), "node3": (0, 1)}


def test_each_rank_is_descendant_of_prte_or_prted(up: Environment, env: Client) -> None:
    assert not orphans(up.cluster)
    daemons = {up.of("prte")[0].pid, *(process.pid for process in up.of("prted"))}
    ranks = up.of(WORKER)
    assert len(ranks) == RANKS
    for rank in ranks:
        assert daemons & {each.pid for each in rank.parents()}, rank


def test_workers_are_spread_over_nodes(env: Client) -> None:
    spread = Counter(worker.node for worker in env.workers() if worker.pool == "sv")
    assert spread == {"node1": 2, "node2": 2, "node3": 2}


def test_worker_on_another_node_uses_tcp(up: Environment, env: Client) -> None:
    """Sockets in the file system end at the host; the hosts here share it, real ones do not."""
    address = up.cluster.hosts[HEAD].address
    for worker in env.workers():
        if worker.pool == "sv" and worker.node != HEAD:
            ask = ["ss", "--no-header", "--tcp", "--processes", "state", "established"]
            output = up.cluster.run(worker.node, [*ask, "dst", address]).stdout
            assert f"pid={worker.pid}," in output, worker


def test_pools_of_three_engines_run_side_by_side(env: Client) -> None:
    short = [layered(18, 60, seed) for seed in range(12)]  # slots are free again and again
    tasks = env.submit_many(short * 40, shots=10, pool="sv")
    tasks += env.submit_many([wide_mps(seed) for seed in range(40)], shots=500, pool="tn")
    tasks += env.submit_many([chain(900)] * 20, shots=1_000_000, pool="cl")
    try:
        wait_for("all busy", lambda: all(env.pools()[name].busy for name in ("sv", "tn", "cl")))
    except AssertionError as error:
        error.add_note("\n".join(map(repr, (*env.pools().values(), *env.workers()))))
        raise
    finally:
        env.cancel(tasks)


def wide_mps(seed: int) -> QuantumCircuit:
    """For about a second on a chain of tensors."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(24, 24)
    for layer in range(16):
        for qubit in range(layer % 2, 23, 2):
            circuit.ry(rng.uniform(0, 6), qubit)
            circuit.ry(rng.uniform(0, 6), qubit + 1)
            circuit.cx(qubit, qubit + 1)
    circuit.measure(range(24), range(24))
    return circuit


def test_circuits_are_spread_over_nodes(env: Client) -> None:
    """64 of >= 50 ms each: the node with most has at most 1.5 times those of the one with least."""
    circuits = [layered(20, 60, seed) for seed in range(64)]
    results = [task.result(180) for task in env.submit_many(circuits, shots=100, pool="sv")]
    assert min(result.timing.run_s for result in results) >= 0.05, "they are too short"
    spread = Counter(result.node for result in results)
    assert set(spread) == {"node1", "node2", "node3"}
    assert max(spread.values()) <= 1.5 * min(spread.values()), spread


def test_four_ranks_over_nodes_give_the_same_counts(up: Environment, env: Client) -> None:
    circuit = layered(12, 4, 1)
    bare = circuit.remove_final_measurements(inplace=False)
    assert bare is not None
    hosts = {
        name
        for name in up.cluster.hosts
        for rank in up.ranks("big-0")
        if rank in up.cluster.processes(name)
    }
    assert len(hosts) >= 2
    result = env.run(circuit, shots=5000, seed=3, pool="sv")
    four = env.run(circuit, shots=5000, seed=3, pool="big")
    assert four.worker.startswith("big")
    assert four.counts == result.counts
    result, four = (env.run(bare, outputs=("statevector",), pool=pool) for pool in ("sv", "big"))
    assert np.abs(result.statevector - four.statevector).max() <= 1e-10


def test_status_lists_every_node(up: Environment, env: Client) -> None:
    status = env.status()
    assert [node.name for node in status.nodes] == ["node1", "node2", "node3"]
    assert all(node.state == "up" and node.slots == 2 for node in status.nodes)
    assert "prte" in status.launcher
    assert "3 up" in up.simenv("status", host="node3").stdout


def test_idle_ranks_use_less_than_1_percent_of_a_core(up: Environment, env: Client) -> None:
    ranks = up.of(WORKER)
    wait_for("nothing runs", lambda: len(ready(env)) == WORKERS)
    for _ in range(WINDOWS):
        before, woken_before = sum(map(used_ns, ranks)), sum(map(woken, ranks))
        time.sleep(IDLE_S)
        used, wakes = sum(map(used_ns, ranks)) - before, sum(map(woken, ranks)) - woken_before
        if used < 0.01 * IDLE_S * 1e9:
            return
    # Where others use the caches, a heartbeat takes milliseconds. What polls wakes more often.
    assert wakes < WAKES_A_S * len(ranks) * IDLE_S, f"{wakes} wake-ups in {IDLE_S} s"
    assert used < 0.02 * len(ranks) * IDLE_S * 1e9, f"{used / 1e9} s of CPU in {IDLE_S} s"


def woken(process: psutil.Process) -> int:
    """How often its threads were woken."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int(WOKEN.findall((thread / "status").read_text())[0]) for thread in threads)


def used_ns(process: psutil.Process) -> int:
    """CPU time of all its threads."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
