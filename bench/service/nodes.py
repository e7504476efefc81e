"""Several nodes: namespaces of this machine, a Slurm of its own, simulated ones, and failover."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from qiskit import QuantumCircuit

from bench.circuits import four_qubit_circuit, layered, measured
from bench.harness import Report, benchmark, probed, timed_s
from bench.harness.environments import cores, cpu_s, home, service_process, started, waited_s
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.client.result import Result
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskOptions, TaskState
from simenv.wire.messages import client as m
from simenv.worker.runner import Runner
from testbed import timed_counts
from testbed.cluster import Cluster, hosts
from testbed.cluster_environment import environment, wait_for
from testbed.cluster_host import NoCluster
from testbed.failover import failover_site
from testbed.simulated_nodes import Site, site
from testbed.slurm import CORES, LOGIN, slurm
from testbed.waiting import until

NODES, SLOT = "node1:2,node2:2,node3:2", ("--memory-per-slot", "512MiB")
SMALL = (12, 40 * 36)  # qubits, gates: the widest circuits that count as small; a few ms each
GANG_QUBITS = 26
TASK_S, RESULT_S = 600.0, 120.0


# --- namespaces of this machine -------------------------------------------------------------------


def _throughput(report: Report, cluster: Cluster) -> None:
    circuits, rates = layered(*SMALL, 120, 1), []
    for nodes, workers in (("node1:2", 2), (NODES, 6)):
        with _cluster_client(cluster, nodes, workers) as client:
            _all(client, circuits[: 2 * workers])
            rates.append(len(circuits) / timed_s(partial(_all, client, circuits)))
        print(f"{workers} workers on {nodes}: {rates[-1]:.1f} circuits/s")
    report.at_least("six_of_two_percent", 100 * rates[1] / rates[0])


def _gang(report: Report, cluster: Cluster) -> None:
    with _cluster_client(cluster, "node3:2", 2) as client:
        alone_s = _small_p95_s(client)
    with _cluster_client(cluster, NODES, 6, *SLOT) as client:
        gang = client.submit(_gang_circuit(1), shots=100, seed=1, engine="statevector")
        beside_s = _small_p95_s(client)
        result = gang.result(TASK_S)
    assert result.ranks == 4, f"{result.ranks} ranks"
    print(f"small circuits, p95: {alone_s:.3f} s on 2 slots, {beside_s:.3f} s with the gang")
    report.seconds("gang_start_s", waited_s(result))
    report.at_most("gang_beside", beside_s / alone_s)


def _mixed(report: Report, cluster: Cluster) -> None:
    """Report the share of slots granted while small circuits wait beside two gangs. A gang that
    waits alone for four slots leaves the other two unused."""
    with _cluster_client(cluster, NODES, 6, *SLOT) as client:
        how = {"shots": 100, "engine": "statevector"}
        tasks = [client.submit(_gang_circuit(k), seed=k, **how) for k in (0, 1)]
        tasks += client.submit_many(layered(*SMALL, 4_000, 3), shots=100, seed=1)
        used = []
        while (info := client.status()).queued > 2:
            used.append(info.slots_granted / info.slots)
            time.sleep(0.02)
        for task in tasks:
            task.result(TASK_S)
    report.at_least("mixed_slots_percent", 100 * statistics.mean(used))


def _death(report: Report, cluster: Cluster) -> None:
    """Report the workers lost when a node dies under load."""
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
    cluster.boot("node3")
    # One that is started again on the dead node, before it counts as lost, is lost twice.
    lost = {event.subject for event in events if event.kind == "worker.lost"}
    print(Counter(event.kind for event in events))
    report.at_most("lost_workers", len(lost))


PARTS = {"throughput": _throughput, "gang": _gang, "mixed": _mixed, "death": _death}


@benchmark(only=PARTS)
def cluster(report: Report, options: Namespace) -> None:
    """Scaling of an environment over several nodes, with gangs and a node's death.

    The nodes are network namespaces of this machine with two slots each, and share its cores:
    throughput shows the cost of more workers and nodes, not the gain from real ones. A gang of 26
    qubits with 512 MiB a slot needs 4 ranks: its start, and the latency of small circuits, one
    every 25 ms, compared with that on the 2 slots that it leaves free. Slots used while small
    circuits and 2 gangs wait. Workers lost when a node dies, with one DVM for each node.
    """
    for part in options.only or PARTS:
        with hosts(3) as nodes:
            PARTS[part](report, nodes)


def _gang_circuit(seed: int) -> QuantumCircuit:
    """Return few gates, whose cost is memory. They entangle all qubits: parts that are not
    entangled would be evolved one by one."""
    gates = [("ry", (qubit,), (0.1 + 0.01 * seed,)) for qubit in range(GANG_QUBITS)]
    pairs = [("cx", (qubit, qubit + 1), ()) for qubit in range(GANG_QUBITS - 1)]
    return measured(GANG_QUBITS, [*gates, *pairs])


def _small_p95_s(client: Client) -> float:
    """Submit small circuits at fixed intervals without waiting; return the 95th percentile of the
    time from the submit to the end of the run."""
    circuits = layered(*SMALL, 200, 2)
    _all(client, circuits[:4])
    tasks, begin = [], time.monotonic()
    for number, circuit in enumerate(circuits):
        time.sleep(max(0.0, begin + number * 0.025 - time.monotonic()))
        tasks.append(client.submit(circuit, shots=100, seed=number))
    times = [task.result(TASK_S).timing for task in tasks]
    waits = [t.accepted_s + t.queued_s + t.sent_s + t.run_s for t in times]
    return statistics.quantiles(waits, n=20)[-1]


@contextmanager
def _cluster_client(cluster: Cluster, nodes: str, workers: int, *args: str) -> Iterator[Client]:
    options = ("--hosts", nodes, "--pool", f"main:workers={workers}", *args)
    with environment(cluster, *options) as up, up.client() as client:
        wait_for("workers", lambda: client.pools()["main"].workers == workers, 120.0)
        yield client


def _all(client: Client, circuits: list[QuantumCircuit]) -> None:
    for task in client.submit_many(circuits, shots=100, seed=1):
        task.result(TASK_S)


@benchmark(kills=(50, 2), partitions=(10, 1), freezes=(5, 1))
def failover(report: Report, options: Namespace) -> None:
    """Standbys: what clients notice when the node of the service dies, is cut off, or is stopped.

    Two nodes serve in turns, one has PostgreSQL, which forces commits to disk, and a client, which
    submits without a pause by TCP. The power of the leading node is cut; its cable is pulled while
    a second client submits there by its socket; its process is stopped with a submit before it, and
    continues when another one leads. Judged are the time until another node has written the
    connection file, the gap without an accepted submit, and what became of all tasks.
    """
    circuit = measured(1, [("x", (0,), ())])
    with ExitStack() as stack:
        stack.enter_context(home())
        nodes = stack.enter_context(hosts(3))
        where = stack.enter_context(failover_site(nodes, safe=True))
        load, near = stack.enter_context(where.load()), stack.enter_context(where.client())
        submit = partial(near.submit, circuit, shots=10)
        taken_s: dict[str, list[float]] = {"kill": [], "other": []}
        for what, count in (("kill", options.kills), ("cut_off", options.partitions),
                            ("freeze", options.freezes)):  # fmt: skip
            for _ in range(count):
                fault_s = time.monotonic()
                if what == "kill":
                    taken_s["kill"].append(where.crash())
                    load.await_service(fault_s)
                else:
                    seconds, task = getattr(where, what)(submit)
                    load.await_service(fault_s)
                    taken_s["other"].append(seconds)
                    assert task.result(RESULT_S).counts == {"1": 10}
                print(f"{what}: {(*taken_s['kill'], *taken_s['other'])[-1]:.1f} s", flush=True)
        seen, done = load.end(), near.status().done
    print(f"{seen.accepted} accepted tasks, {seen.attempts - seen.accepted} of which ran again")
    for name, case in (("kill", "kills"), ("other", "partitions and stops")):
        report.seconds("takeover_s", max(taken_s[name]), case)
    report.seconds("gap_s", seen.longest_gap_s)
    report.at_most("lost", seen.lost)
    doubled = seen.doubled + abs(done - seen.accepted - len(taken_s["other"]))
    report.at_most("doubled", doubled)
    report.at_most("wrong", seen.wrong)


# --- jobs of Slurm --------------------------------------------------------------------------------

SLURM_NODES = 4  # of the partition
JOBS = SLURM_NODES * CORES
# Work that arrives in each hour of a day, relative to what all nodes can do.
DAY = (*[0.03] * 7, 0.1, 0.3, 0.8, 0.8, 0.8, 0.6, 1.0, 1.0, 1.0, 1.0, 0.7, 0.4, 0.25, 0.25)
DAY += (0.1, 0.1, 0.1)
LENGTHS_S = (4, 5, 6, 8, 10, 12, 16, 24)  # of tasks
JOB_MINUTES, IDLE_S, JOB_LOOK_S = 4, 8.0, 2.0
LOSSES = ("cancelled", "killed", "preempted")
SETTINGS = """
[[pools]]
name = "big"
engine = "external"
command = "{program} {{circuit}} {{shots}} {{seed}} 1"
slurm = {{partition = "classical", time = {minutes}, memory = "256MiB"}}
min = 0
max = {jobs}
idle_s = {idle_s}

[[pools]]
name = "reference"
engine = "external"
command = "{program} {{circuit}} {{shots}} {{seed}} 0"
min = 0
max = 1
"""


class Work(NamedTuple):
    at_s: float
    length_s: int
    seed: int

    def submit(self, env: Client, pool: str) -> Task:
        width = LENGTHS_S.index(self.length_s) + 2
        circuit = measured(width, [("h", (q,), ()) for q in range(width)])
        return env.submit(circuit, shots=self.length_s * 1_000_000, seed=self.seed, pool=pool)


class SlurmJobs:
    """Slurm's records of the pool's jobs, and ways to lose them."""

    def __init__(self, cluster: Cluster, choice: random.Random) -> None:
        self._cluster, self._choice = cluster, choice
        self.times_s: dict[str, tuple[float, float]] = {}  # begin and end; 0: not yet
        self.most = 0  # at a time
        self.lost: Counter[str] = Counter()

    def _slurm(self, *words: str) -> str:
        return self._cluster.run(LOGIN, list(words), check=False).stdout.strip()

    def look(self) -> None:
        """Read the records: of jobs that run, and of those of the last minutes."""
        running = 0
        listing = self._slurm("squeue", "-h", "--states=all", "--format=%i|%T|%S|%e|%j")
        for line in listing.splitlines():
            job, state, start, end, name = line.split("|")
            if name.startswith("simenv-") and start != "N/A" and state != "PENDING":
                is_over = state not in ("RUNNING", "COMPLETING")
                running += state == "RUNNING"
                self.times_s[job] = _unix_s(start), _unix_s(end) if is_over else 0.0
        self.most = max(self.most, running)

    def running(self) -> list[tuple[str, str]]:
        """Return pairs (job, host) of the pool's jobs that run."""
        listing = self._slurm("squeue", "-h", "--states=R", "--format=%i %N %j")
        rows = (line.split() for line in listing.splitlines())
        return [(job, host) for job, host, name in rows if name.startswith("simenv-")]

    def lose(self, losses: int, day_s: float) -> None:
        """Lose jobs at even distances; while none runs, wait for one."""
        number, begin_s = 0, time.monotonic()
        while number < losses and time.monotonic() < begin_s + 2 * day_s:
            due_s = begin_s + (number + 1) * day_s / (losses + 1)
            time.sleep(max(0.0, due_s - time.monotonic()))
            if running := self.running():
                self._lose(LOSSES[number % len(LOSSES)], *self._choice.choice(running))
                number += 1
            time.sleep(0.5)

    def _lose(self, how: str, job: str, host: str) -> None:
        if how == "cancelled":
            self._slurm("scancel", job)
        elif how == "killed":
            self._slurm("scancel", "--signal=KILL", "--full", job)
        else:
            options = ["--partition=urgent", "--exclusive", f"--nodelist={host}", "--time=1"]
            self._slurm("sbatch", *options, "--output=/dev/null", "--wrap=sleep 2")
        self.lost[how] += 1


def _unix_s(text: str) -> float:
    """Return a time that Slurm prints as Unix time; 0 for N/A."""
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) if text[:1].isdigit() else 0.0


@benchmark(minutes=(20.0, 2.0), losses=(30, 3), seed=1)
def job_pool(report: Report, options: Namespace) -> None:
    """A pool whose nodes come by Slurm jobs, under a day's load and with jobs that are lost.

    A real Slurm runs on namespaces of this machine: four nodes of two cores, so that eight jobs of
    one core run at a time; the service is on a node without slurmd. The load of a day is scaled to
    some minutes. Tasks are programs that take a known time and no core. Meanwhile jobs are
    cancelled, killed with all their processes, and preempted. Node-hours are the times of the jobs
    in Slurm's records, compared with as many nodes as the most jobs at a time, held for the whole
    day. Each task's counts are compared with those of the same program outside of the pool.
    """
    choice, day_s = random.Random(options.seed), 60.0 * options.minutes
    work, at_s, mean_s = list[Work](), 0.0, statistics.mean(LENGTHS_S)
    while (at_s := at_s + choice.expovariate(DAY[int(24 * at_s / day_s)] * JOBS / mean_s)) < day_s:
        work.append(Work(at_s, choice.choice(LENGTHS_S), choice.randrange(10)))
    with ExitStack() as stack:
        stack.enter_context(home())
        try:
            nodes = stack.enter_context(slurm(SLURM_NODES + 1))
        except NoCluster as error:
            return report.none_measured(f"no Slurm of its own: {error}")
        settings = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "simenv.toml"
        program = f"{sys.executable} -S -E {timed_counts.__file__}"
        text = SETTINGS.format(program=program, minutes=JOB_MINUTES, jobs=JOBS, idle_s=IDLE_S)
        settings.write_text(text)
        up = stack.enter_context(environment(nodes, "--config", str(settings), host=LOGIN))
        env = stack.enter_context(up.client())
        jobs = SlurmJobs(nodes, choice)
        begin_s, tasks = time.time(), []
        with probed({"look": jobs.look}, JOB_LOOK_S), ThreadPoolExecutor(1) as thread:
            losing = thread.submit(jobs.lose, options.losses, day_s)
            for each in work:
                time.sleep(max(0.0, begin_s + each.at_s - time.time()))
                tasks.append(each.submit(env, "big"))
            lost, unequal, waits_s = _ends_of(env, work, tasks)
            took_s = time.time() - begin_s
            losing.result()
            with suppress(AssertionError):  # idle jobs end, as a day has a night
                until(lambda: not jobs.running(), 6 * IDLE_S, look_s=JOB_LOOK_S)
        jobs.look()
        joined = {e.message.split()[2]: e.time_s for e in env.events(kinds=["node.joined"])}
        joins = [joined[job] - start_s for job, (start_s, _) in jobs.times_s.items()
                 if job in joined]  # fmt: skip
        print(Counter(e.kind for e in env.events(kinds=["node.*", "job.*", "task.requeued"])))
        left = len(jobs.running())
    used_s = sum((end_s or time.time()) - start_s for start_s, end_s in jobs.times_s.values())
    wait_s = statistics.median(waits_s)
    print(f"{len(work)} tasks in {took_s:.0f} s, median wait {wait_s:.1f} s; {jobs.most} jobs")
    report.at_least("jobs_lost", jobs.lost.total())
    report.at_most("tasks_lost", lost)
    report.at_most("tasks_unequal", unequal)
    report.seconds("join_s", max(joins))
    report.at_most("left", left)
    report.at_most("node_hours", used_s / (jobs.most * took_s))


def _ends_of(env: Client, work: list[Work], tasks: list[Task]) -> tuple[int, int, list[float]]:
    """Return how many tasks have no result, how many are doubled or have other counts than outside
    of the pool, and their waits in seconds."""
    counts: dict[tuple[int, int], dict[str, int]] = {}
    lost, unequal, waits_s = 0, 0, []
    for each, task in zip(work, tasks, strict=True):
        key = each.length_s, each.seed
        if key not in counts:
            counts[key] = each.submit(env, "reference").result(TASK_S).counts
        result: Result | None = None
        with suppress(SimenvError):  # whatever became of it: it has no result
            result = task.result(TASK_S)
            unequal += result.counts != counts[key]
            waits_s.append(waited_s(result))
        lost += result is None
    doubled = env.status().done - len(tasks) - len(counts) + lost
    return lost, unequal + abs(doubled), waits_s


# --- simulated nodes ------------------------------------------------------------------------------

PER_NODE, FARMS = 4, 2  # workers; processes of nodes that stay, besides the tenth that is lost
BATCH = 5_000
JOIN_S, LOSS_S, WORK_S = 600.0, 120.0, 1_800.0
LOOK_S, SETTLE_S, IDLE_S_OF_SCALE = 0.1, 5.0, 10.0
LARGE_NODES = 10_000


@benchmark(workers=([4_096], [256]), tasks=(1_000_000, 50_000))
def scale(report: Report, options: Namespace) -> None:
    """Size: one service with 4,096 simulated workers on 1,024 nodes that come by jobs.

    Real: the service, its start, configuration, sockets, keys, journal and launcher of jobs, and
    the client. Simulated (`testbed.simulated_nodes`): the batch system, the agents and the
    workers, which have each result at once. The workers join, send heartbeats, and run tasks of 4
    qubits, as many for the same environment with two workers before. Then a tenth of the nodes
    falls silent at once. With `--workers 256 1024 4096` each size is measured, and lines are fitted
    that an environment of 10,000 nodes would need (docs/reference/scale.md).
    """
    program = load(four_qubit_circuit(1)).program
    task = m.AssignedTask(1, 1, 0, program.packed(), 1024, 1, b"", 0)
    chunk = m.AssignChunk(1, 2**30, False, "statevector", "", [TaskOptions()], [task])
    result = Runner().run(task, TaskOptions(), chunk, time.perf_counter_ns())
    assert result.state == m.STATES.index(TaskState.DONE), result.payload
    with _simulated(2, 2, result.payload) as (client, _):
        two_per_s, _ = _work(client, options.tasks)
    sizes = []
    for workers in options.workers:
        with _simulated(workers, PER_NODE, result.payload) as (client, where):
            sizes.append(_size(client, where, workers, options.tasks))
        print(f"{workers} workers: " + ", ".join(f"{k} {v:.4g}" for k, v in sizes[-1].items()))
    most = sizes[-1]
    report.at_most("loop_p99_ms", most["loop p99 ms"])
    report.at_most("rss_gib", max(most["idle MiB"], most["MiB"]) / 2**10)
    report.at_least("throughput_share", most["tasks/s"] / two_per_s)
    report.seconds("lost_s", most["lost s"])
    large = LARGE_NODES * PER_NODE
    for name in ("beats %", "idle MiB", "task us", "join s") if len(sizes) > 1 else ():
        slope, base = np.polyfit(options.workers, [size[name] for size in sizes], 1)
        print(f"{name}: {base:.3g} + {1e3 * slope:.3g} for 1,000 workers;"
              f" {large}: {base + slope * large:.4g}")  # fmt: skip


@contextmanager
def _simulated(workers: int, per_node: int, payload: bytes) -> Iterator[tuple[Client, Site]]:
    """Run an environment with that many simulated workers. The last process of the site has a
    tenth of the nodes; the others have room for those that replace them."""
    count = workers // per_node
    slots = {"time": 1_440, "slots": per_node, "memory": "64GiB"}
    settings: dict[str, Any] = {
        "name": "bench-scale", "launcher": {"interface": "127.0.0.1"}, "start_timeout_s": 300.0,
        "pools": [{"name": "main", "min": workers, "max": workers, "slurm": slots}],
    }  # fmt: skip
    shares = [count] * FARMS + [_dying(count)]
    with (
        tempfile.TemporaryDirectory(prefix="simenv-site-") as folder,
        site(Path(folder) / "site", shares, payload, slots=per_node) as where,
        started(settings) as client,
    ):
        yield client, where


def _dying(nodes: int) -> int:
    """Return the number of nodes that fall silent."""
    return max(1, nodes // 10)


def _ready_s(client: Client, workers: int, limit_s: float) -> float:
    """Wait until so many workers are ready; return the seconds."""
    begin_s = time.monotonic()
    ready = lambda: client.pools()["main"].workers >= workers  # noqa: E731
    until(ready, limit_s, look_s=LOOK_S, message=f"{workers} workers")
    return time.monotonic() - begin_s


def _work(client: Client, count: int) -> tuple[float, float]:
    """Run tasks; return their number a second, from the first submission to the last end, and the
    microseconds of the service for each."""
    _ready_s(client, client.pools()["main"].least, JOIN_S)
    circuits = [load(four_qubit_circuit(seed)).program for seed in range(BATCH)]
    client.submit(circuits[0], shots=1024).result(60.0)
    service, before = service_process(client), client.status().done
    cpu, begin_s = cpu_s(service), time.monotonic()
    for seed, first in enumerate(range(0, count, BATCH)):
        client.submit_many(circuits[: count - first], shots=1024, seed=seed)
    until(lambda: client.status().done - before >= count, WORK_S, look_s=LOOK_S)
    seconds = time.monotonic() - begin_s
    return count / seconds, (cpu_s(service) - cpu) / count * 1e6


def _size(client: Client, where: Site, workers: int, tasks: int) -> dict[str, float]:
    """Measure one size. `beats`: of a core, for heartbeats alone; `lost`: until the loss of the
    last worker of the silent nodes was recorded; `whole`: until others have taken their place."""
    join_s = _ready_s(client, workers, JOIN_S)
    time.sleep(SETTLE_S)
    (used,) = cores(IDLE_S_OF_SCALE, service_process(client))
    idle = client.status()
    rate, task_us = _work(client, tasks)
    full = client.status()
    dying = _dying(workers // PER_NODE) * PER_NODE
    newest = max((event.seq for event in client.events()), default=0)
    begin_s, losses = time.time(), list[float]()
    where.lose_last()

    def noticed() -> bool:
        losses[:] = [event.time_s for event in client.events(newest, ["worker.lost"])]
        return len(losses) >= dying

    until(noticed, LOSS_S, look_s=LOOK_S, message=f"the loss of {dying} workers")
    _ready_s(client, workers, LOSS_S)
    whole_s, last = time.time() - begin_s, client.status()
    p99 = max(each.loop_lag_p99_ms for each in (idle, full, last))
    return {
        "join s": join_s, "beats %": 100 * used, "tasks/s": rate, "task us": task_us,
        "idle MiB": idle.rss_bytes / 2**20, "MiB": max(full.rss_bytes, last.rss_bytes) / 2**20,
        "loop p99 ms": p99, "longest ms": last.longest_pass_ms,
        "lost s": max(losses, default=begin_s) - begin_s, "whole s": whole_s,
    }  # fmt: skip
