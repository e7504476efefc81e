"""Standbys: what clients notice when the node of the service dies, is cut off, or is stopped.

The nodes are network namespaces of this machine (bench/testbed/cluster.py): two that serve in
turns, and one with PostgreSQL, which forces commits to disk, and with a client, which submits
without a pause by TCP. Some of its tasks always run and some wait. The lease has its default.

    kills        the power of the leading service's node is cut; it comes back as a standby
    partitions   the leader's cable is pulled while a second client, which reaches it by its socket,
                 submits there; it comes back and finds that it does not lead
    freezes      the leader's process is stopped with a submit before it, and continues when another
                 one leads

The time is that until the other node has written the connection file; the gap, that without an
accepted submit of the client, is longer by its reconnection.
"""

from __future__ import annotations

import time
from argparse import Namespace
from contextlib import ExitStack

from qiskit import QuantumCircuit

from bench.harness import Option, Report
from bench.harness.environments import home
from bench.testbed.cluster import hosts
from bench.testbed.failover import FailoverSite, Load, failover_site
from simenv.client.client import Client
from simenv.client.tasks.task import Task

RESULT_S = 120.0
OPTIONS = (
    Option("--kills", default=50, help="of the leader's node", quick=2),
    Option("--partitions", default=10, help="of the leader's node", quick=1),
    Option("--freezes", default=5, help="of the leader's process", quick=1),
)


def run(options: Namespace) -> Report:
    report = Report("failover", "failover: a leader, a standby, PostgreSQL on a third node")
    with ExitStack() as stack:
        stack.enter_context(home())
        cluster = stack.enter_context(hosts(3))
        site = stack.enter_context(failover_site(cluster, safe=True))
        load, near = stack.enter_context(site.load()), stack.enter_context(site.client())
        kills_s = []
        for _ in range(options.kills):
            fault_s = time.monotonic()
            kills_s.append(_noted("kill", site.crash()))
            load.await_service(fault_s)
        others_s, near_tasks = _two_leaders(site, load, near, options)
        seen = load.end()
        done = near.status().done
    kills = f"slowest of {options.kills} kills"
    report.at_most("takeover_s", max(kills_s), f"another node leads, {kills}")
    others = f"slowest of {options.partitions} partitions and {options.freezes} stops"
    report.at_most("takeover_s", max(others_s), f"another node leads, {others}")
    report.at_most("gap_s", seen.longest_gap_s, "longest time without an accepted submit")
    tasks = f"of {seen.accepted} accepted tasks, {seen.attempts - seen.accepted} of which ran again"
    report.at_most("lost", seen.lost, f"lost {tasks}")
    doubled = seen.doubled + abs(done - seen.accepted - near_tasks)
    report.at_most("doubled", doubled, "ends and tasks that nobody asked for")
    report.at_most("wrong", seen.wrong, "results with other counts")
    return report


def _two_leaders(
    site: FailoverSite, load: Load, near: Client, options: Namespace
) -> tuple[list[float], int]:
    """Let two services think that they lead, again and again; return the times and the number of
    tasks of the client that submits to the old one."""
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.measure_all()
    times_s = []

    def submit() -> Task:
        return near.submit(circuit, shots=10)

    for what, act in [
        *(("partition", site.cut_off),) * options.partitions,
        *(("stop", site.freeze),) * options.freezes,
    ]:
        fault_s = time.monotonic()
        taken_s, task = act(submit)
        load.await_service(fault_s)
        times_s.append(_noted(what, taken_s))
        assert task.result(RESULT_S).counts == {"1": 10}
    return times_s, len(times_s)


def _noted(what: str, taken_s: float) -> float:
    print(f"{what}: {taken_s:.1f} s", flush=True)
    return taken_s
