"""Pools whose nodes come by jobs of a real Slurm: join, drain, cancel, preempt, kill.

One environment on the login node lives through all of it, in this order. Its tasks are programs
that take a known time and no core.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_slurm import LOGIN

from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.model import Event
from testbed import timed_counts
from testbed.cluster import Cluster
from testbed.cluster_environment import Environment, environment, wait_for

CIRCUIT = """OPENQASM 2.0;
include "qelib1.inc";
qreg q[3];
creg c[3];
h q;
measure q -> c;
"""
SHOTS_OF_S = 1_000_000  # shots of a task of one second
POOL = """
worker_lease_s = 4.0

[[pools]]
name = "big"
engine = "external"
command = "{python} -S -E {program} {{circuit}} {{shots}} {{seed}} 1"
slurm = {{partition = "classical", time = 10, memory = "512MiB"}}
min = 0
max = 2
idle_s = 1

[devices.lab]
refresh = "true"
environ = "OMP_LAB_TOKEN"
"""
RESULT_S = 90.0
# Of the service, for itself and for the command of a device.
SECRETS = {"SITE_PASSWORD": "5ECRET", "OMP_LAB_TOKEN": "5ECRET"}


@pytest.fixture(scope="module")
def up(four: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    settings = tmp_path_factory.mktemp("pool") / "simenv.toml"
    settings.write_text(POOL.format(python=sys.executable, program=timed_counts.__file__))
    four.environ |= SECRETS
    with environment(four, "--config", str(settings), host=LOGIN) as up:
        for name in SECRETS:
            del four.environ[name]
        yield up


@pytest.fixture
def env(up: Environment) -> Iterator[Client]:
    with up.client() as client:
        yield client


class Jobs:
    """What the tests see of the pool: its jobs in Slurm, and its events."""

    def __init__(self, up: Environment, env: Client) -> None:
        self._up, self._env = up, env
        self._seen = max((event.seq for event in env.events()), default=0)

    def told(self, kind: str) -> list[Event]:
        return [e for e in self._env.events() if e.kind == kind and e.seq > self._seen]

    def slurm(self, *words: str) -> str:
        return self._up.cluster.run(LOGIN, list(words)).stdout.strip()

    def script(self) -> tuple[str, Path]:
        """The only job that runs, and a copy of its script."""
        (job,) = self.running()
        script = self._up.home / "script.sh"
        self.slurm("scontrol", "write", "batch_script", job, str(script))
        return job, script

    def running(self) -> list[str]:
        """Slurm's ids of the jobs that run now."""
        return self.slurm("squeue", "--noheader", "--states=R", "--format=%i").split()

    def submit(self, seconds: float, count: int = 1) -> list[Task]:
        shots = round(seconds * SHOTS_OF_S)
        return [self._env.submit(CIRCUIT, shots=shots, seed=7, pool="big") for _ in range(count)]

    def runs(self, task: Task) -> None:
        wait_for("the task runs", lambda: self._env.tasks([task.id])[0].state == "RUNNING")

    def end(self, tasks: list[Task]) -> list[int]:
        """Numbers of attempts of the tasks, whose counts are those of an undisturbed program."""
        results = [task.result(RESULT_S) for task in tasks]
        assert len({str(sorted(result.counts.items())) for result in results}) == 1
        return [result.attempts for result in results]


@pytest.fixture
def jobs(up: Environment, env: Client) -> Jobs:
    return Jobs(up, env)


def test_job_joins_with_its_token_runs_task_and_is_ended_when_idle(jobs: Jobs, env: Client) -> None:
    assert not jobs.running()
    assert jobs.end(jobs.submit(0.5)) == [1]
    (joined,) = jobs.told("node.joined")
    assert joined.message.startswith("Slurm job ")
    wait_for("its job has ended", lambda: not jobs.running())
    assert [event.subject for event in jobs.told("node.left")] == [joined.subject]
    assert joined.subject not in env.nodes()


def test_no_secret_of_the_service_is_in_a_job_or_its_record(jobs: Jobs, up: Environment) -> None:
    (task,) = jobs.submit(2.0)
    jobs.runs(task)
    job, script = jobs.script()
    (body,) = (line for line in script.read_text().splitlines() if line.startswith("{"))
    secrets = ("5ECRET", json.loads(body)["secret_key"])
    processes = [process for host in up.cluster.hosts for process in up.cluster.processes(host)]
    of_job = [each for each in processes if each.environ().get("SLURM_JOB_ID") == job]
    assert any("simenv.node_agent" in each.cmdline() for each in of_job)
    assert any("simenv.worker" in " ".join(each.cmdline()) for each in of_job)
    shown = [f"{each.environ()} {each.cmdline()}" for each in of_job]
    shown.append(jobs.slurm("scontrol", "show", "--details", "job", job))
    for secret in secrets:
        assert not any(secret in text for text in shown)
    assert jobs.end([task]) == [1]


def test_cancelled_job_runs_its_tasks_again_on_another(jobs: Jobs) -> None:
    tasks = jobs.submit(3.0, 2)
    jobs.runs(tasks[0])
    jobs.slurm("scancel", *jobs.running())
    assert max(jobs.end(tasks)) == 2
    left = {event.subject for kind in ("node.lost", "node.left") for event in jobs.told(kind)}
    assert left, "no node left with its job"
    assert not jobs.told("pool.backoff"), "the pool was charged"


def test_killed_job_charges_no_task(jobs: Jobs) -> None:
    """Three deaths of its worker would end a task."""
    (task,) = jobs.submit(3.0)
    for _ in range(3):
        jobs.runs(task)
        before = jobs.running()
        jobs.slurm("scancel", "--signal=KILL", "--full", *before)
        wait_for("another job runs", lambda known=before: set(jobs.running()) - {*known})
    assert jobs.end([task]) == [4]


def test_preempted_job_runs_its_task_again(jobs: Jobs) -> None:
    (task,) = jobs.submit(3.0)
    jobs.runs(task)
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--exclusive", "--nodes=3"]
    jobs.slurm(*urgent, "--output=/dev/null", "--wrap=sleep 1")
    assert jobs.end([task]) == [2]
    assert jobs.told("node.lost") or jobs.told("node.left")


def test_drained_node_ends_its_task_and_its_job(jobs: Jobs, env: Client) -> None:
    (task,) = jobs.submit(2.0)
    jobs.runs(task)
    (node,) = (name for name in env.nodes() if name.startswith("big:"))
    env.drain(node, "for a test")
    assert jobs.end([task]) == [1]
    wait_for("its job has ended", lambda: not jobs.running())
    assert [event.subject for event in jobs.told("node.left")] == [node]
    assert jobs.end(jobs.submit(0.1)) == [1], "the name of the node was not free again"


def test_used_token_is_worth_nothing(jobs: Jobs, up: Environment) -> None:
    """The script of a job stays readable to its user."""
    (task,) = jobs.submit(2.0)
    jobs.runs(task)
    _, script = jobs.script()
    script.chmod(0o700)
    replayed = up.cluster.popen(LOGIN, ["timeout", "4", script], stderr=-1)
    assert "joined" not in replayed.communicate(timeout=30)[1]
    assert jobs.end([task]) == [1]


def test_jobs_of_a_killed_service_end_and_its_tasks_run_by_the_next(
    jobs: Jobs, up: Environment, env: Client
) -> None:
    tasks = jobs.submit(2.0, 3)
    jobs.runs(tasks[0])
    os.kill(env.status().pid, signal.SIGKILL)
    wait_for("its jobs have ended", lambda: not jobs.running())
    up.simenv("up")
    with up.client() as again:
        counts = {str(again.task(task.id).result(RESULT_S).counts) for task in tasks}
        assert len(counts) == 1
        assert again.status().done >= len(tasks)
