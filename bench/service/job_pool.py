"""A pool whose nodes come by Slurm jobs, under a day's load and with jobs that are lost.

A real Slurm runs on hosts out of namespaces of this machine (bench/testbed/slurm.py): four nodes of
two cores, so that eight jobs of one core run at a time. The service is on a node without slurmd.
The load of a day is scaled to some minutes: nearly none at night, more than the nodes can run in
the afternoon. Tasks are programs that take a known time and no core
(bench/testbed/timed_counts.py). Meanwhile jobs are lost, in turns: cancelled, killed with all their
processes, and preempted by a job of a partition that goes first.

Node-hours are the times of the jobs in Slurm's own records, compared with nodes of the same number
as the most jobs at a time, held for the whole day. Each task's counts are compared with those of
the same program outside of the pool.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.harness import Option, Report
from bench.harness.environments import home
from bench.testbed import timed_counts
from bench.testbed.cluster import Cluster
from bench.testbed.cluster_environment import environment
from bench.testbed.cluster_host import NoCluster
from bench.testbed.slurm import CORES, LOGIN, slurm
from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError

NODES = 4  # of the partition
JOBS = NODES * CORES
# Work that arrives in each hour of a day, relative to what all nodes can do.
DAY = (*[0.03] * 7, 0.1, 0.3, 0.8, 0.8, 0.8, 0.6, 1.0, 1.0, 1.0, 1.0, 0.7, 0.4, 0.25, 0.25)
DAY += (0.1, 0.1, 0.1)
LENGTHS_S = (4, 5, 6, 8, 10, 12, 16, 24)  # of tasks
SEEDS = 10
SHOTS_OF_S = 1_000_000
JOB_MINUTES, IDLE_S = 4, 8.0
LOSSES = ("cancelled", "killed", "preempted")
LOOK_S = 2.0
RESULT_S = 600.0
CIRCUIT = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[{width}];
creg c[{width}];
h q;
measure q -> c;
"""
SETTINGS = """
[[pools]]
name = "big"
engine = "external"
command = "{python} -S -E {program} {{circuit}} {{shots}} {{seed}} 1"
slurm = {{partition = "classical", time = {minutes}, memory = "256MiB"}}
min = 0
max = {jobs}
idle_s = {idle_s}

[[pools]]
name = "reference"
engine = "external"
command = "{python} -S -E {program} {{circuit}} {{shots}} {{seed}} 0"
min = 0
max = 1
"""
OPTIONS = (
    Option("--minutes", default=20.0, help="of the scaled day", quick=2.0),
    Option("--losses", default=30, help="jobs that are lost", quick=3),
    Option("--seed", default=1),
)


class Work(NamedTuple):
    """One task: when it is submitted, and what distinguishes it."""

    at_s: float
    length_s: int
    seed: int

    @property
    def shots(self) -> int:
        return self.length_s * SHOTS_OF_S

    @property
    def circuit(self) -> str:
        return CIRCUIT.format(width=LENGTHS_S.index(self.length_s) + 2)


class SiteJob(NamedTuple):
    """A job in Slurm's records; times in seconds since 1970, 0: not yet."""

    start_s: float
    end_s: float


class Site:
    """Slurm's records of the pool's jobs, and ways to lose them. `watch` runs in a thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self.jobs: dict[str, SiteJob] = {}
        self.most = 0  # at a time
        self.lost: Counter[str] = Counter()

    def slurm(self, *words: str) -> str:
        return self._cluster.run(LOGIN, list(words), check=False).stdout.strip()

    def look(self) -> None:
        """Read the records: of jobs that run, and of those of the last minutes."""
        listing = self.slurm("squeue", "-h", "--states=all", "--format=%i|%T|%S|%e|%j|%M")
        running = 0
        for line in listing.splitlines():
            job, state, start, end, name, _ = line.split("|")
            if not name.startswith("simenv-") or start == "N/A" or state == "PENDING":
                continue
            is_over = state not in ("RUNNING", "COMPLETING")
            running += state == "RUNNING"
            self.jobs[job] = SiteJob(_unix_s(start), _unix_s(end) if is_over else 0.0)
        self.most = max(self.most, running)

    def watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self.look()

    def running(self) -> list[tuple[str, str]]:
        """Return pairs (job, host) of the pool's jobs that run."""
        listing = self.slurm("squeue", "-h", "--states=R", "--format=%i %N %j")
        rows = (line.split() for line in listing.splitlines())
        return [(row[0], row[1]) for row in rows if row[2].startswith("simenv-")]

    def lose(self, how: str, choice: random.Random) -> bool:
        """Lose a job, if one runs."""
        running = self.running()
        if not running:
            return False
        job, host = choice.choice(running)
        if how == "cancelled":
            self.slurm("scancel", job)
        elif how == "killed":
            self.slurm("scancel", "--signal=KILL", "--full", job)
        else:
            options = ["--partition=urgent", "--exclusive", f"--nodelist={host}", "--time=1"]
            self.slurm("sbatch", *options, "--output=/dev/null", "--wrap=sleep 2")
        self.lost[how] += 1
        return True

    def close(self) -> None:
        self._over.set()


def run(options: Namespace) -> Report:
    report = Report("job_pool", "pool of Slurm jobs: a day's load, scaled; jobs are lost")
    choice = random.Random(options.seed)
    try:
        with home() as folder, slurm(NODES + 1) as cluster:
            del folder
            _run(report, options, cluster, choice)
    except NoCluster as error:
        print(f"no Slurm of its own: {error}")
    return report


def _run(report: Report, options: Namespace, cluster: Cluster, choice: random.Random) -> None:
    day_s = 60.0 * options.minutes
    work = _day(day_s, choice)
    site = Site(cluster)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "simenv.toml"
        settings.write_text(
            SETTINGS.format(
                python=sys.executable,
                program=timed_counts.__file__,
                minutes=JOB_MINUTES,
                jobs=JOBS,
                idle_s=IDLE_S,
            )
        )
        with environment(cluster, "--config", str(settings), host=LOGIN) as up, up.client() as env:
            watcher = threading.Thread(target=site.watch)
            loser = threading.Thread(target=_lose, args=(site, options.losses, day_s, choice))
            watcher.start()
            loser.start()
            begin_s = time.time()
            tasks = _submit(env, work)
            outcomes = _outcomes(env, work, tasks)
            took_s = time.time() - begin_s
            loser.join()
            _until_idle(site)
            site.close()
            watcher.join()
            site.look()
            _report(report, env, site, outcomes, took_s)


def _day(day_s: float, choice: random.Random) -> list[Work]:
    """Return the tasks of a day, by time."""
    mean_s = statistics.mean(LENGTHS_S)
    results, at_s = [], 0.0
    while at_s < day_s:
        load = DAY[int(24 * at_s / day_s)]
        at_s += choice.expovariate(load * JOBS / mean_s)
        if at_s < day_s:
            results.append(Work(at_s, choice.choice(LENGTHS_S), choice.randrange(SEEDS)))
    return results


def _submit(env: Client, work: list[Work]) -> list[Task]:
    begin_s = time.monotonic()
    tasks = []
    for number, each in enumerate(work):
        time.sleep(max(0.0, begin_s + each.at_s - time.monotonic()))
        task = env.submit(each.circuit, shots=each.shots, seed=each.seed, pool="big")
        tasks.append(task)
        if number % 50 == 0:
            pool = env.pools()["big"]
            nodes = sum(node.source != "" for node in env.nodes().values())
            print(f"{each.at_s:6.0f} s: {number} tasks, {pool.waiting} wait, {nodes} nodes")
    return tasks


def _lose(site: Site, losses: int, day_s: float, choice: random.Random) -> None:
    """Lose jobs at even distances; while none runs, wait for one."""
    begin_s = time.monotonic()
    number = 0
    deadline_s = begin_s + 2 * day_s
    while number < losses and time.monotonic() < deadline_s:
        due_s = begin_s + (number + 1) * day_s / (losses + 1)
        time.sleep(max(0.0, due_s - time.monotonic()))
        number += site.lose(LOSSES[number % len(LOSSES)], choice)
        time.sleep(0.5)


class Outcomes(NamedTuple):
    """What became of the tasks: without a result; with other counts; with a second attempt."""

    submitted: int
    lost: int
    unequal: int
    repeated: int
    waited_s: list[float]


def _outcomes(env: Client, work: list[Work], tasks: list[Task]) -> Outcomes:
    counts: dict[tuple[int, int], dict[str, int]] = {}
    lost = unequal = repeated = 0
    waited_s = []
    for each, task in zip(work, tasks, strict=True):
        key = each.length_s, each.seed
        if key not in counts:
            reference = env.submit(each.circuit, shots=each.shots, seed=each.seed, pool="reference")
            counts[key] = reference.result(RESULT_S).counts
        result = None
        with suppress(SimenvError):  # whatever became of it: it has no result
            result = task.result(RESULT_S)
        if result is None:
            lost += 1
            continue
        unequal += result.counts != counts[key]
        repeated += result.attempts > 1
        waited_s.append(result.timing.queued_s + result.timing.sent_s)
    status = env.status()
    doubled = status.done - len(tasks) - len(counts) + lost
    return Outcomes(len(tasks), lost, unequal + abs(doubled), repeated, waited_s)


def _until_idle(site: Site) -> None:
    """Wait until idle jobs have been ended, as a day has a night."""
    deadline_s = time.monotonic() + 6 * IDLE_S
    while site.running() and time.monotonic() < deadline_s:
        time.sleep(LOOK_S)


def _report(report: Report, env: Client, site: Site, outcomes: Outcomes, took_s: float) -> None:
    joins = []
    for event in env.events(kinds=["node.joined"]):
        job = event.message.split()[2]
        if job in site.jobs:
            joins.append(event.time_s - site.jobs[job].start_s)
    now_s = time.time()
    used_s = sum((job.end_s or now_s) - job.start_s for job in site.jobs.values())
    share = used_s / (site.most * took_s)
    left = len(site.running())
    kinds = Counter(event.kind for event in env.events(kinds=["node.*", "job.*", "task.requeued"]))
    losses = ", ".join(f"{count} {how}" for how, count in site.lost.items())
    print(f"{outcomes.submitted} tasks in {took_s:.0f} s; {outcomes.repeated} ran more than once")
    print(f"{len(site.jobs)} jobs, at most {site.most} at a time; lost: {losses}")
    print(f"events: {dict(kinds)}")
    waits = statistics.quantiles(outcomes.waited_s, n=20)
    print(f"waits: median {statistics.median(outcomes.waited_s):.1f} s, p95 {waits[-1]:.1f} s")
    print(f"joins: median {statistics.median(joins):.1f} s after the start of the job")
    report.at_least("jobs_lost", site.lost.total(), "jobs cancelled, killed and preempted")
    report.at_most("tasks_lost", outcomes.lost, "tasks without a result")
    report.at_most("tasks_unequal", outcomes.unequal, "tasks doubled, or with other counts")
    report.at_most(
        "join_s", max(joins), "from the start of a job until its node has joined, max, s"
    )
    report.at_most("left", left, "jobs that still run when nothing is to be done")
    label = "node-hours, relative to a fixed allocation of the peak's size"
    report.at_most("node_hours", share, label)


def _unix_s(text: str) -> float:
    """Return a time that Slurm prints as Unix time; 0 for N/A."""
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) if text[:1].isdigit() else 0.0
