"""Real processes: started, seen to end, ended by us, and never outliving their starter."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from launcher.base import Command, Exit, LaunchError
from launcher.process.children import describe_exit
from launcher.process.local import LocalLauncher

WAIT_S = 60.0


def command(tmp_path: Path, *argv: str, name: str = "one") -> Command:
    environ = (("PATH", os.environ["PATH"]), ("MARK", "yes"))
    return Command(name, argv, environ, tmp_path / f"{name}.log", tmp_path)


def wait_exit(launcher: LocalLauncher) -> Exit:
    deadline = time.monotonic() + WAIT_S
    while not (ends := launcher.poll_exits()):
        assert time.monotonic() < deadline, "no end was seen"
        time.sleep(0.005)
    return ends[0]


def test_process_gets_its_folder_environment_and_log(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    script = "import os,sys; print(sorted(os.environ)); print(os.getcwd()); sys.exit(3)"
    pid = launcher.start(command(tmp_path, sys.executable, "-c", script))
    end = wait_exit(launcher)
    assert end == Exit("one", pid, 3, "exit 3")
    text = (tmp_path / "one.log").read_text()
    assert "'MARK'" in text
    assert "'HOME'" not in text
    assert str(tmp_path) in text
    assert launcher.poll_exits() == []


def test_killed_process_is_reported_with_its_signal(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    launcher.start(command(tmp_path, "sleep", "60"))
    launcher.kill("one")
    assert wait_exit(launcher).reason == "signal 9 (SIGKILL)"
    launcher.kill("one")  # gone already: without effect


def test_missing_program_raises_launch_error(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="nonesuch"):
        LocalLauncher().start(command(tmp_path, "/nonesuch/program"))


def test_log_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LaunchError, match=r"one\.log"):
        LocalLauncher().start(command(tmp_path, "sleep", "60"))
    assert not (tmp_path / "elsewhere").exists()


def test_close_ends_processes_that_ignore_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.process.children.CLOSE_TIMEOUT_S", 0.3)
    launcher = LocalLauncher()
    deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); print('x', flush=True)"
    pids = [
        launcher.start(command(tmp_path, "sleep", "60", name="a")),
        launcher.start(
            command(tmp_path, sys.executable, "-c", f"{deaf}; time.sleep(60)", name="b")
        ),
    ]
    deadline = time.monotonic() + WAIT_S
    while not (tmp_path / "b.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(launcher.running()) == ["a", "b"]
    launcher.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_exit_codes_are_described_with_signal_names() -> None:
    assert describe_exit(-11) == "signal 11 (SIGSEGV)"
    assert describe_exit(0) == "exit 0"
    assert describe_exit(-250) == "signal 250"
