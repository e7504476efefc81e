"""A pool whose nodes come by jobs of PBS, with a stand-in for its commands on this machine."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pbs_stand_in
import psutil
import pytest
from live import Live, environment
from waiting import until

from testbed import timed_counts

pytestmark = pytest.mark.usefixtures("no_leaks")
PATIENCE_S = 60.0
SECRET = "5ECRET"
CIRCUIT = """OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q; measure q -> c;"""
US = 1_000_000


class Site:
    """The stand-in's commands and its jobs."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.bin = folder / "bin"
        for each in (self.spool, self.bin):
            each.mkdir()
        for name in ("qsub", "qstat", "qdel"):
            program = self.bin / name
            words = f"{sys.executable} -S -E {pbs_stand_in.__file__} {name}"
            program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            program.chmod(0o700)

    def jobs(self, state: str = "") -> list[dict[str, object]]:
        """The jobs, of a state."""
        files = sorted(self.spool.glob("*.json"))
        documents = [json.loads(path.read_text()) for path in files]
        return [each for each in documents if state in ("", each["job_state"])]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)
    monkeypatch.setenv("PATH", f"{site.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("PBS_SERVER", str(site.spool))
    monkeypatch.setenv("SITE_PASSWORD", SECRET)
    monkeypatch.setenv("OMP_LAB_TOKEN", SECRET)
    monkeypatch.setenv("OMP_SCHEDULE", "static")
    return site


PROGRAM = f"{sys.executable} -S -E {timed_counts.__file__}"
POOL = {
    "name": "big", "engine": "external", "min": 0, "max": 1, "idle_s": 1,
    "command": f"{PROGRAM} {{circuit}} {{shots}} {{seed}} 1",
}  # fmt: skip


@pytest.fixture
def live(site: Site) -> Iterator[Live]:
    jobs = {"queue": "workq", "time": 5, "memory": "256MiB", "extra": "-l place=pack -P chem"}
    pool = {**POOL, "pbs": jobs}
    device = {"refresh": "true", "environ": "OMP_LAB_TOKEN"}
    with environment(
        pools=[pool], launcher={"interface": "127.0.0.1"}, devices={"lab": device}
    ) as live:
        yield live


def test_jobs_of_pbs_join_run_tasks_again_and_show_no_secret(live: Live, site: Site) -> None:
    with live.client() as env:
        task = env.submit(CIRCUIT, shots=2 * US, seed=7, pool="big")
        until(lambda: env.tasks([task.id])[0].state == "RUNNING", PATIENCE_S)
        (job,) = site.jobs("R")
        agent = psutil.Process(int(str(job["session_id"])))
        assert "simenv.node_agent" in agent.cmdline()
        token = token_of(site)
        for process in (agent, *agent.children(recursive=True)):
            environ = process.environ()
            assert environ["OMP_SCHEDULE"] == "static"
            shown = f"{environ} {process.cmdline()} {job['Variable_List']}"
            assert SECRET not in shown
            assert token not in shown
        assert env.nodes()["big:1"].source.startswith("PBS job 1.standin")

        pbs_stand_in.end(agent.pid)
        assert task.result(PATIENCE_S).attempts == 2
        assert [each["Job_Name"] for each in site.jobs()] == [f"simenv-{live.name}-big"] * 2
        until(lambda: not site.jobs("R"), PATIENCE_S)
        assert "pool.quarantined" not in {event.kind for event in env.events()}


def test_worker_of_job_is_asked_to_stop_task_and_lost_when_it_hangs(live: Live, site: Site) -> None:
    with live.client() as env:
        task = env.submit(CIRCUIT, shots=60 * US, seed=7, pool="big")
        until(lambda: env.tasks([task.id])[0].state == "RUNNING", PATIENCE_S)
        task.cancel()
        until(lambda: env.tasks([task.id])[0].state == "CANCELLED", PATIENCE_S)
        assert "worker.killed" not in {event.kind for event in env.events()}

        task = env.submit(CIRCUIT, shots=2 * US, seed=7, pool="big")
        until(lambda: env.tasks([task.id])[0].state == "RUNNING", PATIENCE_S)
        (job,) = site.jobs("R")
        agent = psutil.Process(int(str(job["session_id"])))
        (worker,) = (each for each in agent.children() if "simenv.worker" in each.cmdline())
        begin_s = time.time()
        worker.suspend()
        assert task.result(PATIENCE_S).attempts == 2
        (lost,) = (event for event in env.events() if event.kind == "worker.lost")
        assert "silent" in lost.message
        assert lost.time_s - begin_s < 12.0
        assert not worker.is_running()


def token_of(site: Site) -> str:
    """The secret key of the newest job's token."""
    script = max(site.spool.glob("*.SC")).read_text()
    (line,) = (line for line in script.splitlines() if line.startswith("{"))
    return str(json.loads(line)["secret_key"])


def test_jobs_of_killed_service_are_deleted_by_one_without_pools(live: Live, site: Site) -> None:
    with live.client() as env:
        env.submit(CIRCUIT, shots=60 * US, seed=7, pool="big")
        record = live.home / "jobs"
        until(lambda: bool(site.jobs("R")) and any(record.iterdir()), PATIENCE_S)
    pid = live.service().pid
    os.kill(pid, signal.SIGKILL)
    live.wait_dead(pid)
    live.up(pools=[POOL])
    until(lambda: not site.jobs("R"), PATIENCE_S)
    until(lambda: not list(record.iterdir()), PATIENCE_S)
    (job,) = site.jobs()
    assert "deleted" in job
