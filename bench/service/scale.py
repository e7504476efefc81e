"""Size: one service with 4,096 simulated workers on 1,024 nodes that come by jobs.

Real: the service, its start, configuration, sockets, keys, journal and launcher of jobs, and the
client that submits. Simulated (`bench.testbed.simulated_nodes`): the batch system, the agents and
the workers, whose connections, keys and messages are those of real ones. A worker has each result
at once, so that the tasks of all workers cost this machine no more than those of two.

The workers join, send heartbeats, and run tasks of 4 qubits, as many for the same environment with
two workers before. Then a tenth of the nodes falls silent at once, as after a loss of power. With
`--workers 256 1024 4096` each size is measured, and a line is fitted to the service's processor
time for heartbeats, which an environment of 10,000 nodes would need (docs/reference/scale.md).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report
from bench.harness.environments import cpu_s, service_process, started
from bench.testbed.simulated_nodes import Site, site
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.model import TaskOptions, TaskState
from simenv.wire.messages import client as m
from simenv.worker.runner import Runner

NAME = "bench-scale"
PER_NODE = 4
FARMS = 2  # processes of nodes that stay, besides that of the tenth that is lost
BATCH = 5_000
JOIN_S, LOSS_S, WORK_S = 600.0, 120.0, 1_800.0
LOOK_S = 0.1
SETTLE_S = 5.0
IDLE_S = 10.0  # of heartbeats alone
LARGE_NODES = 10_000
OPTIONS = (
    Option("--workers", nargs="+", default=[4_096], quick=[256]),
    Option("--tasks", default=1_000_000, quick=50_000),
)


class Measured(NamedTuple):
    """One size. Times in seconds; `beats_share`: of a core, for heartbeats alone."""

    workers: int
    join_s: float
    beats_share: float
    tasks_per_s: float
    task_us: float  # processor time of the service
    rss_bytes: int
    idle_bytes: int  # before the tasks
    loop_p99_ms: float
    longest_ms: float
    lost_s: float  # until the loss of the last worker of the silent nodes was recorded
    whole_s: float  # until others have taken their place


def run(options: Namespace) -> Report:
    report = Report("scale", f"scale: simulated workers, {PER_NODE} a node")
    payload = _payload()
    with _environment(2, 2, payload) as (client, _):
        two_per_s, two_us = _work(client, options.tasks)
    print(f"2 workers: {two_per_s:,.0f} tasks/s, {two_us:.1f} us of the service each\n")
    sizes = []
    for workers in options.workers:
        with _environment(workers, PER_NODE, payload) as (client, where):
            sizes.append(_measured(client, where, workers, options.tasks))
        _print(sizes[-1])
    most = sizes[-1]
    label = f"{most.workers} workers"
    report.at_most("loop_p99_ms", most.loop_p99_ms, f"{label}: passes of the loop, p99, ms")
    report.at_most("rss_gib", most.rss_bytes / 2**30, f"{label}: memory of the service, GiB")
    share = most.tasks_per_s / two_per_s
    report.at_least("throughput_share", share, f"{label}: tasks a second, relative to two workers")
    report.at_most("lost_s", most.lost_s, f"{label}: to notice the death of a tenth, s")
    if len(sizes) > 1:
        _extrapolate(sizes)
    return report


def _payload() -> bytes:
    """Return the packed result of one task, as a real worker sends it."""
    program = load(four_qubit_circuit(1)).program
    body = program if isinstance(program, bytes) else program.packed()
    task = m.AssignedTask(1, 1, 0, body, 1024, 1, b"", 0)
    chunk = m.AssignChunk(1, 2**30, False, "statevector", "", [TaskOptions()], [task])
    result = Runner().run(task, TaskOptions(), chunk, time.perf_counter_ns())
    assert result.state == m.STATES.index(TaskState.DONE), result.payload
    return result.payload


@contextmanager
def _environment(workers: int, per_node: int, payload: bytes) -> Iterator[tuple[Client, Site]]:
    """Run an environment with that many simulated workers. The last process of the site has a
    tenth of the nodes; the others have room for those that replace them."""
    count = workers // per_node
    dying = count // 10
    shares = [count] * FARMS + [dying] * bool(dying)
    pool = {
        "name": "main",
        "min": workers,
        "max": workers,
        "slurm": {"time": 1_440, "slots": per_node, "memory": "64GiB"},
    }
    settings = {
        "name": NAME,
        "pools": [pool],
        "launcher": {"interface": "127.0.0.1"},
        "start_timeout_s": 300.0,
    }
    with (
        tempfile.TemporaryDirectory(prefix="simenv-site-") as folder,
        site(Path(folder) / "site", shares, payload, slots=per_node) as where,
        started(settings) as client,
    ):
        yield client, where


def _ready(client: Client) -> int:
    return client.pools()["main"].workers


def _await_workers(client: Client, workers: int, limit_s: float) -> float:
    """Wait until so many workers are ready; return the seconds."""
    begin_s = time.monotonic()
    while (ready := _ready(client)) < workers:
        if time.monotonic() - begin_s > limit_s:
            raise SystemExit(f"{ready} of {workers} workers after {limit_s:.0f} s")
        time.sleep(LOOK_S)
    return time.monotonic() - begin_s


def _work(client: Client, count: int) -> tuple[float, float]:
    """Run tasks; return their number a second, from the first submission to the last end, and the
    microseconds of the service for each."""
    _await_workers(client, client.pools()["main"].least, JOIN_S)
    circuits = [load(four_qubit_circuit(seed)).program for seed in range(BATCH)]
    client.submit(circuits[0], shots=1024).result(60.0)
    service, before = service_process(client), client.status().done
    cpu, begin_s = cpu_s(service), time.monotonic()
    for seed in range(count // BATCH):
        client.submit_many(circuits, shots=1024, seed=seed)
    while (done := client.status().done - before) < count:
        if time.monotonic() - begin_s > WORK_S:
            raise SystemExit(f"{done} of {count} tasks after {WORK_S:.0f} s")
        time.sleep(LOOK_S)
    seconds = time.monotonic() - begin_s
    return count / seconds, (cpu_s(service) - cpu) / count * 1e6


def _measured(client: Client, where: Site, workers: int, tasks: int) -> Measured:
    join_s = _await_workers(client, workers, JOIN_S)
    time.sleep(SETTLE_S)
    service = service_process(client)
    cpu, begin_s = cpu_s(service), time.monotonic()
    time.sleep(IDLE_S)
    beats_share = (cpu_s(service) - cpu) / (time.monotonic() - begin_s)
    p99s, idle_bytes = [client.status().loop_lag_p99_ms], client.status().rss_bytes
    begin_s, loop = time.monotonic(), _loop_s(service)
    rate, task_us = _work(client, tasks)
    shares = [
        (b - a) / (time.monotonic() - begin_s) for a, b in zip(loop, _loop_s(service), strict=True)
    ]
    print(
        f"loop with tasks: {shares[0]:.0%} of the time on a core, {shares[1]:.0%} ready without one"
    )
    p99s.append(client.status().loop_lag_p99_ms)
    full_bytes = client.status().rss_bytes
    lost_s, whole_s = _lose_tenth(client, where, workers)
    status = client.status()
    p99s.append(status.loop_lag_p99_ms)
    print("passes, p99 with heartbeats, with tasks, after the loss, ms:", p99s)
    return Measured(
        *(workers, join_s, beats_share, rate, task_us, max(full_bytes, status.rss_bytes)),
        *(idle_bytes, max(p99s), status.longest_pass_ms, lost_s, whole_s),
    )


def _loop_s(service: psutil.Process) -> tuple[float, float]:
    """Return the seconds for which the thread of the service's event loop had a core, and for which
    it was ready to run and had none: that part of its passes is not the service's own."""
    own, ready, _ = Path(f"/proc/{service.pid}/schedstat").read_text().split()
    return int(own) / 1e9, int(ready) / 1e9


def _lose_tenth(client: Client, where: Site, workers: int) -> tuple[float, float]:
    """Let a tenth of the nodes fall silent; return the seconds until the loss of all their workers
    was recorded, and until there are as many as before."""
    dying = workers // PER_NODE // 10 * PER_NODE
    newest = max((event.seq for event in client.events()), default=0)
    begin_s = time.time()
    where.lose_last()
    losses: list[float] = []
    while len(losses) < dying:
        if time.time() - begin_s > LOSS_S:
            raise SystemExit(f"{len(losses)} of {dying} workers were noticed in {LOSS_S:.0f} s")
        time.sleep(LOOK_S)
        events = client.events(newest, ["worker.lost"])
        losses = [event.time_s for event in events]
    _await_workers(client, workers, LOSS_S)
    return max(losses) - begin_s, time.time() - begin_s


def _print(size: Measured) -> None:
    print(
        f"{size.workers} workers: joined in {size.join_s:.1f} s; heartbeats"
        f" {100 * size.beats_share:.1f} % of a core; {size.tasks_per_s:,.0f} tasks/s, "
        f"{size.task_us:.1f} us of the service each; {size.idle_bytes / 2**20:.0f} MiB idle, "
        f"{size.rss_bytes / 2**20:.0f} MiB at the end; passes p99 {size.loop_p99_ms:.1f} ms, "
        f"longest {size.longest_ms:.0f} ms; a tenth lost: noticed in {size.lost_s:.1f} s, whole "
        f"after {size.whole_s:.1f} s\n"
    )


def _extrapolate(sizes: list[Measured]) -> None:
    """Print lines fitted to the sizes, and their values for LARGE_NODES."""
    workers = [size.workers for size in sizes]
    large = LARGE_NODES * PER_NODE
    for name, values, unit in (
        ("heartbeats", [100 * size.beats_share for size in sizes], "% of a core"),
        ("idle memory", [size.idle_bytes / 2**20 for size in sizes], "MiB"),
        ("service for a task", [size.task_us for size in sizes], "us"),
        ("join", [size.join_s for size in sizes], "s"),
    ):
        slope, base = np.polyfit(workers, values, 1)
        mean = statistics.mean(values) or 1.0
        off = max(abs(base + slope * w - v) for w, v in zip(workers, values, strict=True)) / mean
        print(
            f"{name}: {base:.3g} + {1e3 * slope:.3g} for 1,000 workers; {large}: "
            f"{base + slope * large:.4g} {unit} (fit within {100 * off:.0f} %)"
        )
