"""A tethered program lives as long as its starter, and no longer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launcher.process import die_with_parent, network_namespace

WAIT_S = 60.0
PR_CAPBSET_DROP, CAP_SYS_ADMIN = 24, 21  # linux/prctl.h, linux/capability.h
LISTENS = """
import os, socket, sys
own = socket.create_server(("127.0.0.1", 0))
print(own.getsockname()[1], os.geteuid(), os.getegid(), flush=True)
sys.stdin.read()
"""
STARTS = (
    "import os, subprocess, sys; from launcher.process import die_with_parent\n"
    "child = subprocess.Popen(die_with_parent.command_line(os.getpid(), ['sleep', '600']))\n"
    "print(child.pid, flush=True); sys.stdin.read()"
)


def run(*argv: str, starter: int) -> subprocess.CompletedProcess[str]:
    result = die_with_parent.command_line(starter, argv)
    return subprocess.run(result, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_program_gets_its_arguments_unchanged() -> None:
    done = run("sh", "-c", 'echo "$1"; exit 3', "sh", "a  b", starter=os.getpid())
    assert (done.returncode, done.stdout) == (3, "a  b\n")


def test_program_is_refused_when_its_parent_has_ended() -> None:
    done = run("echo", "started", starter=1)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the parent process (pid 1) has ended" in done.stderr


def test_missing_program_is_reported_without_traceback() -> None:
    done = run("/nonesuch", starter=os.getpid())
    assert done.stderr == "cannot start /nonesuch: No such file or directory\n"


def test_program_ends_with_its_killed_parent() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", STARTS], stdin=pipe, stdout=pipe, text=True
    ) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
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
        listener.communicate()


def test_isolated_program_ends_with_its_parent() -> None:
    isolation_or_skip()
    pipe = subprocess.PIPE
    program = STARTS.replace("'600'])", "'600'], isolated=True)")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True
    ) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        until_program(child, "sleep")
        starter.kill()
    child.wait(WAIT_S)


def test_unprivileged_process_keeps_its_user_in_a_user_namespace() -> None:
    """Root without the capability to make a network namespace takes the way of other users."""
    isolation_or_skip()
    argv = ["sh", "-c", "cat /proc/self/uid_map; id -u"]
    source = (
        "import ctypes, sys; from launcher.process import die_with_parent\n"
        f"ctypes.CDLL(None).prctl({PR_CAPBSET_DROP}, {CAP_SYS_ADMIN}, 0, 0, 0)\n"
        "import os\n"
        "argv = die_with_parent.command_line(os.getppid(), sys.argv[1:], isolated=True)\n"
        "os.execv(argv[0], argv)\n"
    )
    command = [sys.executable, "-c", source, *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    uid = os.geteuid()
    assert done.stdout.split() == [str(uid), str(uid), "1", str(uid)], done.stderr


def isolation_or_skip() -> None:
    why = network_namespace.unavailable_reason()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)


def until_program(process: psutil.Process, name: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while process.name() != name:
        assert time.monotonic() < deadline
        time.sleep(0.005)
