"""A tethered program lives as long as its starter, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from launcher import tether

WAIT_S = 60.0
STARTS = (
    "import os, subprocess, sys; from launcher import tether\n"
    "child = subprocess.Popen(tether.words(os.getpid(), ['sleep', '600']))\n"
    "print(child.pid, flush=True); sys.stdin.read()"
)


def run(*argv: str, starter: int) -> subprocess.CompletedProcess[str]:
    words = tether.words(starter, argv)
    return subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_the_program_gets_other_words() -> None:
    done = run("sh", "-c", 'echo "$1"; exit 3', "sh", "a  b", starter=os.getpid())
    assert (done.returncode, done.stdout) == (3, "a  b\n")


def test_a_starter_that_is_gone_is_waited_for() -> None:
    done = run("echo", "started", starter=1)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the starter (pid 1) is gone" in done.stderr


def test_a_missing_program_is_a_traceback() -> None:
    done = run("/nonesuch", starter=os.getpid())
    assert done.stderr == "cannot start /nonesuch: No such file or directory\n"


def test_a_killed_starter_leaves_its_program() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", STARTS], stdin=pipe, stdout=pipe, text=True
    ) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    child.wait(WAIT_S)
