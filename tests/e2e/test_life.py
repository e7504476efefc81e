"""An environment from its start to its end: one service, no CPU when idle, nothing left."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from busy_circuits import ENDLESS
from circuits import bell, chain, layered
from engines import present
from failing import fails
from live import Live, environment
from waiting import until

from simenv import config, errors
from simenv.client import environments

FAULTY = {"name": "main", "engine": "fault", "min": 1, "max": 1}
WINDOWS = 10  # of three seconds, in which an idle environment is seen to be idle

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_down_leaves_no_process_socket_or_connection_file() -> None:
    lasting = config.lasting_socket_folder()
    before = set(Path(tempfile.gettempdir()).glob("simenv-*"))  # of tests that cut a node's power
    live = Live()
    live.up()
    with live.client() as env:
        env.run(bell(), shots=10)
        pids = [env.status().pid, *(worker.pid for worker in env.workers())]
    sockets = Path(environments.read(live.home / "connection.json").sockets)
    assert sockets.parent == lasting
    assert sockets.is_dir()
    assert not environments.down(live.name).forced
    assert not any(psutil.pid_exists(pid) and _runs(pid) for pid in pids)
    assert not sockets.exists()
    assert stat.S_IMODE(lasting.stat().st_mode) == 0o700
    assert not (live.home / "connection.json").exists()
    assert set(Path(tempfile.gettempdir()).glob("simenv-*")) <= before
    live.down()


def _runs(pid: int) -> bool:
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_idle_environment_uses_at_most_1_percent_cpu() -> None:
    with environment() as live, live.client() as env:
        env.run(layered(14, 3, 1), shots=10)
        for engine in ("aer", "mps", "stabilizer"):  # with the threads their libraries start
            if present(engine):
                env.run(chain(15), shots=10, engine=engine)
        processes = [psutil.Process(env.status().pid)]
        processes += [psutil.Process(worker.pid) for worker in env.workers()]
        # The checkpoint, the index of what just ran, kernels that load beside: on a machine with
        # much to do they take their time. What is idle for three seconds is idle.
        for _ in range(WINDOWS):
            before = [sum(p.cpu_times()[:2]) for p in processes]
            time.sleep(3.0)
            used = [sum(p.cpu_times()[:2]) - b for p, b in zip(processes, before, strict=True)]
            if max(used) <= 0.03:  # 1 %: three ticks of the kernel's clock
                return
    raise AssertionError(f"{used} s of CPU in 3 s")


def test_second_service_in_same_environment_is_refused() -> None:
    with environment() as live:
        fails(errors.InsufficientError, r"is up already: process \d+", live.up)
        (live.home / "connection.json").rename(live.home / "hidden")
        fails(errors.JournalError, r"another service uses .* pid \d+", live.up)
        (live.home / "hidden").rename(live.home / "connection.json")


def test_private_environment_ends_with_its_owner_process(tmp_path: Path) -> None:
    script = (
        "import simenv,sys,tempfile,time\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with simenv.local(workers=1) as env:\n"
        "    print(env.status().pid, *[w.pid for w in env.workers()], flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until(
        lambda: not any(psutil.pid_exists(pid) for pid in pids),
        message="the private environment outlives its owner",
    )
    until(lambda: not [*tmp_path.glob("simenv-local-*")], message="its files outlive its owner")


def test_queued_tasks_run_after_sigterm_and_restart() -> None:
    live = Live()
    pid = live.up()
    with live.client() as env:
        tasks = env.submit_many([layered(15, 200, seed) for seed in range(40)], shots=10, seed=1)
        os.kill(pid, signal.SIGTERM)
        live.wait_dead(pid)
    live.up()
    with live.client() as env:
        entries = [env.task(task.id).result(timeout_s=60) for task in tasks]
        assert [sum(result.counts.values()) for result in entries] == [10] * 40
    live.down()


def test_queued_tasks_of_removed_pool_run_in_other_pool() -> None:
    live = Live(pools=[{"name": "old", "engine": "statevector", "min": 1, "max": 1}])
    live.up()
    with live.client() as env:
        # Ahead of them what lasts: the service goes before it has come to them.
        ahead = env.submit_many([ENDLESS] * 2, shots=10)
        tasks = env.submit_many([layered(15, 200, seed) for seed in range(20)], shots=10, seed=1)
    environments.down(live.name, now=True)
    fails(errors.ConfigError, "pool 'old', which is not there", live.up, pools=[FAULTY])
    live.up(pools=[{"name": "new", "min": 1, "max": 1}])
    with live.client() as env:
        for task in ahead:
            env.task(task.id).cancel()
        entries = [env.task(task.id).result(timeout_s=60) for task in tasks]
    assert [sum(result.counts.values()) for result in entries] == [10] * 20
    live.down()
