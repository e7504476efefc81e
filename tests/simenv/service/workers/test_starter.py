"""Starts of processes beside the event loop."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import until

from simenv.sandbox import die_with_parent
from simenv.service.workers.starter import InlineStarter, Starter, StarterThread


@pytest.mark.parametrize("starter", [InlineStarter(), StarterThread()], ids=["inline", "thread"])
def test_jobs_and_continuations_run_in_their_order(starter: Starter) -> None:
    done: list[object] = []

    def fail() -> None:
        raise OSError("no such program")

    starter.run(lambda: 1, done.append)
    starter.run(fail, done.append)
    starter.run(lambda: 2, done.append)
    until(lambda: starter.run_continuations() or not starter.is_busy)
    assert (done[0], str(done[1]), done[2]) == (1, "no such program", 2)
    starter.close()


def test_continuations_run_in_the_thread_of_the_loop_and_jobs_in_one_other() -> None:
    starter, threads = StarterThread(), list[threading.Thread]()
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
    starter = StarterThread()
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
