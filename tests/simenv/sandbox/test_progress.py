"""Deadlines by progress: on a busy machine they come later, and a process that does nothing still
meets one."""

import os
import subprocess
import sys

import pytest

from simenv.sandbox import progress
from simenv.sandbox.progress import ProgressDeadline


class Machine:
    """A clock, and a process with CPU time and time in which it waits for a processor."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = self.waited_s = 0.0
        self.share, self.idle_s = 1.0, 0.0

    def passes(
        self, wall_s: float, cpu_s: float = 0.0, waited_s: float = 0.0, idle_s: float = 0.0
    ) -> None:
        self.idle_s += idle_s
        self.now_s += wall_s
        self.cpu_s += cpu_s
        self.waited_s += waited_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    result = Machine()
    monkeypatch.setattr(progress, "monotonic", lambda: result.now_s)
    monkeypatch.setattr(progress, "cpu_share", lambda: result.share)
    monkeypatch.setattr(progress, "idle_s", lambda: result.idle_s)
    monkeypatch.setattr(progress, "_times", lambda _pid: (result.cpu_s, result.waited_s))
    return result


def seconds_until_over(deadline: ProgressDeadline, machine: Machine, **each_s: float) -> int:
    for second in range(1, 100_000):
        machine.passes(1.0, **each_s)
        if deadline.is_over:
            return second
    raise AssertionError("no end")


def test_process_on_an_idle_machine_has_the_wall_time(machine: Machine) -> None:
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine) == 60  # sleeps
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine, cpu_s=1.0) == 60
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine, cpu_s=4.0) == 60  # four threads
    assert seconds_until_over(ProgressDeadline(60.0), machine) == 60


def test_process_that_gets_a_twentieth_of_a_processor_has_twenty_times_the_time(
    machine: Machine,
) -> None:
    machine.share = 0.05
    busy = {"cpu_s": 0.05, "waited_s": 0.95}
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine, **busy) in (1_200, 1_201)
    assert seconds_until_over(ProgressDeadline(60.0), machine) in (1_200, 1_201)


def test_blocked_process_is_given_up_though_the_machine_is_busy(machine: Machine) -> None:
    machine.share = 0.1
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine) in (600, 601)


def test_idle_processors_are_a_process_s_own_however_many_threads_run_on_others(
    machine: Machine,
) -> None:
    """As in a set of two processors of a machine with hundreds."""
    machine.share = 0.01
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine, idle_s=2.0) == 60
    assert seconds_until_over(ProgressDeadline(60.0), machine, idle_s=0.5) == 120
    busy = {"cpu_s": 0.05, "waited_s": 0.95, "idle_s": 0.5}  # of the other processor
    assert seconds_until_over(ProgressDeadline(60.0, 1), machine, **busy) in (1_200, 1_201)


def test_idle_time_is_that_of_the_processors_of_this_process() -> None:
    own, before_s = os.sched_getaffinity(0), progress.idle_s()
    assert before_s > 0.0
    try:
        os.sched_setaffinity(0, {min(own)})
        assert len(own) == 1 or progress.idle_s() < before_s
    finally:
        os.sched_setaffinity(0, own)


def test_process_that_spins_while_others_leave_it_alone_is_given_up(machine: Machine) -> None:
    assert seconds_until_over(ProgressDeadline(10.0, 1), machine, cpu_s=0.9, waited_s=0.1) == 12


def test_step_begins_the_time_anew(machine: Machine) -> None:
    deadline = ProgressDeadline(60.0, 1)
    machine.passes(59.0, cpu_s=59.0)
    deadline.step()
    assert seconds_until_over(deadline, machine) == 60


def test_time_in_which_the_observer_did_not_run_does_not_count(machine: Machine) -> None:
    deadline = ProgressDeadline(60.0)
    machine.passes(3_600.0)
    assert deadline.look() == 60.0 - progress.LOOK_S


def test_times_of_a_process_include_its_descendants() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])\ninput()"
    argv = [sys.executable, "-c", child + "\nprint(1, flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        cpu_s, _ = progress._times(process.pid)
        process.communicate(b"\n")
    assert cpu_s >= 0.3


def test_share_of_a_processor_is_that_which_the_load_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "processors", lambda: 2)
    for waiting, share in ((0, 1.0), (1, 1.0), (2, 1.0), (4, 0.5), (40, 0.05), (500, 1 / 32)):
        monkeypatch.setattr(progress, "runnable", lambda waiting=waiting: waiting)
        assert progress.cpu_share() == share
