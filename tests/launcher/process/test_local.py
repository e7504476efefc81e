"""Local processes: ends, the death of their starter, their network."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from interpreter import python
from waiting import until

from launcher.base import Command, Exit, LaunchError
from launcher.process import network_namespace
from launcher.process.children import LocalLauncher
from simenv.sandbox import die_with_parent
from simenv.sandbox.process_tree import describe_exit

WAIT_S = 60.0


def command(tmp_path: Path, *argv: str, name: str = "one") -> Command:
    environ = (("PATH", os.environ["PATH"]), ("MARK", "yes"))
    return Command(name, argv, environ, tmp_path / f"{name}.log", tmp_path)


def wait_exit(launcher: LocalLauncher) -> Exit:
    return until(launcher.poll_exits, message="no end was seen")[0]


def test_process_gets_its_folder_environment_and_log(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    script = "import os,sys; print(sorted(os.environ)); print(os.getcwd()); sys.exit(3)"
    pid = launcher.start(command(tmp_path, sys.executable, "-c", script))
    assert wait_exit(launcher) == Exit("one", pid, 3, "exit 3")
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


def test_close_ends_what_ignores_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.process.children.CLOSE_TIMEOUT_S", 0.3)
    launcher = LocalLauncher()
    deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); print('x', flush=True)"
    pids = [
        launcher.start(command(tmp_path, "sleep", "60", name="a")),
        launcher.start(command(tmp_path, sys.executable, "-c", f"{deaf};time.sleep(60)", name="b")),
    ]
    until(lambda: (tmp_path / "b.log").read_text())
    assert sorted(launcher.running()) == ["a", "b"]
    launcher.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_exit_codes_are_described_with_signal_names() -> None:
    assert describe_exit(-11) == "signal 11 (SIGSEGV)"
    assert describe_exit(0) == "exit 0"
    assert describe_exit(-250) == "signal 250"


PR_CAPBSET_DROP, CAP_SYS_ADMIN = 24, 21  # linux/prctl.h, linux/capability.h
LISTENS = """
import os, socket, sys
own = socket.create_server(("127.0.0.1", 0))
print(own.getsockname()[1], os.geteuid(), os.getegid(), flush=True)
sys.stdin.read()
"""
JOINS = """
import socket, sys
from launcher.process import network_namespace
network_namespace.join(int(sys.argv[1]))
print(socket.socket().connect_ex(("127.0.0.1", int(sys.argv[2]))))
"""
STARTS = """
import os, subprocess, sys
from simenv.sandbox import die_with_parent
argv = die_with_parent.command_line(os.getpid(), ["sleep", "600"], isolated=sys.argv[1] == "True")
print(subprocess.Popen(argv).pid, flush=True)
sys.stdin.read()
"""


def run(*argv: str, starter: int) -> subprocess.CompletedProcess[str]:
    result = die_with_parent.command_line(starter, argv)
    return subprocess.run(result, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_program_gets_its_arguments_unchanged() -> None:
    done = run("sh", "-c", 'echo "$1"; exit 3', "sh", "a  b", starter=os.getpid())
    assert (done.returncode, done.stdout) == (3, "a  b\n")


def test_program_is_refused_when_its_parent_has_ended() -> None:
    done = run("echo", "started", starter=1)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the parent process (pid 1) has ended" in done.stderr


def test_missing_program_is_reported_without_traceback() -> None:
    done = run("/nonesuch", starter=os.getpid())
    assert done.stderr == "cannot start /nonesuch: No such file or directory\n"


@pytest.mark.parametrize("isolated", [True, False])
def test_program_ends_with_its_killed_parent(isolated: bool) -> None:
    if isolated:
        isolation_or_skip()
    argv, pipe = [sys.executable, "-c", STARTS, str(isolated)], subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        if isolated:
            until(lambda: child.name() == "sleep")
        starter.kill()
    child.wait(WAIT_S)


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("isolated", [True, False])
def test_only_isolated_program_is_unreachable_from_outside_its_namespace(isolated: bool) -> None:
    isolation_or_skip()
    argv = [sys.executable, "-I", "-S", "-c", LISTENS]
    result = die_with_parent.command_line(os.getpid(), argv, isolated=isolated)
    pipe = subprocess.PIPE
    with subprocess.Popen(result, stdin=pipe, stdout=pipe, text=True) as listener:
        assert listener.stdout is not None
        port, user, group = map(int, listener.stdout.readline().split())
        assert (user, group) == (os.geteuid(), os.getegid())
        assert connects(port) is not isolated
        if isolated and os.geteuid() != 0:
            network = Path(f"/proc/{listener.pid}/ns/user")
            assert network.stat().st_ino != Path("/proc/self/ns/user").stat().st_ino
        if isolated:  # a process of the owner can join it
            done = python(*["-c", JOINS, str(listener.pid), str(port)], timeout=WAIT_S, check=False)
            assert done.stdout.strip() == "0", done.stderr
        listener.communicate()


def test_unprivileged_process_keeps_its_user_in_a_user_namespace() -> None:
    """Root without the capability to make a network namespace takes the way of other users."""
    isolation_or_skip()
    argv = ["sh", "-c", "cat /proc/self/uid_map; id -u"]
    source = (
        "import ctypes, sys; from simenv.sandbox import die_with_parent\n"
        f"ctypes.CDLL(None).prctl({PR_CAPBSET_DROP}, {CAP_SYS_ADMIN}, 0, 0, 0)\n"
        "import os\n"
        "argv = die_with_parent.command_line(os.getppid(), sys.argv[1:], isolated=True)\n"
        "os.execv(argv[0], argv)\n"
    )
    done = python("-c", source, *argv, timeout=WAIT_S, check=False)
    uid = os.geteuid()
    assert done.stdout.split() == [str(uid), str(uid), "1", str(uid)], done.stderr


def isolation_or_skip() -> None:
    why = network_namespace.unavailable_reason()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)
