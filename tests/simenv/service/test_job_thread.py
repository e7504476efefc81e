"""Jobs beside the event loop: starts of processes, and files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from waiting import until

from launcher.base import Command
from launcher.process.children import LocalLauncher
from simenv.config import EnvironmentPaths, convert
from simenv.sandbox import die_with_parent
from simenv.service.job_thread import JobThread
from simenv.service.workers.processes import WorkerProcesses


def test_jobs_and_continuations_run_in_their_order() -> None:
    starter, done = JobThread("starter"), list[object]()

    def fail() -> None:
        raise OSError("no such program")

    starter.run(lambda: 1, done.append)
    starter.run(fail, done.append)
    starter.run(lambda: 2, done.append)
    until(lambda: starter.run_continuations() or not starter.is_busy)
    assert (done[0], str(done[1]), done[2]) == (1, "no such program", 2)
    starter.close()


def test_continuations_run_in_the_thread_of_the_loop_and_jobs_in_one_other() -> None:
    starter, threads = JobThread("starter"), list[threading.Thread]()
    for _ in range(3):
        starter.run(threading.current_thread, lambda found: threads.append(found))  # type: ignore[arg-type]
    seen: list[threading.Thread] = []
    starter.run(lambda: None, lambda _: seen.append(threading.current_thread()))
    until(lambda: starter.run_continuations() or not starter.is_busy)
    assert seen == [threading.current_thread()]
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    starter.close()


def test_child_of_the_thread_lives_as_long_as_the_service(tmp_path: Path) -> None:
    """PR_SET_PDEATHSIG follows the thread that started the child: it must outlive its job."""
    starter = JobThread("starter")
    processes: list[subprocess.Popen[bytes]] = []
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    argv = die_with_parent.command_line(os.getpid(), program)
    starter.run(lambda: subprocess.Popen(argv), processes.append)  # type: ignore[arg-type]
    until(lambda: starter.run_continuations() or bool(processes))
    (process,) = processes
    try:
        for _ in range(20):  # jobs come and go
            starter.run(lambda: None, lambda _: None)
        until(lambda: starter.run_continuations() or not starter.is_busy)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        starter.close()


def test_processes_that_a_service_ends_can_clean_up(tmp_path: Path) -> None:
    """SIGTERM comes to them before the thread ends that they are bound to."""
    launcher = LocalLauncher()
    config = convert({"pools": [{"name": "main"}], "isolation": "none"})
    places = EnvironmentPaths(tmp_path, tmp_path)
    workers = WorkerProcesses(launcher, config, places, tmp_path, tmp_path, {})
    log = tmp_path / "log"
    script = "trap 'echo cleaned; exit' TERM; echo began; while :; do sleep 0.1; done"
    argv = tuple(die_with_parent.command_line(os.getpid(), ["bash", "-c", script]))
    command = Command("main-0", argv, tuple(os.environ.items()), log, tmp_path)
    workers.starter.run(lambda: launcher.start(command), lambda _: None)
    until(lambda: log.exists() and "began" in log.read_text())
    workers.close()
    assert "cleaned" in log.read_text()


def test_starter_that_is_dropped_runs_the_begun_job_and_no_other() -> None:
    starter, begun, may_end = JobThread("starter"), threading.Event(), threading.Event()
    done: list[object] = []

    def first() -> int:
        begun.set()
        may_end.wait(60.0)
        return 1

    starter.run(first, done.append)
    starter.run(lambda: 2, done.append)
    begun.wait(60.0)
    threading.Timer(0.1, may_end.set).start()
    starter.drop()
    assert done == [1]
    assert not starter.is_busy
    starter.close()
