"""Scaling of an environment over several nodes, with gangs and a node's death.

The nodes are network namespaces of this machine (bench/testbed/cluster.py) with two slots each, and
share its cores: throughput shows the cost of more workers and nodes on this machine, not the gain
from real ones.

    throughput   circuits per second of 6 workers on three nodes, and of 2 on one
    gang         26 qubits with 512 MiB a slot need 4 ranks: the time from the submit until they
                 run, on an environment of small workers; the latency of 200 small circuits, one
                 every 25 ms, compared with that on an environment of only the 2 slots that the
                 gang leaves free
    mixed        4,000 small circuits and 2 gangs: the share of slots granted while small circuits
                 wait. A gang that waits alone for four slots leaves the other two unused.
    death        workers lost when a node dies, with one DVM for each node
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from qiskit import QuantumCircuit

from bench.circuits import measured
from bench.harness import Option, Report, timed_s
from bench.small_circuits import layered
from bench.testbed.cluster import Cluster, hosts
from bench.testbed.cluster_environment import environment, wait_for
from simenv.client.client import Client
from simenv.client.result import Result

PARTS = ("throughput", "gang", "mixed", "death")
NODES = "node1:2,node2:2,node3:2"
SLOT = ("--memory-per-slot", "512MiB")
SMALL = (12, 40 * 36)  # qubits, gates: the widest circuits that count as small; a few ms each
GANG_QUBITS = 26
SMALL_CALLS_DURING, EVERY_S = 200, 0.025
MIXED, GANGS = 4_000, 2
LOOK_S = 0.02
TASK_S = 600.0
OPTIONS = (Option("--only", choices=PARTS, action="append", help="a part; default: all"),)


def run(options: Namespace) -> Report:
    report = Report("cluster", "scaling: nodes of 2 slots, as namespaces of this machine")
    run = {"throughput": _throughput, "gang": _gang, "mixed": _mixed, "death": _death}
    for part in dict.fromkeys(options.only or PARTS):
        with hosts(3) as cluster:
            run[part](report, cluster)
    return report


def _wide(seed: int) -> QuantumCircuit:
    """Return a circuit of 26 qubits and few gates; its cost is memory. It entangles all qubits:
    parts that are not entangled would be evolved one by one."""
    gates = [("ry", (qubit,), (0.1 + 0.01 * seed,)) for qubit in range(GANG_QUBITS)]
    pairs = [("cx", (qubit, qubit + 1), ()) for qubit in range(GANG_QUBITS - 1)]
    return measured(GANG_QUBITS, [*gates, *pairs])


def _throughput(report: Report, cluster: Cluster) -> None:
    """Compare six workers over three nodes with two on one; all share the same cores."""
    circuits = layered(*SMALL, 120, 1)
    rates = []
    for nodes, workers in (("node1:2", 2), (NODES, 6)):
        with _cluster_client(cluster, nodes, workers) as client:
            _all(client, circuits[: 2 * workers])
            rates.append(len(circuits) / timed_s(partial(_all, client, circuits)))
        print(f"{workers} workers on {nodes}: {rates[-1]:.1f} circuits/s")
    share = 100 * rates[1] / rates[0]
    report.at_least("six_of_two_percent", share, "6 workers on 3 nodes, of 2 on one, %")


def _gang(report: Report, cluster: Cluster) -> None:
    with _cluster_client(cluster, "node3:2", 2) as client:
        without_load = _p95(_timed_small_circuits(client))
    with _cluster_client(cluster, NODES, 6, *SLOT) as client:
        gang = client.submit(_wide(1), shots=100, seed=1, engine="statevector")
        busy = _p95(_timed_small_circuits(client))
        result = gang.result(TASK_S)
    assert result.ranks == 4, f"{result.ranks} ranks"
    waited = result.timing.queued_s + result.timing.sent_s
    print(
        f"small circuits, p95: {1e3 * without_load:.0f} ms on 2 slots, "
        f"{1e3 * busy:.0f} ms with the gang"
    )
    report.at_most("gang_start_s", waited, "26 qubits on 4 ranks, submit to running, s")
    report.at_most(
        "gang_beside", busy / without_load, "p95 of small circuits beside a gang, of without"
    )


def _timed_small_circuits(client: Client) -> list[Result]:
    """Submit small circuits at fixed intervals without waiting; return their results."""
    circuits = layered(*SMALL, SMALL_CALLS_DURING, 2)
    _all(client, circuits[:4])
    tasks = []
    begin = time.monotonic()
    for number, circuit in enumerate(circuits):
        time.sleep(max(0.0, begin + number * EVERY_S - time.monotonic()))
        tasks.append(client.submit(circuit, shots=100, seed=number))
    return [task.result(TASK_S) for task in tasks]


def _p95(results: list[Result]) -> float:
    """Return the 95th percentile of the time from the submit to the end of the run, in seconds."""
    times = [result.timing for result in results]
    waits = [t.accepted_s + t.queued_s + t.sent_s + t.run_s for t in times]
    return statistics.quantiles(waits, n=20)[-1]


def _mixed(report: Report, cluster: Cluster) -> None:
    circuits = layered(*SMALL, MIXED, 3)
    used = []
    with _cluster_client(cluster, NODES, 6, *SLOT) as client:
        gangs = [
            client.submit(_wide(k), shots=100, seed=k, engine="statevector") for k in range(GANGS)
        ]
        tasks = client.submit_many(circuits, shots=100, seed=1)
        while (info := client.status()).queued > GANGS:
            used.append(info.slots_granted / info.slots)
            time.sleep(LOOK_S)
        for task in (*gangs, *tasks):
            task.result(TASK_S)
    label = f"{MIXED:,} small circuits and {GANGS} gangs, slots used while circuits wait, %"
    report.at_least("mixed_slots_percent", 100 * statistics.mean(used), label)


def _death(report: Report, cluster: Cluster) -> None:
    """Report the workers lost when a node dies under load; print the fate of the tasks."""
    settings = cluster.folder / "simenv.toml"
    settings.write_text('[launcher]\nuse = "prte"\nnodes_per_dvm = 1\n')
    with _cluster_client(cluster, NODES, 6, "--config", str(settings)) as client:
        tasks = client.submit_many(layered(*SMALL, 400, 4), shots=100, seed=1)
        wait_for("all workers run", lambda: all(worker.task for worker in client.workers()))
        last_event = max(event.seq for event in client.events())
        cluster.crash("node3")
        for task in tasks:
            task.result(TASK_S)
        events = list(client.events(since=last_event))
    count = Counter(event.kind for event in events)
    # One that is started again on the dead node, before it counts as lost, is lost twice.
    lost = {event.subject for event in events if event.kind == "worker.lost"}
    cluster.boot("node3")
    print(f"{count['task.requeued']} tasks requeued, {count['worker.ready']} workers started again")
    report.at_most("lost_workers", len(lost), "workers lost with a node, one DVM a node")


@contextmanager
def _cluster_client(cluster: Cluster, hosts: str, workers: int, *args: str) -> Iterator[Client]:
    """Run an environment of small workers on these nodes; yield a client when all are ready."""
    options = ("--hosts", hosts, "--pool", f"main:workers={workers}", *args)
    with environment(cluster, *options) as up, up.client() as client:
        wait_for("workers", lambda: client.pools()["main"].workers == workers, 120.0)
        yield client


def _all(client: Client, circuits: list[QuantumCircuit]) -> None:
    for task in client.submit_many(circuits, shots=100, seed=1):
        task.result(TASK_S)
